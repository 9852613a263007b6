"""Groups of arrays that a segment may have besides codes and ids: how each is made, joined and verified.

A group is a module with the functions of `Group`, a line in `GROUPS` and its arrays in `lateint.disk.layout.GROUPS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from lateint.disk.segment_files import Rows
from lateint.fields import metadata, postings, sparse, texts
from lateint.fields.records import Given
from lateint.fields.stored import Leaves, Piece


class Group(Protocol):
    """Arrays of a segment by their names there.

    Attributes:
        SOURCE: the attribute of `Given` that they are made of: where that changes, they are made, else joined.
    """

    SOURCE: str

    def make(self, given: Given) -> dict[str, NDArray[Any]]:
        """Of the documents of a segment; empty if these have nothing of the kind."""

    def join(self, pieces: Sequence[Piece]) -> dict[str, Rows]:
        """Of documents of several segments, in the order of pieces: what `make` of these documents would give.

        Raises:
            FormatError: a segment is damaged.
        """

    def problems(self, leaves: Leaves, documents: int) -> Iterator[str]:
        """What is not as docs/format.md has it, each in a sentence that begins with the name of an array.

        All of the arrays have the types and shapes that they should; their numbers may be anything.
        """


# In the order of docs/format.md.
GROUPS: Mapping[str, Group] = {"texts": texts, "metadata": metadata, "postings": postings, "sparse": sparse}


def attached(given: Given, kept: Mapping[str, Sequence[Piece]] | None = None) -> dict[str, dict[str, Rows]]:
    """The groups of a new segment: of what is given, and of what documents had before.

    Args:
        kept: of each group, the pieces that become the segment; None: its documents are new.

    Raises:
        FormatError: see `Group.join`.
    """
    found = {}
    for name, group in GROUPS.items():
        if getattr(given, group.SOURCE) is not None:
            arrays = {leaf: Rows.of(array) for leaf, array in group.make(given).items()}
        else:
            arrays = {} if kept is None else group.join(kept[name])
        if arrays:
            found[name] = arrays
    return found
