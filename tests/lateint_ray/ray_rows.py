"""Collections of rows, and an encoder that needs no model."""

import os
import signal
import threading
import zlib
from pathlib import Path

import numpy as np

DIM = 16


def rows(count, seed=0):
    """Rows with an id, a text and a year."""
    rng = np.random.default_rng(seed)
    vocabulary = [f"word{number}" for number in range(200)]
    return [
        {
            "id": f"doc {number}",
            "text": " ".join(rng.choice(vocabulary, rng.integers(3, 12))),
            "year": 1900 + number,
        }
        for number in range(count)
    ]


class Words:
    """Each word is a random direction, always the same."""

    name = "words"

    def encode_query(self, texts):
        return [np.stack([self._direction(word) for word in text.split()]) for text in texts]

    encode_document = encode_query

    def _direction(self, word):
        made = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIM).astype(np.float32)
        return made / np.linalg.norm(made)


class Killing(Words):
    """Its process dies once for each of some texts, at once or up to ``late`` seconds after it was given one: while the
    part is written, or when it is there. A file for each text says that this has happened."""

    def __init__(self, folder, texts, late=0.0):
        self.folder, self.texts, self.late = folder, frozenset(texts), late

    def encode_document(self, texts):
        for text in self.texts.intersection(texts):
            number = zlib.crc32(text.encode())
            try:
                Path(self.folder, str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            if after := self.late * (number % 4) / 3:
                threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_document(texts)


def files(folder):
    """Every file of a folder with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
