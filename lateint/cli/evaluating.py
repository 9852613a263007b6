"""The command ``lateint eval``: quality and speed on collections in BEIR's layout."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lateint.cli import inputs
from lateint.cli.files import check_writable
from lateint.cli.messages import options_for
from lateint.cli.options import (
    add_build_settings,
    add_encoder,
    add_search_settings,
    add_threads,
    add_tokens,
    build_settings,
    count,
    search_settings,
)
from lateint.encoders.batches import encoded_documents, encoded_queries
from lateint.encoders.protocol import adapted
from lateint.quality import measures as named
from lateint.quality import report
from lateint.quality.collection import Collection
from lateint.version import __version__
from lateint_kernels import Ragged
from lateint_kernels.devices import Place

SAVED = ("doc_tokens", "doc_lengths", "query_tokens", "query_lengths")


def add_to(commands: Any) -> None:
    """Adds the command to those of ``lateint``."""
    command = commands.add_parser("eval", help="quality and speed on folders in BEIR's layout")
    command.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER",
        help="holds corpus.jsonl, queries.jsonl and qrels, see lateint.quality.collection",
    )
    command.add_argument("--split", help="which judgements (test, or the only ones)")
    source = command.add_argument_group("embeddings", "from an encoder, or saved, in the order of the folder's files")
    add_encoder(source)
    add_tokens(source, "doc-", required=False)
    add_tokens(source, "query-", required=False)
    measured = command.add_argument_group("measures")
    measured.add_argument(
        "-k",
        type=count,
        action="append",
        metavar="K",
        help="cut-off of nDCG, Recall, MRR and Success; repeat it",
    )
    measured.add_argument(
        "--measures", nargs="+", metavar="NAME", help="such as nDCG@10, or any of ir-measures, such as 'AP(rel=2)@100'"
    )
    measured.add_argument("--exact", action="store_true", help="also rank every document by exact MaxSim")
    measured.add_argument(
        "--alpha",
        type=float,
        action="append",
        metavar="A",
        help="also search by tokens and words together, of which MaxSim counts A and BM25 the rest; repeat it",
    )
    measured.add_argument(
        "--text-search", metavar="JSON", help="with --alpha, what a word is: settings of lateint.Analyzer"
    )
    written = command.add_argument_group("files")
    written.add_argument("--json", metavar="FILE", help="all figures")
    written.add_argument("--per-query", metavar="FILE", help="each measure of each query, separated by tabs")
    written.add_argument("--run", metavar="FILE", help="what was found, in the format of TREC")
    written.add_argument("--plot", metavar="FILE", help="quality against latency, for nprobe from 1 to 64 (PNG, SVG)")
    add_build_settings(command)
    add_search_settings(command)
    add_threads(command)
    command.set_defaults(command=evaluate)


def evaluate(options: argparse.Namespace) -> None:
    """Builds an index of each collection in memory and prints its quality and speed."""
    measures = _checked(options)
    collections = {folder: Collection.read(folder, options.split) for folder in options.folders}
    encoder, words = inputs.encoder_of(options), inputs.analyzer(options.text_search) or True
    found: dict[str, report.Evaluated] = {}
    for folder, collection in collections.items():
        documents, queries = _embeddings(options, collection, encoder)
        with options_for(doc_embs="--doc-tokens", Q="--query-tokens"):
            found[folder] = report.evaluated(
                collection,
                documents,
                queries,
                measures,
                build={"device": options.device, **build_settings(options)},
                search=search_settings(options),
                exact=options.exact,
                sweep=options.plot is not None,
                alphas=options.alpha or (),
                text_search=words,
                threads=options.threads,
            )
        figures = found[folder].figures
        print(
            f"{folder}: {figures['documents']:,} documents, {figures['tokens']:,} tokens, {figures['queries']:,} "
            f"queries; built in {figures['build_seconds']:.1f} s, p50 {figures['search_ms']['p50']:.2f} ms a query"
        )
    _write(options, measures, found)
    print(report.table(_rows(found)))


def _checked(options: argparse.Namespace) -> list[str]:
    """Refuses now what would fail after documents are encoded; returns the measures."""
    Place.of(options.device)
    saved = [getattr(options, name) for name in SAVED]
    if (options.encoder is None) == (None in saved) or (options.encoder and any(saved)):
        raise ValueError(
            "give either --encoder or all of --doc-tokens, --doc-lengths, --query-tokens and --query-lengths"
        )
    if options.encoder is None and len(options.folders) > 1:
        raise ValueError("--doc-tokens goes with one folder; for several, give --encoder")
    if len(set(options.folders)) < len(options.folders):
        raise ValueError("FOLDER must not come twice")
    if options.text_search and not options.alpha:
        raise ValueError("--text-search goes with --alpha, which is not given")
    for alpha in options.alpha or ():
        if not 0 <= alpha <= 1:
            raise ValueError(f"--alpha must be from 0 to 1, got {alpha}")
    inputs.analyzer(options.text_search)
    if options.k and options.measures:
        raise ValueError("give either -k or --measures, which have cut-offs of their own")
    if options.run and len(options.folders) > 1:
        raise ValueError("--run goes with one folder, for ids of queries of several may be the same")
    for option in ("json", "per_query", "run", "plot"):
        if (path := getattr(options, option)) is not None:
            check_writable(Path(path), f"--{option.replace('_', '-')}")
    if options.plot and find_spec("matplotlib") is None:
        raise ImportError("--plot needs matplotlib: pip install 'lateint[eval]'")
    measures = options.measures or named.names(options.k)
    named.check(measures)
    return list(measures)


def _embeddings(options: argparse.Namespace, collection: Collection, model: Any) -> tuple[Ragged, list[Any]]:
    """The documents and the queries of the collection, from its encoder or from files."""
    if model is None:
        documents = inputs.saved(options.doc_tokens, options.doc_lengths, "doc-", len(collection.doc_ids))
        queries = inputs.saved(options.query_tokens, options.query_lengths, "query-", len(collection.query_ids))
        return documents, list(queries)
    if hasattr(model, "fit"):
        model.fit(collection.documents)
    encoder = adapted(model)
    documents = Ragged.pack(encoded_documents(encoder, collection.documents, shown=True))
    return documents, encoded_queries(encoder, collection.queries)


def _rows(found: dict[str, report.Evaluated]) -> dict[str, dict[str, float]]:
    """Those of the table that is printed: of each collection, and their mean where there are several."""
    if len(found) == 1:
        return next(iter(found.values())).quality
    rows = {f"{folder}, {who}": values for folder, one in found.items() for who, values in one.quality.items()}
    for who in next(iter(found.values())).quality:
        of_all = [one.quality[who] for one in found.values()]
        rows[f"mean, {who}"] = {name: sum(values[name] for values in of_all) / len(of_all) for name in of_all[0]}
    return rows


def _write(options: argparse.Namespace, measures: list[str], found: dict[str, report.Evaluated]) -> None:
    if options.json:
        reports = [
            {
                "version": __version__,
                "folder": folder,
                **one.figures,
                "quality": one.quality,
                **({"sweep": one.sweep} if one.sweep else {}),
            }
            for folder, one in found.items()
        ]
        value = reports[0] if len(reports) == 1 else {"collections": reports}
        Path(options.json).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    if options.per_query:
        with Path(options.per_query).open("w", encoding="utf-8") as file:
            report.write_per_query(found, file)
    if options.run:
        with Path(options.run).open("w", encoding="utf-8") as file:
            report.write_run(next(iter(found.values())).run, file)
    if options.plot:
        report.plot(found, measures[0], options.plot)
