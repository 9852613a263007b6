"""What the commands of ``preflmr`` do; each imports what it needs when it is run, so that ``--help`` comes at once."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def train(options: argparse.Namespace) -> None:
    """Runs the stages of a recipe."""
    import yaml

    overrides = {}
    for given in options.set:
        key, equals, value = given.partition("=")
        if not equals:
            raise ValueError(f"--set must be KEY=VALUE, got {given!r}")
        overrides[key] = yaml.safe_load(value)
    from preflmr.training import recipe_file

    try:
        stages = recipe_file.read(options.config, overrides)
    except TypeError as error:
        raise ValueError(error) from error
    from preflmr.training.train import run as train_stage

    for name, config in stages.items():
        summary = train_stage(config, resume=options.resume)
        if os.environ.get("RANK", "0") != "0":
            continue  # the first of several devices tells
        best = f", best at step {summary['best']['step']}" if summary["best"] else ""
        print(f"{name}: {summary['steps']:,} steps in {summary['seconds']:,.0f} s{best}; {config.output}/best")


def evaluate(options: argparse.Namespace) -> None:
    """Measures a checkpoint on one split."""
    from preflmr.data import m2kr
    from preflmr.evaluation import retrieval

    data = m2kr.load(options.data, options.task, options.split, images=options.images, passages=options.passages)
    found = retrieval.evaluate(
        _model(options),
        data,
        options.index,
        run=options.run or Path(options.checkpoint).absolute().name,
        **({} if options.ks is None else {"ks": options.ks}),
        method="both" if options.exact else "index",
        instruction=options.instruction,
        on_missing=options.on_missing,
        limit=options.limit,
        nbits=options.nbits,
        nprobe=options.nprobe,
        candidates=options.candidates,
        **_encoding(options),
    )
    if options.out is not None:
        print(f"written to {found.write(options.out)}")
    summary = found.summary
    print(f"{summary['task']} {summary['split']}: {summary['questions']:,} questions, {summary['passages']:,} passages")
    for name, value in summary["measures"].items():
        exact = f"   exact {summary['exact'][name]:.4f}" if options.exact else ""
        print(f"{name:>20} {value:.4f}{exact}")


def answer(options: argparse.Namespace) -> None:
    """Answers the questions of one split."""
    from preflmr.answering import answers as answering
    from preflmr.answering import asking
    from preflmr.answering.generator import Generator
    from preflmr.data import m2kr

    found = None if options.retrieved is None else asking.read_run(options.retrieved)
    data = m2kr.load(options.data, options.task, options.split, images=options.images, passages=options.passages)
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
    answers = answering.answer(
        generator,
        data,
        found,
        run=options.run or Path(options.generator).absolute().name,
        k=options.k,
        temperature=options.temperature,
        batch_size=options.batch_size,
        on_missing=options.on_missing,
        limit=options.limit,
    )
    answers.summary["settings"] |= {"generator": options.generator, "retrieved": options.retrieved}
    if options.out is not None:
        print(f"written to {answers.write(options.out)}")
    summary = answers.summary
    print(f"{summary['task']} {summary['split']}: {summary['questions']:,} questions answered")
    for name, value in summary["measures"].items():
        print(f"{name:>20} {value:.4f}")
    if summary["task"] == "EVQA":
        print("BEM, the paper's measure of EVQA, is a model of its own and not computed")


def report(options: argparse.Namespace) -> None:
    """Prints the paper's tables."""
    from preflmr.evaluation.report import report as rendered

    print(rendered(options.folder, options.out, options.tables))


def convert(options: argparse.Namespace) -> None:
    """Writes a checkpoint in the published layout."""
    from preflmr.config import FLMRConfig
    from preflmr.model import PreFLMR

    config = None
    if options.vision is not None:
        config = FLMRConfig.from_pretrained(options.checkpoint)
        config.vision_config.implementation = options.vision
    model = PreFLMR.from_pretrained(options.checkpoint, config=config)
    model.save_pretrained(options.output)
    print(f"{options.output}: {sum(parameter.numel() for parameter in model.parameters()):,} parameters")


def encode(options: argparse.Namespace) -> None:
    """Writes the embeddings of passages."""
    from preflmr.data.passages import Passages, copy
    from preflmr.encode import encode_documents
    from preflmr.encoding import saved

    images = _images(options)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".passages.", dir=output) as folder:
        about = copy(options.passages, Path(folder), images=images, on_missing=options.on_missing)
        passages = Passages.open(Path(folder))
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
    from preflmr.data.rows import Table

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
    from preflmr.data.images import Images

    return None if options.images is None else Images(options.images)


def _encoding(options: argparse.Namespace) -> dict[str, Any]:
    return {"batch_size": options.batch_size, "dtype": options.dtype, "processes": options.processes}


def _missing(about: dict[str, Any]) -> str:
    count = about["picture_missing"]
    return f"; {count:,} pictures were missing" if count else ""
