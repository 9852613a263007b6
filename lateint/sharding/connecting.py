"""What is asked of shards before anything else: whether they are parts of one index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Any

from lateint.sharding.asking import Lost, Shard
from lateint.sharding.calling import LostError
from lateint.sharding.places import Facts, Outcome, Place, difference, is_callers


def grouped(shards: Iterable[Any], replicas: Iterable[Any] | None, timeout: float) -> list[Shard]:
    """Shards and their replicas as users pass them.

    Raises:
        TypeError, ValueError: they cannot be that.
    """
    if isinstance(shards, (str, bytes)) or not isinstance(shards, Iterable):
        raise TypeError(f"shards must be a list of paths, urls or indexes, got {type(shards).__name__}")
    first = list(shards)
    if not first:
        raise ValueError("shards must hold at least one, got none")
    others = [None] * len(first) if replicas is None else list(replicas)
    if len(others) != len(first):
        raise ValueError(f"replicas must be one for each shard, got {len(others)} for {len(first)} shards")
    return [
        Shard([Place(place, timeout) for place in (one, *_several(other))])
        for one, other in zip(first, others, strict=True)
    ]


def _several(replica: Any) -> list[Any]:
    if replica is None:
        return []
    return list(replica) if isinstance(replica, (list, tuple)) else [replica]


def connect(shards: Sequence[Shard], partial: bool, question: Callable[[Any], Facts] = Facts.of) -> Facts:
    """Asks all places what they are, compares them, and gives what the first says.

    Raises:
        ValueError: they differ; or what a place says about its index is wrong with it.
        LostError: a shard does not answer at any place, unless ``partial``; or none does.
    """
    arrived: SimpleQueue[Outcome] = SimpleQueue()
    places = [place for shard in shards for place in shard.places]
    for place in places:
        place.ask(question, None, arrived.put)
    outcomes = {outcome.place: outcome for outcome in (arrived.get() for _ in places)}
    known: dict[Place, Facts] = {place: outcome.value for place, outcome in outcomes.items() if outcome.error is None}
    for outcome in outcomes.values():
        if outcome.error is not None and is_callers(outcome.error):
            raise outcome.error
    lost = [
        Lost(shard.name, "; ".join(str(outcomes[place].error) for place in shard.places))
        for shard in shards
        if not any(place in known for place in shard.places)
    ]
    if not known or (lost and not partial):
        raise LostError(f"shards do not answer: {', '.join(map(str, lost))}", tuple(one.name for one in lost), 0.0)
    first = next(place for place in places if place in known)
    for place in known:
        place.facts, place.seconds = known[place], 0.0  # that was no search
        if wrong := difference(known[place], known[first]):
            raise ValueError(
                f"shards must be parts of one index, but {place.name} has {wrong} as {first.name}; "
                "build them with codec="
            )
    for shard in shards:
        counts = {place.name: known[place].documents for place in shard.places if place in known}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{count:,} at {name}" for name, count in counts.items())
            raise ValueError(f"replicas must hold the same documents, got {told}")
    return known[first]
