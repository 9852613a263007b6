"""What an evaluation leaves on disk."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from lateint.version import __version__


def versions() -> dict[str, str]:
    """What a number was measured with."""
    found = {"lateint": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "numpy"):
        found[name] = metadata.version(name)
    return found


def result_path(folder: str | os.PathLike[str], summary: dict[str, Any], suffix: str) -> Path:
    """Where the results of a run on a task and split are written; the folder is made."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    task, split, run = (_file_name(str(summary[key])) for key in ("task", "split", "run"))
    return folder / f"{task if split == 'test' else f'{task}-{split}'}_{run}{suffix}"


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-.@+" else "-" for letter in text)
