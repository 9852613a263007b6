"""Search by text: the same best documents as tantivy and bm25s, how fast, and what it adds to MaxSim.

    python -m benchmarks.text rivals DATA/medquad DATA/scifact DATA/vaswani DATA/cranfield --queries DATA/scifact
    python -m benchmarks.text fusion EMBEDDINGS DATA/scifact DATA/vaswani
    python -m benchmarks.text cost EMBEDDINGS DATA/scifact
    python -m benchmarks.text vectors

DATA holds folders in BEIR's layout, EMBEDDINGS what ``benchmarks.embed`` made of them. ``rivals`` needs ``pip install
tantivy bm25s PyStemmer``: all three get the same terms, and are timed in turn, one query after the other, on one
thread. With ``--documents N``, it cuts N documents of 20 to 79 terms out of the collections' texts, at random, for a
larger index (without bm25s). ``vectors`` makes sparse vectors at random, with as many terms as those of SPLADE have,
and asks for them beside SciPy (``pip install scipy``). Each part writes its figures into
``benchmarks/results/text.json``.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.embed import read_lines, read_qrels
from benchmarks.embeddings import load, queries_of, write_json
from lateint import Analyzer, Index
from lateint.fields.sparse import inverted
from lateint.quality.metrics import ndcg
from lateint.text.vectors import Vector, encoded
from lateint_kernels.text.building import invert
from lateint_kernels.text.engine import SparseEngine, TextEngine
from lateint_kernels.text.segment_text import SegmentText

RESULTS = Path(__file__).parent / "results" / "text.json"
ANALYZER = Analyzer(stem="english")
ALPHAS = (0.0, 0.25, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)
QUERIES = 100
VOCABULARY = 30_522  # of BERT
ROUNDS = 3
NEAR = 1e-5  # scores that differ by less are ties: rivals sum in float32


def texts_of(folder: Path) -> dict[str, str]:
    """Title and text of each document, as ``benchmarks.embed`` joins them."""
    return {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in read_lines(folder / "corpus.jsonl")}


def report(part: str, name: str, figures: dict[str, Any]) -> None:
    """Adds figures to the results."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found.setdefault(part, {})[name] = figures
    write_json(RESULTS, found)
    print(json.dumps({part: {name: figures}}, indent=1))


class Collection:
    """Documents as numbers of terms."""

    def __init__(self, folders: Sequence[Path]) -> None:
        term, numbers = ANALYZER.term(), dict[str, int]()
        known: dict[str, int] = {}
        found: list[int] = []
        cuts = [0]
        for folder in folders:
            for text in texts_of(folder).values():
                for word in ANALYZER.words(text):
                    if word not in known:
                        made = term(word)
                        known[word] = numbers.setdefault(made, len(numbers)) if made else -1
                    if known[word] >= 0:
                        found.append(known[word])
                cuts.append(len(found))
        self.terms = list(numbers)
        self.numbers, self.offsets = np.array(found, np.uint32), np.array(cuts)

    def cut(self, documents: int) -> None:
        """Random runs of terms instead."""
        rng = np.random.default_rng(0)
        lengths = rng.integers(20, 80, documents)
        starts = rng.integers(0, len(self.numbers) - 80, documents)
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.numbers = self.numbers[np.repeat(starts - self.offsets[:-1], lengths) + np.arange(self.offsets[-1])]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def words(self, document: int) -> list[str]:
        """The terms of a document."""
        run = self.numbers[self.offsets[document] : self.offsets[document + 1]]
        return [self.terms[number] for number in run.tolist()]


