"""What fine-tuning a generator is told: a frozen dataclass that checks itself (`preflmr.training.schema`)."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field

from preflmr.training.recipe_inputs import Lora
from preflmr.training.schema import SECTION, AtLeast1, Positive, one_of, settings

LANGUAGE_MODEL = r".*language_model.*\.(q|v|q_proj|v_proj)"
LOSSES = ("nll", "marginal")


def _lora() -> Lora:
    return Lora(r=8, alpha=32, dropout=0.1, modules=LANGUAGE_MODEL)


@settings
class Questions:
    """Questions, their passages, and what was found for them.

    Args:
        source, task, split, images: see `preflmr.data.m2kr.load`.
        retrieved: what ``preflmr eval --out`` wrote for this split.
        limit: only the first so many questions; None: all.
        on_missing: what a missing picture does: "error", "skip" or "blank".
    """

    source: str
    retrieved: str
    task: str | None = None
    split: str = "train"
    images: str | None = None
    limit: AtLeast1 | None = None
    on_missing: Annotated[str, one_of("error", "skip", "blank")] = "error"


@settings
class TuneConfig:
    """Fine-tuning of a generator with adapters; defaults are RA-VQA v2's.

    Args:
        output: the folder for checkpoints, the log and ``best``, a generator of its own with adapters merged.
        generator: a folder, or an image-text-to-text model on the hub.
        train: what is learned from.
        valid: what is answered to choose the best step; None: the last step is.
        lora: adapters; ``modules`` is a regular expression of module names.
        k: passages of a question that may be read.
        read: of these, so many are drawn for each step.
        loss: "nll", the mean over passages of the answer's negative log-likelihood, each passage with an answer that it
            contains if it contains one; or "marginal", ``-log sum_k p(passage_k) p(answer | passage_k)`` (Lewis et al.,
            RAG, 2020), ``p(passage)`` the softmax of the retrieval scores.
        temperature: divides the retrieval scores.
        steps: of the optimiser.
        questions_per_step, questions_at_once: for a step, and encoded together.
        learning_rate, weight_decay, max_norm: of AdamW; the rate is constant.
        prompt, max_length, max_new_tokens, beams: see `preflmr.answering.generator.Generator`.
        precision: "no", "bf16" or "fp16" autocast.
        validate_every: steps between validations.
        patience: end after so many validations without a better one; None: never.
        save_minutes: minutes between checkpoints to resume from.
        log_every: steps between lines in the log.
        seed: of everything random.
    """

    output: str
    generator: str
    train: Questions
    steps: AtLeast1
    valid: Annotated[Questions | None, SECTION] = None
    lora: Annotated[Lora, SECTION] = field(default_factory=_lora)
    k: AtLeast1 = 5
    read: AtLeast1 = 3
    loss: Annotated[str, one_of(*LOSSES)] = "nll"
    temperature: Positive = 1.0
    questions_per_step: AtLeast1 = 16
    questions_at_once: AtLeast1 = 1
    learning_rate: Positive = 1e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    max_norm: Positive | None = None
    prompt: str | None = None
    max_length: AtLeast1 = 512
    max_new_tokens: AtLeast1 = 10
    beams: AtLeast1 = 5
    precision: Annotated[str, one_of("no", "bf16", "fp16")] = "no"
    validate_every: AtLeast1 = 500
    patience: AtLeast1 | None = 5
    save_minutes: Positive = 30.0
    log_every: AtLeast1 = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.read > self.k:
            raise ValueError(f"read must be at most k, got {self.read} and {self.k}")
        if self.questions_per_step % self.questions_at_once:
            found = f"{self.questions_per_step} and {self.questions_at_once}"
            raise ValueError(f"questions_per_step must be a multiple of questions_at_once, got {found}")
