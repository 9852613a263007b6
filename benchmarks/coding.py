"""What codes of 1, 2 and 4 bits cost, and what training with the codec in the loop gives back, in nDCG@10.

    python -m benchmarks.coding --data DATA/medquad --out benchmarks/results/coding.json

DATA/medquad is a BEIR-style folder with qrels.train.tsv and qrels.test.tsv. The offline encoder (MiniLM's token states
and a projection that starts as their PCA) is fine-tuned on questions and their answers with in-batch negatives, once on
exact scores and once on `lateint_kernels.coding.Coding` of the documents for some numbers of bits, with the same
batches. A codec is learned from the tokens of the model as it is, and again after some steps: tokens move away from a
codec that stays. Only the upper layers and the projection learn; the states below them are computed once and kept in a
file, so that two cores suffice. Then documents are encoded anew and scored exactly, and through an index of each number
of bits whose codec is learned from them, by its exhaustive scan: every model by the same measure. The JSON is written
after each run, and runs that it has are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, BertModel

import lateint
from benchmarks.embed import encoder_module, read_lines
from benchmarks.embeddings import write_json
from benchmarks.rivals.run import machine
from lateint import Index, Ragged, metrics
from lateint.quality.evaluation import exact_run, index_run
from lateint_kernels import losses, maxsim
from lateint_kernels.coding import Coding

TEMPERATURE = 0.05
EXACT = 0  # bits of an arm that is trained on exact scores


@dataclass
class Texts:
    """What is encoded, in one list, and who is relevant to whom."""

    texts: list[str]
    documents: list[int]  # that are searched
    document_ids: list[str]
    queries: list[int]
    query_ids: list[str]
    qrels: dict[str, dict[str, int]]
    pairs: list[tuple[int, int]]  # a training question and its answer


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Query and document ids of a file of judgements."""
    rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
    return [(row[0], row[1]) for row in rows if int(row[2]) > 0]


def choose(folder: Path, documents: int, queries: int, pairs: int) -> Texts:
    """Test questions with their answers, other documents to search among, and training pairs; always the same."""
    chance = random.Random(0)
    corpus = {
        row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in read_lines(folder / "corpus.jsonl")
    }
    questions = {row["_id"]: row["text"] for row in read_lines(folder / "queries.jsonl")}
    test = chance.sample(sorted(read_pairs(folder / "qrels.test.tsv")), queries)
    train = chance.sample(sorted(read_pairs(folder / "qrels.train.tsv")), pairs)
    searched = dict.fromkeys(document for _, document in test)
    others = sorted(corpus.keys() - searched.keys())
    searched |= dict.fromkeys(chance.sample(others, documents - len(searched)))
    texts: dict[str, int] = {}

    def number(text: str) -> int:
        return texts.setdefault(text, len(texts))

    qrels: dict[str, dict[str, int]] = {}
    for query, document in test:
        qrels.setdefault(query, {})[document] = 1
    return Texts(
        documents=[number(corpus[name]) for name in searched],
        document_ids=list(searched),
        queries=[number(questions[name]) for name in qrels],
        query_ids=list(qrels),
        qrels=qrels,
        pairs=[(number(questions[query]), number(corpus[document])) for query, document in train],
        texts=list(texts),
    )


class Model(torch.nn.Module):
    """The upper layers of MiniLM and a projection."""

    def __init__(self, layers: int, dim: int) -> None:
        super().__init__()
        bert = BertModel.from_pretrained(
            encoder_module().model_folder(), local_files_only=True, add_pooling_layer=False
        )
        cut = len(bert.encoder.layer) - layers
        self.layers = torch.nn.ModuleList(bert.encoder.layer[cut:])
        bert.encoder.layer = bert.encoder.layer[:cut]
        self.lower = [bert]  # in a list: it does not learn, and is not saved
        self.projection = torch.nn.Linear(bert.config.hidden_size, dim)

    def upper(self, states: Tensor, mask: Tensor) -> Tensor:
        """``[n, L, 384]`` of the lower layers to those of the last."""
        blocked = torch.where(mask[:, None, None], 0.0, torch.finfo(torch.float32).min)
        for layer in self.layers:
            found = layer(states, blocked)
            states = found if isinstance(found, Tensor) else found[0]
        return states

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """``[n, L, dim]`` of norm 1."""
        return torch.nn.functional.normalize(self.projection(self.upper(states, mask)), dim=-1)


