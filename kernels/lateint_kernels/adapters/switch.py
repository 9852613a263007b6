"""Functions of another library replaced by ours, until undone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import distributions
from types import TracebackType
from typing import Any


class Switch:
    """Replaces attributes at once; `undo`, or leaving the ``with`` block, puts the old ones back.

    Args:
        replacements: ``(module, name)`` to what the module shall have under that name.

    Raises:
        RuntimeError: a module has no such name: its version is one that the adapter does not know.

    >>> import math
    >>> with Switch({(math, "tau"): 6.0}):
    ...     math.tau
    6.0
    >>> math.tau
    6.283185307179586
    """

    def __init__(self, replacements: Mapping[tuple[Any, str], Any]) -> None:
        for module, name in replacements:
            if not hasattr(module, name):
                raise RuntimeError(f"{module.__name__} has no {name}: this adapter does not know its version")
        self._before = {(module, name): getattr(module, name) for module, name in replacements}
        self._set(replacements)

    def undo(self) -> None:
        """Puts back what was there before; a second call does nothing."""
        self._set(self._before)
        self._before = {}

    def _set(self, values: Mapping[tuple[Any, str], Any]) -> None:
        for (module, name), value in values.items():
            setattr(module, name, value)

    def __enter__(self) -> "Switch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.undo()


@contextmanager
def needed(library: str, release: str) -> Iterator[None]:
    """Imports of another library, whose failure is told in one sentence.

    Args:
        library: what pip calls it, which is what Python calls it but for hyphens.
        release: the lowest that has what is imported.

    Raises:
        ImportError: it is not installed, or an older release is. What the library itself cannot import keeps its error.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != library.replace("-", "_"):
            raise
        found = next((each.version for each in distributions(name=library)), "none")
        wanted = f"{library}>={release}"
        message = f"this adapter needs {wanted}, found {found}: pip install '{wanted}'"
        raise type(error)(message, name=error.name) from error