class Tantivy:
    """tantivy's index of a collection and its queries."""

    def __init__(self, collection: Collection, queries: Sequence[dict[str, float]]) -> None:
        import tantivy

        builder = tantivy.SchemaBuilder()
        builder.add_text_field("text", stored=False, tokenizer_name="whitespace")
        builder.add_integer_field("number", stored=True)
        schema = builder.build()
        index = tantivy.Index(schema)
        writer = index.writer(200_000_000, num_threads=1)
        for document in range(len(collection)):
            writer.add_document(tantivy.Document(text=" ".join(collection.words(document)), number=document))
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        self.searcher, should = index.searcher(), tantivy.Occur.Should
        self.queries = [
            tantivy.Query.boolean_query(
                [
                    (should, tantivy.Query.term_query(schema, "text", term))
                    for term, count in query.items()
                    for _ in range(int(count))
                ]
            )
            for query in queries
        ]

    def search(self, i: int, k: int) -> Any:
        """What is timed."""
        return self.searcher.search(self.queries[i], k, count=False).hits

    def best(self, i: int, k: int) -> list[int]:
        """The documents of a search."""
        return [self.searcher.doc(address)["number"][0] for _, address in self.search(i, k)]


class Bm25s:
    """bm25s with our k1 and b, and Lucene's idf."""

    def __init__(self, collection: Collection, queries: Sequence[dict[str, float]]) -> None:
        import bm25s

        self.model = bm25s.BM25(method="lucene", k1=ANALYZER.k1, b=ANALYZER.b)
        self.model.index([collection.words(document) for document in range(len(collection))], show_progress=False)
        known = self.model.vocab_dict
        self.queries = [
            [[t for t, count in query.items() if t in known for _ in range(int(count))]] for query in queries
        ]

    def search(self, i: int, k: int) -> Any:
        """What is timed."""
        return self.model.retrieve(self.queries[i], k=k, show_progress=False, n_threads=0)

    def best(self, i: int, k: int) -> list[int]:
        """The documents of a search."""
        found: list[int] = self.search(i, k)[0][0].tolist()
        return found


def scores_of(segment: SegmentText, query: dict[bytes, float], lengths: np.ndarray) -> np.ndarray:
    """BM25 of all documents by its definition, once more and apart from the library, with other lengths."""
    offsets, data = segment.term_offsets, segment.term_bytes.tobytes()
    names = [data[first:last] for first, last in itertools.pairwise(offsets.tolist())]
    mean, k1, b = segment.text_lengths[segment.text_lengths > 0].mean(), ANALYZER.k1, ANALYZER.b
    texts = np.count_nonzero(segment.text_lengths)
    scores = np.zeros(len(lengths))
    for term, wanted in query.items():
        at = bisect.bisect_left(names, term)
        if at == len(names) or names[at] != term:
            continue
        run = slice(*segment.posting_offsets[at : at + 2])
        documents, counts = segment.posting_documents[run], segment.posting_counts[run].astype(float)
        counts[counts == 255] = segment.large_counts[
            np.searchsorted(segment.large_postings, np.flatnonzero(counts == 255) + run.start)
        ]
        idf = np.log(1 + (texts - len(documents) + 0.5) / (len(documents) + 0.5))
        scores[documents] += wanted * idf * counts / (counts + k1 * (1 - b + b * lengths[documents] / mean))
    return scores


