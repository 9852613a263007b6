"""What a training run is told: frozen dataclasses that check themselves (`preflmr.training.schema`).

A **step** is an optimiser step, everywhere: ``queries_per_step`` queries, of all devices together, after which the
parameters change once. How many batches that takes follows: ``queries_per_step / (batch_size * devices)``. In-batch
negatives come from one batch of one device, or of all devices with ``loss.across_devices``.

`preflmr.training.recipe_file` reads these from YAML; `preflmr.training.train` runs them.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import Annotated

from pydantic import Field

from preflmr.training.recipe_inputs import INSTRUCTIONS, Data, Lora, Model, Source
from preflmr.training.schema import ENTRIES, SECTION, AtLeast0, AtLeast1, Positive, Share, one_of, settings

__all__ = [
    "Check", "Data", "Distillation", "Lora", "Loss", "Model", "Optimizer", "Source", "TrainConfig", "Validation",
]  # fmt: skip
PARTS = ("text_encoder", "vision_encoder", "mapping")
QUERY_PARTS = ("text", "vision")
NLL = "NLL"
MEASURES = rf"(Pseudo )?Recall@[1-9]\d*|(nDCG|MRR)@10|{NLL}"


@settings
class Optimizer:
    """How parameters move.

    Args:
        name: "adam" or "adamw"; the paper says Adam.
        schedule: of the learning rate: "constant", as in the paper, "linear" or "cosine", both to 0 at the last step.
        warmup: steps in which it rises from 0.
        max_norm: gradients longer than this are shortened; None: never.
    """

    name: Annotated[str, one_of("adam", "adamw")] = "adam"
    betas: tuple[Share, ...] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Annotated[str, one_of("constant", "linear", "cosine")] = "constant"
    warmup: AtLeast0 = 0
    max_norm: Positive | None = None

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"optimizer.betas must be two numbers, got {list(self.betas)}")


@settings
class Distillation:
    """A teacher's scores of each query's own documents, as a second term of the loss.

    Args:
        loss: "kl_divergence" or "margin_mse" of `lateint_kernels.losses`.
        teacher: a checkpoint that scores each batch; None: scores that `preflmr.training.mining` wrote beside
            the negatives.
        weight: of this term; the contrastive one has ``1 - weight``.
        temperature: of kl_divergence.
    """

    loss: Annotated[str, one_of("kl_divergence", "margin_mse")] = "kl_divergence"
    teacher: str | None = None
    weight: Share = 0.5
    temperature: Positive = 1.0


@settings
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
    temperature: Positive = 1.0
    mask_positives: bool = False
    same_corpus: bool = False
    across_devices: bool = False
    chunk: AtLeast1 | None = None
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        if self.across_devices and not self.in_batch:
            raise ValueError("loss.across_devices needs loss.in_batch, got in_batch: false")


@settings
class Check:
    """One retrieval task to validate on.

    Args:
        source, task, split, images, instructions: as for `Source`; None for source and images: those of ``data``.
        measure: "Recall@K", "Pseudo Recall@K", "nDCG@10" or "MRR@10"; None: the task's. Or "NLL", for which nothing is
            searched: the mean loss of the questions, in batches as training has them, always the same ones, without
            dropout, augmentation and teacher; lower is better.
        questions: only the first so many; None: all.
        exact: score every passage, instead of searching an index.
    """

    source: str | None = None
    task: str | None = None
    split: str = "valid"
    images: str | None = None
    instructions: Annotated[str, one_of(*INSTRUCTIONS)] = "row"
    measure: str | None = None
    questions: AtLeast1 | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        if self.measure is not None and not re.fullmatch(MEASURES, self.measure):
            known = "Recall@5, Pseudo Recall@5, nDCG@10, MRR@10 or NLL"
            raise ValueError(f"measure must be like {known}, got {self.measure!r}")

    @property
    def sign(self) -> int:
        """What makes better values larger ones."""
        return -1 if self.measure == NLL else 1


@settings
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

    every: AtLeast1 | None = None
    tasks: Annotated[dict[str, Check], ENTRIES] = field(default_factory=dict)
    select: str = "last"
    stop_after: AtLeast1 | None = None
    batch_size: AtLeast1 = 32
    nbits: int = 8

    def __post_init__(self) -> None:
        if bool(self.tasks) != (self.every is not None):
            raise ValueError("validation must have both every and tasks, or neither")
        allowed = ("last", *(("mean", *self.tasks) if self.tasks else ()))
        if self.select not in allowed:
            raise ValueError(f"validation.select must be one of {', '.join(allowed)}, got {self.select!r}")
        if self.select == "mean" and len({check.sign for check in self.tasks.values()}) > 1:
            raise ValueError("validation.select must not be mean where NLL, of which less is better, is among others")

    @property
    def sign(self) -> int:
        """That of the value which selects."""
        chosen = self.tasks.values() if self.select == "mean" else [self.tasks[self.select]]
        return next(check.sign for check in chosen)


@settings
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
        sharded: share out parameters, gradients and the optimizer's states over devices (FSDP); each process keeps one
            more copy of the model in the memory of the host.
        save_every: steps between checkpoints to resume from; None: only as ``save_minutes`` says, before validations,
            and at the end.
        save_minutes: minutes between checkpoints, whatever the steps; None: only as ``save_every`` says.
        keep_checkpoints: how many of the last checkpoints stay.
        models_every: steps between models that are kept in ``models/``, each a checkpoint of its own; None: none is.
        log_every: steps between lines in the log.
        tracker: who shows losses besides the log: "tensorboard", "wandb" (Weights and Biases) or "none".
        project: what Weights and Biases calls the project.
        hub: a repository on the Hugging Face hub to which ``best`` is uploaded at the end, with a model card; None:
            nothing is uploaded.
        seed: of everything random.
    """

    output: str
    model: Model
    data: Data
    learning_rates: Annotated[dict[Annotated[str, one_of(*PARTS)], Positive], ENTRIES]
    steps: AtLeast1
    queries_per_step: AtLeast1 = 256
    batch_size: AtLeast1 = 8
    query_parts: tuple[Annotated[str, one_of(*QUERY_PARTS)], ...] = QUERY_PARTS
    frozen_dropout: bool = False
    precision: Annotated[str, one_of("no", "bf16", "fp16")] = "no"
    gradient_checkpointing: bool = False
    sharded: bool = False
    save_every: AtLeast1 | None = None
    save_minutes: Positive | None = 30.0
    keep_checkpoints: AtLeast1 = 1
    models_every: AtLeast1 | None = None
    log_every: AtLeast1 = 10
    tracker: Annotated[str, one_of("tensorboard", "wandb", "none")] = "tensorboard"
    project: str = "preflmr"
    hub: str | None = None
    seed: int = 0
    optimizer: Annotated[Optimizer, SECTION] = field(default_factory=Optimizer)
    loss: Annotated[Loss, SECTION] = field(default_factory=Loss)
    validation: Annotated[Validation, SECTION] = field(default_factory=Validation)

    def __post_init__(self) -> None:
        if not self.learning_rates:
            raise ValueError(f"learning_rates must name at least one of {', '.join(PARTS)}, got none")
        if self.queries_per_step % self.batch_size:
            found = f"{self.queries_per_step} and {self.batch_size}"
            raise ValueError(f"queries_per_step must be a multiple of batch_size, got {found}")
        if not self.query_parts or len(set(self.query_parts)) < len(self.query_parts):
            raise ValueError(f"query_parts must name each part once, and at least one, got {list(self.query_parts)}")
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
        if self.sharded and (self.loss.chunk is not None or self.precision == "fp16"):
            name = "loss.chunk" if self.loss.chunk is not None else "precision: fp16"
            raise ValueError(f"sharded works without {name}, got both")
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
