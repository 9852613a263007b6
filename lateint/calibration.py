"""What was measured of the recall of searches, and which settings keep a promise of it: conformal risk control.

Settings of growing cost are the rungs of a ladder. The loss of a query at a rung is the share of the true best k that a
search with its settings misses. For n queries of a calibration, and one more of the same kind (exchangeable with them),
the expected loss of the latter is at most

    n / (n + 1) * (mean loss of the n) + 1 / (n + 1)

at the cheapest rung where this is at most 1 - target (Angelopoulos et al., arXiv 2208.02814, theorem 1), if no query
loses more at a higher rung than at a lower one. A few do, so the loss at a rung counts as the largest from there on up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from lateint_kernels.codes.engine import Limits

QUERIES, EXCERPTS = "queries", "excerpts"  # what was asked
ROUNDING = 1e-9  # of what a promise is held to: 1 - 0.9 is less than 0.1
MOST = 1 << 48, 1 << 32  # of tokens and queries; of a setting
MOST_RUNGS, MOST_LADDERS = 64, 64
SETTINGS = ("nprobe", "candidates", "patience", "cells", "sampled", "lists", "deviations")


@dataclass(frozen=True)
class Rung:
    """Settings of a search, and what they miss.

    Attributes:
        limits: see `lateint_kernels.codes.engine.Limits`; None: every document is scored.
        loss: the share of the true best k that was missed here or at any higher rung, as a mean over queries.
    """

    limits: Limits | None
    loss: float

    @property
    def recall(self) -> float:
        """What was not missed."""
        return 1.0 - self.loss


EXHAUSTIVE = Rung(None, 0.0)


@dataclass(frozen=True)
class Ladder:
    """Rungs for the best k, from the cheapest to the exhaustive scan."""

    k: int
    rungs: tuple[Rung, ...]

    def lowest(self, recall: float, queries: int) -> int | None:
        """The number of the first rung that holds ``recall`` by risk control; None: with so few queries, none does."""
        allowed = (queries + 1) * (1.0 - recall) + ROUNDING
        return next((i for i, rung in enumerate(self.rungs) if queries * rung.loss + 1.0 <= allowed), None)


@dataclass(frozen=True)
class Choice:
    """Settings that were chosen for a search.

    Attributes:
        recall: that was asked for.
        k: for which they were measured, at least that of the search.
        limits: as of `Rung`.
    """

    recall: float
    k: int
    limits: Limits | None


@dataclass(frozen=True)
class Calibration:
    """The recall of searches with settings of growing cost, measured against the exhaustive scan of the same codes.

    Attributes:
        source: ``"queries"``, or ``"excerpts"``: of documents, for want of queries, which need not be like them.
        queries: how many were asked.
        ladders: by ascending k.
        tokens: that the index had.
        residual_norm: how far its tokens were from their centroids, on average; None: it had none.
        codec_crc32: the checksum of its codec.
    """

    source: str
    queries: int
    ladders: tuple[Ladder, ...]
    tokens: int
    residual_norm: float | None
    codec_crc32: int

    def choose(self, recall: float, k: int, *, higher: int = 0) -> Choice:
        """The cheapest settings that hold ``recall`` for the best ``k``, or so many rungs ``higher``.

        Raises:
            ValueError: that cannot be known from what was measured; the message says why.
        """
        ladder = next((ladder for ladder in self.ladders if ladder.k >= k), None)
        if ladder is None:
            raise ValueError(
                f"recall is known for k up to {self.ladders[-1].k:,}, got k {k:,}: calibrate(k=...) with a larger one"
            )
        lowest = ladder.lowest(recall, self.queries)
        if lowest is None:
            raise ValueError(
                f"recall {recall:g} needs a calibration with at least {needed(recall):,} queries, this one has "
                f"{self.queries:,}"
            )
        chosen = min(lowest + higher, len(ladder.rungs) - 1)
        return Choice(recall, ladder.k, ladder.rungs[chosen].limits)

    def to_json(self) -> dict[str, Any]:
        """As ``index.json`` holds it; the exhaustive rung goes without saying."""
        return {
            "source": self.source,
            "queries": self.queries,
            "tokens": self.tokens,
            "residual_norm": self.residual_norm,
            "codec_crc32": self.codec_crc32,
            "ladders": [{"k": ladder.k, "rungs": list(_rungs_to_json(ladder))} for ladder in self.ladders],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Calibration:
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is nothing that a calibration can be.
        """
        if values["source"] not in (QUERIES, EXCERPTS):
            raise ValueError(f"source cannot be {values['source']!r}")
        norm = values["residual_norm"]
        if norm is not None:
            norm = _number(values, "residual_norm", 1e18)
        ladders = values["ladders"]
        if not isinstance(ladders, list) or not 1 <= len(ladders) <= MOST_LADDERS:
            raise ValueError(f"ladders cannot be {ladders!r:.80}")
        found = tuple(_ladder(ladder) for ladder in ladders)
        ks = [ladder.k for ladder in found]
        if ks != sorted(set(ks)):
            raise ValueError(f"ladders must be by ascending k, found {ks}")
        return cls(
            values["source"],
            _integer(values, "queries", 1, MOST[0]),
            found,
            _integer(values, "tokens", 0, MOST[0]),
            norm,
            _integer(values, "codec_crc32", 0, MOST[1] - 1),
        )

    def __str__(self) -> str:
        """A table: rungs by k."""
        kind = "queries" if self.source == QUERIES else "excerpts of documents, which need not be like queries"
        lines = [f"{self.queries:,} {kind}"]
        for ladder in self.ladders:
            lines.append(f"k {ladder.k}: recall  {'  '.join(SETTINGS)}")
            for rung in ladder.rungs:
                settings = ["exhaustive"] if rung.limits is None else _settings(rung.limits).values()
                lines.append(f"  {rung.recall:.4f}  " + "  ".join(map(str, settings)))
        return "\n".join(lines)


