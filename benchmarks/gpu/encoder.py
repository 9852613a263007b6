"""A whole training step of an encoder of MiniLM's size: what scoring is of it, and what memory it takes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.measure import Stopwatch, extra_memory
from lateint_kernels import backends, maxsim

SIZES = {  # layers, width, batch, Lq, Ld
    "cuda": (6, 384, 512, 32, 180),
    "cpu": (1, 48, 3, 4, 9),
}


def steps(device: str, watch: Stopwatch) -> dict[str, Any]:
    """Milliseconds and bytes of a step by scoring, bf16 autocast, in-batch negatives."""
    layers, width, batch, Lq, Ld = SIZES[device]
    torch.manual_seed(0)
    model = Encoder(layers, width).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    queries, documents = (torch.randint(0, 30000, (batch, length), device=device) for length in (Lq, Ld))
    found = {}
    for name, score in scorings(device).items():

        def step(score: Callable[[Tensor, Tensor], Tensor] = score) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16):
                left, right = model(queries), model(documents)
            scores = score(left.bfloat16(), right.bfloat16())
            loss = nn.functional.cross_entropy(scores.float(), torch.arange(batch, device=device))
            loss.backward()
            optimizer.step()
            return loss.detach()

        found[name] = {"loss": float(step()), "ms": watch.time(step)["ms"], "bytes": extra_memory(step, device)}
    return {"layers": layers, "width": width, "batch": batch, "Lq": Lq, "Ld": Ld, "steps": found}


def scorings(device: str) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """lateint, PyLate's in torch, and next to nothing: what the encoder takes by itself."""
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "none": lambda queries, documents: queries.mean(1).float() @ documents.mean(1).float().T,
        "pylate": pylate,
    }
    for name in ("cuda", "triton"):
        if backends.why_not(name, "maxsim", device) is None:
            found[f"lateint-{name}"] = lambda queries, documents, name=name: maxsim(queries, documents, backend=name)  # type: ignore[misc]
    return found


def pylate(queries: Tensor, documents: Tensor) -> Tensor:
    """``colbert_scores`` as PyLate 1.x writes it, without masks."""
    return torch.einsum("ash,bth->abst", queries, documents).max(-1).values.sum(-1)


class Encoder(nn.Module):
    """Token ids to unit vectors of 128 numbers; random weights, for only time is measured."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, width // 32 or 1, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.tokens = nn.Embedding(30522, width)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 128, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """``[n, L]`` ids to ``[n, L, 128]``."""
        found: Tensor = nn.functional.normalize(self.head(self.encoder(self.tokens(ids))), dim=-1)
        return found
