"""Servers on loopback, on ports that are free, in a thread of the test."""

import re
import time
import zlib
from contextlib import contextmanager
from threading import Thread
from typing import ClassVar

import numpy as np

from lateint.encoders import Places
from lateint_server import command
from lateint_server.settings import Settings

DIM = 16


def tokens(count, seed, length=12):
    """Documents ``[length, DIM]`` of unit tokens."""
    made = np.random.default_rng(seed).standard_normal((count, length, DIM), dtype=np.float32)
    return list(made / np.linalg.norm(made, axis=2, keepdims=True))


@contextmanager
def serving(indexes, **settings):
    """A server of ``{name: Index}``; gives its address."""
    settings = Settings(port=0, **settings)
    with command._bound(settings) as listening:
        server = command.server(indexes, settings)
        thread = Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started and thread.is_alive():
                thread.join(0.005)
            assert server.started
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Words:
    """An encoder of words: each is a random direction, always the same."""

    name = "words"

    def encode_query(self, texts):
        return [np.stack([_direction(text[first:last]) for first, last in spans]) for text, spans in self._both(texts)]

    encode_document = encode_query

    def spans(self, texts):
        return [np.array([word.span() for word in re.finditer(r"\w+", text)]) for text in texts]

    def _both(self, texts):
        return zip(texts, self.spans(texts), strict=True)


class Painted(Words):
    """Words, and pictures whose four quarters are words: the names of their colours."""

    name = "painted"
    query_pictures = True
    colours: ClassVar = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}

    def encode_query(self, queries):
        return [
            np.stack([_direction(word) for word in [*self._words(query), *self._quarters(query)]]) for query in queries
        ]

    def query_places(self, queries):
        return [self._places(query) for query in queries]

    def _places(self, query):
        words = self._words(query)
        if isinstance(query, str):
            return Places(words)
        return Places([*words, "", "", "", ""], (2, 2), len(words), (0.0, -0.5, 1.0, 1.5))

    def _words(self, query):
        return re.findall(r"\w+", query if isinstance(query, str) else query[0])

    def _quarters(self, query):
        if isinstance(query, str):
            return []
        pixels = np.asarray(query[1].resize((2, 2), 0), float).reshape(4, 1, 3)
        nearest = np.abs(pixels - np.array([*self.colours.values()], float)).sum(2).argmin(1)
        return [[*self.colours][one] for one in nearest.tolist()]


class Late(Painted):
    """The same, after a while."""

    def __init__(self, seconds=0.1):
        self.seconds = seconds

    def encode_query(self, queries):
        time.sleep(self.seconds)
        return super().encode_query(queries)


def _direction(word):
    made = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIM).astype(np.float32)
    return made / np.linalg.norm(made)
