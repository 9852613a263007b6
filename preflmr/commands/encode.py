"""``preflmr encode``"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from preflmr.commands.options import (
    add_checkpoint,
    add_encoding,
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
    add_checkpoint(command)
    add_passages(command)
    command.add_argument("-o", "--output", required=True, metavar="FOLDER", help="for tokens, lengths and ids")
    add_encoding(command)


def run(options: argparse.Namespace) -> None:
    """Writes the embeddings of passages."""
    from preflmr.data.passages import Passages, copy
    from preflmr.encode import encode_documents
    from preflmr.encoding import saved

    images = images_of(options)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".passages.", dir=output) as folder:
        about = copy(options.passages, Path(folder), images=images, on_missing=options.on_missing)
        passages = Passages.open(Path(folder))
        stream = encode_documents(
            model_of(options),
            passages.texts,
            passages.images if about["with_picture"] else None,
            image_source=images,
            **encoding_of(options),
        )
        documents, tokens = saved.save(stream, [passage.id for passage in passages], output)
    print(f"{output}: {documents:,} passages, {tokens:,} tokens{missing_of(about)}")
