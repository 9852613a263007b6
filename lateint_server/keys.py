"""Who may do what: keys with the roles read and write."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

READ, WRITE = "read", "write"  # who may write may read
VARIABLES = {READ: "LATEINT_READ_KEY", WRITE: "LATEINT_WRITE_KEY"}
SHORTEST = 16


@dataclass(frozen=True)
class Keys:
    """Keys by role; without any, everybody may do everything.

    >>> keys = Keys.of([("read", "a long enough key")])
    >>> keys.role("a long enough key"), keys.role("another"), bool(keys)
    ('read', None, True)
    """

    digests: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)  # of equal length, whatever a key's is

    @classmethod
    def of(cls, pairs: list[tuple[str, str]]) -> Keys:
        """Of (role, key) pairs.

        Raises:
            ValueError: a role is none, or a key is short or holds characters that a header cannot.
        """
        for role, key in pairs:
            if role not in VARIABLES:
                raise ValueError(f"keys must have the role {READ} or {WRITE}, got {role!r}")
            if len(key) < SHORTEST or not key.isascii() or not key.isprintable() or " " in key.strip():
                raise ValueError(f"keys must be at least {SHORTEST} printable ASCII characters; a {role} key is not")
        return cls(tuple((role, _digest(key)) for role, key in pairs))

    @classmethod
    def read(cls, path: Path | None, environment: Mapping[str, str]) -> Keys:
        """Of a file with lines ``ROLE KEY``, and of the environment (`VARIABLES`).

        Raises:
            ValueError: a line is something else.
            OSError: the file cannot be read.
        """
        pairs = [] if path is None else list(_lines(path))
        pairs += [(role, environment[name]) for role, name in VARIABLES.items() if environment.get(name)]
        return cls.of(pairs)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def role(self, key: str) -> str | None:
        """That of a key; the time this takes does not depend on it."""
        found, digest = None, _digest(key)
        for role, known in self.digests:
            if hmac.compare_digest(digest, known) and found != WRITE:
                found = role
        return found


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise ValueError(f"{path}: line {number} must be a role and a key")
        yield words[0], words[1]
