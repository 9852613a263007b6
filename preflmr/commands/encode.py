"""``preflmr encode``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from preflmr.commands.options import (
    add_encoding,
    add_model,
    add_passages,
    encoding_of,
    images_of,
    missing_of,
    model_of,
)


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("encode", help="write passages' embeddings for lateint build")
    command.set_defaults(command=run)
    add_model(command)
    add_passages(command)
    command.add_argument("-o", "--output", required=True, metavar="FOLDER", help="for tokens, lengths and ids")
    add_encoding(command)


def run(options: argparse.Namespace) -> None:
    """Writes the embeddings of passages."""
    from preflmr.data.passages import load_passages
    from preflmr.encoding import saved
    from preflmr.indexing.tokens import passage_tokens

    images = images_of(options)
    passages = load_passages(options.passages, strict=options.strict)
    passages, missing = passages.without_missing(images, options.on_missing)
    stream = passage_tokens(model_of(options), passages, images, **encoding_of(options))
    documents, tokens = saved.save(stream, passages.ids, Path(options.output))
    print(f"{options.output}: {documents:,} passages, {tokens:,} tokens{missing_of(missing)}")
