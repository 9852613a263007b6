"""The command ``preflmr``: train, evaluate and report; encode, index and search passages from a shell."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from lateint.version import __version__
from preflmr.commands import run as commands


def run() -> None:
    """The console script: what a user can mend ends in one line and status 1, not in a traceback."""
    warnings.showwarning = _say
    try:
        main()
    except (ValueError, OSError, ImportError, RuntimeError, FloatingPointError) as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(f"preflmr: error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; ``arguments`` as in a shell, without the program's name."""
    options = _parser().parse_args(arguments)
    options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="preflmr", description="PreFLMR: passages for questions about pictures.")
    parser.add_argument("--version", action="version", version=f"preflmr {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where in the program an error came from")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = subparsers.add_parser("train", help="train a model as a recipe says")
    command.set_defaults(command=commands.train)
    command.add_argument("--config", required=True, metavar="YAML", help="a recipe, or a shipped one")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the recipe's output")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, such as steps=100"
    )

    command = subparsers.add_parser("eval", help="measure a checkpoint on a task of M2KR, or on a folder like one")
    command.set_defaults(command=commands.evaluate)
    _add_checkpoint(command)
    _add_questions(command)
    command.add_argument("--instruction", help="one for all questions instead of their own; '' for none")
    command.add_argument("--ks", type=int, nargs="+", metavar="K", help="cut-offs of the measures")
    command.add_argument("--index", metavar="FOLDER", help="keep the index there, and use it again")
    command.add_argument("--exact", action="store_true", help="also score every passage without an index")
    _add_limits(command)
    command.add_argument("--run", help="what a report calls this checkpoint (its last name)")
    command.add_argument("--out", metavar="FOLDER", help="write every question's passages and measures there")
    _add_index_settings(command)
    _add_encoding(command)

    _add_answer(subparsers.add_parser("answer", help="answer questions with what eval found for them"))

    command = subparsers.add_parser("report", help="the paper's tables from a folder of evaluations")
    command.set_defaults(command=commands.report)
    command.add_argument("folder", help="holds what eval and answer wrote with --out")
    command.add_argument("--tables", nargs="+", metavar="N", help="only these tables of the paper")
    command.add_argument("--out", metavar="FOLDER", help="write report.md, .csv and .json there, too")

    command = subparsers.add_parser("encode", help="write passages' embeddings for lateint build")
    command.set_defaults(command=commands.encode)
    _add_checkpoint(command)
    _add_passages(command)
    command.add_argument("-o", "--output", required=True, metavar="FOLDER", help="for tokens, lengths and ids")
    _add_encoding(command)

    command = subparsers.add_parser("index", help="make passages searchable")
    command.set_defaults(command=commands.index)
    _add_checkpoint(command)
    command.add_argument("index", help="a new folder")
    _add_passages(command)
    _add_index_settings(command)
    command.add_argument("--overwrite", action="store_true", help="replace an index that is already there")
    _add_encoding(command)

    command = subparsers.add_parser("search", help="find the passages for a question, a picture, or both")
    command.set_defaults(command=commands.search)
    _add_checkpoint(command)
    command.add_argument("index", help="a folder that index made, with the same checkpoint")
    command.add_argument("--question", help="in words")
    command.add_argument("--image", action="append", metavar="FILE", help="a picture; again for one more")
    command.add_argument("--instruction", help="what to look for; '' for none (one that PreFLMR was trained with)")
    command.add_argument("--questions", metavar="JSONL", help="question, img_path, instruction, question_id a line")
    _add_images(command)
    command.add_argument("-k", type=int, default=5, help="passages a question (5)")
    command.add_argument("--json", action="store_true", help="one JSON object a question instead of text")
    _add_limits(command)
    command.add_argument("--exhaustive", action="store_true", help="score every passage of the index")
    _add_encoding(command)

    command = subparsers.add_parser("convert", help="write a checkpoint of any known layout in the published one")
    command.set_defaults(command=commands.convert)
    _add_checkpoint(command)
    command.add_argument("output", help="a folder")
    command.add_argument("--vision", choices=("transformers", "open_clip"), help="whose code runs the vision encoder")
    return parser


def _add_answer(command: Any) -> None:
    command.set_defaults(command=commands.answer)
    command.add_argument(
        "generator", help="a folder, or an image-text-to-text model on the hub such as Salesforce/blip2-flan-t5-xl"
    )
    _add_questions(command)
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
    command.add_argument("--batch-size", type=int, default=20, help="prompts at once, k a question (20)")
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="to compute in (as saved)")
    command.add_argument("--device", help="cpu, cuda, cuda:1 ... (cuda where there is one)")


def _add_questions(command: Any) -> None:
    command.add_argument("data", help="a folder, or a data set on the hub")
    command.add_argument("--task", help="WIT, OVEN, EVQA, ... or a name of one's own (the folder's)")
    command.add_argument("--split", default="test", help="test, valid, ... (test)")
    command.add_argument("--passages", metavar="FILE", help="others than those of the data")
    _add_images(command)
    _add_on_missing(command, "a question whose picture is missing: stop, leave it out, or show a black one (error)")
    command.add_argument("--limit", type=int, help="ask only so many questions")


def _add_checkpoint(command: Any) -> None:
    command.add_argument("checkpoint", help="a folder, or a model on the hub such as LinWeizheDragon/PreFLMR_ViT-L")


def _add_passages(command: Any) -> None:
    command.add_argument("--passages", required=True, metavar="FILE", help=".jsonl, .jsonl.gz or .parquet")
    _add_images(command)
    _add_on_missing(command, "a passage whose picture is missing: stop, leave it out, or keep its text (error)")


def _add_on_missing(command: Any, text: str) -> None:
    command.add_argument("--on-missing", default="error", choices=("error", "skip", "blank"), help=text)


def _add_images(command: Any) -> None:
    command.add_argument("--images", action="append", metavar="ROOT", help="folder or zip of pictures; again for more")


def _add_index_settings(command: Any) -> None:
    command.add_argument("--nbits", type=int, default=4, choices=(1, 2, 4, 8), help="bits a dimension (4)")


def _add_limits(command: Any) -> None:
    command.add_argument("--nprobe", type=int, help="centroids a query token looks into")
    command.add_argument("--candidates", type=int, help="passages scored (until more of them change nothing)")


def _add_encoding(command: Any) -> None:
    command.add_argument("--batch-size", type=int, default=64, help="texts encoded at once (64)")
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="to compute in (float32)")
    command.add_argument("--device", help="cpu, cuda, cuda:1 ... (cuda where there is one)")
    command.add_argument("--processes", type=int, default=1, help="copies of the model that encode (1)")


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"preflmr: warning: {message}", file=sys.stderr)
