"""The options of ``lateint serve``; nothing here needs the server's packages."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

DESCRIPTION = "Serve indexes over HTTP, with a page to search them; docs/serving.md says more."


def add(parser: argparse.ArgumentParser) -> None:
    """Adds them to a parser."""
    parser.description = DESCRIPTION
    parser.add_argument("paths", nargs="+", metavar="PATH", help="an index, named as its folder, or NAME=PATH")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="(8080; 0: any that is free)")
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="FILE",
        help="lines with a role, read or write, and a key; LATEINT_READ_KEY and LATEINT_WRITE_KEY in the environment "
        "count, too",
    )
    parser.add_argument("--open", action="store_true", help="listen on any address without keys")
    parser.add_argument("--max-body", type=int, metavar="BYTES", default=32 << 20, help="of a request (32 MiB)")
    parser.add_argument("--max-k", type=int, default=1000, metavar="N", help="hits a query (1000)")
    parser.add_argument("--max-documents", type=int, default=10_000, metavar="N", help="in a request (10000)")
    parser.add_argument("--max-picture", type=int, default=8 << 20, metavar="BYTES", help="of a picture (8 MiB)")
    parser.add_argument("--max-pixels", type=int, default=1 << 24, metavar="N", help="of a picture (16 million)")
    parser.add_argument("--queue", type=int, default=64, metavar="N", help="searches, and writes, that may wait (64)")
    parser.add_argument("--timeout", type=float, default=10, metavar="S", help="for a search (10)")
    parser.add_argument("--write-timeout", type=float, default=120, metavar="S", help="for a write (120)")
    parser.add_argument("--client-timeout", type=float, default=30, metavar="S", help="for a client to send (30)")
    parser.add_argument("--refresh", type=float, default=1, metavar="S", help="between looks for others' commits (1)")
    parser.add_argument("--slow", type=float, default=1, metavar="S", help="requests that take longer are logged (1)")
    parser.add_argument("--log-requests", action="store_true", help="log every request")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(info)")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="pictures that documents name")
    parser.add_argument("--no-docs", dest="docs", action="store_false", help="no interactive page of the routes")
    parser.add_argument(
        "--encoder",
        action="append",
        default=[],
        metavar="[NAME=]MODULE:CLASS",
        help="of the index NAME, or of all others, such as lateint.encoders:PyLate; may be given again",
    )
    parser.add_argument(
        "--encoder-options",
        action="append",
        default=[],
        metavar="[NAME=]JSON",
        help="keyword arguments of CLASS, likewise",
    )
    parser.add_argument("--verify", action="store_true", help="read all of each index first")
    parser.add_argument("--device", help="where to search: cpu, cuda or cuda:N (cpu)")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Serves until it is told to stop.

    Raises:
        ImportError: the packages of the extra ``serve`` are missing.
    """
    try:
        from lateint_server import command
    except ImportError as error:
        if (error.name or "").startswith("lateint"):
            raise
        raise ImportError(f"serving needs {error.name}: pip install 'lateint[serve]'") from error
    command.serve(options, os.environ)
