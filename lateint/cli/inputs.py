"""What options name: documents, queries, encoders and conditions."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lateint.cli.files import load, read_carried, read_json, read_texts
from lateint.cli.messages import options_for
from lateint.index import Index
from lateint.text.analyzer import Analyzer
from lateint_kernels import Ragged


def documents(options: argparse.Namespace) -> dict[str, Any]:
    """Documents as arguments of `Index.build` and `Index.add`: saved embeddings, or texts."""
    ids = None if options.ids is None else read_json(options.ids, "--ids")
    if (options.texts is None) == (options.tokens is None) or (options.tokens is None) != (options.lengths is None):
        raise ValueError("give either --tokens with --lengths, or --texts with --encoder")
    carried = read_carried(options.documents)
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
    found = {name: dict(enumerate(values)) for name, values in read_carried(options.documents).items()}
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


def encoder_of(options: argparse.Namespace) -> Any:
    """The encoder that the options name, or None."""
    return None if options.encoder is None else encoder(options.encoder, options.encoder_options)


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


def by_number(named: dict[str, Any], option: str) -> dict[int, Any]:
    """A mapping from numbers, which are strings in JSON."""
    try:
        return {int(number): name for number, name in named.items()}
    except ValueError:
        raise ValueError(f"{option} must be a list, or an object whose keys are numbers") from None


def ids(index: Index, names: list[str]) -> list[Any]:
    """Ids as a shell hands them over: numbers where those of the index are."""
    numbers = len(index) > 0 and not isinstance(index.ids[0], str)
    return [int(name) if numbers else name for name in names]
