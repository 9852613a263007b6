"""Data sets in the columns of M2KR, the benchmark of PreFLMR (arXiv 2402.08327), from the hub or from a folder.

A data set is a table of questions and a table of passages:

=====================  ==============================================================================
questions              ``question_id``, ``question``, ``pos_item_ids`` (or ``answers``, or both), and if any
                       ``instruction``, ``img_path`` (a path or a list of them), ``answers``
passages               ``passage_id``, ``passage_content``, and if any ``img_path``
=====================  ==============================================================================

It is read from the hub (configurations ``X_data`` and ``X_passages``), from a copy of that layout on disk, from a
folder of its own (``SPLIT.jsonl`` and ``passages.jsonl``, gzipped or as parquet, with ``images.zip``, ``images/`` or
pictures beside them), or from a folder in BEIR's layout (``corpus.jsonl``), whose queries have no picture.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lateint.collection import Collection
from preflmr.data import rows
from preflmr.data.images import Images, Root
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


@dataclass(frozen=True)
class Example:
    """A question, with its pictures, and the passages that answer it.

    Attributes:
        instruction: the row's own; None where it has none.
        images: paths, for `preflmr.data.images.Images`; empty where the row has no picture.
        answers: strings, one of which a passage must contain to count for pseudo recall.
        corpus: names the passages that its ids are about; negatives may come from there.
    """

    question_id: str
    question: str
    instruction: str | None
    images: tuple[str, ...]
    positive_ids: tuple[str, ...]
    answers: tuple[str, ...]
    corpus: str


@dataclass(frozen=True)
class Passages:
    """The documents to find, by position.

    Attributes:
        images: their pictures' paths, None for one without; None if no passage has any.
    """

    ids: list[str]
    texts: list[str]
    images: list[str | None] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def position(self, id: str) -> int:
        """Where a passage is.

        Raises:
            KeyError: there is no such passage.
        """
        return self.positions[id]

    @cached_property
    def positions(self) -> dict[str, int]:
        return {id: position for position, id in enumerate(self.ids)}

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same ids, texts and pictures' paths in the same order, and for no others."""
        digest = hashlib.blake2b(digest_size=16)
        for id, text, image in zip(self.ids, self.texts, self.images or [None] * len(self), strict=True):
            digest.update(repr((id, text, image)).encode())
        return digest.hexdigest()


@dataclass
class Dataset:
    """The questions of a split and the passages among which their answers are.

    Attributes:
        images: where the pictures are; None if nowhere was said.
        dropped: what ``strict=False`` let pass, and how often.
    """

    task: Task
    split: str
    examples: list[Example]
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
        images: folders or zips with the pictures; None: those in ``source``, if it is a folder.
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
    folder = Path(source)
    known = task_of(task if task is not None else folder.name)
    split = _ALIASES.get(split, split)
    dropped: Counter[str] = Counter()
    if (folder / "corpus.jsonl").is_file() or (folder / "corpus.jsonl.gz").is_file():
        return _load_beir(folder, known, split, passages, limit, seed, strict)
    place = _Place(source, known)
    questions = place.questions(split)
    if not isinstance(passages, Passages):
        passages = _read_passages(
            place.passages(split) if passages is None else rows.at(passages, "passages"), strict, dropped
        )
    if images is None:
        images = place.images()
    elif not isinstance(images, Images):
        images = Images(images)
    examples = list(_examples(questions, known.name, passages, limit, seed, strict, dropped))
    if not examples:
        raise ValueError(f"{questions.name}: must hold at least one question, found none")
    return Dataset(known, split, examples, passages, images, dict(dropped))


def load_passages(source: Root, *, strict: bool = True) -> Passages:
    """The passages of a file (``.jsonl``, ``.jsonl.gz``, ``.parquet``), or of a folder that holds ``passages``.

    Raises:
        FileNotFoundError, ValueError: as `load`.
    """
    return _read_passages(rows.at(source, "passages"), strict, Counter())


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

    def images(self) -> Images | None:
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


