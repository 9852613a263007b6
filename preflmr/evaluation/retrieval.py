"""Measures a model on a data set: every question is searched among the passages, and what comes back is judged.

Searching goes through an index of lateint, where all tokens of a question look for passages, or scores every passage
exactly by MaxSim, or does both, which tells what the compression of the index costs.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from lateint import Index, Ragged
from lateint.arguments import positive_or_none
from lateint_kernels.retrieve import retrieve
from preflmr.data.images import ON_MISSING, pictures, require
from preflmr.data.m2kr import Dataset, Example
from preflmr.evaluation.judging import KS, Ranking, judge
from preflmr.evaluation.passage_index import Encoding, collected, passage_index, passage_tokens, positions_of
from preflmr.evaluation.results import result_path, versions, write_json
from preflmr.instructions import join

METHODS = ("index", "exact", "both")
AT_ONCE = 512  # questions whose tokens are held at a time


@dataclass(frozen=True)
class Evaluation:
    """What was found and how good it is.

    Attributes:
        questions: id -> ``{"retrieved_passage": [{"passage_id", "score"}, ...], "Recall@K": 0.0 or 1.0, "Pseudo
            Recall@K": 0.0 or 1.0}``, as the published evaluation writes it.
        summary: ``measures`` (name -> mean), what was measured, how, how long it took, and what was left out.
    """

    questions: dict[str, dict[str, Any]]
    summary: dict[str, Any]

    def __getitem__(self, measure: str) -> float:
        """The mean of a measure, such as ``"Recall@5"``."""
        return float(self.summary["measures"][measure])

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``TASK_RUN.json`` (``TASK-SPLIT_RUN.json`` for another split than test), then ``....summary.json``.

        Returns:
            The path of the first.
        """
        path = result_path(folder, self.summary, ".json")
        write_json(path, self.questions)
        write_json(path.with_suffix(".summary.json"), self.summary)
        return path


def evaluate(
    model: Any,
    dataset: Dataset,
    *,
    run: str = "run",
    ks: Sequence[int] = KS,
    index: Index | str | os.PathLike[str] | None = None,
    method: str = "index",
    instruction: str | None = None,
    without_image: str = "blank",
    on_missing: str = "error",
    limit: int | None = None,
    nbits: int = 4,
    seed: int = 0,
    overwrite: bool = False,
    nprobe: int | None = None,
    candidates: int | None = None,
    batch_size: int = 64,
    dtype: Any = None,
    device: Any = None,
    processes: int = 1,
    threads: int | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measures a model on a data set.

    Args:
        model: a `PreFLMR` with its tokenizers.
        run: what a report calls this model.
        ks: cut-offs; that of the task is added.
        index: an index of the passages; or a folder, where one is built unless it holds that of this model and these
            passages; None: built in memory.
        method: ``"index"``, ``"exact"`` (every passage is scored, no index), or ``"both"``: the index counts, and
            ``summary["exact"]`` has the exact means. The last two hold all tokens in memory.
        instruction: one for all rows; None: the row's own; "": none.
        without_image: what a question without a picture shows a model that reads pictures: ``"blank"``, as in the
            published evaluation, or ``"text"``: nothing.
        on_missing: what a missing or broken picture does: ``"error"``; ``"skip"`` leaves the question out, ``"blank"``
            shows a black picture; both are counted.
        limit: only the first so many questions.
        nbits, seed, overwrite: of an index that is built here; see `lateint.Index.build`. ``overwrite`` replaces one
            that was made from something else.
        nprobe, candidates: see `lateint.Index.search`.
        batch_size, dtype, device, processes: see `preflmr.encode.encode_queries`.
        threads: for building and searching.

    Raises:
        ValueError: an option is unknown, or the index was made from another model or other passages.
        MissingImage, BrokenImage: as ``on_missing`` says.

    Warns:
        UserWarning: texts were cut to the length that the model reads; ``summary["cut"]`` counts them.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if without_image not in ("blank", "text"):
        raise ValueError(f"without_image must be blank or text, got {without_image!r}")
    if on_missing not in ON_MISSING:
        raise ValueError(f"on_missing must be one of {', '.join(ON_MISSING)}, got {on_missing!r}")
    cutoffs = sorted({*ks, *([dataset.task.k] if dataset.task.metric else [])})
    if not cutoffs or cutoffs[0] < 1:
        raise ValueError(f"ks must be positive, got {list(ks)}")
    for name, value in (("nprobe", nprobe), ("candidates", candidates)):
        positive_or_none(value, name)  # now, not after passages are encoded
    examples = dataset.examples if limit is None else dataset.examples[:limit]
    encoding = Encoding(batch_size, dtype, device, processes, on_missing, progress)
    clock, cut = _Clock(), _Cut(model)
    with cut.counting():
        tokens = None
        if method != "index":
            with clock("encode passages"):
                tokens = collected(passage_tokens(model, dataset, encoding))
        if method != "exact":
            with clock("index"):
                if not isinstance(index, Index):
                    index = passage_index(
                        model, dataset, index, encoding, tokens=tokens, nbits=nbits, seed=seed,
                        overwrite=overwrite, threads=threads,
                    )  # fmt: skip
                searched = _Searched(index, positions_of(index, dataset.passages), nprobe, candidates, threads)
        asked = _Asked(model, dataset, encoding, instruction, without_image, clock)
        where = next(model.parameters()).device
        scoring = None if where.type == "cpu" else where
        kept: list[Example] = []
        found: dict[str, list[Ranking]] = {name: [] for name in ("index", "exact") if method in (name, "both")}
        with tqdm(total=len(examples), desc=dataset.task.name, unit="question", disable=not progress) as bar:
            for start in range(0, len(examples), AT_ONCE):
                some, queries = asked.queries(examples[start : start + AT_ONCE])
                kept += some
                if "index" in found:
                    with clock("search"):
                        found["index"] += searched(queries, cutoffs[-1])
                if "exact" in found and tokens is not None:
                    with clock("exact search"):
                        found["exact"] += _exact(queries, tokens, cutoffs[-1], scoring, threads)
                bar.update(len(examples[start : start + AT_ONCE]))
    if not kept:
        raise ValueError(f"{dataset.task.name} {dataset.split}: no question is left of {len(examples):,}")
    counted = "exact" if method == "exact" else "index"
    questions, measures = judge(kept, dataset.passages, found[counted], cutoffs)
    summary: dict[str, Any] = {
        "run": run,
        "task": dataset.task.name,
        "split": dataset.split,
        "measure": dataset.task.measure,
        "measures": measures,
        "questions": len(kept),
        "passages": len(dataset.passages),
        "left out": len(examples) - len(kept),
        "missing images": asked.missing,
        "cut": cut.counts,
        "data": dataset.dropped,
        "seconds": clock.seconds,
        "settings": {
            "method": method, "instruction": "row" if instruction is None else instruction,
            "without_image": asked.without_image, "on_missing": on_missing, "nbits": nbits, "seed": seed,
            "nprobe": nprobe, "candidates": candidates, "dtype": str(dtype or "float32"), "limit": limit,
        },
        "versions": versions(),
    }  # fmt: skip
    if method != "exact" and isinstance(index, Index):
        summary["settings"]["nbits"] = index.nbits
        summary["index"] = {key: index.stats()[key] for key in ("documents", "tokens", "centroids", "bytes")}
    if method == "both":
        summary["exact"] = judge(kept, dataset.passages, found["exact"], cutoffs)[1]
    return Evaluation(questions, summary)


class _Asked:
    """Turns examples into queries, and counts what is missing."""

    def __init__(
        self,
        model: Any,
        dataset: Dataset,
        encoding: Encoding,
        instruction: str | None,
        without_image: str,
        clock: _Clock,
    ) -> None:
        config = model.config
        self.sees = bool(config.use_vision_encoder and config.query_concat_output_from_vision_encoder)
        self.model, self.images, self.encoding, self.clock = model, dataset.images, encoding, clock
        self.instruction, self.without_image = instruction, without_image if self.sees else "text"
        self.missing = 0

    def queries(self, examples: Sequence[Example]) -> tuple[list[Example], list[NDArray[np.float32]]]:
        """The examples that are not left out, and the tokens of each, ``[Lq, dim]``."""
        kept: list[Example] = []
        shown: list[Any] = []
        with self.clock("read pictures"):
            for example in examples:
                given = self._pictures(example) if self.sees else None
                if given is not None or not self.sees:
                    kept.append(example)
                    shown.append(given)
        if not kept:
            return [], []
        blind = [i for i, given in enumerate(shown) if not given and self.without_image == "text"]
        queries: list[Any] = [None] * len(kept)
        for numbers in (blind, [i for i in range(len(kept)) if i not in set(blind)]):
            if numbers:
                images = None if numbers is blind else [shown[i] or None for i in numbers]
                for i, tokens in zip(numbers, self._encoded([kept[i] for i in numbers], images), strict=True):
                    queries[i] = tokens
        return kept, queries

    def _pictures(self, example: Example) -> list[Any] | None:
        """Paths, or pictures where some may be missing; None: leave the question out."""
        if self.encoding.on_missing == "error":
            require(self.images, example.images, f"question {example.question_id!r}")
            return list(example.images)
        found, absent = pictures(self.images, example.images, self.encoding.on_missing)
        self.missing += absent
        return found

    def _encoded(self, examples: Sequence[Example], images: list[Any] | None) -> list[NDArray[np.float32]]:
        from preflmr import encode

        separator = self.model.config.mask_instruction_token
        texts = [
            join(example.instruction if self.instruction is None else self.instruction, example.question, separator)
            for example in examples
        ]
        with self.clock("encode questions"):
            return encode.encode_queries(
                self.model, texts, images, progress=False, image_source=self.images, **self.encoding.options
            )


@dataclass(frozen=True)
class _Searched:
    index: Index
    positions: dict[str, int] | None  # of documents by id; None: ids are positions
    nprobe: int | None
    candidates: int | None
    threads: int | None

    def __call__(self, queries: list[NDArray[np.float32]], k: int) -> list[Ranking]:
        if not queries:
            return []
        hits = self.index.search(queries, k, nprobe=self.nprobe, candidates=self.candidates, threads=self.threads)
        if self.positions is None:
            return [(hit.ids.tolist(), hit.scores.tolist()) for hit in hits]
        of = self.positions
        return [([of[id] for id in hit.ids.tolist()], hit.scores.tolist()) for hit in hits]


def _exact(
    queries: list[NDArray[np.float32]], tokens: Ragged, k: int, device: Any, threads: int | None
) -> list[Ranking]:
    """The k best passages of each query by MaxSim over all tokens; a device scores tensors, None arrays on the CPU."""
    if not queries:
        return []
    if device is None:
        best = retrieve(Ragged.pack(queries), tokens, k, threads=threads)
    else:
        import torch

        from lateint_kernels import RaggedTensor

        documents = RaggedTensor.from_offsets(torch.from_numpy(tokens.tokens), torch.from_numpy(tokens.offsets))
        asked = [torch.from_numpy(query).to(device, documents.tokens.dtype) for query in queries]
        best = retrieve(RaggedTensor.pack(asked), documents, k)  # passages are sent to the device in parts
    return list(zip(best.indices.tolist(), best.scores.tolist(), strict=True))


class _Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - started, 3)


class _Cut:
    """Counts texts longer than the model reads, and warns of them once instead of once a batch."""

    def __init__(self, model: Any) -> None:
        self._tokenizers = {"questions": model.query_tokenizer, "passages": model.document_tokenizer}
        self.counts: dict[str, int] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        before = {name: getattr(tokenizer, "truncated", 0) for name, tokenizer in self._tokenizers.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*were longer than the model reads", UserWarning)
            yield
        for name, tokenizer in self._tokenizers.items():
            self.counts[name] = getattr(tokenizer, "truncated", 0) - before[name]
        if any(self.counts.values()):
            said = " and ".join(f"{count:,} {name}" for name, count in self.counts.items() if count)
            warnings.warn(f"{said} were longer than the model reads and were cut", stacklevel=4)
