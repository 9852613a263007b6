"""How a model is measured: a frozen dataclass that checks itself, before anything is encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lateint.arguments import positive_or_none
from preflmr.config import WITHOUT_IMAGE
from preflmr.data.images import ON_MISSING

KS = (1, 5, 10, 20, 50, 100)
METHODS = ("index", "exact", "both")
LIMITS = ("nprobe", "candidates")  # of a search in the index


@dataclass(frozen=True)
class EvalConfig:
    """The settings of `evaluate`.

    Args:
        ks: cut-offs; that of the task is added.
        method: ``"index"``, ``"exact"`` (every passage is scored, no index), or ``"both"``: the index counts, and
            ``summary["exact"]`` has the exact means. The last two hold all tokens in memory.
        instruction: one for all rows; None: the row's own, or none if the model was trained without; "": none.
        without_image: what a question without a picture shows a model that reads pictures: ``"blank"``, as in the
            published evaluation, or ``"text"``: nothing; None: what it was trained with.
        on_missing: what a missing or broken picture does: ``"error"``; ``"skip"`` leaves the question out, ``"blank"``
            shows a black picture; both are counted. A passage cannot be left out: ``"skip"`` leaves its picture out.
        document_pictures: whether passages are read with their pictures; None: as the model's configuration says.
        limit: only the first so many questions.
        nbits, seed: of an index that is built; see `lateint.Index.build`.
        overwrite: replace an index that was made from something else.
        nprobe, candidates: see `lateint.Index.search`.
        searches: more ways to search the index, ``nprobe`` and ``candidates`` of each by a name: the same queries ask
            it again, and ``summary["searches"]`` has the means. What a way leaves out is None.
        threads: for building and searching.
        batch_size, dtype, device, processes: see `preflmr.encode.encode_queries`.

    Raises:
        TypeError: a way to search is no mapping.
        ValueError: a value is not one of those.
    """

    ks: Sequence[int] = KS
    method: str = "index"
    instruction: str | None = None
    without_image: str | None = None
    on_missing: str = "error"
    document_pictures: bool | None = None
    limit: int | None = None
    nbits: int = 4
    seed: int = 0
    overwrite: bool = False
    nprobe: int | None = None
    candidates: int | None = None
    searches: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)
    threads: int | None = None
    batch_size: int = 64
    dtype: Any = None
    device: Any = None
    processes: int = 1

    def __post_init__(self) -> None:
        choices = {"method": METHODS, "without_image": WITHOUT_IMAGE, "on_missing": ON_MISSING}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in allowed and not (name == "without_image" and value is None):
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if any(k < 1 for k in self.ks):
            raise ValueError(f"ks must be positive, got {list(self.ks)}")
        for name in ("limit", "nprobe", "candidates", "threads", "batch_size", "processes"):
            positive_or_none(getattr(self, name), name)
        self._check_searches()

    def _check_searches(self) -> None:
        if self.searches and self.method == "exact":
            raise ValueError("searches must be left out with method exact, which has no index to search")
        for name, limits in self.searches.items():
            if name in METHODS:
                raise ValueError(f"searches must have names of their own, got {name!r}, which is a method")
            if not isinstance(limits, Mapping):
                raise TypeError(f"searches[{name!r}] must be a mapping, got {type(limits).__name__}")
            for limit, value in limits.items():
                if limit not in LIMITS:
                    raise ValueError(f"searches[{name!r}] must give {' and '.join(LIMITS)}, got {limit!r}")
                positive_or_none(value, f"searches[{name!r}][{limit!r}]")

    @property
    def encoding(self) -> dict[str, Any]:
        """What `preflmr.encode` is told."""
        return {"batch_size": self.batch_size, "dtype": self.dtype, "device": self.device, "processes": self.processes}
