"""``preflmr report``"""

from __future__ import annotations

import argparse
from typing import Any


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("report", help="the paper's tables from a folder of evaluations")
    command.set_defaults(command=run)
    command.add_argument("folder", help="holds what eval and answer wrote with --out")
    command.add_argument("--tables", nargs="+", metavar="N", help="only these tables of the paper")
    command.add_argument("--out", metavar="FOLDER", help="write report.md, .csv and .json there, too")


def run(options: argparse.Namespace) -> None:
    """Prints the paper's tables."""
    from preflmr.evaluation import report

    print(report.report(options.folder, options.out, options.tables))
