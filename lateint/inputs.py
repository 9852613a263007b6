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
from lateint.quality.collection import json_object, lines
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


def vector(text: str) -> dict[str, Any]:
    """A sparse vector in JSON; argparse names the option."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"must be JSON: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object of terms and weights, got {type(found).__name__}")
    return found


def add_tokens(parser: Any, prefix: str, required: bool = True) -> None:
    """Options for saved embeddings."""
    parser.add_argument(
        f"--{prefix}tokens",
        required=required,
        metavar="NPY",
        help="all tokens, end to end [T, dim] or padded [n, L, dim]",
    )
    parser.add_argument(f"--{prefix}lengths", required=required, metavar="NPY", help="[n]: tokens of each")


def add_encoder(parser: Any) -> None:
    """Options for an encoder."""
    parser.add_argument(
        "--encoder", metavar="MODULE:CLASS", help="such as lateint.encoders:PyLate, see lateint.encoders"
    )
    parser.add_argument("--encoder-options", metavar="JSON", default="{}", help="keyword arguments of CLASS")


def build_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Those of a build that every command with one has."""
    return {name: getattr(options, name) for name in ("nbits", "seed", "max_ram", "pool", "threads")}


def search_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the user set; the rest is left to the index."""
    settings = {name: getattr(options, name) for name in ("nprobe", "candidates", "recall", "threads")}
    settings = {name: value for name, value in settings.items() if value is not None}
    return {**settings, "exhaustive": True} if options.exhaustive else settings


def encoder_of(options: argparse.Namespace) -> Any:
    """The encoder that the options name, or None."""
    return None if options.encoder is None else encoder(options.encoder, options.encoder_options)


def documents(options: argparse.Namespace) -> dict[str, Any]:
    """Documents as arguments of `Index.build` and `Index.add`: saved embeddings, or texts."""
    ids = None if options.ids is None else read_json(options.ids, "--ids")
    if (options.texts is None) == (options.tokens is None) or (options.tokens is None) != (options.lengths is None):
        raise ValueError("give either --tokens with --lengths, or --texts with --encoder")
    carried = _carried(options.documents)
    if options.texts is None:
        return {"doc_embs": load(options.tokens), "lengths": load(options.lengths), "ids": ids, **carried}
    if options.encoder is None:
        raise ValueError("--texts needs --encoder, such as lateint.encoders:PyLate")
    if "texts" in carried:
        raise ValueError("--documents must hold metadata alone where --texts has the texts")
    texts, named = read_texts(Path(options.texts))
    if ids is not None and named is not None:
        raise ValueError(f"--ids must be left out: the lines of {options.texts} have ids")
    return {"texts": texts, "ids": named if ids is None else ids, **carried}


def beside(options: argparse.Namespace) -> dict[str, Any]:
    """What files say of the documents in another index, as arguments of `Index.convert`.

    A line is of the document that has its number there, counted from 0; in a .tsv file the number is the first column.
    """
    ids = None if options.ids is None else read_json(options.ids, "--ids")
    if isinstance(ids, dict):
        ids = by_number(ids, "--ids")
    found = {name: dict(enumerate(values)) for name, values in _carried(options.documents).items()}
    if options.texts is None:
        return {"ids": ids, **found}
    if "texts" in found:
        raise ValueError("--documents must hold metadata alone where --texts has the texts")
    path = Path(options.texts)
    texts, named = read_texts(path, counted=True)
    if path.suffix == ".tsv":
        assert named is not None
        if wrong := next((one for one in named if not isinstance(one, int)), None):
            raise ValueError(f"--texts: the first column of {path} must have numbers, got {wrong[:64]!r}")
        return {"ids": ids, "texts": dict(zip(named, texts, strict=True)), **found}
    if named is None:
        return {"ids": ids, "texts": dict(enumerate(texts)), **found}
    if ids is not None:
        raise ValueError(f"--ids must be left out: the lines of {path} have ids")
    return {"ids": dict(enumerate(named)), "texts": dict(enumerate(texts)), **found}


def read_texts(path: Path, *, counted: bool = False) -> tuple[list[str], list[Any] | None]:
    """Texts of a file, and their ids where they have any.

    A line is a text; with the ending .jsonl it is an object; with .tsv it is id, text and perhaps title, with tabs
    between them, as ColBERT reads it. Empty lines are left out; where lines are ``counted``, they are refused.

    Raises:
        ValueError: a line is not what it must be; the message begins with file and line.
    """
    rows = list(lines(path))
    if path.suffix == ".tsv":
        return _columns(rows)
    if counted and (empty := next((i for i, (place, _) in enumerate(rows, 1) if place != f"{path}, line {i}"), None)):
        raise ValueError(f"{path}, line {empty}: must not be empty, for each line is of one document")
    if ".jsonl" not in path.suffixes:
        return [line for _, line in rows], None
    texts, ids = [], []
    for place, line in rows:
        row = json_object(place, line)
        if not isinstance(row.get("text"), str):
            raise ValueError(f"{place}: 'text' must be a string, got {row.get('text')!r}")
        texts.append(f"{row.get('title') or ''} {row['text']}".strip())
        ids.append(row.get("_id", row.get("id")))
    if all(id is None for id in ids):
        return texts, None
    if None in ids:
        raise ValueError(f"{rows[ids.index(None)][0]}: must have '_id' or 'id', as other lines have")
    return texts, ids


def _columns(rows: list[tuple[str, str]]) -> tuple[list[str], list[Any]]:
    """Texts and ids, numbers if all of them are."""
    texts, ids = [], list[Any]()
    for place, line in rows:
        columns = line.split("\t")
        if len(columns) not in (2, 3):
            raise ValueError(f"{place}: must be id, text and perhaps title, got {len(columns)} columns")
        ids.append(columns[0])
        texts.append(" ".join([*columns[2:], columns[1]]).strip())
    return texts, [int(id) for id in ids] if all(id.isdecimal() for id in ids) else ids


def packed_queries(options: argparse.Namespace) -> Ragged:
    """Saved queries of ``--tokens`` and ``--lengths``."""
    if options.lengths is None:
        raise ValueError("--tokens needs --lengths")
    return packed(load(options.tokens), load(options.lengths))


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


def _carried(path: str | None) -> dict[str, Any]:
    """Texts, metadata and sparse vectors of a file of JSON lines, as `lateint.Index.build` takes them."""
    if path is None:
        return {}
    found: dict[str, list[Any]] = {"texts": [], "metadata": [], "sparse": []}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                unknown = sorted(row.keys() - {"id", "text", "metadata", "sparse"})
            except (ValueError, AttributeError, RecursionError) as error:
                raise ValueError(f"--documents: line {number} of {path} is no JSON object: {error}") from None
            if unknown:
                raise ValueError(
                    f"--documents: line {number} of {path} must have text, metadata and sparse only, got "
                    f"{unknown[0][:64]!r}"
                )
            for name, values in found.items():
                values.append(row.get("text" if name == "texts" else name))
    return {name: values for name, values in found.items() if any(value is not None for value in values)}


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
            error.args = (" ".join([names.get(first, first), *rest]),)
        raise


@contextmanager
def options_of(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Has messages name options and not the arguments of Python that they stand for."""
    try:
        yield
    except (TypeError, ValueError, OSError) as error:
        if len(error.args) == 1 and isinstance(message := error.args[0], str):
            error.args = (_with_options(message, set(_destinations(parser))),)
        raise


def _destinations(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _destinations(command)
        elif any(option.startswith("--") for option in action.option_strings):
            yield action.dest


def _with_options(message: str, names: set[str]) -> str:
    """An argument is the first word, has an underscore, or is written ``name=``, perhaps with True behind it."""

    def option(match: re.Match[str]) -> str:
        known = match["name"] in names
        marked = match.start() == 0 or "_" in match["name"] or match["value"]
        return f"--{match['name'].replace('_', '-')}" if known and marked else match[0]

    return re.sub(r"(?<![\w/.'\"-])(?P<name>[a-z]+(?:_[a-z]+)*)(?P<value>=(?:True)?)?(?![\w/.'\"])", option, message)


def load(path: str) -> NDArray[Any]:
    """A saved array, mapped, not read."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .npy file: {error}") from None
    return array
