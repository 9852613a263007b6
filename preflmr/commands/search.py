"""``preflmr search``"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from preflmr.commands.options import add_encoding, add_images, add_limits, add_model, images_of, model_of


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("search", help="find the passages for a question, a picture, or both")
    command.set_defaults(command=run)
    add_model(command)
    command.add_argument("index", help="a folder that index made, with the same checkpoint")
    command.add_argument("--question", help="in words")
    command.add_argument("--image", action="append", metavar="FILE", help="a picture; again for one more")
    command.add_argument("--instruction", help="what to look for; '' for none (one that PreFLMR was trained with)")
    command.add_argument("--questions", metavar="JSONL", help="question, img_path, instruction, question_id a line")
    add_images(command)
    command.add_argument("-k", type=int, default=5, help="passages a question (5)")
    command.add_argument("--json", action="store_true", help="one JSON object a question instead of text")
    add_limits(command)
    command.add_argument("--exhaustive", action="store_true", help="score every passage of the index")
    add_encoding(command)


def run(options: argparse.Namespace) -> None:
    """Prints the passages for one question or many."""
    from preflmr.indexing.passage_index import read_about
    from preflmr.searcher import Searcher

    asked = list(_asked(options))
    read_about(Path(options.index))
    searcher = Searcher.open(options.index, model_of(options))
    found = searcher.search(
        [row["question"] for row in asked],
        [row["images"] for row in asked],
        instructions=[row["instruction"] for row in asked],
        k=options.k,
        image_source=images_of(options),
        progress=options.questions is not None,
        nprobe=options.nprobe,
        candidates=options.candidates,
        exhaustive=options.exhaustive,
        batch_size=options.batch_size,
        dtype=options.dtype,
        processes=options.processes,
    )
    for row, passages in zip(asked, found, strict=True):
        if options.json:
            hits = [{name: value for name, value in vars(one).items() if value is not None} for one in passages]
            print(json.dumps({**row, "passages": hits}, ensure_ascii=False))
            continue
        if options.questions is not None:
            print(f"{row['question_id']}: {row['question']}")
        for rank, one in enumerate(passages, 1):
            print(f"{rank:3}  {one.score:9.4f}  {one.id}\n     {' '.join(one.text.split())[:300]}")
        print()


def _asked(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Questions, as their columns are called in M2KR."""
    if options.questions is None:
        if options.question is None and options.image is None:
            raise ValueError("search needs --question, --image or both, or a file of --questions")
        yield {"question": options.question or "", "images": options.image, "instruction": options.instruction}
        return
    if options.question is not None or options.image is not None:
        raise ValueError("search takes either --questions or --question and --image, got both")
    from preflmr.data.rows import Lines

    path = Path(options.questions)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of questions")
    for number, (place, _, row) in enumerate(Lines(path).rows((), ())):
        question, images = row.get("question") or "", row.get("img_path") or None
        if not isinstance(question, str) or not (question.strip() or images):
            raise ValueError(f"{place}: must have a question, an img_path, or both, found {', '.join(row) or 'none'}")
        instruction = row.get("instruction") if options.instruction is None else options.instruction
        name = row.get("question_id", number)
        yield {"question_id": name, "question": question, "images": images, "instruction": instruction}
