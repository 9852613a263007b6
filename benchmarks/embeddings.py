"""Saved token embeddings, as every benchmark reads them: one folder of plain arrays, made by ``benchmarks.embed``.

The folder holds all documents packed end to end (``doc_tokens.npy`` float16 ``[N, dim]``, ``doc_lengths.npy``,
``doc_ids.json`` such as ``"scifact/4983"``, and ``doc_token_ids.npy``, the vocabulary's number of every token), the
queries of each collection (``NAME_q_tokens.npy`` float32, ``NAME_q_lengths.npy``, ``NAME_q_ids.json``,
``NAME_qrels.json``), ``manifest.json``, and the ground truth: a fixed set of queries (``fixed_queries.json``) with
their exact top 100 (``exact_docs.npy``, ``exact_scores.npy``), which is MaxSim in float32 over the float16 tokens. Only
numpy is needed to read it, so that rivals' environments can.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FIXED_QUERIES = {"scifact": 200, "medquad": 200, "vaswani": 93}  # taken evenly spaced from those with judgements
TRUTH_DEPTH = 100


@dataclass(frozen=True)
class Query:
    """One query of the fixed set: its collection, its id and its tokens ``[Lq, dim]`` float32."""

    collection: str
    id: str
    tokens: np.ndarray


@dataclass(frozen=True)
class Embeddings:
    """Documents of a folder, memory-mapped, with their lengths and ids."""

    folder: Path
    tokens: np.ndarray  # [N, dim] float16, memory-mapped
    lengths: np.ndarray  # [n] int64
    ids: list[str]

    @property
    def offsets(self) -> np.ndarray:
        """Start of each document and the end of the last ``[n + 1]`` int64."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)


def read_json(path: Path) -> Any:
    """The value stored in a JSON file."""
    return json.loads(path.read_text())


def write_json(path: Path, value: Any) -> None:
    """Stores ``value`` as JSON."""
    path.write_text(json.dumps(value, indent=1) + "\n")


def load(folder: Path) -> Embeddings:
    """The documents of ``folder``, memory-mapped."""
    return Embeddings(
        folder,
        np.load(folder / "doc_tokens.npy", mmap_mode="r"),
        np.load(folder / "doc_lengths.npy").astype(np.int64),
        read_json(folder / "doc_ids.json"),
    )


def collections_of(folder: Path) -> list[str]:
    """The collections that lie in ``folder``, in the order of their documents."""
    return list(read_json(folder / "manifest.json")["collections"])


def queries_of(folder: Path, collection: str) -> dict[str, np.ndarray]:
    """Query id to tokens ``[Lq, dim]`` float32, for one collection."""
    tokens = np.load(folder / f"{collection}_q_tokens.npy", mmap_mode="r")
    ends = np.cumsum(np.load(folder / f"{collection}_q_lengths.npy"))
    names = read_json(folder / f"{collection}_q_ids.json")
    starts = np.concatenate([[0], ends[:-1]])
    return {name: tokens[a:b] for name, a, b in zip(names, starts, ends, strict=True) if b > a}


def qrels_of(folder: Path, collection: str) -> dict[str, dict[str, int]]:
    """Query id to {document id as in ``doc_ids.json``: grade}, test split, for one collection."""
    judged: dict[str, dict[str, int]] = read_json(folder / f"{collection}_qrels.json")
    return {query: {f"{collection}/{doc}": grade for doc, grade in docs.items()} for query, docs in judged.items()}


def choose_queries(folder: Path) -> list[dict[str, str]]:
    """A fixed set of judged queries: up to ``FIXED_QUERIES`` of each collection, evenly spaced."""
    chosen = []
    for collection in collections_of(folder):
        tokens, judged = queries_of(folder, collection), qrels_of(folder, collection)
        names = [name for name in tokens if name in judged]
        rows = np.unique(np.linspace(0, len(names) - 1, FIXED_QUERIES.get(collection, 100)).round().astype(int))
        chosen += [{"collection": collection, "id": names[row]} for row in rows]
    return chosen


def fixed_queries(folder: Path) -> list[Query]:
    """The fixed set of queries with their tokens."""
    chosen = read_json(folder / "fixed_queries.json")
    tokens = {name: queries_of(folder, name) for name in {entry["collection"] for entry in chosen}}
    return [
        Query(e["collection"], e["id"], np.ascontiguousarray(tokens[e["collection"]][e["id"]], np.float32))
        for e in chosen
    ]


def exact_top(
    tokens: np.ndarray, offsets: np.ndarray, queries: Sequence[np.ndarray], depth: int, block: int = 16384
) -> tuple[np.ndarray, np.ndarray]:
    """Document numbers and scores ``[nq, depth]`` of exact MaxSim in float32, best first, ties by number."""
    widths = np.array([len(q) for q in queries])
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    packed = np.ascontiguousarray(np.concatenate(queries).astype(np.float32).T)  # [dim, query tokens]
    scores = np.empty((len(queries), len(offsets) - 1), np.float32)
    first = 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + block, "right")) - 1)
        chunk = tokens[offsets[first] : offsets[last]].astype(np.float32)
        best = np.maximum.reduceat(chunk @ packed, offsets[first:last] - offsets[first], axis=0)  # [docs, query tokens]
        scores[:, first:last] = np.add.reduceat(best, starts, axis=1).T
        first = last
    order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    return order, np.take_along_axis(scores, order, axis=1)


def write_truth(folder: Path) -> None:
    """Chooses the fixed queries of ``folder`` and stores their exact top ``TRUTH_DEPTH``."""
    write_json(folder / "fixed_queries.json", choose_queries(folder))
    documents = load(folder)
    queries = [query.tokens for query in fixed_queries(folder)]
    found, scores = exact_top(documents.tokens, documents.offsets, queries, TRUTH_DEPTH)
    np.save(folder / "exact_scores.npy", scores)
    np.save(folder / "exact_docs.npy", found.astype(np.int32))


def long_queries(folder: Path, tokens: int) -> list[Query]:
    """Queries of at least so many tokens, cut to that, judged or not."""
    return [
        Query(collection, name, np.ascontiguousarray(rows[:tokens], np.float32))
        for collection in collections_of(folder)
        for name, rows in queries_of(folder, collection).items()
        if len(rows) >= tokens
    ]


def shorten(source: Path, target: Path, documents: int) -> Path:
    """A folder of the same layout with so many documents of ``source``, evenly spaced; made once, then reused. Its
    manifest says how many."""
    if (target / "exact_docs.npy").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    everything = load(source)
    rows = np.unique(np.linspace(0, len(everything.lengths) - 1, documents).round().astype(int))
    kept = np.zeros(len(everything.lengths), bool)
    kept[rows] = True
    tokens = np.repeat(kept, everything.lengths)
    np.save(target / "doc_lengths.npy", everything.lengths[kept])
    write_json(target / "doc_ids.json", [everything.ids[row] for row in rows])
    np.save(target / "doc_tokens.npy", everything.tokens[tokens])
    if (source / "doc_token_ids.npy").exists():
        np.save(target / "doc_token_ids.npy", np.load(source / "doc_token_ids.npy")[tokens])
    for name in collections_of(source):
        for suffix in ("q_tokens.npy", "q_lengths.npy", "q_ids.json", "qrels.json"):
            link = target / f"{name}_{suffix}"
            link.unlink(missing_ok=True)
            link.symlink_to((source / f"{name}_{suffix}").resolve())
    write_json(target / "manifest.json", {**read_json(source / "manifest.json"), "documents": len(rows)})
    write_truth(target)
    return target
