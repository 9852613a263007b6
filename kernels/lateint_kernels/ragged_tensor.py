"""Queries or documents of different lengths in one tensor, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lateint_kernels.arrays import check_dense
from lateint_kernels.ragged import checked_offsets, offsets_of

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True, eq=False)
class RaggedTensor:
    """n matrices of ``[L_i, dim]`` end to end; checked once, when made, so that operators need not.

    Make one with `pack`, `from_lengths`, `from_offsets` or `from_padded`. ``tokens`` may be part of a graph: gradients
    flow to whatever it was made from. `lateint_kernels.Ragged` is the same for numpy.

    Args:
        tokens: ``[T, dim]`` float32, float16, bfloat16 or float64, contiguous.
        offsets: ``[n + 1]`` int64 on the device of tokens; matrix i is ``tokens[offsets[i]:offsets[i + 1]]``.
        max_length: of any matrix, known to the host.

    >>> documents = RaggedTensor.pack([torch.zeros(1, 2), torch.ones(3, 2)])
    >>> len(documents), documents.dim, documents.max_length, documents.lengths.tolist()
    (2, 2, 3, [1, 3])
    """

    tokens: Tensor
    offsets: Tensor
    max_length: int
    _cuts: NDArray[np.int64] | None = field(default=None, repr=False)

    @classmethod
    def pack(cls, matrices: Sequence[Tensor], *, name: str = "document") -> "RaggedTensor":
        """Copies a list of ``[L_i, dim]`` end to end; all of one dtype, dim and device. Errors call one a ``name``.

        Raises:
            TypeError: one is no tensor, or of another dtype than the first.
            ValueError: there is none, or one is empty, or of another dim or on another device than the first.
        """
        if not matrices:
            raise ValueError(f"there must be at least one {name} to pack; dim would be unknown")
        for i, matrix in enumerate(matrices):
            if not isinstance(matrix, Tensor):
                raise TypeError(f"{name} {i} must be a tensor like {name} 0, got {type(matrix).__name__}")
            check_dense(torch, matrix, f"{name} {i}")
            if matrix.ndim != 2 or matrix.shape[0] == 0:
                raise ValueError(f"{name} {i} must be [L, dim] and not empty, got {tuple(matrix.shape)}")
            first = matrices[0]
            if matrix.shape[1] != first.shape[1]:
                raise ValueError(f"{name} {i} has dim {matrix.shape[1]}, {name} 0 has {first.shape[1]}")
            if matrix.dtype != first.dtype:
                raise TypeError(f"{name} {i} has {matrix.dtype}, {name} 0 has {first.dtype}")
            if matrix.device != first.device:
                raise ValueError(f"{name} {i} is on {matrix.device}, {name} 0 on {first.device}")
        return cls.from_lengths(torch.cat(list(matrices)), [matrix.shape[0] for matrix in matrices])

    @classmethod
    def from_lengths(cls, tokens: Tensor, lengths: Tensor | Sequence[int]) -> "RaggedTensor":
        """Tokens ``[T, dim]`` that already lie end to end, cut by ``lengths [n]``, which are read on the host.

        Raises:
            TypeError: tokens are no tensor of floats, or lengths no integers.
            ValueError: lengths do not add up to T, or one is below 1.
        """
        _check_tokens(tokens)
        return cls._cut(tokens, offsets_of(lengths, tokens.shape[0]))

    @classmethod
    def from_offsets(cls, tokens: Tensor, offsets: Tensor | Sequence[int]) -> "RaggedTensor":
        """Tokens ``[T, dim]`` that already lie end to end, cut at ``offsets [n + 1]``, which are read on the host.

        Raises:
            TypeError: tokens are no tensor of floats, or offsets no integers.
            ValueError: offsets do not start at 0, do not end at T, or leave a matrix empty.
        """
        _check_tokens(tokens)
        return cls._cut(tokens, offsets)

    @classmethod
    def _cut(cls, tokens: Tensor, offsets: object) -> "RaggedTensor":
        cuts = checked_offsets(offsets, tokens.shape[0])
        on_device = torch.from_numpy(cuts).to(tokens.device)
        return cls(tokens.contiguous(), on_device, int(np.diff(cuts).max(initial=1)), cuts)

    @classmethod
    def from_padded(cls, padded: Tensor, mask: Tensor) -> "RaggedTensor":
        """The rows of ``padded [n, L, dim]`` that ``mask [n, L]`` keeps, in their order.

        Raises:
            TypeError: padded is no tensor of floats.
            ValueError: a shape or device does not match, or the mask leaves a matrix empty.
        """
        if not isinstance(padded, Tensor) or padded.ndim != 3:
            raise ValueError(
                f"padded must be a tensor [n, L, dim], got {getattr(padded, 'shape', type(padded).__name__)}"
            )
        check_dense(torch, padded, "padded")
        check_dense(torch, mask, "mask")
        if mask.shape != padded.shape[:2] or mask.device != padded.device:
            raise ValueError(
                f"mask must be {list(padded.shape[:2])} on {padded.device}, got {list(mask.shape)} on {mask.device}"
            )
        keep = mask != 0
        return cls.from_lengths(padded[keep], keep.sum(1))

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1  # type: ignore[no-any-return]

    def __getitem__(self, index: int) -> Tensor:
        """Matrix ``[L_i, dim]``; reads the offsets on the host."""
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"index {index} is out of range for {n} matrices")
        start, end = self.offsets[index % n : index % n + 2].tolist()
        return self.tokens[start:end]

    @property
    def lengths(self) -> Tensor:
        """``[n]`` int64: how many rows each matrix has."""
        return self.offsets.diff()

    @property
    def host_offsets(self) -> NDArray[np.int64]:
        """``[n + 1]`` int64: the offsets, which the functions that make one keep on the host; read if they did not."""
        return self.offsets.cpu().numpy() if self._cuts is None else self._cuts

    @property
    def dim(self) -> int:
        """How many numbers a token has."""
        return self.tokens.shape[1]  # type: ignore[no-any-return]


def _check_tokens(tokens: object) -> None:
    if isinstance(tokens, Tensor):
        check_dense(torch, tokens, "tokens")
    if not isinstance(tokens, Tensor) or tokens.dtype not in FLOATS:
        found = tokens.dtype if isinstance(tokens, Tensor) else type(tokens).__name__
        raise TypeError(f"tokens must be a tensor of float32, float16, bfloat16 or float64, got {found}")
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(f"tokens must be [T, dim], got {tuple(tokens.shape)}")
