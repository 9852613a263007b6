"""What a training run is told: frozen dataclasses that check themselves.

A **step** is an optimiser step, everywhere: ``queries_per_step`` queries, of all devices together, after which the
parameters change once. How many batches that takes follows: ``queries_per_step / (batch_size * devices)``. In-batch
negatives come from one batch of one device, or of all devices with ``loss.across_devices``.

`preflmr.training.recipe_file` reads these from YAML; `preflmr.training.train` runs them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from preflmr.training.recipe_checks import at_least, between, one_of
from preflmr.training.recipe_inputs import INSTRUCTIONS, Data, Lora, Model, Source

__all__ = [
    "Check", "Data", "Distillation", "Lora", "Loss", "Model", "Optimizer", "Source", "TrainConfig", "Validation",
]  # fmt: skip
PARTS = ("text_encoder", "vision_encoder", "mapping")
QUERY_PARTS = ("text", "vision")
MEASURES = r"(Pseudo )?Recall@[1-9]\d*|(nDCG|MRR)@10"


@dataclass(frozen=True)
class Optimizer:
    """How parameters move.

    Args:
        name: "adam" or "adamw"; the paper says Adam.
        schedule: of the learning rate: "constant", as in the paper, "linear" or "cosine", both to 0 at the last step.
        warmup: steps in which it rises from 0.
        max_norm: gradients longer than this are shortened; None: never.
    """

    name: str = "adam"
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    max_norm: float | None = None

    def __post_init__(self) -> None:
        one_of(self.name, ("adam", "adamw"), "optimizer.name")
        one_of(self.schedule, ("constant", "linear", "cosine"), "optimizer.schedule")
        at_least(self.warmup, 0, "optimizer.warmup")
        at_least(self.weight_decay, 0, "optimizer.weight_decay")
        if len(self.betas) != 2:
            raise ValueError(f"optimizer.betas must be two numbers, got {list(self.betas)}")


@dataclass(frozen=True)
class Distillation:
    """A teacher's scores of each query's own documents, as a second term of the loss.

    Args:
        loss: "kl_divergence" or "margin_mse" of `lateint_kernels.losses`.
        teacher: a checkpoint that scores each batch; None: scores that `preflmr.training.mining` wrote beside
            the negatives.
        weight: of this term; the contrastive one has ``1 - weight``.
        temperature: of kl_divergence.
    """

    loss: str = "kl_divergence"
    teacher: str | None = None
    weight: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        one_of(self.loss, ("kl_divergence", "margin_mse"), "loss.distillation.loss")
        between(self.weight, 0, 1, "loss.distillation.weight")


@dataclass(frozen=True)
class Loss:
    """What is minimised.

    Args:
        in_batch: whether other queries' documents are negatives, or a query's own documents only (ColBERT v1).
        temperature: divides scores; the paper has none.
        mask_positives: whether another positive of the query, or a copy of its own, is no negative.
        same_corpus: whether documents of other corpora are no negatives.
        across_devices: whether documents of all devices are negatives.
        chunk: encode so many queries or documents at a time, twice (GradCache); None: all at once.
        distillation: a teacher.
    """

    in_batch: bool = True
    temperature: float = 1.0
    mask_positives: bool = False
    same_corpus: bool = False
    across_devices: bool = False
    chunk: int | None = None
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"loss.temperature must be positive, got {self.temperature}")
        at_least(self.chunk, 1, "loss.chunk")
        if self.across_devices and not self.in_batch:
            raise ValueError("loss.across_devices needs loss.in_batch, got in_batch: false")


@dataclass(frozen=True)
class Check:
    """One retrieval task to validate on.

    Args:
        source, task, split, images, instructions: as for `Source`; None for source and images: those of ``data``.
        measure: "Recall@K", "Pseudo Recall@K", "nDCG@10" or "MRR@10"; None: the task's.
        questions: only the first so many; None: all.
        exact: score every passage, instead of searching an index.
    """

    source: str | None = None
    task: str | None = None
    split: str = "valid"
    images: str | None = None
    instructions: str = "row"
    measure: str | None = None
    questions: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        one_of(self.instructions, INSTRUCTIONS, "instructions")
        if self.measure is not None and not re.fullmatch(MEASURES, self.measure):
            raise ValueError(f"measure must be like Recall@5, Pseudo Recall@5, nDCG@10 or MRR@10, got {self.measure!r}")
        at_least(self.questions, 1, "questions")


@dataclass(frozen=True)
class Validation:
    """When to validate, and what follows from it.

    Args:
        every: steps between validations.
        tasks: by name.
        select: the task whose best value chooses the checkpoint; "mean" of all tasks; "last": the last step.
        stop_after: end when any task was worse than the time before in so many validations in a row; None: never.
        batch_size: queries or passages encoded at a time.
        nbits: of the index.
    """

    every: int | None = None
    tasks: dict[str, Check] = field(default_factory=dict)
    select: str = "last"
    stop_after: int | None = None
    batch_size: int = 32
    nbits: int = 8

    def __post_init__(self) -> None:
        if bool(self.tasks) != (self.every is not None):
            raise ValueError("validation must have both every and tasks, or neither")
        at_least(self.every, 1, "validation.every")
        one_of(self.select, ("last", *(("mean", *self.tasks) if self.tasks else ())), "validation.select")
        at_least(self.stop_after, 1, "validation.stop_after")


@dataclass(frozen=True)
class TrainConfig:
    """One stage of training.

    Args:
        output: the folder for checkpoints, logs and the summary.
        model, data, optimizer, loss, validation: see there.
        learning_rates: of the parts that are trained, ``text_encoder``, ``vision_encoder``, ``mapping``; all others
            are frozen.
        steps: at most so many optimiser steps.
        queries_per_step: of all devices, before the parameters change; the paper's 8 x 8 accumulated x 4 GPUs.
        batch_size: queries encoded together on a device.
        query_parts: rows of a query that are scored: "text", "vision" (both mappings).
        frozen_dropout: whether frozen parts keep dropout, as the reference does.
        precision: "no", "bf16" or "fp16" autocast.
        gradient_checkpointing: save memory, pay time.
        save_every: steps between checkpoints to resume from; None: only as ``save_minutes`` says, before validations,
            and at the end.
        save_minutes: minutes between checkpoints, whatever the steps; None: only as ``save_every`` says.
        keep_checkpoints: how many of the last checkpoints stay.
        log_every: steps between lines in the log.
        seed: of everything random.
    """

    output: str
    model: Model
    data: Data
    learning_rates: dict[str, float]
    steps: int
    queries_per_step: int = 256
    batch_size: int = 8
    query_parts: tuple[str, ...] = QUERY_PARTS
    frozen_dropout: bool = False
    precision: str = "no"
    gradient_checkpointing: bool = False
    save_every: int | None = None
    save_minutes: float | None = 30.0
    keep_checkpoints: int = 1
    log_every: int = 10
    seed: int = 0
    optimizer: Optimizer = field(default_factory=Optimizer)
    loss: Loss = field(default_factory=Loss)
    validation: Validation = field(default_factory=Validation)

    def __post_init__(self) -> None:
        if not self.learning_rates:
            raise ValueError(f"learning_rates must name at least one of {', '.join(PARTS)}, got none")
        for part, rate in self.learning_rates.items():
            one_of(part, PARTS, "learning_rates")
            if not rate > 0:
                raise ValueError(f"learning_rates.{part} must be positive, got {rate}: leave a frozen part out")
        for name in ("steps", "queries_per_step", "batch_size", "log_every"):
            at_least(getattr(self, name), 1, name)
        if self.queries_per_step % self.batch_size:
            found = f"{self.queries_per_step} and {self.batch_size}"
            raise ValueError(f"queries_per_step must be a multiple of batch_size, got {found}")
        at_least(self.save_every, 1, "save_every")
        at_least(self.keep_checkpoints, 1, "keep_checkpoints")
        if self.save_minutes is not None and not self.save_minutes > 0:
            raise ValueError(f"save_minutes must be positive, got {self.save_minutes}")
        one_of(self.precision, ("no", "bf16", "fp16"), "precision")
        if not self.query_parts or len(set(self.query_parts)) < len(self.query_parts):
            raise ValueError(f"query_parts must name each part once, and at least one, got {list(self.query_parts)}")
        for part in self.query_parts:
            one_of(part, QUERY_PARTS, "query_parts")
        if self.data.without_image == "none" and "text" not in self.query_parts:
            raise ValueError("data.without_image must be blank where queries have no text rows, got none")
        for cache, part in (("cache_documents", "text_encoder"), ("cache_images", "vision_encoder")):
            if not getattr(self.data, cache):
                continue
            if part in self.learning_rates:
                raise ValueError(f"data.{cache} needs a frozen {part}, got learning_rates.{part}")
            if self.frozen_dropout:
                raise ValueError(f"data.{cache} needs encoders without dropout, got frozen_dropout")
            if self.loss.distillation is not None and self.loss.distillation.teacher is not None:
                raise ValueError(f"data.{cache} keeps from a teacher what it reads, got loss.distillation.teacher")
        if self.model.lora is not None and "text_encoder" not in self.learning_rates:
            raise ValueError("model.lora needs learning_rates.text_encoder, got none")
        if self.loss.distillation is not None and not self.data.negatives:
            raise ValueError("loss.distillation needs data.negatives, got 0")

    def micro_batches(self, devices: int) -> int:
        """How many batches of each device make a step.

        Raises:
            ValueError: ``queries_per_step`` cannot be shared equally.
        """
        if self.queries_per_step % (self.batch_size * devices):
            found = f"{self.queries_per_step}, {self.batch_size} and {devices}"
            raise ValueError(f"queries_per_step must be a multiple of batch_size times devices, got {found}")
        return self.queries_per_step // (self.batch_size * devices)
