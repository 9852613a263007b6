"""``preflmr scaling``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("scaling", help="train and measure a grid of models")
    command.set_defaults(command=run)
    command.add_argument("study", metavar="YAML", help="see docs/preflmr.md")


def run(options: argparse.Namespace) -> None:
    """Runs a study, or goes on with it."""
    from preflmr.studies import scaling

    study = scaling.read(options.study)
    results = scaling.run(study, Path(options.study))
    print(scaling.table(results))
    print(f"written to {study.output}: {scaling.RESULTS} and figures")