def _read_passages(table: rows.Table, strict: bool, dropped: Counter[str]) -> Passages:
    ids: dict[str, None] = {}
    texts: list[str] = []
    images: list[str | None] = []
    for place, row in table.rows(("passage_id", "passage_content"), ("img_path",)):
        id, text = _id(row["passage_id"], "passage_id", place), row["passage_content"]
        if not isinstance(text, str):
            raise ValueError(f"{place}: 'passage_content' must be a string, got {text!r}")
        if id in ids:
            _refuse(strict, dropped, "passages with an id that came before", f"{place}: passage {id!r} comes twice")
            continue
        if not text.strip() and not row.get("img_path"):
            _refuse(strict, dropped, "empty passages", f"{place}: passage {id!r} is empty")
            continue
        ids[id] = None
        texts.append(text)
        images.append(row.get("img_path") or None)
    if not ids:
        raise ValueError(f"{table.name}: must hold at least one passage, found none")
    return Passages(list(ids), texts, images if any(images) else None)


def _examples(
    table: rows.Table,
    corpus: str,
    passages: Passages,
    limit: int | None,
    seed: int | None,
    strict: bool,
    dropped: Counter[str],
) -> Iterator[Example]:
    known = ("pos_item_ids", "instruction", "img_path", "answers", "gold_answer")
    seen: set[str] = set()
    for place, row in table.rows(("question_id", "question"), known, limit, seed):
        if "pos_item_ids" not in row and "answers" not in row:
            raise ValueError(f"{place}: must have the columns pos_item_ids or answers, found {', '.join(row)}")
        id = _id(row["question_id"], "question_id", place)
        positives = [_id(one, "pos_item_ids", place) for one in _list(row, "pos_item_ids", place)]
        answers = _strings(row, "answers", place) or _strings(row, "gold_answer", place)
        if id in seen:
            _refuse(strict, dropped, "questions with an id that came before", f"{place}: question {id!r} comes twice")
        seen.add(id)
        if not positives and not answers:
            _refuse(
                strict, dropped, "questions without answer", f"{place}: question {id!r} has no positives or answers"
            )
        for one in [one for one in positives if one not in passages.positions]:
            message = f"{place}: positive {one!r} of question {id!r} is not among the {len(passages):,} passages"
            _refuse(strict, dropped, "positives that are no passage", message)
            positives.remove(one)
        yield Example(
            id,
            "".join(_strings(row, "question", place)),
            "".join(_strings(row, "instruction", place)).strip() or None,
            tuple(path for path in _strings(row, "img_path", place) if path),
            tuple(positives),
            tuple(answers),
            corpus,
        )


def _load_beir(
    folder: Path,
    task: Task,
    split: str,
    passages: Root | Passages | None,
    limit: int | None,
    seed: int | None,
    strict: bool,
) -> Dataset:
    dropped: Counter[str] = Counter()
    names = [name for name in _NAMES.get(split, (split,)) if _judges(folder, name)]
    collection = Collection.read(folder, names[0] if names else None if split == "test" else split)
    if passages is None:
        documents = dict(zip(collection.doc_ids, collection.documents, strict=True))
        for id in [id for id, text in documents.items() if not text.strip()]:
            _refuse(strict, dropped, "empty passages", f"{folder}: document {id!r} is empty")
            del documents[id]
        passages = Passages(list(documents), list(documents.values()))
    elif not isinstance(passages, Passages):
        passages = load_passages(passages, strict=strict)
    judged = collection.judged
    kept = rows.kept(len(judged), limit, seed)
    examples = []
    for number in judged if kept is None else [judged[position] for position in kept]:
        id = collection.query_ids[number]
        positives = tuple(document for document, grade in collection.qrels[id].items() if grade > 0)
        examples.append(Example(id, collection.queries[number], None, (), positives, (), task.name))
    return Dataset(task, split, examples, passages, None, dict(dropped))


def _judges(folder: Path, split: str) -> bool:
    return any((folder / name).is_file() for name in (f"qrels/{split}.tsv", f"qrels.{split}.tsv"))


def _refuse(strict: bool, dropped: Counter[str], what: str, message: str) -> None:
    if strict:
        raise ValueError(message)
    dropped[what] += 1


def _id(value: Any, column: str, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"{place}: {column!r} must hold strings or integers, got {value!r}")
    return str(value)


def _list(row: Any, column: str, place: str) -> list[Any]:
    value = row.get(column)
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{place}: {column!r} must be a list, got {value!r}")
    return list(value)


def _strings(row: Any, column: str, place: str) -> list[str]:
    """A column that is a string, a list of strings, or null, as a list."""
    value = row.get(column)
    values = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise ValueError(f"{place}: {column!r} must hold strings, got {value!r}")
    return values
