"""Models that adapters hold: found by name or given, with one sentence where their package is missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any


def imported(module: str, package: str, install: str) -> Any:
    """A module of an optional package.

    Raises:
        ImportError: it is not installed; the message has the command that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:  # the package is there, and lacks something itself
            raise
        raise ImportError(f"this encoder needs {package}: pip install {install}") from None


def loaded(model: Any, load: Callable[[], Any]) -> Any:
    """The model itself, or what ``load`` makes of its name."""
    return load() if isinstance(model, (str, os.PathLike)) else model


def name_of_model(given: Any, model: Any) -> str:
    """The name or folder that a model was loaded by, or that it says it was; else that of its class."""
    if isinstance(given, (str, os.PathLike)):
        return os.fspath(given)
    for holder in (getattr(model, "model_card_data", None), getattr(model, "config", None)):
        for attribute in ("base_model", "_name_or_path", "name_or_path"):
            if isinstance(name := getattr(holder, attribute, None), str) and name:
                return name
    return type(model).__name__
