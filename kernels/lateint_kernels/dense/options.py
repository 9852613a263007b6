"""What `maxsim` and `maxsim_pairs` take besides tokens, for arrays and tensors alike."""

from dataclasses import dataclass
from typing import Any

MASKING = ("exclude", "multiply")


@dataclass(frozen=True)
class Options:
    """The keywords of `lateint_kernels.maxsim`, explained there."""

    query_mask: Any
    document_mask: Any
    query_weights: Any
    normalize: bool
    masking: str
    return_argmax: bool
    check: bool
    backend: str | None

    def __post_init__(self) -> None:
        if self.masking not in MASKING:
            raise ValueError(f"masking must be 'exclude' or 'multiply', got {self.masking!r}")
