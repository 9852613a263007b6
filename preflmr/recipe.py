"""What a training run is told: frozen dataclasses that check themselves.

A **step** is an optimiser step, everywhere: ``queries_per_step`` queries, of all devices together, after which the
parameters change once. How many batches that takes follows: ``queries_per_step / (batch_size * devices)``. In-batch
negatives come from one batch of one device, or of all devices with ``loss.across_devices``.

`preflmr.recipe_file` reads these from YAML; `preflmr.train` runs them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

PARTS = ("text_encoder", "vision_encoder", "mapping")
QUERY_PARTS = ("text", "vision")
MEASURES = r"(Pseudo )?Recall@[1-9]\d*|(nDCG|MRR)@10"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (Hu et al. 2022) in place of the text encoder's own weights; merged in saved checkpoints."""

    r: int = 16
    alpha: int = 32
    dropout: float = 0.05
    modules: str = r".*text_encoder.*\.(query|key|value)"  # regular expression of module names

    def __post_init__(self) -> None:
        _at_least(self.r, 1, "model.lora.r")
        _at_least(self.alpha, 1, "model.lora.alpha")
        _between(self.dropout, 0, 1, "model.lora.dropout")


@dataclass(frozen=True)
class Model:
    """The model that training starts from: a checkpoint, or parts put together.

    Args:
        start: a checkpoint of PreFLMR or FLMR, folder or hub id; ``"previous"``: of the stage before, in a file of
            several stages.
        config: fields of `FLMRConfig` for a model made anew; what is not given is as in published PreFLMR, and what no
            checkpoint fills is random.
        text: where a new model's text encoder comes from: a BERT or ColBERT checkpoint, or a PreFLMR one
            (``"previous"`` likewise); None: random weights by ``config.text_config``.
        vision: where a new model's vision encoder comes from: a CLIP checkpoint; None: random weights by
            ``config.vision_config``, or without that no vision encoder.
        tokenizer: where a new model's tokenizers come from; None: from ``text``.
        query_length, document_length: tokens of a query, and of a document at most; None: as the checkpoint has it, or
            32 and 512.
        separate_text_encoders: give queries and documents a text encoder each, as stage 3 does.
        lora: adapters in the text encoder.
    """

    start: str | None = None
    config: dict[str, Any] | None = None
    text: str | None = None
    vision: str | None = None
    tokenizer: str | None = None
    query_length: int | None = None
    document_length: int | None = None
    separate_text_encoders: bool = False
    lora: Lora | None = None

    def __post_init__(self) -> None:
        if (self.start is None) == (self.config is None):
            raise ValueError("model must have either start or config, got " + ("neither" if not self.start else "both"))
        for name in ("query_length", "document_length"):
            if getattr(self, name) is not None:
                _at_least(getattr(self, name), 3, f"model.{name}")
        for name in ("text", "vision", "tokenizer"):
            if self.start is not None and getattr(self, name) is not None:
                raise ValueError(f"model.{name} is for a model made from model.config, got it with model.start")


@dataclass(frozen=True)
class Source:
    """One data set of the mix, and how it is used.

    Args:
        source: hub id or folder; None: ``data.source``.
        task: name of an M2KR task; None: what the folder holds.
        split: which questions.
        size: examples of it in an epoch: fewer than there are are drawn afresh each epoch, more are repeated
            (Table 9); None: each once.
        questions: use only so many of its questions, drawn once by the seed; None: all.
        instructions: a key of `preflmr.instructions.TEMPLATES`, drawn at each access; "row": the column; "none".
        images: folder or zip of pictures; None: ``data.images``.
        negatives: a file that `preflmr.mining` wrote.
        hard_negatives: how many of ``data.negatives`` are drawn from that file.
    """

    source: str | None = None
    task: str | None = None
    split: str = "train"
    size: int | None = None
    questions: int | None = None
    instructions: str = "row"
    images: str | None = None
    negatives: str | None = None
    hard_negatives: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "questions"):
            if getattr(self, name) is not None:
                _at_least(getattr(self, name), 1, name)
        _at_least(self.hard_negatives, 0, "hard_negatives")
        if self.hard_negatives and self.negatives is None:
            raise ValueError(f"hard_negatives needs the file negatives, got {self.hard_negatives} without")