@torch.inference_mode()
def lower_states(model: Model, texts: list[str], most: int) -> list[Tensor]:
    """``[L, 384]`` float16 of each text, special tokens included."""
    folder = encoder_module().model_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids = tokenizer(texts, truncation=True, max_length=most)["input_ids"]
    found: list[Any] = [None] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
    for start in range(0, len(order), 32):
        some = order[start : start + 32]
        padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[i]) for i in some], batch_first=True)
        mask = torch.arange(padded.shape[1]) < torch.tensor([len(ids[i]) for i in some])[:, None]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=encoder_module().native_bf16()):
            states = model.lower[0](input_ids=padded, attention_mask=mask.long()).last_hidden_state
        for row, i in enumerate(some):
            found[i] = states[row, : len(ids[i])].half().clone()
    return found


def batch(states: list[Tensor], numbers: list[int]) -> tuple[Tensor, Tensor]:
    """``[n, L, 384]`` float32 and the mask of what is there."""
    some = [states[i].float() for i in numbers]
    padded = torch.nn.utils.rnn.pad_sequence(some, batch_first=True)
    return padded, torch.arange(padded.shape[1]) < torch.tensor([len(x) for x in some])[:, None]


def without_special(mask: Tensor) -> Tensor:
    """The first and the last token of each text left out."""
    inner = mask.clone()
    inner[:, 0] = False
    inner[torch.arange(len(mask)), mask.sum(1) - 1] = False
    return inner


@torch.inference_mode()
def encode(model: Model, states: list[Tensor], numbers: list[int]) -> list[np.ndarray]:
    """``[L, dim]`` float32 of each text, without special tokens."""
    found = []
    for start in range(0, len(numbers), 64):
        given, mask = batch(states, numbers[start : start + 64])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=encoder_module().native_bf16()):
            tokens = model(given, mask)
        found += [x[keep].float().numpy() for x, keep in zip(tokens, without_special(mask), strict=True)]
    return found


@torch.inference_mode()
def start_projection(model: Model, states: list[Tensor], numbers: list[int]) -> None:
    """The PCA of the last layer's states, as in examples/encoder.py."""
    rows = []
    for start in range(0, len(numbers), 64):
        given, mask = batch(states, numbers[start : start + 64])
        rows.append(model.upper(given, mask)[without_special(mask)])
    sample = torch.cat(rows).double()
    mean = sample.mean(0)
    basis = torch.linalg.eigh((sample - mean).T @ (sample - mean))[1].flip(1)[:, : model.projection.out_features]
    model.projection.weight.copy_(basis.T)
    model.projection.bias.copy_(-mean @ basis)


def build_settings(nbits: int, options: argparse.Namespace) -> dict[str, Any]:
    """What a codec is learned with, in training and for an index."""
    return {"nbits": nbits, "ncentroids": options.centroids, "seed": 0, "progress": False}