def in_a_byte(lengths: np.ndarray) -> np.ndarray:
    """Lengths as tantivy keeps them, like Lucene: above 40, what is more than 24 has four bits that count."""
    more = np.maximum(lengths.astype(np.int64) - 24, 1)
    unit = 1 << np.maximum(np.floor(np.log2(more)).astype(np.int64) - 3, 0)
    return np.where(lengths > 40, 24 + more // unit * unit, lengths)


def overlap(scores: np.ndarray, theirs: list[int], k: int = 10) -> float:
    """The share of their best that is among the best by ``scores``, or as good as the last of these."""
    best = np.sort(scores[scores > 0])[::-1][:k]
    return float(np.mean(scores[theirs[: len(best)]] >= best[-1] * (1 - NEAR))) if len(best) else 1.0


def rivals(options: argparse.Namespace) -> None:
    """Compares answers and times."""
    collection = Collection(options.folders)
    if options.documents:
        collection.cut(options.documents)
    segment = invert([term.encode() for term in collection.terms], collection.numbers, collection.offsets)
    engine, everything = TextEngine([segment]), np.arange(len(collection))
    asked = [row["text"] for row in read_lines(options.queries / "queries.jsonl")][:QUERIES]
    words = [{term.decode(): count for term, count in ANALYZER.query(text).items()} for text in asked]
    queries = [ANALYZER.query(text) for text in asked]
    others: dict[str, Any] = {"tantivy": Tantivy(collection, words)}
    if not options.documents:
        others["bm25s"] = Bm25s(collection, words)
    ours = [engine.score(query, everything) for query in queries]
    rounded = [scores_of(segment, query, in_a_byte(segment.text_lengths)) for query in queries]
    found = {name: [other.best(i, 10) for i in range(len(queries))] for name, other in others.items()}
    figures: dict[str, Any] = {
        "documents": len(collection),
        "terms": len(collection.numbers),
        "queries": len(queries),
        "overlap_10": {name: float(np.mean(list(map(overlap, ours, best)))) for name, best in found.items()},
        "overlap_10_with_lengths_in_a_byte": float(np.mean(list(map(overlap, rounded, found["tantivy"])))),
    }
    for k in (10, 100):
        seconds: dict[str, list[float]] = {name: [] for name in ("lateint", *others)}
        for _ in range(ROUNDS):
            for i in range(len(queries)):
                started = time.perf_counter()
                engine.search([ANALYZER.query(asked[i])], k, threads=1)
                seconds["lateint"].append(time.perf_counter() - started)
                for name, other in others.items():
                    started = time.perf_counter()
                    other.search(i, k)
                    seconds[name].append(time.perf_counter() - started)
        figures[f"ms_{k}"] = {
            name: {"p50": 1e3 * float(np.median(all_)), "p95": 1e3 * float(np.quantile(all_, 0.95))}
            for name, all_ in seconds.items()
        }
    report("rivals", f"{len(collection)} documents", figures)


class Embedded:
    """One collection, its embeddings and judgements, as an index whose texts are searched."""

    def __init__(self, folder: Path, data: Path) -> None:
        embeddings, self.name = load(folder), data.name
        offsets, texts = embeddings.offsets, texts_of(data)
        mine = [i for i, name in enumerate(embeddings.ids) if name.startswith(f"{self.name}/")]
        ids = [embeddings.ids[i].split("/", 1)[1] for i in mine]
        documents = [np.asarray(embeddings.tokens[offsets[i] : offsets[i + 1]]) for i in mine]
        self.index = Index.build(
            documents, ids=ids, texts=[texts[i] for i in ids], text_search=ANALYZER, progress=False
        )
        words = {row["_id"]: row["text"] for row in read_lines(data / "queries.jsonl")}
        tokens = queries_of(folder, self.name)
        self.qrels = {name: grades for name, grades in read_qrels(data).items() if name in tokens and name in words}
        self.queries = [(tokens[name], words[name], name) for name in self.qrels]


def fusion(options: argparse.Namespace) -> None:
    """nDCG@10 of MaxSim, BM25 and both, with standard errors."""
    for data in options.folders:
        one = Embedded(options.embeddings, data)
        settings: dict[str, dict[str, Any]] = {f"alpha {alpha}": {"alpha": alpha} for alpha in ALPHAS}
        settings |= {"rrf": {"fusion": "rrf"}, "rerank 200": {"rerank": 200}, "maxsim": {}, "bm25": {}}
        quality: dict[str, Any] = {}
        for name, chosen in settings.items():
            values = []
            for tokens, words, query in one.queries:
                Q, text = None if name == "bm25" else tokens, None if name == "maxsim" else words
                hits = one.index.search(Q, 10, text=text, **chosen)
                values.append(ndcg({query: one.qrels[query]}, {query: dict(hits)}, 10))
            quality[name] = {
                "ndcg_10": float(np.mean(values)),
                "standard_error": float(np.std(values) / np.sqrt(len(values))),
            }
        report("fusion", one.name, {"documents": len(one.index), "queries": len(one.queries), **quality})


def cost(options: argparse.Namespace) -> None:
    """What a text costs a search, in CPU time of one thread, in turn."""
    for data in options.folders:
        one = Embedded(options.embeddings, data)
        seconds: dict[str, list[float]] = {"maxsim": [], "bm25": [], "both": []}
        for _ in range(ROUNDS):
            for tokens, words, _ in one.queries[:QUERIES]:
                for name, (Q, text) in {
                    "maxsim": (tokens, None),
                    "bm25": (None, words),
                    "both": (tokens, words),
                }.items():
                    started = time.thread_time()
                    one.index.search(Q, 10, text=text, threads=1)
                    seconds[name].append(time.thread_time() - started)
        p50 = {name: 1e3 * float(np.median(all_)) for name, all_ in seconds.items()}
        figures = {"documents": len(one.index), "cpu_ms_p50": p50, "both_over_maxsim": p50["both"] / p50["maxsim"]}
        report("cost", one.name, figures)


def vectors(options: argparse.Namespace) -> None:
    """The best by sparse vectors, and how fast, beside SciPy's product of a matrix with a query."""
    from scipy.sparse import csc_matrix

    rng, size = np.random.default_rng(0), options.documents
    shares = np.cumsum(1 / (np.arange(VOCABULARY) + 10.0))

    def drawn(least: int, most: int) -> Vector:
        terms = np.unique(np.searchsorted(shares, rng.random(rng.integers(least, most)) * shares[-1]))
        weights = np.log1p(rng.gamma(1.5, 1.5, len(terms))).astype(np.float16)
        return Vector(terms, weights.astype(np.float64))

    documents, queries = [drawn(80, 240) for _ in range(size)], [drawn(20, 60) for _ in range(QUERIES)]
    engine = SparseEngine([inverted(documents)])
    rows = np.repeat(np.arange(size), [len(one.terms) for one in documents])
    columns = np.concatenate([one.terms for one in documents])
    weights = np.concatenate([one.weights for one in documents])
    matrix = csc_matrix((weights, (rows, columns)), (size, VOCABULARY))
    singles = matrix.astype(np.float32)
    asked = [dict(zip(encoded(one.terms), one.weights.tolist(), strict=True)) for one in queries]

    def theirs(query: Vector) -> np.ndarray:
        scores = singles[:, query.terms] @ query.weights.astype(np.float32)
        best = np.argpartition(-scores, 10)[:10]
        return best[np.argsort(-scores[best])]

    seconds: dict[str, list[float]] = {"lateint": [], "scipy": []}
    for _ in range(ROUNDS):
        for terms, query in zip(asked, queries, strict=True):
            for name, search in {
                "lateint": lambda terms=terms: engine.search([terms], 10, threads=1),
                "scipy": lambda query=query: theirs(query),
            }.items():
                started = time.thread_time()
                search()
                seconds[name].append(time.thread_time() - started)
    p50 = {name: 1e3 * float(np.median(all_)) for name, all_ in seconds.items()}
    best = [positions.tolist() for positions, _ in engine.search(asked, 10)]
    exact = [np.asarray(matrix[:, query.terms] @ query.weights) for query in queries]
    figures = {
        "documents": size,
        "terms": len(rows),
        "terms_of_a_query": float(np.mean([len(one) for one in asked])),
        "overlap_10": float(np.mean(list(map(overlap, exact, best)))),
        "cpu_ms_p50": p50,
        "lateint_over_scipy": p50["lateint"] / p50["scipy"],
    }
    report("vectors", f"{size} documents", figures)


def main() -> None:
    """Measures one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True, metavar="PART")
    part = parts.add_parser("rivals", help="tantivy and bm25s")
    part.add_argument("folders", nargs="+", type=Path)
    part.add_argument("--queries", type=Path, required=True, help="a folder with queries.jsonl")
    part.add_argument("--documents", type=int, help="so many, cut at random")
    part.set_defaults(part=rivals)
    for name, run, what in (("fusion", fusion, "nDCG@10 of both"), ("cost", cost, "time of both")):
        part = parts.add_parser(name, help=what)
        part.add_argument("embeddings", type=Path)
        part.add_argument("folders", nargs="+", type=Path)
        part.set_defaults(part=run)
    part = parts.add_parser("vectors", help="sparse vectors")
    part.add_argument("--documents", type=int, default=30_000)
    part.set_defaults(part=vectors)
    options = parser.parse_args()
    options.part(options)


if __name__ == "__main__":
    main()
