"""Late-interaction models of any library behind one small protocol: what the rest of preflmr needs of a model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from preflmr.retrievers.kinds import DOCUMENT, KINDS, QUERY

if TYPE_CHECKING:
    from preflmr.retrievers.loading import adapted, kind_of, load
    from preflmr.retrievers.protocol import Reading, Retriever, Tokenized, Tokens

__all__ = ["DOCUMENT", "KINDS", "QUERY", "Reading", "Retriever", "Tokenized", "Tokens", "adapted", "kind_of", "load"]


def __getattr__(name: str) -> Any:  # torch is imported when a model is
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "loading" if name in ("adapted", "kind_of", "load") else "protocol"
    return getattr(import_module(f"{__name__}.{home}"), name)