def train(
    model: Model, states: list[Tensor], chosen: Texts, options: argparse.Namespace, nbits: int, seed: int
) -> None:
    """Some steps with in-batch negatives; documents are scored as codes of so many bits, or exactly."""
    chance = np.random.default_rng(seed)
    answers = sorted({answer for _, answer in chosen.pairs})
    coding: Any = lambda tokens: tokens  # noqa: E731
    optimizer = torch.optim.AdamW(
        [{"params": model.layers.parameters()}, {"params": model.projection.parameters(), "lr": 10 * options.rate}],
        lr=options.rate,
    )
    for step in range(options.steps):
        if nbits != EXACT and step % options.refresh == 0:
            coding = Coding(lateint.train_codec(encode(model, states, answers), **build_settings(nbits, options)))
        for group, rate in zip(optimizer.param_groups, (1, 10), strict=True):
            group["lr"] = rate * options.rate * min(1, (step + 1) / 10) * (1 - step / options.steps)
        pairs = [chosen.pairs[i] for i in chance.choice(len(chosen.pairs), options.batch, replace=False)]
        questions, asked = batch(states, [question for question, _ in pairs])
        documents, told = batch(states, [answer for _, answer in pairs])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=encoder_module().native_bf16()):
            q, d = model(questions, asked), model(documents, told)
        asked, told = without_special(asked), without_special(told)
        scores = maxsim(q.float(), coding(d.float()), query_mask=asked, document_mask=told)
        scores = scores / asked.sum(1, keepdim=True)
        ids = torch.tensor([answer for _, answer in pairs])
        loss = losses.contrastive(scores, temperature=TEMPERATURE, document_ids=ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0 or step == options.steps - 1:
            print(f"  {nbits} bits, seed {seed}, step {step}: loss {loss.item():.3f}", flush=True)


def quality(model: Model, states: list[Tensor], chosen: Texts, options: argparse.Namespace) -> dict[str, Any]:
    """nDCG@10 of exact scores, and of codes with how many of the exact top 10 they keep, by their bits."""
    documents, queries = encode(model, states, chosen.documents), encode(model, states, chosen.queries)
    packed = Ragged.pack(documents)
    exact = exact_run(packed, chosen.document_ids, queries, chosen.query_ids, k=10)
    found: dict[str, Any] = {"exact_ndcg_at_10": metrics.ndcg(chosen.qrels, exact, 10)}
    for nbits in options.nbits:
        index = Index.build(packed, ids=chosen.document_ids, **build_settings(nbits, options))
        codes, _ = index_run(index, queries, chosen.query_ids, k=10, exhaustive=True)
        kept = [len(exact[name].keys() & codes[name].keys()) / 10 for name in chosen.query_ids]
        ndcg = metrics.ndcg(chosen.qrels, codes, 10)
        found[f"{nbits} bits"] = {"ndcg_at_10": ndcg, "overlap_at_10": float(np.mean(kept))}
    return found


def main() -> None:
    """Measures the model as it comes, and after training on exact scores and on codes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=3000, help="searched (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=500, help="of the test split (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=2000, help="to train on (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=96, help="longer texts are cut (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=1, help="of MiniLM that learn (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=32, help="components of a token (default: %(default)s)")
    parser.add_argument("--nbits", type=int, nargs="+", default=[1, 2, 4], help="of the indexes")
    parser.add_argument("--train-bits", type=int, nargs="*", default=[1, 2], help="of codes that are trained on")
    parser.add_argument("--refresh", type=int, default=50, help="steps until the codec is learned again")
    parser.add_argument("--centroids", type=int, default=256)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-4, help="of the layers; the projection's is ten times that")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--states", type=Path, help="file to keep the states of the lower layers in")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    settings = {name: value for name, value in vars(options).items() if name not in ("data", "states", "out", "seeds")}
    report: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {"settings": settings}
    if report["settings"] != settings:
        parser.error(f"{options.out} was measured with other settings: {report['settings']}")
    chosen = choose(options.data, options.documents, options.queries, options.pairs)
    states = kept_states(options, chosen)
    report |= {"collection": options.data.name, "machine": machine(sorted(os.sched_getaffinity(0)))}
    print(f"{len(chosen.texts)} texts, {sum(len(x) for x in states)} tokens", flush=True)
    arms = {"exact": EXACT, **{f"{nbits} bits": nbits for nbits in options.train_bits}}
    for arm, seed in [("before", 0), *((arm, seed) for seed in options.seeds for arm in arms)]:
        name = arm if arm == "before" else f"{arm}, seed {seed}"
        if name in report.setdefault("runs", {}):
            continue
        torch.manual_seed(seed)
        model = Model(options.layers, options.dim).eval()  # no dropout: both arms differ in the codes alone
        start_projection(model, states, chosen.documents[:300])
        started = time.process_time()
        if arm != "before":
            train(model, states, chosen, options, arms[arm], seed)
        seconds = time.process_time() - started
        report["runs"][name] = {**quality(model, states, chosen, options), "training_cpu_seconds": round(seconds, 1)}
        print(name, report["runs"][name], flush=True)
        write_json(options.out, report)


def kept_states(options: argparse.Namespace, chosen: Texts) -> list[Tensor]:
    """Those of the file, if it is of these texts."""
    key = (chosen.texts, options.tokens, options.layers)
    if options.states is not None and options.states.exists():
        saved: Any = torch.load(options.states, weights_only=True)
        if (saved["texts"], saved["tokens"], saved["layers"]) == key:
            return list(saved["states"])
    states = lower_states(Model(options.layers, options.dim).eval(), chosen.texts, options.tokens)
    if options.states is not None:
        torch.save(dict(zip(("texts", "tokens", "layers", "states"), (*key, states), strict=True)), options.states)
    return states


if __name__ == "__main__":
    main()
