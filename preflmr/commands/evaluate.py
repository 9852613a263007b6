"""``preflmr eval``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from preflmr.commands.options import (
    add_encoding,
    add_index_settings,
    add_limits,
    add_model,
    add_questions,
    add_subsets,
    add_unseen,
    dataset_of,
    encoding_of,
    model_of,
    print_subsets,
)


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("eval", help="measure a checkpoint on a task of M2KR, or on a folder like one")
    command.set_defaults(command=run)
    add_model(command)
    add_questions(command)
    command.add_argument("--instruction", help="one for all questions instead of their own; '' for none")
    command.add_argument("--ks", type=int, nargs="+", metavar="K", help="cut-offs of the measures")
    command.add_argument("--index", metavar="FOLDER", help="keep the index there, and use it again")
    command.add_argument(
        "--document-pictures", action="store_true", help="read passages with their pictures (as the model says)"
    )
    command.add_argument("--exact", action="store_true", help="also score every passage without an index")
    add_limits(command)
    add_unseen(command)
    command.add_argument("--run", help="what a report calls this checkpoint (its last name)")
    command.add_argument("--out", metavar="FOLDER", help="write every question's passages and measures there")
    add_index_settings(command)
    add_encoding(command)


def run(options: argparse.Namespace) -> None:
    """Measures a checkpoint on one split."""
    from preflmr.evaluation import retrieval
    from preflmr.evaluation.config import EvalConfig

    settings = {
        **({} if options.ks is None else {"ks": options.ks}),
        "method": "both" if options.exact else "index",
        "instruction": options.instruction,
        "on_missing": options.on_missing,
        "document_pictures": options.document_pictures or None,
        "limit": options.limit,
        "nbits": options.nbits,
        "nprobe": options.nprobe,
        "candidates": options.candidates,
        **encoding_of(options),
    }
    EvalConfig(**settings)  # before data and model are loaded
    if options.out is not None:
        Path(options.out).mkdir(parents=True, exist_ok=True)
    run = options.run or Path(options.checkpoint).absolute().name
    data = dataset_of(options)
    found = retrieval.evaluate(model_of(options), data, options.index, run=run, **settings)
    add_subsets(options, data, found)
    if options.out is not None:
        print(f"written to {found.write(options.out)}")
    summary = found.summary
    print(f"{summary['task']} {summary['split']}: {summary['questions']:,} questions, {summary['passages']:,} passages")
    for name, value in summary["measures"].items():
        exact = f"   exact {summary['exact'][name]:.4f}" if options.exact else ""
        print(f"{name:>20} {value:.4f}{exact}")
    print_subsets(summary)
