"""``preflmr train``"""

from __future__ import annotations

import argparse
import os
from typing import Any


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("train", help="train a model as a recipe says")
    command.set_defaults(command=run)
    command.add_argument("--config", required=True, metavar="YAML", help="a recipe, or a shipped one")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the recipe's output")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, such as steps=100"
    )


def run(options: argparse.Namespace) -> None:
    """Runs the stages of a recipe."""
    from preflmr.training import recipe_file

    overrides = {}
    for given in options.set:
        key, equals, value = given.partition("=")
        if not equals:
            raise ValueError(f"--set must be KEY=VALUE, got {given!r}")
        overrides[key] = recipe_file.value(value)
    stages = recipe_file.read(options.config, overrides)
    from preflmr.training import train

    for name, config in stages.items():
        summary = train.run(config, resume=options.resume)
        if os.environ.get("RANK", "0") != "0":
            continue  # the first of several devices tells
        best = f", best at step {summary['best']['step']}" if summary["best"] else ""
        print(f"{name}: {summary['steps']:,} steps in {summary['seconds']:,.0f} s{best}; {config.output}/best")
