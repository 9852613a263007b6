"""Which weights a model has, in a few bytes."""

import hashlib
from typing import Any

import torch

from preflmr.weights.checkpoint import published_state

SAMPLED = 4096  # values of each parameter that go into a fingerprint


def fingerprint(model: Any) -> str:
    """Differs between models of different weights: a hash of up to `SAMPLED` evenly spaced values of each parameter.

    Names, order and sharing do not matter, nor whose code runs the vision encoder, so that a checkpoint keeps its
    fingerprint when its layout changes.
    """
    digests = set()
    vision = getattr(getattr(model, "config", None), "vision_config", None)
    packed = getattr(vision, "implementation", None) == "open_clip"  # it keeps three matrices in one
    for parameter in published_state(model, model.config).values() if packed else model.parameters():
        values = parameter.detach().flatten()
        chosen = torch.linspace(0, len(values) - 1, min(SAMPLED, len(values)), dtype=torch.float64).long()
        digest = hashlib.blake2b(repr(tuple(parameter.shape)).encode(), digest_size=16)
        digest.update(values[chosen.to(values.device)].float().cpu().numpy().tobytes())
        digests.add(digest.digest())
    return hashlib.blake2b(b"".join(sorted(digests)), digest_size=16).hexdigest()
