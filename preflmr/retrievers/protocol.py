"""What trainer, mining, evaluation, index, search and answer need of a late-interaction model.

Texts and pictures become inputs (`tokenized`, then `inputs`: no parameters take part, so that workers can do it), and
inputs become rows (`rows`), the vectors that MaxSim scores. An adapter is a plain object beside its module; what learns
is the module.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from preflmr.retrievers.kinds import DOCUMENT, QUERY

PARTS = ("text_encoder", "vision_encoder", "mapping")
Tokens: TypeAlias = tuple[Tensor, Tensor]  # rows [n, L, dim] and which of them take part [n, L] bool


@dataclass(frozen=True)
class Reading:
    """What a model reads, and how it was trained to be asked.

    Attributes:
        pictures: whether it can read any.
        query_pictures, document_pictures: whether queries and documents are read with theirs.
        separator: ends an instruction, whose rows a model may mask; None: instructions are text like any other.
        use_instructions: whether one goes before a question, in training and after; only PreFLMR was trained so.
        without_image: what stands for a query's absent picture: "blank", a black one, or "text", nothing.
        document_parts: parts of the model whose training changes rows of documents.
    """

    pictures: bool = False
    query_pictures: bool = False
    document_pictures: bool = False
    separator: str | None = None
    use_instructions: bool = False
    without_image: str = "text"
    document_parts: tuple[str, ...] = PARTS


class Tokenized(NamedTuple):
    """Texts as `Retriever.inputs` takes them.

    Attributes:
        items: one of each text; numpy arrays or strings, which cross to worker processes.
        lengths: ``[n]`` int64, tokens of each text: documents of one length are encoded together.
    """

    items: list[Any]
    lengths: NDArray[np.int64]


class Retriever(Protocol):
    """A late-interaction model. Where a side is asked for, it is ``"query"`` or ``"document"``.

    Attributes:
        model: the module whose parameters are trained and hashed.
        name: the place that it was loaded from, or else what it is called.
        reading: what it reads.
        truncated: how many texts of each side were cut to the length that it reads, so far.
    """

    model: nn.Module

    @property
    def name(self) -> str: ...

    @property
    def reading(self) -> Reading: ...

    @property
    def truncated(self) -> dict[str, int]: ...

    def check(self, side: str) -> None:
        """Refuses what a model without tokenizers cannot do.

        Raises:
            ValueError: texts of this side cannot be read.
        """

    def tokenized(self, side: str, texts: Sequence[str]) -> Tokenized:
        """Texts, tokenized as far as that does not need their pictures."""

    def inputs(
        self, side: str, items: Sequence[Any], pictures: Sequence[Sequence[Any]] | None = None
    ) -> dict[str, Tensor]:
        """Items and their PIL pictures as tensors ``[n, ...]``, padded.

        Args:
            items: of `tokenized`.
            pictures: of each item, any number; None: no item has any.

        Raises:
            ValueError: the model does not read such pictures.
        """

    def rows(
        self, side: str, inputs: dict[str, Tensor], *, text: bool | None = None, vision: bool | None = None
    ) -> Tokens:
        """The rows of `inputs`, of length 1, with gradients.

        Args:
            text, vision: whether rows of words and of pictures are there; None: as the model says.

        Raises:
            ValueError: the model has no such choice.
        """

    def parts(self) -> dict[str, list[nn.Module]]:
        """The modules of ``text_encoder``, ``vision_encoder`` and ``mapping``, each of which may have its own rate."""

    def save(self, folder: Path) -> None:
        """Writes a checkpoint from which the same model is loaded."""


class Adapter:
    """What adapters of other libraries share.

    Args:
        model: the module.
        name: where it was loaded from.
    """

    def __init__(self, model: Any, name: str | None = None) -> None:
        self.model = model
        self._name = name
        self.truncated = {QUERY: 0, DOCUMENT: 0}

    @property
    def name(self) -> str:
        return self._name or type(self.model).__name__

    def check(self, side: str) -> None:
        """See `Retriever.check`."""


def around(retriever: Any, model: nn.Module) -> Any:
    """The retriever with another module in place of its own."""
    found = copy.copy(retriever)
    found.model = model
    return found


def choose_all(text: bool | None, vision: bool | None, who: str) -> None:
    """Refuses to leave rows out.

    Raises:
        ValueError: that is asked for.
    """
    if text is False or vision is False:
        raise ValueError(f"all rows must take part: {who} has no rows of words and of pictures apart")


def by_pictures(counts: Tensor, encode: Any) -> Tokens:
    """Rows of a batch whose members have different numbers of pictures.

    Args:
        counts: ``[n]``, pictures of each member.
        encode: ``encode(members [m] int64, count)``, the rows of those that have so many.
    """
    found: list[Tokens] = []
    order = []
    for count in counts.unique().tolist():
        members = (counts == count).nonzero()[:, 0]
        found.append(encode(members, count))
        order.append(members)
    if len(found) == 1:
        return found[0]
    longest = max(mask.shape[1] for _, mask in found)
    tokens = torch.cat([nn.functional.pad(one, (0, 0, 0, longest - one.shape[1])) for one, _ in found])
    mask = torch.cat([nn.functional.pad(one, (0, longest - one.shape[1])) for _, one in found])
    back = torch.cat(order).argsort()
    return tokens[back], mask[back]
