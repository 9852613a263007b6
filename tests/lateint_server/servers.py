"""Servers on loopback, on ports that are free, in a thread of the test."""

import re
import zlib
from contextlib import contextmanager
from threading import Thread

import numpy as np

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


def _direction(word):
    made = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIM).astype(np.float32)
    return made / np.linalg.norm(made)
