"""An index in an actor: Ray chooses where it runs, and starts it again when it dies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint import Document, Explanation, Hits, Index
from lateint_ray.starting import ray, start

STARTING = 300.0  # seconds that an actor may take for its first answer: Ray starts a process, which opens the index
AT_ONCE = 8  # questions that an actor answers at the same time


class ActorIndex:
    """An index that an actor of Ray has opened, with the methods of `lateint.Index`; a shard for `lateint.Shards`.

    The actor opens the index by its path, which the machine that it runs on must see, and opens it again whenever it
    is started anew. While it is away, questions raise what Ray raises.

    Args:
        path: of the index.
        timeout: seconds that an answer may take, after the first one.
        num_cpus, num_gpus: that Ray keeps for it.
        device, threads: as in `lateint.Index.open` and `search`; ``threads`` None: ``num_cpus``.
        options: others of an actor, such as ``resources`` or ``scheduling_strategy``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 10.0,
        num_cpus: float = 1,
        num_gpus: float = 0,
        device: Any = None,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        start()
        self.path, self.timeout = os.path.abspath(path), timeout
        self._ready = False
        self._threads = max(1, int(num_cpus)) if threads is None else threads
        settings = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            "max_restarts": -1,
            "max_concurrency": AT_ONCE,
            "scheduling_strategy": "SPREAD",
            **options,
        }
        self.actor = ray().remote(Searcher).options(**settings).remote(self.path, device)

    def search(self, Q: Any, k: int = 5, **settings: Any) -> Any:
        """The k documents with the highest MaxSim for each query, see `lateint.Index.search`."""
        return self._hits("search", Q, k, **{"threads": self._threads, **settings})

    def rerank(self, Q: Any, ids: Iterable[Any], k: int | None = None, **settings: Any) -> Any:
        """Scores of the documents ``ids``, best first, see `lateint.Index.rerank`."""
        return self._hits("rerank", Q, ids, k, **{"threads": self._threads, **settings})

    def explain(self, Q: Any, id: Any) -> Explanation:
        """Which token of document ``id`` each query token matches best, see `lateint.Index.explain`."""
        explanation: Explanation = self._ask("explain", Q, id)
        return explanation

    def similarity(self, Q: Any, id: Any) -> NDArray[np.float32]:
        """Inner products ``[Lq, Ld]`` of all tokens of a query with all of document ``id``."""
        similarity: NDArray[np.float32] = self._ask("similarity", Q, id)
        return similarity

    def get(self, ids: Any = None, fields: Any = None, **settings: Any) -> list[Document]:
        """Texts and metadata of documents, see `lateint.Index.get`."""
        documents: list[Document] = self._ask("get", ids, fields, **settings)
        return documents

    def has(self, ids: Iterable[Any]) -> NDArray[np.bool_]:
        """``[n]``: which of these ids a document has."""
        there: NDArray[np.bool_] = self._ask("has", ids)
        return there

    def count(self, filter: Any, params: Mapping[str, Any] | None = None) -> int:
        """For how many documents a condition holds, see `lateint.Index.count`."""
        count: int = self._ask("count", filter, params)
        return count

    def refresh(self) -> bool:
        """Takes up what others have committed since; returns whether there was anything."""
        changed: bool = self._ask("refresh")
        return changed

    def stats(self) -> dict[str, Any]:
        """Sizes, see `lateint.Index.stats`."""
        stats: dict[str, Any] = self._ask("stats")
        return stats

    def close(self) -> None:
        """Ends the actor."""
        ray().kill(self.actor)

    def __len__(self) -> int:
        count: int = self._ask("__len__")
        return count

    def __repr__(self) -> str:
        return f"ActorIndex({self.path!r})"

    def _hits(self, method: str, *arguments: Any, **settings: Any) -> Any:
        found = self._ask(method, *arguments, **settings)
        return [self._made(*one) for one in found] if isinstance(found, list) else self._made(*found)

    def _made(self, ids: NDArray[Any], scores: NDArray[np.float32]) -> Hits:
        return Hits(ids, scores, read=partial(self.get, ids.tolist()))

    def _ask(self, method: str, *arguments: Any, **settings: Any) -> Any:
        try:
            asked = self.actor.ask.remote(method, arguments, settings)
            answer = ray().get(asked, timeout=self.timeout if self._ready else STARTING)
        except ray().exceptions.RayTaskError as error:
            raise (error.cause or error) from None
        self._ready = True
        return answer


class Searcher:
    """What runs in the actor."""

    def __init__(self, path: str, device: Any) -> None:
        self.index = Index.open(path, device=device)

    def ask(self, method: str, arguments: tuple[Any, ...], settings: dict[str, Any]) -> Any:
        """What a method of the index gives, hits as their ids and scores."""
        answer = getattr(self.index, method)(*arguments, **settings)
        if isinstance(answer, Hits):
            return answer.ids, answer.scores
        if isinstance(answer, list) and answer and isinstance(answer[0], Hits):
            return [(hits.ids, hits.scores) for hits in answer]
        return answer
