"""``preflmr reproduce``"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from preflmr.commands.options import add_encoding, add_images, add_model, add_on_missing, add_strict
from preflmr.data.tasks import MEASURED

M2KR = "BByrneLab/multi_task_multi_modal_knowledge_retrieval_benchmark_M2KR"


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser(
        "reproduce", help="measure a checkpoint on the nine tasks of M2KR, as its authors did, and print the tables"
    )
    command.set_defaults(command=run)
    add_model(command)
    command.add_argument("--data", default=M2KR, help="a folder in M2KR's layout, or a data set on the hub (M2KR)")
    command.add_argument("--tasks", nargs="+", choices=MEASURED, default=list(MEASURED), help="(all nine)")
    command.add_argument("--split", default="test", help="test or valid; valid fills Table 3 (test)")
    command.add_argument("--run", help="the row of a table, such as table2-row05 (the checkpoint's last name)")
    command.add_argument("--out", default="runs", metavar="FOLDER", help="where results are written (runs)")
    command.add_argument("--indexes", metavar="FOLDER", help="keep the index of each task there")
    command.add_argument("--nbits", type=int, default=8, choices=(1, 2, 4, 8), help="as the published scripts (8)")
    command.add_argument("--limit", type=int, help="ask only so many questions of a task")
    add_images(command)
    add_on_missing(command, "a question whose picture is missing: stop, leave it out, or show a black one (error)")
    add_strict(command)
    add_encoding(command)


def run(options: argparse.Namespace) -> None:
    """Measures task by task; those with a result of the same settings in ``--out`` are not measured again."""
    from preflmr.commands.options import encoding_of, model_of
    from preflmr.data import m2kr
    from preflmr.evaluation import report, retrieval
    from preflmr.evaluation.config import EvalConfig
    from preflmr.evaluation.results import result_path

    settings = {"nbits": options.nbits, "on_missing": options.on_missing, "limit": options.limit}
    settings |= encoding_of(options)
    EvalConfig(**settings)
    name = options.run or Path(options.checkpoint).absolute().name
    model = None
    for task in options.tasks:
        split = {"val": "valid", "dev": "valid", "validation": "valid"}.get(options.split, options.split)
        path = result_path(options.out, {"task": task, "split": split, "run": name}, ".summary.json")
        if path.is_file() and _same(path, options):
            print(f"{task}: measured before, {path}")
            continue
        data = m2kr.load(options.data, task, options.split, images=options.images, strict=options.strict)
        model = model_of(options) if model is None else model
        index = None if options.indexes is None else Path(options.indexes) / f"{task}-{split}"
        found = retrieval.evaluate(model, data, index, run=name, **settings)
        found.write(options.out)
        print(f"{task}: {data.task.measure} {found[str(data.task.measure)]:.4f}", flush=True)
    print(report.report(options.out))


def _same(path: Path, options: argparse.Namespace) -> bool:
    """Whether a result is of these settings.

    Raises:
        ValueError: it is of others.
    """
    before = json.loads(path.read_text(encoding="utf-8"))["settings"]
    differ = [key for key in ("nbits", "limit", "on_missing") if before.get(key) != getattr(options, key)]
    if differ:
        raise ValueError(f"{path} was measured with another {differ[0]}; choose another --out or --run")
    return True
