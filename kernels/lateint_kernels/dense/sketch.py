"""Documents with a sketch, which makes exact MaxSim of float32 tokens faster."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lateint_kernels import _cpu
from lateint_kernels.ragged import Ragged


@dataclass(frozen=True, eq=False)
class Sketched(Ragged):
    """Float32 documents, and a sketch of a quarter of their size: the same scores, bit for bit, in less time.

    ``d_t = scale_t codes_t + r_t`` with int8 ``codes_t`` and ``|r_t| <= error_t``. So int8 products bound ``<q, d_t>``
    on both sides (Cauchy-Schwarz), and `maxsim` and `maxsim_pairs` read the float32 rows only of tokens that may be the
    best. Made in the time of a few scorings, for documents that are scored again and again.

    It is used where the instruction set has a kernel for it, which is AMX; elsewhere this is a `Ragged` like any other.
    Made like one too: `Sketched.pack`, `from_lengths`, `from_offsets`, `from_padded`, or `of` a `Ragged`. Tokens must
    not be changed afterwards.

    Args:
        tokens: ``[T, dim]`` float32.
        offsets: ``[n + 1]`` integers; document i is ``tokens[offsets[i]:offsets[i + 1]]``.
        allow_empty: whether a document may have no row.

    Raises:
        TypeError: tokens are not float32.
        ValueError: offsets do not start at 0, do not end at T, decrease, or leave a document empty.

    >>> from lateint_kernels import maxsim
    >>> documents = Sketched.pack([[[-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> maxsim([[1.0, 0.0], [0.0, 1.0]], documents)
    array([-1.,  2.], dtype=float32)
    """

    codes: NDArray[np.int8] = field(init=False, repr=False)  # [T, dim] and some bytes that kernels may read
    scales: NDArray[np.float32] = field(init=False, repr=False)  # [T, 2]: scale and error

    def __post_init__(self, allow_empty: bool) -> None:
        super().__post_init__(allow_empty)
        if self.dtype != np.float32:
            raise TypeError(f"tokens of a sketch must be float32, got {self.dtype}")
        codes, scales = _cpu.sketch(self.tokens, 0)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "scales", scales)

    @classmethod
    def of(cls, documents: Ragged) -> "Sketched":
        """The same documents, whose tokens are not copied, with a sketch."""
        return cls(documents.tokens, documents.offsets, documents.has_empty)


def sketch_of(documents: Ragged) -> tuple[NDArray[np.int8] | None, NDArray[np.float32] | None]:
    """Codes and scales as kernels take them, None for documents without."""
    return (documents.codes, documents.scales) if isinstance(documents, Sketched) else (None, None)
