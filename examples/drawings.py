"""Teaches a pretrained image encoder what is drawn: CLIP's loss between drawings and what they are called.

PreFLMR starts from an image encoder that CLIP has trained with texts; one that has only ever seen pictures leaves the
mappings too much to learn. So the last layers are trained here, on training pictures alone, until the state of CLS
tells which of all captions is the picture's (Radford et al. 2021, arXiv 2103.00020; here captions are frozen, so that
every step compares with all of them). Layers below are frozen: each version of a picture goes through them once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from encoder import model_folder
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from preflmr.model.packed import PackedLinear
from preflmr.model.processing import ImageProcessor
from preflmr.training.augment import Redraw
from preflmr.training.on_cpu import OnCpu

BATCH = 128


@dataclass(frozen=True)
class Drawings:
    """Pictures of one kind, and what each shows.

    Attributes:
        pictures: of training.
        shows: the number of each picture's caption.
        captions: what pictures of training show, each once.
        redraw: draws a picture again.
        views: versions of each picture, the first of which is the picture itself.
        share: of a batch.
    """

    pictures: Sequence[Image.Image]
    shows: Sequence[int]
    captions: Sequence[str]
    redraw: Redraw
    views: int
    share: float


class _Naming(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """The layers that learn, and ``logits[n, c] = scale cos(W norm(cls_n), caption_c)``."""

    def __init__(self, layers: nn.ModuleList, captions: Tensor) -> None:
        super().__init__()
        self.layers, size = layers, captions.shape[1]
        self.norm, self.projection = nn.LayerNorm(size), nn.Linear(size, size, bias=False)
        self.scale = nn.Parameter(torch.tensor(20.0).log())
        self.register_buffer("captions", captions)

    def forward(self, states: Tensor) -> Tensor:
        """``[N, 1 + patches, hidden]`` of the frozen layers -> ``[N, captions]``."""
        whole = self.projection(self.norm(cls_after(self.layers[-1], through(self.layers[:-1], states)))).float()
        logits: Tensor = self.scale.exp() * functional.normalize(whole, dim=-1) @ self.captions.T
        return logits


def teach(
    encoder: Any, processor: ImageProcessor, drawings: Sequence[Drawings], *, layers: int, steps: int, bf16: bool
) -> float:
    """Trains the last ``layers`` of a CLIPVisionModel, in place; returns the loss of the last steps."""
    network = getattr(encoder, "vision_model", encoder)  # before transformers 5, one level deeper
    every = network.encoder.layers
    frozen, learning = every[:-layers], every[-layers:]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), PackedLinear():
        states = [_states(network, frozen, processor, one) for one in drawings]  # [N, views, 1 + patches, hidden] each
    naming = _Naming(learning, torch.cat([sentences(one.captions) for one in drawings]))
    first = [sum(len(one.captions) for one in drawings[:n]) for n in range(len(drawings))]
    shows = [torch.tensor(one.shows) + start for one, start in zip(drawings, first, strict=True)]
    groups = [
        {"params": list(learning.parameters()), "lr": 3e-4},
        {"params": [*naming.norm.parameters(), *naming.projection.parameters(), naming.scale], "lr": 2e-3},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=steps, pct_start=20 / max(steps, 40), div_factor=20
    )
    orders = [_Order(len(one.pictures)) for one in drawings]
    losses = []
    bar = tqdm(range(steps), desc="image encoder", unit="step")
    for _ in bar:
        inputs, labels = [], []
        for one, order, some, names in zip(drawings, orders, states, shows, strict=True):
            rows = order.take(round(one.share * BATCH))
            inputs.append(some[rows, torch.randint(one.views, rows.shape)])
            labels.append(names[rows])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16), OnCpu():
            logits = naming(torch.cat(inputs).float())
        loss = functional.cross_entropy(logits, torch.cat(labels))
        loss.backward()
        nn.utils.clip_grad_norm_(naming.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{loss.item():.2f}")
    last = losses[-20:]
    return sum(last) / len(last)


def through(layers: Any, states: Tensor) -> Tensor:
    """``[N, 1 + patches, hidden]`` after the layers."""
    for layer in layers:
        found = layer(states, None)
        states = found[0] if isinstance(found, tuple) else found  # a tuple in older versions of transformers
    return states


def cls_after(layer: Any, states: Tensor) -> Tensor:
    """``[N, hidden]``: the state of CLS after a layer of CLIP; of other states, only keys and values are computed."""
    attention, whole = layer.self_attn, states[:, :1]
    normed = layer.layer_norm1(states)

    def heads(rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    query, key, value = attention.q_proj(normed[:, :1]), attention.k_proj(normed), attention.v_proj(normed)
    attended = functional.scaled_dot_product_attention(heads(query), heads(key), heads(value))
    whole = whole + attention.out_proj(attended.transpose(1, 2).flatten(2))
    whole = whole + layer.mlp(layer.layer_norm2(whole))
    return whole[:, 0]


@torch.no_grad()
def sentences(texts: Sequence[str]) -> Tensor:
    """``[N, 384]``: MiniLM's sentence vectors, their mean taken away, so that what texts share counts nothing."""
    tokenizer, model = AutoTokenizer.from_pretrained(model_folder()), AutoModel.from_pretrained(model_folder()).eval()
    vectors = torch.empty(len(texts), model.config.hidden_size)
    by_length = torch.tensor([len(text) for text in texts]).argsort(stable=True)
    for some in by_length.split(32):  # of about one length: they hold little padding
        inputs = tokenizer(
            [texts[n] for n in some.tolist()], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        kept = inputs["attention_mask"][..., None]
        means = (model(**inputs).last_hidden_state * kept).sum(1) / kept.sum(1)
        vectors[some] = functional.normalize(means, dim=-1)
    return functional.normalize(vectors - vectors.mean(0), dim=-1)


@torch.no_grad()
def _states(network: Any, frozen: Any, processor: ImageProcessor, drawings: Drawings) -> Tensor:
    """``[N, views, 1 + patches, hidden]`` bfloat16: what the frozen layers make of every view."""
    each = max(BATCH // drawings.views, 1)

    def drawn(start: int) -> Tensor:
        some = drawings.pictures[start : start + each]
        return processor(one if view == 0 else drawings.redraw(one) for one in some for view in range(drawings.views))

    found = []
    starts = range(0, len(drawings.pictures), each)
    for pixels in tqdm(ahead(drawn, starts), total=len(starts), desc="views", unit="batch"):
        states = through(frozen, network.pre_layrnorm(network.embeddings(pixels)))
        found.append(states.bfloat16().unflatten(0, (-1, drawings.views)))
    return torch.cat(found)


def ahead(make: Callable[[Any], Tensor], items: Iterable[Any]) -> Iterator[Tensor]:
    """What ``make`` returns for each item, in order; a thread makes the next one while this one is used.

    To draw pictures takes one core, and the encoder leaves it waiting otherwise.
    """
    bf16 = torch.is_autocast_enabled("cpu")

    def made(item: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):  # which is a thread's own
            return make(item)

    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[Tensor]] = deque()
        for item in items:
            waiting.append(thread.submit(made, item))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Order:
    """All rows in a random order, then again in another one."""

    def __init__(self, n: int) -> None:
        self.n, self.rest = n, torch.empty(0, dtype=torch.int64)

    def take(self, n: int) -> Tensor:
        while len(self.rest) < n:
            self.rest = torch.cat([self.rest, torch.randperm(self.n)])
        taken, self.rest = self.rest[:n], self.rest[n:]
        return taken


def nearest(train: Tensor, shows: Sequence[str], test: Tensor, wanted: Sequence[str], k: int = 5) -> float:
    """Recall@k without a text encoder: what the most similar training pictures show, by the cosine of features.

    Args:
        train, test: ``[N, size]`` features of pictures; the mean of training is taken away.
        shows, wanted: what each shows.
    """
    mean = train.mean(0)
    scores = functional.normalize(test - mean, dim=-1) @ functional.normalize(train - mean, dim=-1).T
    hits = 0
    for row, one in zip(scores.argsort(dim=1, descending=True).tolist(), wanted, strict=True):
        hits += one in list(dict.fromkeys(shows[n] for n in row))[:k]
    return hits / len(wanted)
