"""The tasks of M2KR (arXiv 2402.08327): what each is measured by, and what the hub has of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """What is asked of a data set, and how the paper measures it.

    Attributes:
        metric: ``"recall"`` or ``"pseudo_recall"``, see `preflmr.evaluation.measures`; None: only trained on.
        k: the paper's cut-off.
        config: the hub's configurations are ``{config}_data`` and ``{config}_passages``.
        instructions: its templates in `preflmr.instructions.TEMPLATES`; None: those of the rows only.
        splits: what the hub has.
        note: what to know before comparing numbers.
    """

    name: str
    metric: str | None = "recall"
    k: int = 5
    config: str | None = None
    instructions: str | None = None
    splits: tuple[str, ...] = ("train", "valid", "test")
    note: str = ""

    @property
    def measure(self) -> str | None:
        """The key of the paper's number in an evaluation, such as ``"Pseudo Recall@5"``."""
        names = {"recall": "Recall", "pseudo_recall": "Pseudo Recall"}
        return None if self.metric is None else f"{names[self.metric]}@{self.k}"


def _task(name: str, metric: str | None, k: int, splits: str = "train valid test", note: str = "") -> Task:
    return Task(name, metric, k, name, name, tuple(splits.split()), note)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task("WIT", "recall", 10),
        _task("IGLUE", "recall", 1, "test", "a subset of WIT, never trained on"),
        _task("KVQA", "recall", 5),
        _task("MSMARCO", "recall", 5, note="the paper's text says R@10, its tables R@5"),
        _task("OVEN", "recall", 5, note="the splits were published again in June 2024, older caches differ"),
        _task("LLaVA", "recall", 1, "train test"),
        _task("Infoseek", "pseudo_recall", 5, "train test", "the paper trained on 100K rows that it does not name"),
        _task("EVQA", "pseudo_recall", 5),
        _task("OKVQA", "pseudo_recall", 5, note="valid and test are the same rows: what selects on valid saw the test"),
        _task("CC", None, 5, "train", "CC3M in the paper; only trained on"),
    )
}
MEASURED = tuple(name for name, task in TASKS.items() if task.metric)  # the nine of the paper's Table 2, in its order
_TASK_ALIASES = {"CC3M": "CC", "E-VQA": "EVQA", "MM": "MSMARCO", "INFO": "Infoseek"}


def task_of(name: str | Task) -> Task:
    """A task by its name in `TASKS` in any case, or CC3M, E-VQA or MM; another name is a task of one's own."""
    if isinstance(name, Task):
        return name
    by_case = {key.upper(): task for key, task in TASKS.items()}
    return by_case.get(_TASK_ALIASES.get(name.upper(), name).upper()) or Task(name)