@dataclass(frozen=True)
class Data:
    """What batches are drawn from.

    Args:
        mix: data sets by name, all shuffled together.
        source: hub id or folder of those that name none.
        images: folder or zip of pictures of those that name none.
        on_missing: what to do about a picture that is missing or broken: "error", "skip" or "blank".
        strict: refuse data with likely mistakes, see `preflmr.m2kr.load`, instead of counting them.
        negatives: passages drawn for each query besides its positive, from the corpus of that query.
        use_instructions: False leaves all of them out, in validation too: a query is its question alone.
        without_image: what a query without picture gets: a "blank" one, as in the paper, or "none".
        augment: names of `torchvision.transforms.v2` with their arguments, applied to pictures of queries in turn.
        cache_documents: encode each passage once; only where documents do not change, so with a frozen text encoder.
        workers: processes that prepare batches; 0: none.
    """

    mix: dict[str, Source]
    source: str | None = None
    images: str | None = None
    on_missing: str = "error"
    strict: bool = True
    negatives: int = 4
    use_instructions: bool = True
    without_image: str = "blank"
    augment: tuple[dict[str, Any], ...] = ()
    cache_documents: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        if not self.mix:
            raise ValueError("data.mix must name at least one data set, got none")
        _one_of(self.on_missing, ("error", "skip", "blank"), "data.on_missing")
        _one_of(self.without_image, ("blank", "none"), "data.without_image")
        _at_least(self.negatives, 0, "data.negatives")
        _at_least(self.workers, 0, "data.workers")
        for name, source in self.mix.items():
            if source.source is None and self.source is None:
                raise ValueError(f"data.mix.{name} must name its source, or data.source that of all, got neither")
            if source.hard_negatives > self.negatives:
                found = f"{source.hard_negatives} of {self.negatives}"
                raise ValueError(f"data.mix.{name}.hard_negatives must be at most data.negatives, got {found}")
        for transform in self.augment:
            if len(transform) != 1:
                raise ValueError(f"data.augment must list one name with its arguments each, got {transform}")


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
        _one_of(self.name, ("adam", "adamw"), "optimizer.name")
        _one_of(self.schedule, ("constant", "linear", "cosine"), "optimizer.schedule")
        _at_least(self.warmup, 0, "optimizer.warmup")
        _at_least(self.weight_decay, 0, "optimizer.weight_decay")
        if len(self.betas) != 2:
            raise ValueError(f"optimizer.betas must be two numbers, got {list(self.betas)}")


@dataclass(frozen=True)
class Distillation:
    """A teacher's scores of each query's own documents, as a second term of the loss.

    Args:
        loss: "kl_divergence" or "margin_mse" of `lateint_kernels.losses`.
        teacher: a checkpoint that scores each batch; None: scores that `preflmr.mining` wrote beside the negatives.
        weight: of this term; the contrastive one has ``1 - weight``.
        temperature: of kl_divergence.
    """

    loss: str = "kl_divergence"
    teacher: str | None = None
    weight: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _one_of(self.loss, ("kl_divergence", "margin_mse"), "loss.distillation.loss")
        _between(self.weight, 0, 1, "loss.distillation.weight")


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
        if self.chunk is not None:
            _at_least(self.chunk, 1, "loss.chunk")
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
        if self.measure is not None and not re.fullmatch(MEASURES, self.measure):
            raise ValueError(f"measure must be like Recall@5, Pseudo Recall@5, nDCG@10 or MRR@10, got {self.measure!r}")
        if self.questions is not None:
            _at_least(self.questions, 1, "questions")


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
        if self.every is not None:
            _at_least(self.every, 1, "validation.every")
        _one_of(self.select, ("last", *(("mean", *self.tasks) if self.tasks else ())), "validation.select")
        if self.stop_after is not None:
            _at_least(self.stop_after, 1, "validation.stop_after")


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
        save_every: steps between checkpoints to resume from; None: at validations, and at the end.
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
    log_every: int = 10
    seed: int = 0
    optimizer: Optimizer = field(default_factory=Optimizer)
    loss: Loss = field(default_factory=Loss)
    validation: Validation = field(default_factory=Validation)

    def __post_init__(self) -> None:
        if not self.learning_rates:
            raise ValueError(f"learning_rates must name at least one of {', '.join(PARTS)}, got none")
        for part, rate in self.learning_rates.items():
            _one_of(part, PARTS, "learning_rates")
            if not rate > 0:
                raise ValueError(f"learning_rates.{part} must be positive, got {rate}: leave a frozen part out")
        for name in ("steps", "queries_per_step", "batch_size", "log_every"):
            _at_least(getattr(self, name), 1, name)
        if self.queries_per_step % self.batch_size:
            found = f"{self.queries_per_step} and {self.batch_size}"
            raise ValueError(f"queries_per_step must be a multiple of batch_size, got {found}")
        if self.save_every is not None:
            _at_least(self.save_every, 1, "save_every")
        _one_of(self.precision, ("no", "bf16", "fp16"), "precision")
        if not self.query_parts or len(set(self.query_parts)) < len(self.query_parts):
            raise ValueError(f"query_parts must name each part once, and at least one, got {list(self.query_parts)}")
        for part in self.query_parts:
            _one_of(part, QUERY_PARTS, "query_parts")
        if self.data.without_image == "none" and "text" not in self.query_parts:
            raise ValueError("data.without_image must be blank where queries have no text rows, got none")
        if self.data.cache_documents and "text_encoder" in self.learning_rates:
            raise ValueError("data.cache_documents needs a frozen text encoder, got learning_rates.text_encoder")
        if self.data.cache_documents and self.frozen_dropout:
            raise ValueError("data.cache_documents needs documents without dropout, got frozen_dropout")
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


def _at_least(value: float, least: float, name: str) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def _between(value: float, least: float, most: float, name: str) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least} and {most}, got {value}")


def _one_of(value: str, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
