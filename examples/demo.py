"""Indexes SciFact, asks it questions, and compares the index with exact MaxSim. Run it with ``make demo``.

    python examples/demo.py "Does aspirin protect from cancer?"    asks your own question

Embeddings are kept in .demo/, so the second run starts where the first one ended.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
from encoder import Encoder, native_bf16
from transformers.utils import logging

import lateint
import lateint_kernels
from lateint import metrics
from lateint.collection import Collection
from lateint.quality.evaluation import exact_run, index_run

ROOT = Path(__file__).resolve().parent.parent
INDEX = ROOT / ".demo" / "scifact"
QUESTIONS = (
    "Why do some people live longer than others?",
    "What makes bacteria resistant to antibiotics?",
    "Do statins prevent heart attacks?",
)
BM25 = 0.665  # nDCG@10, published: Thakur et al., "BEIR", 2021, table 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", nargs="*", help="what to ask instead of the built-in questions")
    questions = parser.parse_args().questions
    running = lateint_kernels.explain()
    isa = next(isa for isa, state in running.items() if state == "in use")
    print(f"lateint {lateint.__version__}, {isa} kernels, {running['threads']} threads")
    collection = Collection.read(ROOT / "examples" / "data" / "scifact")
    claims = [collection.queries[i] for i in collection.judged]
    claim_ids = [collection.query_ids[i] for i in collection.judged]
    print(
        f"SciFact: {len(collection.documents):,} abstracts, {len(claims)} claims with known answers "
        "(Wadden et al. 2020; CC BY 4.0, ODC-By)\n"
    )

    logging.set_verbosity_error()  # MiniLM's pooler is left out on purpose
    logging.disable_progress_bar()
    # Fewer tokens where bfloat16 is slow, to stay within three minutes on two cores.
    encoder = Encoder(max_tokens=180 if native_bf16() else 128)
    documents = embeddings(encoder, collection.documents)
    print(
        f"abstracts are cut after {encoder.max_tokens} tokens; {len(documents.tokens):,} tokens of "
        f"{documents.dim} dimensions, {'bfloat16' if encoder.bf16 else 'float32'} encoder"
    )

    started = time.perf_counter()
    index = lateint.Index.build(
        documents.tokens,
        INDEX,
        lengths=documents.lengths,
        ids=collection.doc_ids,
        texts=collection.documents,
        metadata=[{"title": title} for title in collection.titles],
        overwrite=True,
    )
    build_seconds = time.perf_counter() - started

    titles = dict(zip(collection.doc_ids, collection.titles, strict=True))
    asked = questions or QUESTIONS
    for question, query in zip(asked, encoder.encode(asked, "encode questions"), strict=True):
        print(f"\n{question}")
        for document, score in index.search(query, k=3):
            print(f"  {score:6.2f}  {titles[document]}")
    if questions:
        return

    print()
    queries = encoder.encode(claims, "encode claims")
    run, seconds = index_run(index, queries, claim_ids)
    exact = exact_run(documents, collection.doc_ids, queries, claim_ids)
    print("\n300 claims           nDCG@10  Recall@100")
    for name, found in (("lateint, 4 bits", run), ("exact MaxSim", exact)):
        ndcg, recall = metrics.ndcg(collection.qrels, found, 10), metrics.recall(collection.qrels, found, 100)
        print(f"{name:20} {ndcg:7.3f} {recall:11.3f}")
    print(f"{'BM25, published':20} {BM25:7.3f}")
    print(f"\nbuilt in {build_seconds:.1f} s; a search takes {1e3 * float(np.median(seconds)):.2f} ms (p50, k=100)")
    print("\nmake demo-page   serves this collection: a page that shows which words matched, on http://127.0.0.1:8080/")


def embeddings(encoder: Encoder, texts: list[str]) -> lateint_kernels.Ragged:
    """The documents' token embeddings, float16: encoded once, then read from .demo/."""
    made_by = (ROOT / "examples" / "encoder.py").read_text() + repr((encoder.max_tokens, encoder.bf16, texts))
    saved = INDEX.parent / f"scifact-{hashlib.sha256(made_by.encode()).hexdigest()[:12]}.npz"
    if not saved.exists():
        encoder.fit(texts, sample=1000)
        tokens = encoder.encode(texts, "encode abstracts")
        saved.parent.mkdir(exist_ok=True)
        unfinished = saved.with_suffix(".part.npz")
        np.savez(
            unfinished,
            tokens=np.concatenate(tokens).astype(np.float16),
            lengths=[len(document) for document in tokens],
            mean=encoder.mean,
            basis=encoder.basis,
        )
        unfinished.replace(saved)
    options = {"path": str(saved), "max_tokens": encoder.max_tokens}
    (INDEX.parent / "encoder.json").write_text(json.dumps(options))  # for `make demo-page`
    with np.load(saved) as arrays:
        encoder.mean, encoder.basis = arrays["mean"], arrays["basis"]
        return lateint_kernels.Ragged.from_lengths(arrays["tokens"], arrays["lengths"])


if __name__ == "__main__":
    main()
