"""Random collections of words, and their postings."""

import itertools

import numpy as np

from lateint_kernels.text.building import invert


def words(rng, documents, vocabulary=40, longest=30):
    """Documents as lists of terms, some of them empty, with frequent and rare terms."""
    lengths = rng.integers(0, longest, documents)
    lengths[rng.random(documents) < 0.1] = 0
    return [
        [b"t%d" % min(vocabulary - 1, int(number)) for number in rng.geometric(0.12, length) - 1] for length in lengths
    ]


def postings(documents):
    """A segment of documents that are lists of terms."""
    terms = sorted({term for document in documents for term in document}, reverse=True)
    numbers = {term: number for number, term in enumerate(terms)}
    flat = np.array([numbers[term] for document in documents for term in document], np.uint32)
    return invert(terms, flat, np.cumsum([0, *map(len, documents)]))


def cut(rng, documents, parts):
    """The documents in so many runs, some perhaps empty."""
    cuts = [0, *sorted(rng.integers(0, len(documents) + 1, parts - 1).tolist()), len(documents)]
    return [documents[first:last] for first, last in itertools.pairwise(cuts)]
