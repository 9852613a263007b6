"""The command ``preflmr``: train, evaluate and report; encode, index and search passages from a shell."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lateint.version import __version__


def run() -> None:
    """The console script: what a user can mend ends in one line and status 1, not in a traceback."""
    warnings.showwarning = _say
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
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
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("train", help="train a model as a recipe says")
    command.set_defaults(command=train)
    command.add_argument("--config", required=True, metavar="YAML", help="a recipe, or a shipped one")
    command.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the recipe's output")
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, such as steps=100"
    )

    command = commands.add_parser("eval", help="measure a checkpoint on a task of M2KR, or on a folder like one")
    command.set_defaults(command=evaluate)
    _add_checkpoint(command)
    command.add_argument("data", help="a folder, or a data set on the hub")
    command.add_argument("--task", help="WIT, OVEN, EVQA, ... or a name of one's own (the folder's)")
    command.add_argument("--split", default="test", help="test, valid, ... (test)")
    command.add_argument("--ks", type=int, nargs="+", metavar="K", help="cut-offs of the measures")
    command.add_argument("--limit", type=int, help="ask only so many questions")
    command.add_argument("--exact", action="store_true", help="also score every passage without an index")
    command.add_argument("--out", metavar="JSON", help="write every question's passages and measures there")
    _add_index_settings(command)
    _add_encoding(command)

    command = commands.add_parser("report", help="the paper's tables from a folder of evaluations")
    command.set_defaults(command=report)
    command.add_argument("folder", help="holds what eval wrote with --out")

    command = commands.add_parser("encode", help="write passages' embeddings for lateint build")
    command.set_defaults(command=encode)
    _add_checkpoint(command)
    _add_passages(command)
    command.add_argument("-o", "--output", required=True, metavar="FOLDER", help="for tokens, lengths and ids")
    _add_encoding(command)

    command = commands.add_parser("index", help="make passages searchable")
    command.set_defaults(command=index)
    _add_checkpoint(command)
    command.add_argument("index", help="a new folder")
    _add_passages(command)
    _add_index_settings(command)
    command.add_argument("--overwrite", action="store_true", help="replace an index that is already there")
    _add_encoding(command)

    command = commands.add_parser("search", help="find the passages for a question, a picture, or both")
    command.set_defaults(command=search)
    _add_checkpoint(command)
    command.add_argument("index", help="a folder that index made, with the same checkpoint")
    command.add_argument("--question", help="in words")
    command.add_argument("--image", action="append", metavar="FILE", help="a picture; again for one more")
    command.add_argument("--instruction", help="what to look for; '' for none (one that PreFLMR was trained with)")
    command.add_argument("--questions", metavar="JSONL", help="question, img_path, instruction, question_id a line")
    _add_images(command)
    command.add_argument("-k", type=int, default=5, help="passages a question (5)")
    command.add_argument("--json", action="store_true", help="one JSON object a question instead of text")
    command.add_argument("--nprobe", type=int, help="centroids a query token looks into")
    command.add_argument("--exhaustive", action="store_true", help="score every passage of the index")
    _add_encoding(command)
    return parser


def _add_checkpoint(command: Any) -> None:
    command.add_argument("checkpoint", help="a folder, or a model on the hub such as LinWeizheDragon/PreFLMR_ViT-L")


def _add_passages(command: Any) -> None:
    command.add_argument("--passages", required=True, metavar="FILE", help=".jsonl, .jsonl.gz or .parquet")
    _add_images(command)
    command.add_argument(
        "--on-missing", default="error", choices=("error", "skip", "blank"),
        help="a passage whose picture is missing: stop, leave it out, or keep its text (error)",
    )  # fmt: skip


def _add_images(command: Any) -> None:
    command.add_argument("--images", action="append", metavar="ROOT", help="folder or zip of pictures; again for more")


def _add_index_settings(command: Any) -> None:
    command.add_argument("--nbits", type=int, default=4, choices=(1, 2, 4, 8), help="bits a dimension (4)")


def _add_encoding(command: Any) -> None:
    command.add_argument("--batch-size", type=int, default=64, help="texts encoded at once (64)")
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="to compute in (float32)")
    command.add_argument("--device", help="cpu, cuda, cuda:1 ... (cuda where there is one)")
    command.add_argument("--processes", type=int, default=1, help="copies of the model that encode (1)")


def train(options: argparse.Namespace) -> None:
    """Runs the stages of a recipe."""
    import yaml

    overrides = {}
    for given in options.set:
        key, equals, value = given.partition("=")
        if not equals:
            raise ValueError(f"--set must be KEY=VALUE, got {given!r}")
        overrides[key] = yaml.safe_load(value)
    from preflmr import recipe_file

    try:
        stages = recipe_file.read(options.config, overrides)
    except TypeError as error:
        raise ValueError(error) from error
    from preflmr.train import run as run_stage

    for config in stages.values():
        run_stage(config, resume=options.resume)


def evaluate(options: argparse.Namespace) -> None:
    """Measures a checkpoint on one split."""
    raise NotImplementedError


def report(options: argparse.Namespace) -> None:
    """Prints the paper's tables."""
    raise NotImplementedError


