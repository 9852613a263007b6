"""``preflmr answer``"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from preflmr.commands.options import add_questions, add_subsets, add_unseen, dataset_of, print_subsets


def add(subparsers: Any) -> None:
    """The options of the command."""
    command = subparsers.add_parser("answer", help="answer questions with what eval found for them")
    command.set_defaults(command=run)
    command.add_argument(
        "generator", help="a folder, or an image-text-to-text model on the hub such as Salesforce/blip2-flan-t5-xl"
    )
    add_questions(command)
    command.add_argument("--retrieved", metavar="RUN.json", help="what eval --out wrote; without it, questions alone")
    command.add_argument("-k", type=int, default=5, help="passages a question, each read by itself (5)")
    command.add_argument(
        "--temperature", type=float, default=1.0,
        help="divides the retrieval scores; above 1 the generator has more of a say in which passage answers (1)",
    )  # fmt: skip
    command.add_argument("--prompt", help="with {question} and {passage} (RA-VQA's, or one for chats)")
    command.add_argument("--beams", type=int, default=5, help="of the beam search (5)")
    command.add_argument("--max-new-tokens", type=int, default=10, help="of an answer (10)")
    command.add_argument("--max-length", type=int, default=512, help="tokens of a prompt; passages are cut to it (512)")
    command.add_argument("--run", help="what a report calls this (the generator's last name)")
    command.add_argument("--out", metavar="FOLDER", help="write every question's answers and measures there")
    command.add_argument(
        "--equivalence", metavar="MODEL",
        help="a classifier that measures BEM, as for E-VQA, such as kortukov/answer-equivalence-bem",
    )  # fmt: skip
    add_unseen(command)
    command.add_argument("--batch-size", type=int, default=20, help="prompts at once, k a question (20)")
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="to compute in (as saved)")
    command.add_argument("--device", help="cpu, cuda, cuda:1 ... (cuda where there is one)")


def run(options: argparse.Namespace) -> None:
    """Answers the questions of one split."""
    from preflmr.answering import asking
    from preflmr.answering.answers import answer
    from preflmr.answering.generator import Generator

    found = None if options.retrieved is None else asking.read_run(options.retrieved)
    data = dataset_of(options)
    equivalence = None
    if options.equivalence is not None:
        from preflmr.answering.equivalence import Equivalence

        equivalence = Equivalence.from_pretrained(options.equivalence, device=options.device)
    generator = Generator.from_pretrained(
        options.generator,
        dtype=options.dtype,
        device=options.device,
        passages=found is not None,
        prompt=options.prompt,
        beams=options.beams,
        max_new_tokens=options.max_new_tokens,
        max_length=options.max_length,
    )
    answers = answer(
        generator,
        data,
        found,
        run=options.run or Path(options.generator).absolute().name,
        k=options.k,
        temperature=options.temperature,
        batch_size=options.batch_size,
        on_missing=options.on_missing,
        limit=options.limit,
        equivalence=equivalence,
    )
    add_subsets(options, data, answers)
    answers.summary["settings"] |= {"generator": options.generator, "retrieved": options.retrieved}
    if options.out is not None:
        print(f"written to {answers.write(options.out)}")
    summary = answers.summary
    print(f"{summary['task']} {summary['split']}: {summary['questions']:,} questions answered")
    for name, value in summary["measures"].items():
        print(f"{name:>20} {value:.4f}")
    print_subsets(summary)
    if summary["task"] == "EVQA" and equivalence is None:
        print("BEM, the paper's measure of EVQA, is a model of its own: name one by --equivalence")
