"""What may happen with a damaged index: it is refused in a sentence, or it answers something."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable
from enum import IntEnum

from lateint import FieldError, FormatError
from lateint.ids import UnknownIdError


class Outcome(IntEnum):
    """From good to bad."""

    answered = 0
    refused_when_searched = 1
    refused_when_opened = 2
    out_of_memory = 3
    unexpected_error = 4


REFUSALS = (
    "the index is damaged",
    "a query token is not finite when rotated",
    "must be a C-contiguous array",
    "there is no such segment, or it has no such tokens",
    "stem must be one of",  # which the manifest says, and so for the next one
    "PyStemmer",
)
LOG = "LATEINT_FUZZ_LOG"  # names the file that unexpected errors are appended to


def attempt(stage: str, call: Callable[[], object]) -> Outcome:
    """Calls, and says how it went. ``stage`` is opening or searching."""
    refused = Outcome.refused_when_opened if stage == "opening" else Outcome.refused_when_searched
    try:
        call()
    except (FormatError, UnknownIdError, FieldError):  # the latter where an id, or a field, leads nowhere
        return refused
    except MemoryError:
        return Outcome.out_of_memory
    except (RuntimeError, TypeError, IndexError, ValueError, ImportError) as error:
        if any(sentence in str(error) for sentence in REFUSALS):
            return refused
        return _unexpected()
    except Exception:
        return _unexpected()
    return Outcome.answered


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Of all calls of a variant."""
    return max(outcomes)


def _unexpected() -> Outcome:
    if path := os.environ.get(LOG):
        with open(path, "a", encoding="utf-8") as log:
            log.write(traceback.format_exc(limit=-4) + "\n")
    return Outcome.unexpected_error
