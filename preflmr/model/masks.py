"""Which tokens become rows of a query or document that take part in its score."""

from collections.abc import Sequence

import torch
from torch import Tensor


def kept(input_ids: Tensor, pad_id: int, skipped: Tensor | None) -> Tensor:
    """All but padding and the tokens of a list.

    Shapes: ``[B, tokens]`` int64, ids ``[n]`` -> ``[B, tokens]`` bool.
    """
    keep = input_ids != pad_id
    return keep if skipped is None else keep & ~torch.isin(input_ids, skipped)


def after_instruction(input_ids: Tensor, separator: int) -> tuple[Tensor, Tensor]:
    """All after the first separator, which ends an instruction, and the first two: [CLS] and the marker of queries.

    Args:
        input_ids: ``[B, tokens]`` int64.
        separator: its id.

    Returns:
        ``[B, tokens]`` bool; and ``[B]`` bool, True where there is no separator, so that everything is kept.
    """
    end = (input_ids == separator).int().argmax(dim=1).clamp(min=1)  # 0 where there is none
    place = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (place > end[:, None]) | (place < 2), end == 1


def flagged(mask: Tensor, flags: Sequence[bool], name: str) -> Tensor:
    """Nothing of the samples whose flag is False.

    Args:
        mask: ``[B, rows]`` bool.
        flags: B of them.
        name: of the flags, for the error.

    Raises:
        ValueError: they are not as many.
    """
    if len(flags) != len(mask):
        raise ValueError(f"{name} must have a bool for each of {len(mask)}, got {len(flags)}")
    return mask & torch.tensor([bool(flag) for flag in flags], device=mask.device)[:, None]
