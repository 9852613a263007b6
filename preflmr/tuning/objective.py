"""The loss of a generator on lessons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from preflmr.tuning.targets import Lesson

IGNORED = -100


class TuningObjective(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """``objective(lessons)`` is the mean loss over questions.

    Args:
        generator: a `preflmr.answering.generator.Generator`.
        loss: "nll" or "marginal", see `preflmr.tuning.config.TuneConfig`.
    """

    def __init__(self, generator: Any, loss: str) -> None:
        super().__init__()
        self.model, self.loss = generator.model, loss
        self._generator = (generator,)

    def forward(self, lessons: Sequence[Lesson]) -> Tensor:
        likelihood, lengths = self.log_likelihood(lessons)
        if self.loss == "nll":
            return -likelihood.sum() / lengths.sum()
        priors = torch.tensor([lesson.priors for lesson in lessons], device=likelihood.device)  # [Q, K]
        joint = priors + likelihood.reshape(priors.shape)
        return -joint.logsumexp(1).mean()

    def log_likelihood(self, lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
        """``log p(target | prompt)`` of every prompt, ``[Q * K]``, the token that ends it included, and its tokens."""
        (generator,) = self._generator
        prompts = [prompt for lesson in lessons for prompt in lesson.prompts]
        shown = [lesson.pictures for lesson in lessons for _ in lesson.prompts]
        inputs = dict(generator.inputs(prompts, shown))
        targets = self._targets([text for lesson in lessons for text in lesson.targets])
        if self.model.config.is_encoder_decoder:
            logits = self.model(**inputs, labels=targets).logits
        else:
            inputs, targets = _continued(inputs, targets)
            logits = self.model(**inputs).logits[:, :-1]
            targets = targets[:, 1:]
        logits, counted = logits[:, -targets.shape[1] :], targets != IGNORED
        steps = logits.float().log_softmax(-1)
        chosen = steps.gather(-1, targets.masked_fill(~counted, 0)[..., None])[..., 0]
        return chosen.masked_fill(~counted, 0.0).sum(1), counted.sum(1)

    def _targets(self, texts: Sequence[str]) -> Tensor:
        """``[n, L]`` ids with the token that ends an answer, `IGNORED` after it."""
        (generator,) = self._generator
        tokenizer, end = generator.tokenizer, min(generator.ends())
        ids = [
            [*tokenizer(text, add_special_tokens=False)["input_ids"][: generator.max_new_tokens - 1], end]
            for text in texts
        ]
        padded = torch.full((len(ids), max(map(len, ids))), IGNORED)
        for row, one in zip(padded, ids, strict=True):
            row[: len(one)] = torch.tensor(one)
        return padded.to(self.model.device)


def _continued(inputs: dict[str, Any], targets: Tensor) -> tuple[dict[str, Any], Tensor]:
    """Prompts with their targets after them, and targets in the same places."""
    asked = inputs["input_ids"]
    counted = targets != IGNORED
    longer = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == asked.shape:
            more = torch.zeros_like(targets).to(value.dtype)
            if name == "input_ids":
                more = targets.masked_fill(~counted, 0)
            if name == "attention_mask":
                more = counted.to(value.dtype)
            longer[name] = torch.cat([value, more], dim=1)
    return longer, torch.cat([torch.full_like(asked, IGNORED), targets], dim=1)
