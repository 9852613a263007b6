"""The command ``preflmr``: train, evaluate and report; encode, index and search passages from a shell."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from lateint.version import __version__
from preflmr.commands import (
    answer,
    convert,
    data,
    encode,
    evaluate,
    index,
    report,
    reproduce,
    scaling,
    search,
    train,
    tune,
    ventropy,
)


def run() -> None:
    """The console script: what a user can mend ends in one line and status 1, not in a traceback."""
    warnings.showwarning = _say
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ValueError, OSError, ImportError, RuntimeError, FloatingPointError) as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"preflmr: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; ``arguments`` as in a shell, without the program's name."""
    options = _parser().parse_args(arguments)
    options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="preflmr", description="PreFLMR: passages for questions about pictures.")
    parser.add_argument("--version", action="version", version=f"preflmr {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where in the program an error came from")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    for command in (
        train,
        evaluate,
        answer,
        tune,
        report,
        reproduce,
        data,
        encode,
        index,
        search,
        convert,
        ventropy,
        scaling,
    ):
        command.add(subparsers)
    return parser


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"preflmr: warning: {message}", file=sys.stderr)
