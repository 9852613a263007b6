"""What `lateint eval` says about a collection: quality of an index and of exact MaxSim, and the time of searches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

from lateint.index import Index
from lateint.quality import measures as named
from lateint.quality.collection import Collection
from lateint.quality.evaluation import Results, exact_run, index_run
from lateint.quality.measures import PerQuery
from lateint.text.analyzer import Analyzer
from lateint_kernels import Ragged

NPROBES = (1, 2, 4, 8, 16, 32, 64)  # of a sweep


@dataclass
class Evaluated:
    """One collection.

    Attributes:
        figures: plain numbers, fit for JSON.
        values: who (``"index"``, ``"exact"``, ``"alpha 0.5"``) -> measure -> query id -> value.
        run: what the index found.
        sweep: for each ``nprobe``: the first measure, and the median of a search in milliseconds.
    """

    figures: dict[str, Any]
    values: dict[str, PerQuery]
    run: Results
    sweep: list[dict[str, float]] = field(default_factory=list)

    @property
    def quality(self) -> dict[str, dict[str, float]]:
        """Who -> measure -> mean over the queries."""
        return {who: named.means(values) for who, values in self.values.items()}


def evaluated(
    collection: Collection,
    documents: Ragged,
    queries: Sequence[Any],
    measures: Sequence[str],
    *,
    build: Mapping[str, Any],
    search: Mapping[str, Any],
    exact: bool = False,
    sweep: bool = False,
    alphas: Sequence[float] = (),
    text_search: bool | Analyzer = True,
    threads: int | None = None,
) -> Evaluated:
    """Builds an index of the documents in memory, asks it every query that has judgements, and measures.

    Args:
        documents: embeddings, in the order of the collection; ``queries`` likewise.
        measures: names, see `lateint.quality.measures`.
        build: arguments of `Index.build`; ``search``: of `Index.search`.
        exact: rank every document by exact MaxSim, too.
        sweep: search with several ``nprobe``, too.
        alphas: search by tokens and words, too, with each share of MaxSim; ``text_search`` says what a word is.
    """
    query_ids = [collection.query_ids[i] for i in collection.judged]
    queries = [queries[i] for i in collection.judged]
    words: dict[str, Any] = {"texts": collection.documents, "text_search": text_search} if alphas else {}
    index = Index.build(documents.tokens, lengths=documents.lengths, ids=collection.doc_ids, **words, **build)
    depth = named.depth(measures)
    run, seconds = index_run(index, queries, query_ids, depth, **search)
    values = {"index": named.per_query(collection.qrels, run, measures)}
    if exact:
        found = exact_run(documents, collection.doc_ids, queries, query_ids, depth, threads=threads)
        values["exact"] = named.per_query(collection.qrels, found, measures)
    texts = [collection.queries[i] for i in collection.judged]
    for alpha in alphas:
        both, _ = index_run(index, queries, query_ids, depth, texts=texts, alpha=alpha, **search)
        values[f"alpha {alpha:g}"] = named.per_query(collection.qrels, both, measures)
    points = []
    for nprobe in NPROBES if sweep else ():
        other, taken = index_run(index, queries, query_ids, depth, **{**search, "nprobe": nprobe})
        mean = named.means(named.per_query(collection.qrels, other, measures[:1]))[measures[0]]
        points.append({"nprobe": nprobe, measures[0]: mean, "p50_ms": 1e3 * float(np.median(taken))})
    figures = {
        "documents": len(documents),
        "tokens": len(documents.tokens),
        "queries": len(queries),
        "settings": {"nbits": index.nbits, "seed": index.codec.seed, "device": index.device, **search},
        "build_seconds": float(sum(index.stats()["build_seconds"].values())),
        "search_ms": {"p50": 1e3 * float(np.median(seconds)), "p95": 1e3 * float(np.quantile(seconds, 0.95))},
    }
    return Evaluated(figures, values, run, points)


def table(quality: Mapping[str, Mapping[str, float]]) -> str:
    """Rows of ``quality`` (who -> measure -> value) as text."""
    names = list(next(iter(quality.values())))
    width = max([24, *(len(who) + 2 for who in quality)])
    lines = [" " * width + "".join(f"{name:>12}" for name in names)]
    lines += [f"{who:{width}}" + "".join(f"{values[name]:12.4f}" for name in names) for who, values in quality.items()]
    return "\n".join(lines)


def write_run(run: Results, file: TextIO, tag: str = "lateint") -> None:
    """A run in the format of TREC: ``query Q0 document rank score tag``, best first."""
    for query, scores in run.items():
        for rank, (document, score) in enumerate(scores.items(), 1):
            file.write(f"{query} Q0 {document} {rank} {score:.6f} {tag}\n")


def write_per_query(collections: Mapping[str, Evaluated], file: TextIO) -> None:
    """A table, separated by tabs: collection, who, query, then a column for each measure."""
    measures = list(next(iter(collections.values())).values["index"])
    file.write("\t".join(["collection", "ranking", "query", *measures]) + "\n")
    for name, one in collections.items():
        for who, values in one.values.items():
            for query in values[measures[0]]:
                file.write("\t".join([name, who, str(query), *(f"{values[m][query]:.6f}" for m in measures)]) + "\n")


def plot(collections: Mapping[str, Evaluated], measure: str, path: str) -> None:
    """Quality against latency: a line for each collection, a point for each ``nprobe``.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, one in collections.items():
        points = [(point["p50_ms"], point[measure], point["nprobe"]) for point in one.sweep]
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], marker="o", label=name)
        for x, y, nprobe in points:
            axes.annotate(str(nprobe), (x, y), textcoords="offset points", xytext=(4, -10), fontsize=7)
        if "exact" in one.quality:
            axes.axhline(one.quality["exact"][measure], linestyle="--", linewidth=0.8, color="grey")
    axes.set(xscale="log", xlabel="milliseconds a query (p50); points: nprobe", ylabel=measure)
    axes.legend()
    figure.savefig(path)
