"""What the options of the command line name: numbers, saved arrays, JSON and encoders."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.documents import Document
from lateint.fields.values import flattened
from lateint.text.analyzer import Analyzer
from lateint_kernels import Ragged


def count(text: str) -> int:
    """An integer from 1; argparse names the option."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, got {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def saved(tokens: str, lengths: str, prefix: str, expected: int) -> Ragged:
    """Saved embeddings of ``--PREFIXtokens`` and ``--PREFIXlengths``, which must be ``expected`` matrices."""
    option = f"--{prefix}lengths"
    with options_for(tokens=f"--{prefix}tokens", lengths=option, offsets=option):
        matrices = packed(load(tokens), load(lengths))
        if len(matrices) != expected:
            raise ValueError(f"lengths must hold {expected} lengths as the folder does, got {len(matrices)}")
    return matrices


def packed(tokens: NDArray[Any], lengths: NDArray[Any]) -> Ragged:
    """Of tokens end to end ``[T, dim]``, or padded ``[n, L, dim]``."""
    pack = Ragged.from_padded if tokens.ndim == 3 else Ragged.from_lengths
    return pack(tokens, lengths)


def encoder(name: str, options: str) -> Any:
    """An object of the class MODULE:CLASS, made with keyword arguments in JSON."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ValueError(f"--encoder must be MODULE:CLASS, got {name!r}")
    try:
        arguments = json.loads(options)
    except json.JSONDecodeError as error:
        raise ValueError(f"--encoder-options must be JSON, got {options!r}: {error}") from None
    if not isinstance(arguments, dict):
        raise ValueError(f"--encoder-options must be a JSON object, got {options!r}")
    sys.path.insert(0, os.getcwd())  # as `python -m` does; a console script does not
    try:
        return getattr(import_module(module), attribute)(**arguments)
    except AttributeError:
        raise ImportError(f"--encoder: module {module!r} has no {attribute!r}") from None
    finally:
        sys.path.remove(os.getcwd())


def read_json(path: str, option: str) -> Any:
    """What a file holds."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{option}: {path} is not JSON: {error}") from None


def carried(path: str | None) -> dict[str, Any]:
    """Texts and metadata of a file of JSON lines, as `lateint.Index.build` takes them."""
    if path is None:
        return {}
    texts, metadata = list[Any](), list[Any]()
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                unknown = sorted(row.keys() - {"id", "text", "metadata"})
            except (ValueError, AttributeError, RecursionError) as error:
                raise ValueError(f"--documents: line {number} of {path} is no JSON object: {error}") from None
            if unknown:
                raise ValueError(
                    f"--documents: line {number} of {path} must have text and metadata only, got {unknown[0][:64]!r}"
                )
            texts.append(row.get("text"))
            metadata.append(row.get("metadata"))
    return {"texts": texts, "metadata": metadata}


def analyzer(text: str | None) -> bool | Analyzer:
    """What ``--text-search`` says, as `lateint.Index.build` takes it."""
    if text is None:
        return False
    try:
        settings = json.loads(text)
        if not isinstance(settings, dict):
            raise ValueError(f"got {type(settings).__name__}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--text-search must be a JSON object: {error}") from None
    known = [field.name for field in dataclasses.fields(Analyzer)]
    if unknown := sorted(settings.keys() - set(known)):
        raise ValueError(f"--text-search must have {', '.join(known)} only, got {unknown[0][:64]!r}")
    return Analyzer(**settings)


def condition(text: str | None, params: str | None) -> dict[str, Any]:
    """A filter in JSON or SQL, with its parameters in JSON, as `lateint.Index.search` takes them."""
    if text is None:
        if params is not None:
            raise ValueError("params goes with --filter, which is not given")
        return {}
    given: dict[str, Any] = {"filter": text}
    try:
        if text.lstrip().startswith("{"):
            given["filter"] = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"filter is not JSON: {error}") from None
    try:
        if params is not None:
            given["params"] = json.loads(params)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"params is not JSON: {error}") from None
    return given


def as_json(document: Document) -> dict[str, Any]:
    """Text and metadata, dates as ``{"$date": ...}``."""
    return {"text": document.text, "metadata": json.loads(flattened(document.metadata, 0).text or "{}")}


def check_writable(path: Path, option: str) -> None:
    """Refuses now what would fail when the work is done."""
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise OSError(f"{option}: {path} cannot be written")


@contextmanager
def options_for(**names: str) -> Iterator[None]:
    """Has messages that begin with the name of an argument begin with that of the option for it."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        if len(error.args) == 1 and isinstance(message := error.args[0], str):
            first, *rest = message.split(" ", 1)
            message = " ".join([names.get(first, first), *rest])
            error.args = (re.sub(r"pass (\w+)=True", lambda m: "give --" + m[1].replace("_", "-"), message),)
        raise


def load(path: str) -> NDArray[Any]:
    """A saved array, mapped, not read."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy file: {error}") from None
    return array
