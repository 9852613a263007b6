"""The command ``lateint``: build, search, evaluate and look at an index from a shell."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

import lateint_kernels
from lateint.cli import building, changing, evaluating, looking, searching
from lateint.cli.messages import options_of
from lateint.version import __version__


def run() -> None:
    """The console script: what a user can mend ends in one line and status 1, not in a traceback."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except (TypeError, ValueError, OSError, ImportError, MemoryError, lateint_kernels.BackendError) as error:
        sys.exit(f"lateint: error: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; ``arguments`` as in a shell, without the program's name."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    with options_of(parser):
        options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lateint", description="Late-interaction retrieval on saved embeddings.")
    parser.add_argument("--version", action="version", version=f"lateint {__version__}")
    parser.add_argument("--verbose", "-v", action="store_true", help="say on standard error what is done")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in (building, searching, changing, looking, evaluating):
        group.add_to(commands)
    serving = import_module("lateint_server.options")  # a room above this one, which is found by its name
    serving.add(commands.add_parser("serve", help="serve indexes over HTTP, with a page to search them"))
    return parser
