"""``preflmr tune``"""

from __future__ import annotations

import argparse
from typing import Any


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("tune", help="fine-tune a generator on retrieved passages")
    command.set_defaults(command=run)
    command.add_argument("--config", required=True, metavar="YAML", help="see preflmr.tuning.config")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in its output")


def run(options: argparse.Namespace) -> None:
    """Tunes a generator as a file says."""
    from pathlib import Path

    from preflmr.training.recipe_file import load_yaml
    from preflmr.training.schema import build
    from preflmr.tuning.config import TuneConfig

    path = Path(options.config)
    try:
        config = build(TuneConfig, load_yaml(path))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    from preflmr.tuning.tune import tune

    summary = tune(config, resume=options.resume)
    best = f", best at step {summary['best'][0]}" if summary["best"] else ""
    print(f"{summary['steps']:,} steps{best}; {config.output}/best")
