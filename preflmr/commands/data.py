"""``preflmr statistics`` and ``preflmr construct``"""

from __future__ import annotations

import argparse
from typing import Any

from preflmr.commands.options import add_strict


def add(subparsers: Any) -> None:
    """The options of both commands."""
    command = subparsers.add_parser("statistics", help="count a data set, and what its splits share")
    command.set_defaults(command=count)
    _add_source(command)
    add_strict(command)
    command = subparsers.add_parser("construct", help="make a data set in M2KR's columns out of another")
    command.set_defaults(command=make)
    _add_source(command)
    command.add_argument("folder", help="a new folder")
    command.add_argument(
        "--size", action="append", default=[], metavar="SPLIT=N", help="draw at most so many questions of a split"
    )
    command.add_argument("--unique", action="store_true", help="leave out questions asked before of the same passages")
    command.add_argument("--answered", action="store_true", help="keep questions whose positives contain an answer")
    command.add_argument(
        "--leaks", choices=("error", "drop"), default="error",
        help="pictures and questions of tests in training: stop, or leave them out of training (error)",
    )  # fmt: skip
    command.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")
    add_strict(command)


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", help="a folder, or a data set on the hub")
    command.add_argument("--task", help="WIT, OVEN, EVQA, ... or a name of one's own (the folder's)")
    command.add_argument("--splits", nargs="+", default=["train", "valid", "test"], help="(train valid test)")


def count(options: argparse.Namespace) -> None:
    """Prints a table of each split, and what it shares with training."""
    import dataclasses

    from preflmr.data.m2kr import load
    from preflmr.data.overlap import Known, statistics

    data = {split: load(options.data, options.task, split, strict=options.strict) for split in options.splits}
    known = Known(data["train"].examples) if "train" in data else None
    for split, dataset in data.items():
        print(f"{dataset.task.name} {split}:")
        for name, value in statistics(dataset).items():
            print(f"{name:>28} {value:,.1f}" if isinstance(value, float) else f"{name:>28} {value:,}")
        if known is not None and split != "train":
            for name, value in dataclasses.asdict(known.overlap(dataset.examples)).items():
                if name != "questions":
                    print(f"{f'{name} that train has':>28} {value:,}")


def make(options: argparse.Namespace) -> None:
    """Writes a data set, and says what each step left out."""
    from preflmr.data.construct import construct

    sizes = {}
    for given in options.size:
        split, equals, number = given.partition("=")
        if not equals or not number.isdecimal():
            raise ValueError(f"--size must be SPLIT=N, got {given!r}")
        sizes[split] = int(number)
    told = construct(
        options.data, options.folder, options.task, splits=options.splits, sizes=sizes, unique=options.unique,
        answered=options.answered, leaks=options.leaks, seed=options.seed, strict=options.strict,
    )  # fmt: skip
    for split, counts in told.items():
        print(f"{split}: " + ", ".join(f"{value:,} {name}" for name, value in counts.items()))
