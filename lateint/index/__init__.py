"""The index: the doors through which it is built, opened and searched, where what users pass is checked.

Its methods are in the modules beside this one, by what they do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, overload

from lateint.changing import merging
from lateint.index import latest
from lateint.index.building import Building
from lateint.index.changing import Changing
from lateint.index.keeping import Keeping
from lateint.index.opening import Opening
from lateint.index.reading import Reading
from lateint.index.searching import Searching
from lateint.retrieval.hits import Hits
from lateint.retrieval.queries import ManyQueries, OneQuery
from lateint_kernels.devices import Place


class Index(Building, Opening, Searching, Reading, Changing, Keeping):
    """Documents as residual codes, searched by late interaction: ``S(q, d) = sum_i max_j <q_i, d_j>``.

    Make one with `Index.build` or `Index.open`. Any number of threads may search it at once, while another changes it:
    a search sees the documents that were there when it began. docs/living.md says what holds when an index changes.

    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.standard_normal((20, 16)) for _ in range(50)]
    >>> documents = [tokens / np.linalg.norm(tokens, axis=1, keepdims=True) for tokens in documents]
    >>> index = Index.build(documents, nbits=8, progress=False)
    >>> index.search(documents[7][:5], k=3)[0].id
    7
    >>> 7 in index, 50 in index
    (True, False)
    """

    def __copy__(self) -> Index:
        """Another one that searches what this one searches now; what becomes of either does not concern the other."""
        copy = Index(self._snapshot, self.path, self._build_seconds)
        copy._encoder, copy._remote = self._encoder, self._remote
        return copy

    def __reduce__(self) -> Any:
        """An index is pickled as its path, which a process that loads it opens again. Its encoder stays behind."""
        if self.path is None and self._remote is None:
            raise TypeError("an index in memory cannot be pickled: save it, and open it by its path")
        names, place = list(self._snapshot.place.names), self._snapshot.place
        device = None if place.on_host else names if len(names) > 1 else names[0]
        where, cache = (self.path, None) if self._remote is None else self._remote
        return _unpickled, (where, device, place.memory, cache)

    def __repr__(self) -> str:
        place = self._remote[0] if self._remote is not None else str(self.path or "in memory")
        return f"Index({len(self):,} documents, {self.tokens:,} tokens, dim {self.dim}, {self.nbits} bits, {place})"


@overload
def search(
    Q: OneQuery,
    k: int = 5,
    *,
    index: Index | str | os.PathLike[str] | None = None,
    encoder: Any = None,
    **settings: Any,
) -> Hits: ...
@overload
def search(
    Q: ManyQueries,
    k: int = 5,
    *,
    index: Index | str | os.PathLike[str] | None = None,
    encoder: Any = None,
    **settings: Any,
) -> list[Hits]: ...
@overload
def search(
    Q: Any, k: int = 5, *, index: Index | str | os.PathLike[str] | None = None, encoder: Any = None, **settings: Any
) -> Any: ...
def search(
    Q: Any, k: int = 5, *, index: Index | str | os.PathLike[str] | None = None, encoder: Any = None, **settings: Any
) -> Any:
    """Searches an index in one line; see `Index.search`.

    Args:
        Q: one query ``[Lq, dim]`` or a batch; or texts.
        k: how many documents.
        index: an `Index`; the path of one, which is opened for this search alone; or None for the one that this process
            built or opened last, by whatever thread. It is kept until another takes its place; one on a device is let
            go before another is put on one, so that there need not be room for both.
        encoder: of texts, where ``index`` is a path.
        settings: passed on to `Index.search`.

    Raises:
        ValueError: ``index`` is left out before any was built or opened, or ``encoder`` is given without a path.
    """
    if index is None:
        if (index := latest.current) is None:
            raise ValueError("index must be given, for none has been built or opened in this process")
    elif not isinstance(index, Index):
        return Index._opened(index, encoder=encoder).search(Q, k, **settings)
    if encoder is not None:
        raise ValueError("encoder goes with the path of an index; one that is open has its own")
    return index.search(Q, k, **settings)


def sources(indexes: Iterable[Index]) -> list[merging.Source]:
    """Indexes as `merging` takes them, named as they are."""
    return [merging.Source(str(one.path or one), None, one._snapshot.state) for one in indexes]


def _unpickled(path: Any, device: Any, memory: int | None, cache: Path | None = None) -> Index:
    place = Place.of(device, memory)
    latest.make_room(place)
    return Index._opened(path, place) if cache is None else Index._copied(path, cache, place)
