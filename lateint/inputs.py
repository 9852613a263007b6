"""What the options of the command line name: numbers, saved arrays, JSON and encoders."""

from __future__ import annotations

import argparse
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


def by_number(named: dict[str, Any], option: str) -> dict[int, Any]:
    """A mapping from numbers, which are strings in JSON."""
    try:
        return {int(number): name for number, name in named.items()}
    except ValueError:
        raise ValueError(f"{option} must be a list, or an object whose keys are numbers") from None


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
