"""An encoder that knows words: each is a vector of its own, whatever stands beside it."""

import threading
import time
import zlib

import numpy as np


class Words:
    """Documents and queries alike; ``slow`` seconds a call, for tests of what waits."""

    def __init__(self, dim=16, slow=0.0):
        self.dim, self.slow, self.threads = dim, slow, set()

    def encode_document(self, texts):
        self.threads.add(threading.get_ident())
        time.sleep(self.slow)
        return [np.stack([self._vector(word) for word in text.split() or [""]]) for text in texts]

    encode_query = encode_document

    def _vector(self, word):
        vector = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(self.dim)
        return (vector / np.linalg.norm(vector)).astype(np.float32)
