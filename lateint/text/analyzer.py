"""How texts become terms, the same in documents and queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lateint.text.words import normal, without_accents, words

LONGEST = 100  # characters of a word; what is longer is cut off
ENGLISH = """
    a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to
    was will with
"""
STOPWORDS = {"english": frozenset(ENGLISH.split())}


@dataclass(frozen=True)
class Analyzer:
    """How texts become terms, and how much these count. An index keeps it, and treats queries as it does documents.

    A text's words are its runs of letters, marks and digits, in lower case and in one way to write each letter
    (Unicode's NFKC). The first 100 characters of a word count.

    Attributes:
        stem: the language whose endings are taken off, such as ``"english"``, by the Snowball stemmer of that name,
            which needs PyStemmer (``pip install 'lateint[text]'``); None: words stay as they are.
        stopwords: words that are left out: some of them, or ``"english"`` for its most frequent ones.
        fold: whether accents of Latin, Greek and Cyrillic letters are taken off (after the endings).
        bigrams: whether runs of letters in scripts without spaces (Chinese, Japanese, Korean, Thai, Lao, Khmer,
            Myanmar) are the pairs of neighbours in them.
        k1, b: of BM25, see `lateint_kernels.reference.bm25`: how soon a repeated term says nothing new, and how much
            long texts are held back.

    Raises:
        TypeError, ValueError: one of them cannot be.

    >>> Analyzer(stopwords="english").terms("The Café of Zürich, the cafe")
    ['cafe', 'zurich', 'cafe']
    """

    stem: str | None = None
    stopwords: str | tuple[str, ...] = ()
    fold: bool = True
    bigrams: bool = True
    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self) -> None:
        if self.stem is not None and not isinstance(self.stem, str):
            raise TypeError(f"stem must be the name of a language or None, got {type(self.stem).__name__}")
        object.__setattr__(self, "stopwords", _stopwords(self.stopwords))
        for name in ("fold", "bigrams"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {type(getattr(self, name)).__name__}")
        for name, most in (("k1", 1e6), ("b", 1.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, got {type(value).__name__}")
            if not 0 <= value <= most:
                raise ValueError(f"{name} must be from 0 to {most:g}, got {value}")
            object.__setattr__(self, name, float(value))

    @classmethod
    def of(cls, given: Any) -> Analyzer | None:
        """What ``text_search`` asks for: an analyzer, or None for False and None.

        Raises:
            TypeError: it is none of these.
            ImportError, ValueError: see `term`.
        """
        if given is None or given is False:
            return None
        analyzer = cls() if given is True else given
        if not isinstance(analyzer, cls):
            raise TypeError(f"text_search must be True, False or a lateint.Analyzer, got {type(given).__name__}")
        analyzer.term()
        return analyzer

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Analyzer:
        """What a manifest holds. Raises TypeError or ValueError where it cannot be."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        return cls(**known)

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        values = asdict(self)
        if isinstance(self.stopwords, tuple):
            values["stopwords"] = list(self.stopwords)
        return values

    def words(self, text: str) -> list[str]:
        """The words of a text, in their order."""
        return words(normal(text), bigrams=self.bigrams)

    def term(self) -> Callable[[str], str]:
        """What makes a term of a word, or nothing (an empty string). For one thread.

        Raises:
            ImportError: ``stem`` needs PyStemmer, which is not installed.
            ValueError: it has no such language.
        """
        left_out = STOPWORDS[self.stopwords] if isinstance(self.stopwords, str) else frozenset(self.stopwords)
        stem = None if self.stem is None else _stemmer(self.stem)

        def term(word: str) -> str:
            word = word[:LONGEST]
            if word in left_out:
                return ""
            if stem is not None:
                word = stem(word)
            return without_accents(word) if self.fold else word

        return term

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in their order."""
        term = self.term()
        return [found for word in self.words(text) if (found := term(word))]

    def query(self, text: str) -> dict[bytes, float]:
        """The terms of a query in UTF-8, and how often it has each."""
        return {term.encode(): count for term, count in Counter(self.terms(text)).items()}


def _stopwords(given: Any) -> str | tuple[str, ...]:
    if isinstance(given, str):
        if given not in STOPWORDS:
            raise ValueError(f"stopwords must be words, or one of {', '.join(STOPWORDS)}, got {given!r}")
        return given
    if not isinstance(given, Iterable):
        raise TypeError(f"stopwords must be words, or the name of a language, got {type(given).__name__}")
    found = list(given)
    if wrong := [word for word in found if not isinstance(word, str)]:
        raise TypeError(f"stopwords must be strings, got {type(wrong[0]).__name__}")
    return tuple(sorted({normal(word) for word in found}))


def _stemmer(language: str) -> Callable[[str], str]:
    try:
        import Stemmer
    except ImportError:
        raise ImportError(
            f"the analyzer takes {language} endings off, which needs PyStemmer: pip install 'lateint[text]'"
        ) from None
    try:
        stem: Callable[[str], str] = Stemmer.Stemmer(language).stemWord
    except (KeyError, UnicodeEncodeError):
        languages = ", ".join(sorted(Stemmer.algorithms()))
        raise ValueError(f"stem must be one of {languages}, got {language!r}") from None
    return stem
