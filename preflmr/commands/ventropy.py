"""``preflmr ventropy``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("ventropy", help="what intermediate pre-training tells about data sets")
    command.set_defaults(command=run)
    command.add_argument("study", metavar="YAML", help="see docs/preflmr.md")


def run(options: argparse.Namespace) -> None:
    """Runs a study, or goes on with it."""
    from preflmr.studies import ventropy

    study = ventropy.read(options.study)
    results = ventropy.run(study, Path(options.study))
    print(ventropy.table(results))
    print(f"written to {study.output}: {ventropy.RESULTS}, {ventropy.FIGURE}")
