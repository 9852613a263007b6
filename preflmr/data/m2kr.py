"""Data sets in the columns of M2KR, the benchmark of PreFLMR (arXiv 2402.08327), from the hub or from a folder.

A data set is a table of questions and a table of passages:

=====================  ==============================================================================
questions              ``question_id``, ``question``, ``pos_item_ids`` (or ``answers``, or both), and if any
                       ``instruction``, ``img_path`` (a path or a list of them), ``answers``
passages               ``passage_id``, ``passage_content``, and if any ``img_path``
=====================  ==============================================================================

It is read from the hub (configurations ``X_data`` and ``X_passages``), from a copy of that layout on disk, from a
folder of its own (``SPLIT.jsonl`` and ``passages.jsonl``, gzipped or as parquet, with ``images.zip``, ``images.tar``,
``images/`` or pictures beside them), or from a folder in BEIR's layout (``corpus.jsonl``), whose queries have no
picture. The layouts of `preflmr.data.mbeir`, `preflmr.data.ret` and `preflmr.data.vidore` are read as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from preflmr.data import beir, examples, mbeir, ret, rows, vidore
from preflmr.data.examples import Example
from preflmr.data.images import Images, Root
from preflmr.data.passages import Passages, load_passages, read
from preflmr.data.tasks import MEASURED, TASKS, Task, task_of

__all__ = [
    "HUB",
    "MEASURED",
    "TASKS",
    "Dataset",
    "Example",
    "Passages",
    "Task",
    "load",
    "load_passages",
    "task_of",
]

HUB = "BByrneLab/multi_task_multi_modal_knowledge_retrieval_benchmark_M2KR"

_ALIASES = {"val": "valid", "validation": "valid", "dev": "valid"}
_NAMES = {"valid": ("valid", "val", "validation", "dev")}  # one split, as different folders call it


@dataclass
class Dataset:
    """The questions of a split and the passages among which their answers are.

    Attributes:
        images: where the pictures are; None if nowhere was said.
        dropped: what ``strict=False`` let pass, and how often.
    """

    task: Task
    split: str
    examples: Sequence[Example]
    passages: Passages
    images: Images | None = None
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.examples)


def load(
    source: Root,
    task: str | Task | None = None,
    split: str = "test",
    *,
    images: Root | Sequence[Root] | Images | None = None,
    passages: Root | Passages | None = None,
    limit: int | None = None,
    seed: int | None = None,
    strict: bool = True,
) -> Dataset:
    """Reads the questions of a split and their passages.

    Args:
        source: a folder, or the name of a data set on the hub such as `HUB`.
        task: one of `TASKS` or a name of one's own; None: the folder's name.
        split: ``"train"``, ``"valid"`` (or ``"val"``), ``"test"``, or what else the folder has.
        images: folders, zips or tars with the pictures; None: those in ``source``, if it is a folder.
        passages: passages already read (a `Passages`), or another file or folder of them; None: those of the split. A
            split without passages of its own uses ``passages``, or else the test's, or else the training's.
        limit: keep so many questions: the first, or with a ``seed`` a random choice.
        strict: refuse what is likely a mistake: a question id or passage id that comes twice, an empty passage, a
            question without positives and answers, a positive that is no passage. Otherwise the first of two passages
            counts, empty passages and positives that do not exist are left out, the rest is kept, and
            `Dataset.dropped` counts.

    Raises:
        FileNotFoundError: the folder, the split or the passages are not there.
        ValueError: columns are missing, a value has the wrong type, or as ``strict`` says; with file and row.
    """
    folder, known = Path(source), task_of(task if task is not None else Path(source).name)
    split = _ALIASES.get(split, split)
    dropped: Counter[str] = Counter()
    if passages is not None and not isinstance(passages, Passages):
        passages = read(rows.at(passages, "passages"), strict, dropped)
    if beir.is_beir(folder):
        found = beir.read_passages(folder, strict, dropped) if passages is None else passages
        names = _NAMES.get(split, (split,))
        asked = beir.read_examples(folder, names, known.name, found.positions, limit, seed)
        return Dataset(known, split, asked, found, None, dict(dropped))
    place = _place(source, known)
    questions = place.questions(split)
    found = read(place.passages(split), strict, dropped) if passages is None else passages
    pictures = place.images(split) if images is None else _opened(images)
    asked = examples.read(questions, known.name, found.positions, limit, seed, strict, dropped)
    return Dataset(known, split, asked, found, pictures, dict(dropped))


def _opened(images: Root | Sequence[Root] | Images) -> Images:
    return images if isinstance(images, Images) else Images(images)


def _place(source: Root, task: Task) -> Any:
    """Where the tables are, in M2KR's columns whatever the layout."""
    folder = Path(source)
    if vidore.is_vidore(source):
        return vidore.Place(source)
    if mbeir.is_mbeir(folder):
        return mbeir.Place(folder, task.name)
    if ret.is_ret(folder):
        return ret.Place(folder, task.name)
    return _Place(source, task)


class _Place:
    """Where the tables of a task are: on the hub, in a copy of its layout, or in a folder of one's own."""

    def __init__(self, source: Root, task: Task) -> None:
        self.name, self.task = str(source), task
        self.folder = Path(source) if Path(source).is_dir() else None
        if self.folder is None and (self.name.count("/") != 1 or self.name[0] in "./~"):
            raise FileNotFoundError(f"{source}: there is no such folder, and no data set of the hub has such a name")
        if self.folder is None and task.config is None:
            raise ValueError(f"task must be one of {', '.join(TASKS)} for a data set on the hub, got {task.name!r}")

    def questions(self, split: str) -> rows.Table:
        if self.folder is None:
            if split not in self.task.splits:
                raise self._no_split(split, self.task.splits)
            return rows.on_hub(self.name, f"{self.task.config}_data", split)
        folder = self._folder("data")
        for name in _NAMES.get(split, (split,)):
            if table := rows.find(folder, name):
                return table
        raise self._no_split(split, [stem for stem in rows.stems(folder) if not stem.endswith("passages")], folder)

    def passages(self, split: str) -> rows.Table:
        if self.folder is None:
            import datasets

            config = f"{self.task.config}_passages"
            found = datasets.get_dataset_split_names(self.name, config)
            name = next((f"{name}_passages" for name in (split, "test", "train") if f"{name}_passages" in found), None)
            if name is None:
                raise FileNotFoundError(f"{self.name} {config}: must have test_passages, found {', '.join(found)}")
            return rows.on_hub(self.name, config, name)
        folder = self._folder("passages")
        own = [f"{name}_passages" for name in _NAMES.get(split, (split,))]
        for name in (*own, "passages", "test_passages", "train_passages"):
            if table := rows.find(folder, name):
                return table
        raise FileNotFoundError(f"{folder} must hold passages.jsonl, passages.jsonl.gz or passages.parquet, found none")

    def images(self, split: str) -> Images | None:
        return None if self.folder is None else Images.under(self.folder)

    def _folder(self, kind: str) -> Path:
        assert self.folder is not None
        inner = self.folder / f"{self.task.config}_{kind}"
        return inner if inner.is_dir() else self.folder

    def _no_split(self, split: str, found: Sequence[str], folder: Path | None = None) -> FileNotFoundError:
        note = f" ({self.task.note})" if self.task.note else ""
        return FileNotFoundError(
            f"{folder or self.name}: {self.task.name} has no split {split!r}{note}, found {', '.join(found) or 'none'}"
        )
