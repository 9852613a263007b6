"""The shapes that are measured, and the goals of those that have one."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """Nq queries of Lq tokens with Nd documents of Ld tokens each; with candidates, each query has Nd of its own.

    Args:
        lengths: the shortest document and query as a share of the longest; 1 for none shorter.
        train: whether gradients are measured too.
        goals: milliseconds on an H200, by "forward" and "backward".
    """

    Nq: int
    Lq: int
    Nd: int
    Ld: int
    dim: int = 128
    dtype: str = "bfloat16"
    candidates: bool = False
    lengths: float = 1.0
    train: bool = True
    goals: dict[str, float] = field(default_factory=dict)

    @property
    def documents(self) -> int:
        """How many there are in all."""
        return self.Nd * (self.Nq if self.candidates else 1)

    @property
    def flop(self) -> float:
        """Of a forward, if no document were shorter."""
        return 2.0 * self.Nq * self.Lq * self.Nd * self.Ld * self.dim

    @property
    def forward_bytes(self) -> float:
        """Inputs read once, scores written."""
        itemsize = getattr(torch, self.dtype).itemsize
        tokens = self.Nq * self.Lq + self.documents * self.Ld
        return float(tokens * self.dim * itemsize + 4 * self.Nq * self.Nd)

    @property
    def pairs(self) -> int:
        """Query tokens times documents: each contributes a row to both gradients."""
        return self.Nq * self.Lq * self.Nd


CASES = {
    "train-64": Case(64, 32, 64, 180),
    "train-128": Case(128, 32, 128, 200, goals={"forward": 0.060}),
    "train-512": Case(512, 32, 512, 180),
    "train-1024": Case(1024, 32, 1024, 180, goals={"forward": 3.3, "backward": 6.0}),
    "preflmr-256": Case(256, 320, 256, 512, goals={"forward": 5.4}),
    "rerank-10000": Case(1, 32, 10000, 300, train=False, goals={"forward": 0.21}),
    "candidates-64x32": Case(64, 32, 32, 180, candidates=True),
    "colpali-64": Case(64, 1024, 64, 1024),
    "colpali-16x256": Case(16, 24, 256, 1024),
    "train-256-d96": Case(256, 32, 256, 180, dim=96),
    "train-256-d320": Case(256, 32, 256, 180, dim=320),
    "train-32-d4096": Case(32, 32, 32, 180, dim=4096),
    "train-256-float16": Case(256, 32, 256, 180, dtype="float16"),
    "train-128-float32": Case(128, 32, 128, 180, dtype="float32"),
    "ragged-256": Case(256, 32, 256, 300, lengths=0.1),
}
SMOKE = {
    "train": Case(3, 4, 4, 9, dim=16, goals={"forward": 1e-6, "backward": 1e-6}),
    "candidates": Case(2, 4, 2, 9, dim=16, candidates=True),
    "ragged": Case(2, 4, 3, 20, dim=16, dtype="float16", lengths=0.3),
    "rerank": Case(1, 4, 6, 9, dim=16, train=False),
}


@dataclass(frozen=True)
class Inputs:
    """Random tokens of unit length, and how many tokens each document really has.

    Args:
        queries: ``[Nq, Lq, dim]``.
        documents: ``[Nd, Ld, dim]`` or ``[Nq, Nd, Ld, dim]``.
        lengths: ``[Nd]`` or ``[Nq, Nd]`` int64; None if all are Ld.
        grad_scores: ``[Nq, Nd]`` float32: a gradient of the size that a loss over a batch has.
    """

    queries: Tensor
    documents: Tensor
    lengths: Tensor | None
    grad_scores: Tensor

    @property
    def mask(self) -> Tensor | None:
        """Which tokens of documents there are."""
        if self.lengths is None:
            return None
        return torch.arange(self.documents.shape[-2], device=self.documents.device) < self.lengths[..., None]


def inputs(case: Case, device: str, seed: int = 0) -> Inputs:
    """Fresh random ones."""
    rng = torch.Generator(device).manual_seed(seed)
    shape = (case.Nq, case.Nd) if case.candidates else (case.Nd,)

    def tokens(*lead: int) -> Tensor:
        numbers = torch.randn(*lead, case.dim, generator=rng, device=device, dtype=torch.float32)
        return torch.nn.functional.normalize(numbers, dim=-1).to(getattr(torch, case.dtype))

    lengths = None
    if case.lengths < 1:
        lengths = torch.randint(max(1, int(case.lengths * case.Ld)), case.Ld + 1, shape, generator=rng, device=device)
    grad_scores = torch.randn(case.Nq, case.Nd, generator=rng, device=device) / (case.Nq * case.Nd)
    return Inputs(tokens(case.Nq, case.Lq), tokens(*shape, case.Ld), lengths, grad_scores)
