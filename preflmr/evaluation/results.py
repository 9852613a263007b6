"""What an evaluation leaves on disk, and what it says of how it was made."""

from __future__ import annotations

import json
import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from lateint.disk import whole
from lateint.version import __version__
from preflmr.retrievers.kinds import DOCUMENT, QUERY


def versions() -> dict[str, str]:
    """What a number was measured with."""
    found = {"lateint": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "numpy"):
        found[name] = metadata.version(name)
    return found


@dataclass(frozen=True)
class Results:
    """What was measured of every question, and of all.

    Attributes:
        questions: id -> what a subclass says of a question.
        summary: ``measures`` (name -> mean), what was measured, how, how long it took, and what was left out.
    """

    questions: dict[str, dict[str, Any]]
    summary: dict[str, Any]
    suffix: ClassVar[str]  # of the file of questions

    def __getitem__(self, measure: str) -> float:
        """The mean of a measure, such as ``"Recall@5"``."""
        return float(self.summary["measures"][measure])

    def write(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``TASK_RUN`` and the suffix (``TASK-SPLIT_RUN`` for another split than test), then the same with
        ``.summary.json``, for `preflmr.evaluation.report`.

        Returns:
            The path of the first.
        """
        path = result_path(folder, self.summary, self.suffix)
        write_json(path, self.questions)
        write_json(path.with_suffix(".summary.json"), self.summary)
        return path


def result_path(folder: str | os.PathLike[str], summary: dict[str, Any], suffix: str) -> Path:
    """Where the results of a run on a task and split are written; the folder is made."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    task, split, run = (_file_name(str(summary[key])) for key in ("task", "split", "run"))
    return folder / f"{task if split == 'test' else f'{task}-{split}'}_{run}{suffix}"


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all."""
    with whole.file(path) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class Cut:
    """Counts texts longer than the model reads, and warns of them once instead of once a batch."""

    def __init__(self, model: Any) -> None:
        from preflmr.retrievers import adapted

        self._retriever = adapted(model)
        self.counts: dict[str, int] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        before = dict(self._retriever.truncated)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*were longer than the model reads", UserWarning)
            yield
        for side, name in ((QUERY, "questions"), (DOCUMENT, "passages")):
            self.counts[name] = self._retriever.truncated[side] - before[side]
        if any(self.counts.values()):
            said = " and ".join(f"{count:,} {name}" for name, count in self.counts.items() if count)
            warnings.warn(f"{said} were longer than the model reads and were cut", stacklevel=4)


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-.@+" else "-" for letter in text)
