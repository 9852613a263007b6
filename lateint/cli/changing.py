"""The commands that change an index: add, delete, compact, set-text-search and calibrate."""

from __future__ import annotations

import argparse
from typing import Any

from lateint.changing.draft import DUPLICATES
from lateint.cli import inputs
from lateint.cli.files import read_json
from lateint.cli.messages import CARRIED, options_for
from lateint.cli.options import add_documents, add_encoder, add_filter, add_threads, add_tokens, count
from lateint.index import Index


def add_to(commands: Any) -> None:
    """Adds the commands to those of ``lateint``."""
    command = commands.add_parser("add", help="add saved embeddings to an index")
    command.add_argument("path", help="the index")
    add_documents(command)
    command.add_argument("--ids", help="JSON list with one id a document; numbers that follow the largest if left out")
    command.add_argument(
        "--on-duplicate", choices=DUPLICATES, default="raise", help="what happens to an id that is there (raise)"
    )
    command.set_defaults(command=add)

    command = commands.add_parser("delete", help="delete documents from an index")
    command.add_argument("path", help="the index")
    command.add_argument("ids", nargs="*", help="of the documents")
    command.add_argument("--ids", dest="file", metavar="FILE", help="JSON list of ids")
    add_filter(command)
    command.set_defaults(command=delete)

    command = commands.add_parser("compact", help="join small segments, and those with many deleted documents")
    command.add_argument("path", help="the index")
    command.add_argument("--full", action="store_true", help="into one segment, which takes the least room")
    command.set_defaults(command=compact)

    command = commands.add_parser("set-text-search", help="search texts that are stored by their words from now on")
    command.add_argument("path", help="the index")
    command.add_argument("--text-search", metavar="JSON", default="{}", help="settings of lateint.Analyzer")
    command.add_argument("--off", action="store_true", help="do not search them any more")
    command.set_defaults(command=set_text_search)

    command = commands.add_parser(
        "calibrate", help="measure which settings of a search reach which recall, and keep it"
    )
    command.add_argument("path", help="the index")
    command.add_argument("queries", nargs="*", metavar="QUERY", help="texts, with --encoder")
    add_encoder(command)
    add_tokens(command, "", required=False)
    command.add_argument("-k", type=count, nargs="+", default=[10, 100], help="hits a query will want (10 100)")
    command.add_argument("-n", type=count, default=400, help="queries to ask at most (400); 0.99 needs 99")
    command.add_argument("--device", help="where to measure: cpu, cuda or cuda:N (cpu); the result is the same")
    add_threads(command)
    command.set_defaults(command=calibrate)


def add(options: argparse.Namespace) -> None:
    """Adds saved embeddings to an index."""
    documents = inputs.documents(options)
    index = Index.open(options.path, encoder=inputs.encoder_of(options))
    with options_for(doc_embs="--tokens", lengths="--lengths", offsets="--lengths", ids="--ids", **CARRIED):
        index.add(**documents, on_duplicate=options.on_duplicate)
    print(index)


def delete(options: argparse.Namespace) -> None:
    """Deletes documents from an index."""
    index = Index.open(options.path)
    ids = inputs.ids(index, options.ids)
    if options.file is not None:
        ids += read_json(options.file, "--ids")
    with options_for(filter="--filter", params="--params"):
        condition = inputs.condition(options.filter, options.params)
        count = index.delete(ids if ids or not condition else None, **condition)
    print(f"deleted {count:,}; {len(index):,} documents are left")


def compact(options: argparse.Namespace) -> None:
    """Joins segments of an index."""
    index = Index.open(options.path)
    before = index.stats()
    index.compact(full=options.full)
    after = index.stats()
    print(
        f"segments: {before['segments']} before, {after['segments']} now; "
        f"bytes: {before['bytes']:,} before, {after['bytes']:,} now"
    )


def set_text_search(options: argparse.Namespace) -> None:
    """Makes texts searchable by their words, or not any more."""
    analyzer = False if options.off else inputs.analyzer(options.text_search)
    index = Index.open(options.path)
    index.set_text_search(analyzer)
    print(index.analyzer or "texts are not searched")


def calibrate(options: argparse.Namespace) -> None:
    """Measures recall by saved queries, by texts, or by excerpts of documents, and prints it."""
    if options.queries and options.tokens is not None:
        raise ValueError("give either QUERY, with --encoder, or --tokens and --lengths")
    with options_for(device="--device"):
        index = Index.open(options.path, encoder=inputs.encoder_of(options), device=options.device)
    with options_for(Q="QUERY" if options.queries else "--tokens", tokens="--tokens", lengths="--lengths"):
        queries = options.queries or (None if options.tokens is None else list(inputs.packed_queries(options)))
        print(index.calibrate(queries, k=options.k, n=options.n, threads=options.threads))
