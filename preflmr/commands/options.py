"""Options that several commands have, and what they mean; heavy imports are made when a command runs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from preflmr.retrievers.kinds import KINDS


def add_checkpoint(command: argparse.ArgumentParser) -> None:
    """The model to use."""
    command.add_argument("checkpoint", help="a folder, or a model on the hub such as LinWeizheDragon/PreFLMR_ViT-L")


def add_model(command: argparse.ArgumentParser) -> None:
    """The model to use, of any kind."""
    add_checkpoint(command)
    command.add_argument("--kind", choices=KINDS, help="of the model (as the checkpoint says)")


def add_questions(command: argparse.ArgumentParser) -> None:
    """A data set, and which of its questions."""
    command.add_argument("data", help="a folder, or a data set on the hub")
    command.add_argument("--task", help="WIT, OVEN, EVQA, ... or a name of one's own (the folder's)")
    command.add_argument("--split", default="test", help="test, valid, ... (test)")
    command.add_argument("--passages", metavar="FILE", help="others than those of the data")
    add_images(command)
    add_on_missing(command, "a question whose picture is missing: stop, leave it out, or show a black one (error)")
    command.add_argument("--limit", type=int, help="ask only so many questions")
    add_strict(command)


def add_passages(command: argparse.ArgumentParser) -> None:
    """A file of passages."""
    command.add_argument("--passages", required=True, metavar="FILE", help=".jsonl, .jsonl.gz or .parquet")
    add_images(command)
    add_on_missing(command, "a passage whose picture is missing: stop, leave it out, or keep its text (error)")
    add_strict(command)


def add_strict(command: argparse.ArgumentParser) -> None:
    """What likely mistakes in the data do."""
    command.add_argument(
        "--strict",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="stop at likely mistakes in the data: an id that comes twice, an empty passage, a positive that is no "
        "passage; with --no-strict they are left out and counted (stop)",
    )


def add_on_missing(command: argparse.ArgumentParser, text: str) -> None:
    """What a missing picture does."""
    command.add_argument("--on-missing", default="error", choices=("error", "skip", "blank"), help=text)


def add_images(command: argparse.ArgumentParser) -> None:
    """Where pictures are."""
    command.add_argument(
        "--images", action="append", metavar="ROOT", help="folder, zip or tar of pictures; may come again"
    )


def add_index_settings(command: argparse.ArgumentParser) -> None:
    """How an index is built."""
    command.add_argument(
        "--nbits", type=int, default=4, choices=(1, 2, 4, 8),
        help="bits a dimension; the published evaluation takes 8 (4)",
    )  # fmt: skip


def add_limits(command: argparse.ArgumentParser) -> None:
    """How far a search looks."""
    command.add_argument("--nprobe", type=int, help="centroids a query token looks into")
    command.add_argument("--candidates", type=int, help="passages scored (until more of them change nothing)")


def add_encoding(command: argparse.ArgumentParser) -> None:
    """How texts and pictures are encoded."""
    command.add_argument("--batch-size", type=int, default=64, help="texts encoded at once (64)")
    command.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="to compute in (float32)")
    command.add_argument("--device", help="cpu, cuda, cuda:1 ... (cuda where there is one)")
    command.add_argument("--processes", type=int, default=1, help="copies of the model that encode (1)")


def add_unseen(command: argparse.ArgumentParser) -> None:
    """Means over questions that training does not have."""
    command.add_argument(
        "--unseen-from", metavar="SPLIT",
        help="also measure apart the questions and the entities that this split, such as train, does not have",
    )  # fmt: skip


def add_subsets(options: argparse.Namespace, data: Any, found: Any) -> None:
    """Puts the means over seen and unseen questions into a summary, if they are asked for."""
    if options.unseen_from is None:
        return
    from preflmr.data import m2kr
    from preflmr.data.overlap import Known, subset_means

    train = m2kr.load(options.data, options.task, options.unseen_from, passages=options.passages, strict=options.strict)
    found.summary["subsets"] = subset_means(data, Known(train.examples), found.questions)


def print_subsets(summary: dict[str, Any]) -> None:
    """One line a kind of questions."""
    for kind, means in summary.get("subsets", {}).items():
        shown = ", ".join(
            f"{name} {value:,.0f}" if name == "questions" else f"{name} {value:.4f}" for name, value in means.items()
        )
        print(f"{kind}: {shown}")


def model_of(options: argparse.Namespace) -> Any:
    """The checkpoint, loaded."""
    import torch

    from preflmr import retrievers

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = retrievers.load(options.checkpoint, options.kind)
    retrievers.adapted(model).model.eval().to(device)
    return model


def dataset_of(options: argparse.Namespace) -> Any:
    """The questions and their passages."""
    from preflmr.data import m2kr

    data = m2kr.load(
        options.data,
        options.task,
        options.split,
        images=options.images,
        passages=options.passages,
        strict=options.strict,
    )
    for what, count in data.dropped.items():
        print(f"preflmr: warning: {count:,} {what}", file=sys.stderr)
    return data


def images_of(options: argparse.Namespace) -> Any:
    """The pictures, or None."""
    from preflmr.data.images import Images

    return None if options.images is None else Images(options.images)


def encoding_of(options: argparse.Namespace) -> dict[str, Any]:
    """What encoders are told."""
    return {"batch_size": options.batch_size, "dtype": options.dtype, "processes": options.processes}


def missing_of(count: int) -> str:
    """How many pictures of passages were missing, to end a line with."""
    return f"; {count:,} pictures were missing" if count else ""
