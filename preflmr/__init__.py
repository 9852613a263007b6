"""PreFLMR: models and training on top of lateint. Nothing heavy is imported before a name is asked for."""

from importlib import import_module
from typing import Any

_HOMES = {
    "PreFLMR": "model.flmr",
    "Encoder": "encoder",
    "FLMROutput": "model.output",
    "FLMRConfig": "config",
    "FLMRTextConfig": "config",
    "FLMRVisionConfig": "config",
    "FLMRQueryTokenizer": "model.tokenization",
    "FLMRDocumentTokenizer": "model.tokenization",
    "ImageProcessor": "model.processing",
    "blank_image": "model.processing",
}
# What the reference calls them.
_PUBLISHED = {
    "FLMRModelForRetrieval": "PreFLMR",
    "FLMRQueryEncoderTokenizer": "FLMRQueryTokenizer",
    "FLMRContextEncoderTokenizer": "FLMRDocumentTokenizer",
}

__all__ = sorted([*_HOMES, *_PUBLISHED])


def __getattr__(name: str) -> Any:
    known = _PUBLISHED.get(name, name)
    if known not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[known]}"), known)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
