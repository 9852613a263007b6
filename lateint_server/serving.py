"""An index that is served: a thread that searches it, and one that changes it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from prometheus_client import Histogram

from lateint import FormatError, Hits, Index
from lateint.encoders.batches import encoded_queries
from lateint_server import explaining
from lateint_server.explaining import Found, Query
from lateint_server.jobs import Job, Jobs
from lateint_server.settings import Settings

LOG = logging.getLogger("lateint_server")
TOGETHER = 64  # queries of one search, and writes of one commit
LOCK_TIMEOUT = 10.0  # seconds to wait for another process that writes
FIELDS = {"Q": "query", "doc_embs": "embedding"}  # arguments of `Index`, as requests call them


class Refused(Exception):
    """An index does not take what it was given; the message says why."""


class Served:
    """One index under its name.

    Attributes:
        searches, writes: what waits.
    """

    def __init__(self, name: str, index: Index, settings: Settings, together: Histogram) -> None:
        self.name, self.index, self._together = name, index, together
        self._pictures = settings.pictures
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
        asked: dict[int, Any] = {}
        for number, job in enumerate(jobs):
            if job.group is None:
                results[number] = _tried(job.work, view)
                continue
            asked[number] = results[number] = _tried(partial(self._opened, job.work), view)
            if not isinstance(asked[number], Exception):
                groups.setdefault(job.group, []).append(number)
        for numbers in groups.values():
            found = self._alike(view, [asked[number] for number in numbers])
            for number, result in zip(numbers, found, strict=True):
                results[number] = result
        return results

    def opened(self, query: Any) -> Any:
        """A query as `Index` takes it: a picture is opened, in the thread that asks for it.

        Raises:
            ValueError, ImportError: see `Limits.opened`.
        """
        return self._pictures.opened(query)

    def _opened(self, asked: Query, _: Index) -> Query:
        return replace(asked, queries=[self.opened(one) for one in asked.queries]) if asked.to_encode else asked

    def _alike(self, view: Index, asked: list[Query]) -> list[Any]:
        """Searches of one group in one call, or one by one if one of them is wrong."""
        self._together.observe(sum(len(one) for one in asked))
        found = _tried(partial(_search, asked), view)
        if isinstance(found, Exception):
            return [found] if len(asked) == 1 else [self._alike(view, [one])[0] for one in asked]
        (tokens, hits), results, first = found, [], 0
        for one in asked:
            last = first + len(one)
            results.append(_tried(partial(explaining.found, one, tokens[first:last], hits[first:last]), view))
            first = last
        return results

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
    except (TypeError, ValueError, ImportError) as error:  # the last: of what a filter in SQL needs
        argument, space, rest = str(error).partition(" ")
        return Refused(FIELDS.get(argument, argument) + space + rest)
    except Exception as error:
        return error


def _search(asked: list[Query], view: Index) -> tuple[list[Any], list[Hits]]:
    """The tokens of queries, and what is found for them."""
    queries = [query for one in asked for query in one.queries]
    texts = [text for one in asked for text in one.texts or ()]
    sparse = [vector for one in asked for vector in one.sparse or ()]
    if asked[0].to_encode and view.encoder is not None:
        queries = list(encoded_queries(view.encoder, queries))
    return queries, view.search(queries or None, text=texts or None, sparse=sparse or None, **asked[0].how)