def encode(options: argparse.Namespace) -> None:
    """Writes the embeddings of passages."""
    import tempfile

    from preflmr import collection, saved
    from preflmr.encode import encode_documents

    images = _images(options)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".passages.", dir=output) as folder:
        about = collection.copy(options.passages, Path(folder), images=images, on_missing=options.on_missing)
        passages = collection.Passages.open(Path(folder))
        stream = encode_documents(
            _model(options),
            passages.texts,
            passages.images if about["with_picture"] else None,
            image_source=images,
            **_encoding(options),
        )
        documents, tokens = saved.save(stream, [passage.id for passage in passages], output)
    print(f"{output}: {documents:,} passages, {tokens:,} tokens{_missing(about)}")


def index(options: argparse.Namespace) -> None:
    """Encodes passages and makes an index of them."""
    from preflmr.searcher import Searcher, check_free

    check_free(options.index, options.overwrite)
    made = Searcher.build(
        _model(options),
        options.passages,
        options.index,
        checkpoint=options.checkpoint,
        images=_images(options),
        on_missing=options.on_missing,
        nbits=options.nbits,
        overwrite=options.overwrite,
        **_encoding(options),
    )
    stats = made.index.stats()
    print(
        f"{options.index}: {stats['documents']:,} passages, {stats['tokens']:,} tokens, "
        f"{stats['bytes'] / 1e6:.1f} MB{_missing(made.about['passages'])}"
    )


def search(options: argparse.Namespace) -> None:
    """Prints the passages for one question or many."""
    from preflmr.searcher import Searcher, read_about

    asked = list(_asked(options))
    read_about(Path(options.index))
    searcher = Searcher.open(options.index, _model(options))
    found = searcher.search(
        [row["question"] for row in asked],
        [row["images"] for row in asked],
        instructions=[row["instruction"] for row in asked],
        k=options.k,
        image_source=_images(options),
        progress=options.questions is not None,
        nprobe=options.nprobe,
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
    from preflmr.rows import Table

    path = Path(options.questions)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of questions")
    for number, (place, row) in enumerate(Table(str(path), path).rows((), ())):
        question, images = row.get("question") or "", row.get("img_path") or None
        if not isinstance(question, str) or not (question.strip() or images):
            raise ValueError(f"{place}: must have a question, an img_path, or both, found {', '.join(row) or 'none'}")
        instruction = row.get("instruction") if options.instruction is None else options.instruction
        name = row.get("question_id", number)
        yield {"question_id": name, "question": question, "images": images, "instruction": instruction}


def _model(options: argparse.Namespace) -> Any:
    import torch

    from preflmr.model import PreFLMR

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return PreFLMR.from_pretrained(options.checkpoint).eval().to(device)


def _images(options: argparse.Namespace) -> Any:
    from preflmr.images import Images

    return None if options.images is None else Images(options.images)


def _encoding(options: argparse.Namespace) -> dict[str, Any]:
    return {"batch_size": options.batch_size, "dtype": options.dtype, "processes": options.processes}


def _missing(about: dict[str, Any]) -> str:
    count = about["picture_missing"]
    return f"; {count:,} pictures were missing" if count else ""


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"preflmr: warning: {message}", file=sys.stderr)