def needed(recall: float) -> int:
    """How many queries a calibration must have for a search to be promised ``recall``."""
    return max(1, ceil(1.0 / (1.0 - recall) - 1.0 - ROUNDING))


def _rungs_to_json(ladder: Ladder) -> Iterator[dict[str, Any]]:
    for rung in ladder.rungs:
        if rung.limits is not None:
            yield {**_settings(rung.limits), "loss": rung.loss}


def _settings(limits: Limits) -> dict[str, Any]:
    return {name: getattr(limits, name) for name in SETTINGS}


def _ladder(values: Mapping[str, Any]) -> Ladder:
    rungs = values["rungs"]
    if not isinstance(rungs, list) or len(rungs) > MOST_RUNGS:
        raise ValueError(f"rungs cannot be {rungs!r:.80}")
    found = [_rung(rung) for rung in rungs]
    losses = [rung.loss for rung in found]
    if losses != sorted(losses, reverse=True):
        raise ValueError(f"losses must not increase, found {losses}")
    return Ladder(_integer(values, "k", 1, MOST[1]), (*found, EXHAUSTIVE))


def _rung(values: Mapping[str, Any]) -> Rung:
    nprobe, candidates = (_integer(values, name, 1, MOST[1]) for name in SETTINGS[:2])
    known = {"sampled": 0, "lists": 0, **values}
    patience, cells, sampled, lists = (_integer(known, name, 0, MOST[1]) for name in SETTINGS[2:6])
    deviations = _number(values, "deviations", 1e6)
    limits = Limits(nprobe, candidates, patience, cells, deviations, sampled=sampled, lists=lists)
    return Rung(limits, _number(values, "loss", 1.0))


def _integer(values: Mapping[str, Any], key: str, least: int, most: int) -> int:
    number = values[key]
    if type(number) is not int or not least <= number <= most:
        raise ValueError(f"{key} cannot be {number!r}")
    return number


def _number(values: Mapping[str, Any], key: str, most: float) -> float:
    number = values[key]
    if type(number) not in (int, float) or not 0 <= number <= most:
        raise ValueError(f"{key} cannot be {number!r}")
    return float(number)
