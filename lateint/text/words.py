"""What a word is, in any script; Unicode's categories are those of Python's unicodedata."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Scripts without spaces between words, and Korean, whose words carry their particles: letters, marks included.
UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e"  # Thai
    "\u0e81-\u0edf"  # Lao
    "\u1000-\u109f"  # Myanmar
    "\u1100-\u11ff\uac00-\ud7ff"  # Hangul
    "\u1780-\u17dd"  # Khmer
    "\u3005\u3007\u3041-\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_MARKS = (0x300, 0x1E94B), (0xE0100, 0xE01F0)  # where Unicode has marks
_INVISIBLE = re.compile("[\u00ad\u200c\u200d\u2060\ufeff]")  # soft hyphens, joiners: within words
_ACCENTS = re.compile("[\u0300-\u036f]")  # of Latin, Greek and Cyrillic letters
_ASCII = re.compile("[a-z0-9]+")
_RUN = re.compile(f"[{UNSPACED}]+")


def normal(text: str) -> str:
    """Lower case, with one way to write each letter (NFKC), and without what is not seen within words."""
    if text.isascii():
        return text.lower()
    lower = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).lower()
    return unicodedata.normalize("NFKC", lower)


def words(text: str, *, bigrams: bool) -> list[str]:
    """The words of a text that is `normal`: runs of letters, marks and digits.

    With ``bigrams``, a run of letters of a script without spaces is its pairs of neighbours instead, or itself where it
    is a single one.

    >>> words("state-of-the-art r2d2", bigrams=True)
    ['state', 'of', 'the', 'art', 'r2d2']
    >>> words("東京都に行く。", bigrams=True)
    ['東京', '京都', '都に', 'に行', '行く']
    """
    if text.isascii():
        return _ASCII.findall(text)
    if bigrams:
        text = _RUN.sub(_pairs, text)
    return _word().findall(text.replace("_", " "))


def without_accents(word: str) -> str:
    """A word whose Latin, Greek and Cyrillic letters have no accents."""
    if word.isascii():
        return word
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", word)))


def _pairs(run: re.Match[str]) -> str:
    letters = run.group()
    pairs = [letters[i : i + 2] for i in range(len(letters) - 1)] or [letters]
    return f" {' '.join(pairs)} "


@cache
def _word() -> re.Pattern[str]:
    """A run of what Python takes for letters and digits, and of marks, which it does not."""
    marks = "".join(
        chr(code)
        for first, end in _MARKS
        for code in range(first, end)
        if unicodedata.category(chr(code)).startswith("M")
    )
    return re.compile(f"[\\w{marks}]+")
