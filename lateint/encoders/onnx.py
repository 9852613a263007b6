"""ColBERT models in ONNX: the folders that ``pylate-onnx-export`` writes, without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.encoders.models import imported

CONFIG, TOKENIZER = "onnx_config.json", "tokenizer.json"


class Onnx:
    """A ColBERT model as ``pylate-onnx-export`` writes it: ``model.onnx``, ``tokenizer.json``, ``onnx_config.json``.

    Args:
        folder: where the three files are.
        file: the model's file, such as ``"model_int8.onnx"``.
        providers: of onnxruntime, such as ``["CUDAExecutionProvider"]``; None: the CPU's.
        batch_size: texts that the model reads at once.

    Raises:
        ImportError: onnxruntime or tokenizers is not installed.
        FileNotFoundError: a file is missing.
        ValueError: ``onnx_config.json`` lacks a key.

    Source: https://pypi.org/project/pylate-onnx-export/
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        file: str = "model.onnx",
        providers: Sequence[str] | None = None,
        batch_size: int = 32,
    ) -> None:
        runtime = imported("onnxruntime", "onnxruntime and tokenizers", "onnxruntime tokenizers")
        tokenizers = imported("tokenizers", "onnxruntime and tokenizers", "onnxruntime tokenizers")
        folder = Path(folder)
        for name in (CONFIG, TOKENIZER, file):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"folder must hold {CONFIG}, {TOKENIZER} and {file}, but {folder / name} is not there"
                )
        self.config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if missing := sorted({"query_length", "document_length", "do_query_expansion"} - self.config.keys()):
            raise ValueError(f"{folder / CONFIG} must have {', '.join(missing)}")
        self.name = str(self.config.get("model_name") or folder.name)
        self.settings = {
            "file": file,
            "document_length": self.config["document_length"],
            "document_prefix": self.config.get("document_prefix"),
        }
        self.batch_size = batch_size
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
        self._session = runtime.InferenceSession(
            str(folder / file), providers=list(providers or ["CPUExecutionProvider"])
        )
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._skipped = self._skipped_ids()

    def encode_query(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """``[Lq, dim]`` float32 each: expansion tokens take part where the model was trained with them."""
        config = self.config
        expand = bool(config["do_query_expansion"])
        prefix = self._prefix("query")
        found = []
        for batch in self._batches(texts):
            rows = self._tokens(batch, config["query_length"], prefix)
            ids, attention = self._padded(rows, config["query_length"] if expand else None)
            kept = np.ones_like(attention) if expand else attention
            if expand and config.get("attend_to_expansion_tokens"):
                attention = np.ones_like(attention)
            found += self._run(ids, attention, kept)
        return found

    def encode_document(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """``[Ld, dim]`` float32 each, without the tokens of the skip list."""
        prefix, found = self._prefix("document"), []
        for batch in self._batches(texts):
            ids, attention = self._padded(self._tokens(batch, self.config["document_length"], prefix))
            found += self._run(ids, attention, attention * ~np.isin(ids, self._skipped))
        return found

    def _batches(self, texts: Sequence[str]) -> list[Sequence[str]]:
        return [texts[first : first + self.batch_size] for first in range(0, len(texts), self.batch_size)]

    def _prefix(self, side: str) -> int | None:
        return self.config.get(f"{side}_prefix_id") if self.config.get(f"{side}_prefix") else None

    def _tokens(self, texts: Sequence[str], length: int, prefix: int | None) -> list[list[int]]:
        """The prefix goes after the first token, which is CLS or its like."""
        self._tokenizer.enable_truncation(length - (prefix is not None))
        cleaned = [text.strip() for text in texts]
        if self.config.get("do_lower_case"):
            cleaned = [text.lower() for text in cleaned]
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(cleaned)]
        return rows if prefix is None else [[*row[:1], prefix, *row[1:]] for row in rows]

    def _padded(self, rows: list[list[int]], length: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        shape = len(rows), max(map(len, rows)) if length is None else length
        # PyLate pads with the mask token, which is what expands queries.
        ids = np.full(shape, self.config.get("mask_token_id", self.config.get("pad_token_id", 0)), np.int64)
        attention = np.zeros(shape, np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)], attention[i, : len(row)] = row, 1
        return ids, attention

    def _run(
        self, ids: NDArray[np.int64], attention: NDArray[np.int64], kept: NDArray[Any]
    ) -> list[NDArray[np.float32]]:
        given = {"input_ids": ids, "attention_mask": attention, "token_type_ids": np.zeros_like(ids)}
        (rows,) = self._session.run(None, {name: given[name] for name in self._inputs})
        return [np.asarray(row[keep != 0], np.float32) for row, keep in zip(rows, kept, strict=True)]

    def _skipped_ids(self) -> list[int]:
        """Words that are no token have the id of the unknown token, as in PyLate."""
        unknown = self._tokenizer.token_to_id(getattr(self._tokenizer.model, "unk_token", None) or "[UNK]")
        found = [self._tokenizer.token_to_id(word) for word in self.config.get("skiplist_words") or []]
        return [unknown if number is None else number for number in found if number is not None or unknown is not None]
