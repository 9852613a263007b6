"""What an encoder is, how one is made of a model, and what an index remembers of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

# Packages of models, and where their adapters are.
ADAPTERS = {
    "pylate": ("lateint.encoders.pylate", "PyLate"),
    "sentence_transformers": ("lateint.encoders.sentence_transformers", "SentenceTransformer"),
}


@dataclass(frozen=True)
class Places:
    """What the rows of a query stand for.

    Attributes:
        words: ``[Lq]``: the part of the text that a row stands for; "" where it stands for none.
        grid: rows and columns of the patches of the picture; None: there are none.
        first: the row of the first patch; the others follow it, row by row.
        box: left, top, right and bottom of the grid. The picture lies from 0 to 1 in both directions, so a grid may
            reach beyond it, or leave some of it out.
    """

    words: Sequence[str]
    grid: tuple[int, int] | None = None
    first: int = 0
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


@runtime_checkable
class Encoder(Protocol):
    """Texts to token embeddings; queries and documents are encoded differently.

    An encoder may have attributes more, of which an index keeps and compares the first two:

    - ``name``: a string that says which model it is;
    - ``settings``: a dict of JSON values on which the embeddings of documents depend, such as a maximal length;
    - ``spans(texts)``: ``[L, 2]`` each, where tokens begin and end in a text, in characters; `lateint_server` colours
      words by it;
    - ``query_pictures``: whether a query may be a pair of a text and a picture of Pillow;
    - ``query_places(queries)``: `Places` of each query, or None where they are not known; `lateint_server` colours the
      words and patches of a query by it.
    """

    def encode_query(self, texts: Sequence[Any], /) -> Sequence[Any]:
        """The tokens ``[Lq, dim]`` of each query: arrays or tensors of any float type."""
        ...

    def encode_document(self, texts: Sequence[Any], /) -> Sequence[Any]:
        """The tokens ``[Ld, dim]`` of each document; an encoder of pictures takes pictures."""
        ...


def adapted(model: Any) -> Encoder:
    """An encoder made of what a user has: an `Encoder`, a model of PyLate or sentence-transformers.

    An object with only ``encode(texts)`` encodes queries and documents in the same way.

    Raises:
        TypeError: it is none of these.
    """
    for base in type(model).__mro__:
        if (found := ADAPTERS.get(base.__module__.partition(".")[0])) is not None:
            module, name = found
            made: Encoder = getattr(import_module(module), name)(model)
            return made
    if isinstance(model, Encoder):
        return model
    if callable(encode := getattr(model, "encode", None)):
        return _Alike(model, encode)
    raise TypeError(
        "encoder must have encode_query and encode_document, or be a model of PyLate or sentence-transformers, "
        f"got {type(model).__name__}; see lateint.encoders"
    )


class _Alike:
    """An encoder that makes no difference between queries and documents."""

    def __init__(self, model: Any, encode: Callable[..., Any]) -> None:
        self.name, self.settings = name_of(model), settings_of(model)
        self.encode_query = self.encode_document = encode


def name_of(encoder: Any) -> str:
    """The ``name`` of an encoder, or where its class is defined."""
    name = getattr(encoder, "name", None)
    return name if isinstance(name, str) else f"{type(encoder).__module__}.{type(encoder).__qualname__}"


def settings_of(encoder: Any) -> dict[str, Any]:
    """The ``settings`` of an encoder, or none."""
    settings = getattr(encoder, "settings", None)
    return dict(settings) if isinstance(settings, Mapping) else {}


def described(encoder: Encoder) -> dict[str, Any]:
    """What an index keeps of its encoder: ``name`` and ``settings``."""
    return {"name": name_of(encoder), "settings": settings_of(encoder)}


def check_same(encoder: Encoder, kept: Mapping[str, Any] | None) -> None:
    """Refuses an encoder that is not the one of which an index keeps a description.

    Raises:
        ValueError: its name or a setting differs; the message says which.
    """
    if kept is None:
        return
    if (name := name_of(encoder)) != kept["name"]:
        raise ValueError(
            f"encoder must be {kept['name']!r}, with which this index was built, got {name!r}; "
            "if it is the same model under another name, say so with name="
        )
    settings = settings_of(encoder)
    for key in sorted({*settings, *kept["settings"]}):
        wanted, found = kept["settings"].get(key), settings.get(key)
        if wanted != found:
            raise ValueError(
                f"encoder must have {key}={wanted!r}, with which this index was built by {name!r}, got {found!r}"
            )
