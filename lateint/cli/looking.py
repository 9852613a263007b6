"""The commands that look at an installation or at an index: info, stats, verify and snapshot."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib import metadata
from typing import Any

import numpy as np

import lateint_kernels
from lateint.index import Index
from lateint.version import __version__

COMPANIONS = ("numpy", "torch", "triton", "transformers")


def add_to(commands: Any) -> None:
    """Adds the commands to those of ``lateint``."""
    command = commands.add_parser("info", help="versions, instruction set and threads, for bug reports")
    command.set_defaults(command=info)

    command = commands.add_parser("stats", help="sizes of an index, by part")
    command.add_argument("path", help="an index")
    command.set_defaults(command=stats)

    command = commands.add_parser("verify", help="read all of an index and say whether it is sound; status 1 if not")
    command.add_argument("path", help="the index")
    command.set_defaults(command=verify)

    command = commands.add_parser("snapshot", help="a second index of the same files, by links")
    command.add_argument("path", help="the index")
    command.add_argument("target", help="a new folder")
    command.add_argument("--overwrite", action="store_true", help="replace an index that is already there")
    command.set_defaults(command=snapshot)


def info(options: argparse.Namespace) -> None:
    """Prints what a bug report needs."""
    print(f"lateint       {__version__}")
    print(f"python        {platform.python_version()}, {platform.platform()}")
    for name, state in lateint_kernels.explain().items():
        print(f"{name:13} {state}")
    for name in COMPANIONS:
        try:
            print(f"{name:13} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            print(f"{name:13} not installed")


def stats(options: argparse.Namespace) -> None:
    """Prints the sizes of an index."""
    print(json.dumps(Index.open(options.path).stats(), indent=2, default=_plain))


def _plain(value: Any) -> Any:
    """NumPy's numbers and strings as Python's, for JSON."""
    return value.item() if isinstance(value, np.generic) else value


def verify(options: argparse.Namespace) -> None:
    """Reads all of an index."""
    report = Index.verify(options.path)
    for problem in report.problems:
        print(problem)
    if report.problems:
        sys.exit(1)
    print(
        f"{report.path} is sound: {report.documents:,} documents, {report.tokens:,} tokens, "
        f"{report.segments} segments, generation {report.generation}"
    )


def snapshot(options: argparse.Namespace) -> None:
    """Makes a second index of the same files."""
    Index.open(options.path).snapshot(options.target, overwrite=options.overwrite)
