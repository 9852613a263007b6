"""An encoder without a model: a token for each word, whose direction is drawn from the word's letters."""

import zlib

import numpy as np


class Letters:
    """Words to unit vectors ``[L, dim]``; a query has one token more, which asks for nothing much."""

    name = "letters"

    def __init__(self, dim=16, longest=64):
        self.dim, self.longest, self.calls = dim, longest, []

    @property
    def settings(self):
        return {"dim": self.dim, "longest": self.longest}

    def encode_query(self, texts):
        return [self._tokens([*text.split(), "?"]) for text in texts]

    def encode_document(self, texts):
        self.calls.append(len(texts))
        return [self._tokens(text.split()[: self.longest]) for text in texts]

    def _tokens(self, words):
        rows = [np.random.RandomState(zlib.crc32(w.lower().encode())).standard_normal(self.dim) for w in words]
        tokens = np.array(rows, np.float32).reshape(-1, self.dim)
        return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
