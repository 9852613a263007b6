"""An index that is served: a thread that searches it, and one that changes it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray
from prometheus_client import Histogram

from lateint import Document, FormatError, Hits, Index
from lateint_server.jobs import Job, Jobs
from lateint_server.settings import Settings

LOG = logging.getLogger("lateint_server")
TOGETHER = 64  # queries of one search, and writes of one commit
LOCK_TIMEOUT = 10.0  # seconds to wait for another process that writes
FIELDS = {"Q": "query", "doc_embs": "embedding"}  # arguments of `Index`, as requests call them


class Refused(Exception):
    """An index does not take what it was given; the message says why."""


@dataclass(frozen=True)
class Query:
    """Queries of one request, and what holds for all of them.

    Attributes:
        how: keyword arguments of `Index.search`.
        fields: to read for each hit; None: all.
        explain: whether similarities are wanted.
    """

    queries: list[Any]
    how: dict[str, Any]
    fields: tuple[str, ...] | None
    explain: bool

    @property
    def group(self) -> str:
        """Queries of one group can be searched for in one call."""
        return repr(sorted(self.how.items()))


@dataclass(frozen=True)
class Found:
    """What a search found, and in which generation of the index.

    Attributes:
        documents: of each hit of each query, where fields were asked for.
        similarities: likewise, ``[Lq, Ld]``.
    """

    hits: list[Hits]
    documents: list[list[Document]] | None
    similarities: list[list[NDArray[Any]]] | None
    generation: int


class Served:
    """One index under its name.

    Attributes:
        searches, writes: what waits.
    """

    def __init__(self, name: str, index: Index, settings: Settings, together: Histogram) -> None:
        self.name, self.index, self._together = name, index, together
        self.searches = Jobs(f"search {name}", self._read, limit=settings.queue, most=TOGETHER)
        self.writes = Jobs(
            f"write {name}",
            self._write,
            limit=settings.queue,
            most=TOGETHER,
            idle=self._refresh,
            pause=settings.refresh,
        )

    def view(self) -> Index:
        """The index as it is now; what happens to the index does not change it."""
        return copy.copy(self.index)

    async def search(self, query: Query, timeout: float) -> Found:
        """Searches, together with whatever else waits and is searched for in the same way.

        Raises:
            Overloaded, TooLate: see `Jobs.run`.
            Refused, UnknownIdError: what `Index.search` raises.
        """
        found: Found = await self.searches.run(query, timeout, group=query.group)
        return found

    async def read(self, question: Callable[[Index], Any], timeout: float) -> Any:
        """The answer to another question, in the order of searches.

        Raises:
            As `search`.
        """
        return await self.searches.run(question, timeout)

    async def write(self, change: Callable[[Index], int], timeout: float) -> tuple[int, int, int]:
        """Makes a change, which says how many documents it concerns: returns that, the generation and the documents.

        When this returns, it cannot be lost.

        Raises:
            Overloaded, TooLate: see `Jobs.run`; in the second case the change may still be made.
            LockedError, OSError: see `Index.transaction`.
            Refused, UnknownIdError: what the change raises.
        """
        written: tuple[int, int, int] = await self.writes.run(change, timeout)
        return written

    def close(self) -> None:
        """Does what waits, and ends."""
        self.searches.close()
        self.writes.close()

    def _read(self, jobs: list[Job]) -> list[Any]:
        view = self.view()
        groups: dict[Any, list[int]] = {}
        results: list[Any] = [None] * len(jobs)
        for number, job in enumerate(jobs):
            if job.group is None:
                results[number] = _tried(job.work, view)
            else:
                groups.setdefault(job.group, []).append(number)
        for numbers in groups.values():
            found = self._alike(view, [jobs[number].work for number in numbers])
            for number, result in zip(numbers, found, strict=True):
                results[number] = result
        return results

    def _alike(self, view: Index, asked: list[Query]) -> list[Any]:
        """Searches of one group in one call, or one by one if one of them is wrong."""
        queries = [query for one in asked for query in one.queries]
        self._together.observe(len(queries))
        hits = _tried(lambda index: index.search(queries, **asked[0].how), view)
        if isinstance(hits, Exception):
            return [hits] if len(asked) == 1 else [self._alike(view, [one])[0] for one in asked]
        found, first = [], 0
        for one in asked:
            own = hits[first : first + len(one.queries)]
            first += len(one.queries)
            found.append(_tried(partial(_found, one, own), view))
        return found

    def _write(self, jobs: list[Job]) -> list[Any]:
        """All changes in one commit; one that is refused leaves the others alone."""
        with self.index.transaction(timeout=LOCK_TIMEOUT):
            results = [_tried(job.work, self.index) for job in jobs]
        after = (self.index.generation, len(self.index))
        return [one if isinstance(one, Exception) else (one, *after) for one in results]

    def _refresh(self) -> None:
        try:
            if self.index.refresh():
                LOG.info("refreshed", extra={"index": self.name, "generation": self.index.generation})
        except Exception:
            LOG.exception("refresh failed", extra={"index": self.name})


def _tried(call: Callable[[Index], Any], index: Index) -> Any:
    """What a call gives or raises."""
    try:
        return call(index)
    except FormatError as error:
        return error
    except (TypeError, ValueError) as error:
        argument, space, rest = str(error).partition(" ")
        return Refused(FIELDS.get(argument, argument) + space + rest)
    except Exception as error:
        return error


def _found(asked: Query, hits: list[Hits], view: Index) -> Found:
    documents = None if asked.fields == () else [one.documents(asked.fields) for one in hits]
    similarities = None
    if asked.explain:
        similarities = [
            [view.similarity(query, id) for id, _ in own] for query, own in zip(asked.queries, hits, strict=True)
        ]
    return Found(hits, documents, similarities, view.generation)
