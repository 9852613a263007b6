"""From texts to postings."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from lateint.text.analyzer import Analyzer
from lateint_kernels.text.building import invert
from lateint_kernels.text.segment_text import SegmentText


def postings(analyzer: Analyzer, texts: Iterable[str | None]) -> SegmentText:
    """The postings of texts, in their order; None is a text without words."""
    numbers = _Numbers(analyzer)
    found, offsets = array("I"), [0]
    for text in texts:
        if text:
            found.extend(number for word in analyzer.words(text) if (number := numbers[word]) >= 0)
        offsets.append(len(found))
    terms = [term.encode() for term in numbers.terms]
    return invert(terms, np.frombuffer(found, np.uint32), np.array(offsets, np.int64))


class _Numbers(dict[str, int]):
    """The number of the term of each word, -1 for none; a word is looked at once."""

    def __init__(self, analyzer: Analyzer) -> None:
        super().__init__()
        self._term = analyzer.term()
        self.terms: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        term = self._term(word)
        number = self.terms.setdefault(term, len(self.terms)) if term else -1
        self[word] = number
        return number
