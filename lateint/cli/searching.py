"""The commands that ask an index: search and get."""

from __future__ import annotations

import argparse
import json
from textwrap import shorten
from typing import Any

from lateint.cli import inputs
from lateint.cli.files import as_json
from lateint.cli.messages import options_for
from lateint.cli.options import (
    TEXT,
    add_encoder,
    add_filter,
    add_search_settings,
    add_text,
    add_threads,
    add_tokens,
    count,
    search_settings,
    text_settings,
)
from lateint.index import Index

SHOWN = 80  # characters of a text in a table


def add_to(commands: Any) -> None:
    """Adds the commands to those of ``lateint``."""
    command = commands.add_parser("search", help="search an index with saved queries, texts or both")
    command.add_argument("path", help="an index")
    command.add_argument("queries", nargs="*", metavar="QUERY", help="texts, with --encoder")
    add_encoder(command)
    add_tokens(command, "", required=False)
    add_text(command)
    command.add_argument("-k", type=count, default=5, help="hits a query (5)")
    add_search_settings(command)
    add_filter(command)
    command.add_argument("--fields", help="of the documents found, with commas between; text is the text")
    command.add_argument("--device-memory", type=count, metavar="BYTES", help="that the index may take on a device")
    command.add_argument("--json", action="store_true", help="one JSON object a query instead of a table")
    add_threads(command)
    command.set_defaults(command=search)

    command = commands.add_parser("get", help="texts and metadata of documents, a JSON object each")
    command.add_argument("path", help="an index")
    command.add_argument("ids", nargs="*", help="of the documents; all where there is no filter either")
    command.add_argument("--fields", help="names of fields, with commas between; text is the text")
    add_filter(command)
    command.set_defaults(command=get)


def search(options: argparse.Namespace) -> None:
    """Prints the hits of every saved query."""
    if options.queries and options.tokens is not None:
        raise ValueError("give either QUERY, with --encoder, or --tokens and --lengths")
    if not options.queries and options.tokens is None and options.text is None and options.sparse is None:
        raise ValueError("give QUERY, with --encoder, --tokens and --lengths, --text or --sparse")
    with options_for(device="--device", device_memory="--device-memory"):
        index = Index.open(
            options.path,
            encoder=inputs.encoder_of(options),
            device=options.device,
            device_memory=options.device_memory,
        )
    fields = None if options.fields is None else options.fields.split(",")
    with options_for(
        Q="QUERY" if options.queries else "--tokens",
        tokens="--tokens",
        lengths="--lengths",
        offsets="--lengths",
        filter="--filter",
        params="--params",
        recall="--recall",
        **{name: f"--{name}" for name in TEXT},
    ):
        queries: Any = options.queries or None
        if options.tokens is not None:
            queries = list(inputs.packed_queries(options))
        chosen = inputs.condition(options.filter, options.params)
        results = index.search(queries, options.k, **chosen, **text_settings(options), **search_settings(options))
    for number, hits in enumerate(results):
        found: list[dict[str, Any]] = [{"id": id, "score": score} for id, score in hits]
        if fields is None:
            besides = [{} if text is None else {"text": text} for text in hits.texts]
        else:
            besides = [as_json(document) for document in hits.documents(fields)]
        for one, more in zip(found, besides, strict=True):
            one |= more
        if options.json:
            print(json.dumps({"query": number, "hits": found}, ensure_ascii=False))
            continue
        print(
            f"query {number}" + (f": {options.queries[number]}" if options.queries else ""),
            *map(_line, found),
            sep="\n",
        )


def _line(hit: dict[str, Any]) -> str:
    """A hit in a table."""
    metadata = [json.dumps(hit["metadata"], ensure_ascii=False)] if hit.get("metadata") else []
    return "  ".join(
        [f"{hit['score']:12.4f}", str(hit["id"]), shorten(hit.get("text") or "", SHOWN), *metadata]
    ).rstrip()


def get(options: argparse.Namespace) -> None:
    """Prints texts and metadata."""
    index = Index.open(options.path)
    with options_for(fields="--fields", filter="--filter", params="--params"):
        condition = inputs.condition(options.filter, options.params)
        if condition and options.ids:
            raise ValueError("filter takes the place of ids; give one of them")
        names = index.select(**condition) if condition else inputs.ids(index, options.ids) if options.ids else index.ids
        fields = None if options.fields is None else options.fields.split(",")
        for first in range(0, len(names), 1024):
            for document in index.get(names[first : first + 1024], fields):
                print(json.dumps({"id": document.id, **as_json(document)}, ensure_ascii=False))
