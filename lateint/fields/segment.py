"""The groups of one segment, read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from lateint.fields import metadata, postings, sparse, texts
from lateint.fields.columns import Column, Key
from lateint.fields.groups import GROUPS
from lateint.fields.stored import Leaves, Piece
from lateint_kernels.text.segment_text import SegmentSparse, SegmentText


class SegmentFields:
    """What the documents of a segment carry, deleted ones included.

    Args:
        groups: the arrays of each group that the segment has.
        documents: how many it has.
    """

    def __init__(self, groups: Mapping[str, Leaves], documents: int) -> None:
        self.groups, self.documents = groups, documents

    @cached_property
    def columns(self) -> Mapping[Key, Column]:
        """Those of all fields.

        Raises:
            FormatError: the index is damaged, in a part that was not verified; likewise below.
        """
        leaves = self.groups.get("metadata")
        return {} if leaves is None else metadata.columns_of(leaves, self.documents)

    def text(self, row: int) -> str | None:
        """Of a document."""
        leaves = self.groups.get("texts")
        return None if leaves is None else texts.at(leaves, row)

    def metadata(self, row: int) -> dict[str, Any]:
        """Of a document; empty where it has none."""
        leaves = self.groups.get("metadata")
        return {} if leaves is None else metadata.at(leaves, row)

    @cached_property
    def postings(self) -> SegmentText:
        """Which documents have which terms."""
        return postings.of(self.groups.get("postings"), self.documents)

    @cached_property
    def sparse(self) -> SegmentSparse:
        """Which documents have which terms in their sparse vectors."""
        return sparse.of(self.groups.get("sparse"), self.documents)

    def pieces(self, first: int, last: int) -> dict[str, Piece]:
        """Some neighbouring documents, for each group."""
        return {name: Piece(self.groups.get(name), self.documents, first, last) for name in GROUPS}
