"""Which kind of model lies at a place, and the retriever that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from preflmr.model.flmr import PreFLMR
from preflmr.retrievers.flmr import FLMR
from preflmr.retrievers.kinds import FLMR_KIND, KINDS, PAGES, PYLATE, SENTENCE_TRANSFORMERS
from preflmr.retrievers.pages import Pages
from preflmr.retrievers.protocol import Retriever
from preflmr.retrievers.texts import PyLate, SentenceTransformers
from preflmr.weights import checkpoint

_ADAPTERS: dict[str, Any] = {
    **dict.fromkeys(PAGES, Pages),
    SENTENCE_TRANSFORMERS: SentenceTransformers,
    PYLATE: PyLate,
}


def adapted(model: Any) -> Retriever:
    """A retriever of a model: a `PreFLMR`, or a retriever itself.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(model, PreFLMR):
        return FLMR(model)
    if not hasattr(model, "tokenized") or not hasattr(model, "rows"):
        known = "a PreFLMR or one of preflmr.retrievers"
        raise TypeError(f"model must be {known}, got {type(model).__name__}; preflmr.retrievers.load makes one")
    found: Retriever = model
    return found


def load(name_or_path: str | Path, kind: str | None = None, **options: Any) -> Any:
    """The model at a place: a `PreFLMR`, or a retriever of another kind.

    Args:
        name_or_path: a folder, or a name on the hub.
        kind: one of `KINDS`; None: what its configuration says.
        options: of the ``from_pretrained`` of that kind.

    Raises:
        ImportError: the library of that kind is not installed.
        ValueError: the kind is none of `KINDS`.
    """
    kind = kind_of(name_or_path) if kind is None else kind
    if kind == FLMR_KIND:
        return PreFLMR.from_pretrained(name_or_path, **options)
    if kind not in _ADAPTERS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return _ADAPTERS[kind].load(kind, str(name_or_path), **options)


def kind_of(name_or_path: str | Path) -> str:
    """The kind of the model at a place; FLMR's, which has most layouts, where nothing says another."""
    if Path(name_or_path).is_file():
        return FLMR_KIND
    said = _json(checkpoint.find(name_or_path, "config_sentence_transformers.json"))
    if said.get("model_type") == "MultiVectorEncoder":
        return SENTENCE_TRANSFORMERS
    if said.get("model_type") == "ColBERT" or "document_prefix" in said:
        return PYLATE
    kind = _json(checkpoint.find(name_or_path, "config.json")).get("model_type")
    return kind if kind in PAGES else FLMR_KIND


def _json(file: Path | None) -> dict[str, Any]:
    return {} if file is None else dict(json.loads(file.read_text(encoding="utf-8")))
