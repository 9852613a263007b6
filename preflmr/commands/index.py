"""``preflmr index``"""

from __future__ import annotations

import argparse
from typing import Any

from preflmr.commands.options import (
    add_encoding,
    add_index_settings,
    add_model,
    add_passages,
    encoding_of,
    images_of,
    missing_of,
    model_of,
)


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("index", help="make passages searchable")
    command.set_defaults(command=run)
    add_model(command)
    command.add_argument("index", help="a new folder")
    add_passages(command)
    add_index_settings(command)
    command.add_argument("--overwrite", action="store_true", help="replace an index that is already there")
    add_encoding(command)


def run(options: argparse.Namespace) -> None:
    """Encodes passages and makes an index of them."""
    from preflmr.indexing.passage_index import check_free
    from preflmr.searcher import Searcher

    check_free(options.index, options.overwrite)
    made = Searcher.build(
        model_of(options),
        options.passages,
        options.index,
        checkpoint=options.checkpoint,
        images=images_of(options),
        on_missing=options.on_missing,
        strict=options.strict,
        nbits=options.nbits,
        overwrite=options.overwrite,
        **encoding_of(options),
    )
    stats = made.index.stats()
    print(
        f"{options.index}: {stats['documents']:,} passages, {stats['tokens']:,} tokens, "
        f"{stats['bytes'] / 1e6:.1f} MB{missing_of(made.about['passages']['picture_missing'])}"
    )
