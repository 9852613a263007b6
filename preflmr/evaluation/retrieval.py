"""Measures a model on a data set: every question is searched among the passages, and what comes back is judged.

Searching goes through an index of lateint, where all tokens of a question look for passages, or scores every passage
exactly by MaxSim, or does both, which tells what the compression of the index costs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from lateint import Index, Ragged
from lateint.timings import Timings
from lateint_kernels.retrieve import retrieve
from preflmr.data.m2kr import Dataset, Example
from preflmr.evaluation.config import LIMITS, EvalConfig
from preflmr.evaluation.judging import Ranking, judge
from preflmr.evaluation.passage_index import passage_index, positions_of, tokens_of
from preflmr.evaluation.questions import Questions
from preflmr.evaluation.results import Cut, Results, versions
from preflmr.retrievers import adapted

AT_ONCE = 512  # questions whose tokens are held at a time

Search: TypeAlias = Callable[[list[NDArray[np.float32]], int], list[Ranking]]  # k best passages of each query


class Evaluation(Results):
    """What was found and how good it is.

    ``questions`` has id -> ``{"retrieved_passage": [{"passage_id", "score"}, ...], "Recall@K": 0.0 or 1.0, "Pseudo
    Recall@K": 0.0 or 1.0}``, as the published evaluation writes it. `write` writes ``TASK_RUN.json`` and
    ``TASK_RUN.summary.json``.
    """

    suffix = ".json"


def evaluate(
    model: Any,
    dataset: Dataset,
    index: Index | str | os.PathLike[str] | None = None,
    *,
    tokens: Ragged | None = None,
    run: str = "run",
    progress: bool = True,
    **settings: Any,
) -> Evaluation:
    """Measures a model on a data set. Settings and pictures are checked before the first passage is encoded.

    Args:
        model: a `PreFLMR` with its tokenizers, or a `preflmr.retrievers.Retriever`.
        index: an index of the passages; or a folder, where one is built unless it holds that of this model and these
            passages; None: built in memory.
        tokens: of the passages, if they are at hand (`preflmr.evaluation.passage_index.tokens_of`): they are not
            encoded again, and ``summary["cut"]`` does not count them.
        run: what a report calls this model.
        settings: see `EvalConfig`.

    Raises:
        TypeError: a setting is unknown.
        ValueError: a setting is wrong, the index was made from another model or other passages, or tokens are not of as
            many passages.
        MissingImage, BrokenImage: as ``on_missing`` says.

    Warns:
        UserWarning: texts were cut to the length that the model reads; ``summary["cut"]`` counts them.
    """
    config, timings, cut = EvalConfig(**settings), Timings(), Cut(model)
    questions = Questions(model, dataset, config, timings)
    if tokens is not None and len(tokens) != len(dataset.passages):
        raise ValueError(f"tokens must be those of {len(dataset.passages):,} passages, got {len(tokens):,}")
    if not isinstance(index, Index):  # one that is at hand costs nothing to find out with
        questions.check()
    with cut.counting():
        searches, index = _searches(model, dataset, index, tokens, config, timings, progress)
        kept, found = _ask(questions, searches, dataset, config, timings, progress)
    counted = "exact" if config.method == "exact" else "index"
    ks = _cutoffs(dataset, config)
    judged, measures = judge(kept, dataset.passages, found[counted], ks)
    summary = _summary(dataset, config, questions, len(kept), index)
    seconds = {part: round(spent, 3) for part, spent in timings.seconds.items()}
    summary |= {"run": run, "measures": measures, "cut": cut.counts, "seconds": seconds}
    if config.method == "both":
        summary["exact"] = judge(kept, dataset.passages, found["exact"], ks)[1]
    if config.searches:
        summary["searches"] = {name: judge(kept, dataset.passages, found[name], ks)[1] for name in config.searches}
    return Evaluation(judged, summary)


def _searches(
    model: Any,
    dataset: Dataset,
    index: Any,
    tokens: Ragged | None,
    config: EvalConfig,
    timings: Timings,
    progress: bool,
) -> tuple[dict[str, Search], Index | None]:
    """What finds passages, by name, and the index."""
    searches: dict[str, Search] = {}
    if config.method != "index" and tokens is None:
        with timings.of("encode passages"):
            tokens = tokens_of(model, dataset, config, progress=progress)
    if config.method == "exact":
        index = None
    else:
        with timings.of("index"):
            if not isinstance(index, Index):
                index = passage_index(model, dataset, index, config, tokens=tokens, progress=progress)
            own = {name: getattr(config, name) for name in LIMITS}
            positions = positions_of(index, dataset.passages)
            for name, limits in {"index": own, **config.searches}.items():
                searches[name] = _Searched(index, positions, limits, config.threads)
    if config.method != "index":
        assert tokens is not None
        device = next(adapted(model).model.parameters()).device
        scoring = None if device.type == "cpu" else device
        searches["exact"] = partial(_exact, tokens=tokens, device=scoring, threads=config.threads)
    return searches, index


def _ask(
    questions: Questions,
    searches: Mapping[str, Search],
    dataset: Dataset,
    config: EvalConfig,
    timings: Timings,
    progress: bool,
) -> tuple[list[Example], dict[str, list[Ranking]]]:
    """The examples that were asked, and what each search found for them."""
    examples, k = questions.examples, _cutoffs(dataset, config)[-1]
    kept: list[Example] = []
    found: dict[str, list[Ranking]] = {name: [] for name in searches}
    spent = {"index": "search", "exact": "exact search"}
    with tqdm(total=len(examples), desc=dataset.task.name, unit="question", disable=not progress) as bar:
        for start in range(0, len(examples), AT_ONCE):
            some, queries = questions.queries(examples[start : start + AT_ONCE])
            kept += some
            for name, search in searches.items():
                with timings.of(spent.get(name, f"search, {name}")):
                    found[name] += search(queries, k) if queries else []
            bar.update(len(examples[start : start + AT_ONCE]))
    if not kept:
        raise ValueError(f"{dataset.task.name} {dataset.split}: no question is left of {len(examples):,}")
    return kept, found


def _cutoffs(dataset: Dataset, config: EvalConfig) -> list[int]:
    cutoffs = sorted({*config.ks, *([dataset.task.k] if dataset.task.metric else [])})
    if not cutoffs:
        raise ValueError("ks must hold at least one cut-off, got none")
    return cutoffs


def _summary(
    dataset: Dataset, config: EvalConfig, questions: Questions, kept: int, index: Index | None
) -> dict[str, Any]:
    names = ("method", "on_missing", "document_pictures", "nbits", "seed", "nprobe", "candidates", "limit")
    settings = {name: getattr(config, name) for name in names}
    settings |= {"instruction": "row" if questions.instruction is None else questions.instruction}
    if config.searches:
        settings["searches"] = {name: dict(limits) for name, limits in config.searches.items()}
    settings |= {"without_image": questions.without_image, "dtype": str(config.dtype or "float32")}
    summary: dict[str, Any] = {
        "task": dataset.task.name,
        "split": dataset.split,
        "measure": dataset.task.measure,
        "questions": kept,
        "passages": len(dataset.passages),
        "left out": len(questions.examples) - kept,
        "missing images": questions.missing,
        "data": dataset.dropped,
        "settings": settings,
        "versions": versions(),
    }
    if index is not None:
        settings["nbits"] = index.nbits
        summary["index"] = {key: index.stats()[key] for key in ("documents", "tokens", "centroids", "bytes")}
    return summary


@dataclass(frozen=True)
class _Searched:
    index: Index
    positions: Mapping[str, int] | None  # of documents by id; None: ids are positions
    limits: Mapping[str, Any]  # see `LIMITS`
    threads: int | None

    def __call__(self, queries: list[NDArray[np.float32]], k: int) -> list[Ranking]:
        hits = self.index.search(queries, k, threads=self.threads, **self.limits)
        if self.positions is None:
            return [(hit.ids.tolist(), hit.scores.tolist()) for hit in hits]
        of = self.positions
        return [([of[id] for id in hit.ids.tolist()], hit.scores.tolist()) for hit in hits]


def _exact(
    queries: list[NDArray[np.float32]], k: int, *, tokens: Ragged, device: Any, threads: int | None
) -> list[Ranking]:
    """The k best passages of each query by MaxSim over all tokens; a device scores tensors, None arrays on the CPU."""
    if device is None:
        best = retrieve(Ragged.pack(queries), tokens, k, threads=threads)
    else:
        import torch

        from lateint_kernels import RaggedTensor

        documents = RaggedTensor.from_offsets(torch.from_numpy(tokens.tokens), torch.from_numpy(tokens.offsets))
        asked = [torch.from_numpy(query).to(device, documents.tokens.dtype) for query in queries]
        best = retrieve(RaggedTensor.pack(asked), documents, k)  # passages are sent to the device in parts
    return list(zip(best.indices.tolist(), best.scores.tolist(), strict=True))
