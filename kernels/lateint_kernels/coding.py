"""Training with the codec in the loop: documents as an index would give them back, with gradients that pass through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lateint_kernels.codes import residual
from lateint_kernels.codes.building import HostOperators, Operators
from lateint_kernels.codes.centroids import has_small_cells
from lateint_kernels.integers import integer
from lateint_kernels.ragged_tensor import FLOATS, RaggedTensor

CELLS = 3, 10  # that a token looks into; small ones


class Codec(Protocol):
    """What `lateint.Codec` has: arrays by their names in docs/format.md, and numbers, of which step and nbits count."""

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]: ...
    @property
    def numbers(self) -> Mapping[str, Any]: ...


class Coding:
    """Tokens of documents as they come back from the codes of an index; to be called on what a model gives.

    ``coding(x) = decode(encode(x))``, and the gradient of the result goes to ``x`` as it is: the straight-through
    estimator (Bengio et al. 2013, arXiv 1308.3432). So whatever scores ``coding(documents)``, `maxsim` or another of
    these operators or losses, scores them as an index would, and trains the model for that. Queries are not coded, and
    the codec does not learn: train one on tokens of the model as it is now (`lateint.train_codec`), and another one now
    and then if the model moves far.

    Codes are those that a build gives, bit for bit, on CPU and GPU, unless the codec has so many centroids that a build
    divides cells (some 150,000): then a few tokens have another centroid. Only their decoding is in floats.

    Args:
        codec: a `lateint.Codec`.
        cells: how many cells a token looks for its centroid in; 0: in all; None: in 3, as a build does, or in 10 of a
            codec of so many centroids that its cells are small.

    Raises:
        TypeError: it is no codec, or ``cells`` no integer.

    >>> codec = lateint.train_codec(tokens, nbits=2)  # doctest: +SKIP
    >>> coding = Coding(codec)  # doctest: +SKIP
    >>> scores = lateint_kernels.maxsim(queries, coding(documents))  # doctest: +SKIP
    """

    def __init__(self, codec: Codec, *, cells: int | None = None) -> None:
        if not (isinstance(getattr(codec, "arrays", None), Mapping) and hasattr(codec, "numbers")):
            raise TypeError(f"codec must be a lateint.Codec, got {type(codec).__name__}")
        small = has_small_cells(len(codec.arrays["centroids"]), len(codec.arrays["cells"]))
        self.cells = CELLS[small] if cells is None else integer(cells, "cells")
        self._codec = codec
        self._coders: dict[torch.device, _Coder] = {}

    @property
    def dim(self) -> int:
        """Components of a token."""
        return len(self._codec.arrays["mean"])

    def __call__(self, documents: Any) -> Any:
        """The same documents, coded.

        Args:
            documents: ``[..., dim]``, a list of such tensors, or `RaggedTensor`; float32, float16, bfloat16 or float64.
                Tokens that are zero or not finite, padding perhaps, stay what they are; an index takes none.

        Returns:
            What was given, in its shape and dtype.

        Raises:
            TypeError: documents are no tensors of floats.
            ValueError: their dim is not that of the codec.
        """
        if isinstance(documents, RaggedTensor):
            return replace(documents, tokens=self(documents.tokens))
        if isinstance(documents, list | tuple):
            return [self(document) for document in documents]
        if not isinstance(documents, Tensor) or documents.dtype not in FLOATS:
            found = documents.dtype if isinstance(documents, Tensor) else type(documents).__name__
            raise TypeError(f"documents must be tensors of float32, float16, bfloat16 or float64, got {found}")
        if documents.ndim == 0 or documents.shape[-1] != self.dim:
            raise ValueError(f"documents must be [..., {self.dim}] as the codec has it, got {list(documents.shape)}")
        rows = documents.detach().reshape(-1, self.dim).float()
        tokens = (rows.isfinite().all(1) & (rows != 0).any(1))[:, None]
        coded = torch.where(tokens, self._coder(documents.device).coded(rows.where(tokens, 0)), rows)
        return _straight_through(documents, coded.reshape(documents.shape).to(documents.dtype))

    def _coder(self, device: torch.device) -> _Coder:
        if device not in self._coders:
            self._coders[device] = _Coder(self._codec, self.cells, device, _operators(device))
        return self._coders[device]


class _StraightThrough(torch.autograd.Function):  # type: ignore[misc]  # torch has no type for it
    generate_vmap_rule = True

    @staticmethod
    def forward(tokens: Tensor, coded: Tensor) -> Tensor:
        return coded.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient, None


def _straight_through(tokens: Tensor, coded: Tensor) -> Tensor:
    found: Tensor = _StraightThrough.apply(tokens, coded)
    return found


def _operators(device: torch.device) -> Operators:
    if device.type == "cpu":
        return HostOperators()
    from lateint_kernels.codes.device.building import DeviceOperators

    return DeviceOperators(str(device))


class _Coder:
    """A codec where the tokens are."""

    def __init__(self, codec: Codec, cells: int, device: torch.device, operators: Operators) -> None:
        arrays, numbers = codec.arrays, codec.numbers
        self._operators = operators
        self._nbits, self._step, self._cells = int(numbers["nbits"]), float(numbers["step"]), cells
        self._centroids = arrays["centroids"]
        self._rows = operators.rows(self._centroids)
        self._rotated = operators.rotation(arrays["mean"], arrays["rotation"], arrays["permutation"], self._step)
        self._nearest = operators.assigner(self._rows, operators.rows(arrays["cells"]), arrays["cell_offsets"], None)
        self._mean = torch.from_numpy(arrays["mean"]).to(device)
        self._blocks = torch.from_numpy(arrays["rotation"]).to(device)
        self._permutation = torch.from_numpy(arrays["permutation"].astype(np.int64)).to(device)
        self._levels = torch.from_numpy(residual.levels(min(self._nbits, 4))).to(device)

    def coded(self, tokens: Tensor) -> Tensor:
        """``[T, dim]`` float32."""
        if not len(tokens):
            return tokens
        on_host = isinstance(self._operators, HostOperators)
        scaled = self._rotated(self._operators.put(tokens.numpy() if on_host else tokens))
        ids = self._nearest(self._operators.to_bytes(scaled), self._cells)
        codes, scales = self._operators.encode(scaled, ids, self._rows, self._nbits)
        width = scaled.shape[1]
        if on_host:
            rows = residual.decode(codes, scales, ids, self._centroids, self._nbits, width)
            return self._inverted(torch.from_numpy(rows).float() - 128)
        return self._inverted(self._decoded(codes, scales, ids, width).float())

    def _decoded(self, codes: Tensor, scales: Tensor, ids: Tensor, width: int) -> Tensor:
        """Bytes less 128 ``[T, width]``, as `lateint_kernels.codes.residual.decode` has them."""
        if self._nbits == 8:
            return (codes ^ 128).view(torch.int8)
        shifts = range(0, 8, self._nbits)
        planes = torch.cat([codes >> shift & 2**self._nbits - 1 for shift in shifts], 1)
        return self._rows[ids.long()][:, :width] + self._levels[scales.long()[:, None], planes.long()]

    def _inverted(self, rows: Tensor) -> Tensor:
        """Rotated tokens ``[T, width]`` in steps, as tokens ``[T, dim]``."""
        blocks = rows.reshape(len(rows), len(self._blocks), -1).transpose(0, 1) * self._step
        turned = torch.bmm(blocks, self._blocks.transpose(1, 2)).transpose(0, 1).reshape(len(rows), -1)
        tokens = torch.empty_like(turned)
        tokens[:, self._permutation] = turned
        return tokens[:, : len(self._mean)] + self._mean
