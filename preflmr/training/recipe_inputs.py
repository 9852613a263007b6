"""What a training run starts from: the model, and the data that batches are drawn from."""

from __future__ import annotations

from typing import Annotated, Any

from preflmr.instructions import TEMPLATES
from preflmr.retrievers.kinds import FLMR_KIND, KINDS
from preflmr.training.schema import ENTRIES, AtLeast0, AtLeast1, AtLeast3, Share, one_of, settings

INSTRUCTIONS = ("row", "none", *TEMPLATES)


@settings
class Lora:
    """Low-rank adapters (Hu et al. 2022) in place of the text encoder's own weights; merged in saved checkpoints."""

    r: AtLeast1 = 16
    alpha: AtLeast1 = 32
    dropout: Share = 0.05
    modules: str = r".*text_encoder.*\.(query|key|value)"  # regular expression of module names


@settings
class Model:
    """The model that training starts from: a checkpoint, or parts put together.

    Args:
        start: a checkpoint, folder or hub id; ``"previous"``: of the stage before, in a file of several stages.
        kind: one of `preflmr.retrievers.KINDS`: what the checkpoint is, where its configuration does not say.
        config: fields of `FLMRConfig` for a model made anew; what is not given is as in published PreFLMR, and what no
            checkpoint fills is random.
        text: where a new model's text encoder comes from: a BERT or ColBERT checkpoint, or a PreFLMR one
            (``"previous"`` likewise); None: random weights by ``config.text_config``.
        vision: where a new model's vision encoder comes from: a CLIP checkpoint; None: random weights by
            ``config.vision_config``, or without that no vision encoder.
        tokenizer: where a new model's tokenizers come from: any model's, a PreFLMR checkpoint's, or a folder of one of
            its own; None: from ``text``.
        query_length, document_length: tokens of a query, and of a document at most; None: as the checkpoint has it, or
            32 and 512.
        separate_text_encoders: give queries and documents a text encoder each, as stage 3 does.
        lora: adapters in the text encoder.
    """

    start: str | None = None
    kind: Annotated[str, one_of(*KINDS)] | None = None
    config: dict[str, Any] | None = None
    text: str | None = None
    vision: str | None = None
    tokenizer: str | None = None
    query_length: AtLeast3 | None = None
    document_length: AtLeast3 | None = None
    separate_text_encoders: bool = False
    lora: Lora | None = None

    def __post_init__(self) -> None:
        if (self.start is None) == (self.config is None):
            raise ValueError("model must have either start or config, got " + ("neither" if not self.start else "both"))
        if self.config is not None and self.kind not in (None, FLMR_KIND):
            raise ValueError(f"model.config makes a PreFLMR; a model of kind {self.kind} must have model.start")
        for name in ("text", "vision", "tokenizer"):
            if self.start is not None and getattr(self, name) is not None:
                raise ValueError(f"model.{name} is for a model made from model.config, got it with model.start")


@settings
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
        images: folder, zip or tar of pictures; None: ``data.images``.
        views: with ``data.cache_images``, how many versions of a picture there are: itself, and augmented ones.
        negatives: a file that `preflmr.training.mining` wrote.
        hard_negatives: how many of ``data.negatives`` are drawn from that file.
    """

    source: str | None = None
    task: str | None = None
    split: str = "train"
    size: AtLeast1 | None = None
    questions: AtLeast1 | None = None
    instructions: Annotated[str, one_of(*INSTRUCTIONS)] = "row"
    images: str | None = None
    views: AtLeast1 = 1
    negatives: str | None = None
    hard_negatives: AtLeast0 = 0

    def __post_init__(self) -> None:
        if self.hard_negatives and self.negatives is None:
            raise ValueError(f"hard_negatives needs the file negatives, got {self.hard_negatives} without")


@settings
class Data:
    """What batches are drawn from.

    Args:
        mix: data sets by name, all shuffled together.
        homogeneous_batches: draw each batch, of all devices together, from one data set of the mix: all negatives are
            of its corpus, and short passages are not padded to another's length. Of each data set, as many whole
            batches as it fills; the rows left over are others in the next epoch.
        source: hub id or folder of those that name none.
        images: folder, zip or tar of pictures of those that name none.
        on_missing: what to do about a picture that is missing or broken: "error", "skip" or "blank".
        strict: refuse data with likely mistakes, see `preflmr.data.m2kr.load`, instead of counting them.
        negatives: passages drawn for each query besides its positive, from the corpus of that query.
        use_instructions: False leaves all of them out, in validation too: a query is its question alone.
        without_image: what a query without picture gets: a "blank" one, as in the paper, or "none".
        augment: names of `torchvision.transforms.v2`, or ``Redraw`` of `preflmr.training.augment`, with their
            arguments, applied to pictures of queries in turn.
        keep_images: read and decode each picture once, and keep it in memory.
        cache_images: encode each version of a picture once; only where pictures do not change, so with a frozen vision
            encoder, of which all states are kept in memory, in half precision where ``precision`` is.
        cache_documents: encode each passage once; only where documents do not change, so with a frozen text encoder.
        workers: processes that prepare batches; 0: none.
    """

    mix: Annotated[dict[str, Source], ENTRIES]
    homogeneous_batches: bool = False
    source: str | None = None
    images: str | None = None
    on_missing: Annotated[str, one_of("error", "skip", "blank")] = "error"
    strict: bool = True
    negatives: AtLeast0 = 4
    use_instructions: bool = True
    without_image: Annotated[str, one_of("blank", "none")] = "blank"
    augment: tuple[dict[str, Any], ...] = ()
    keep_images: bool = False
    cache_images: bool = False
    cache_documents: bool = False
    workers: AtLeast0 = 0

    def __post_init__(self) -> None:
        if not self.mix:
            raise ValueError("data.mix must name at least one data set, got none")
        for name, source in self.mix.items():
            if source.source is None and self.source is None:
                raise ValueError(f"data.mix.{name} must name its source, or data.source that of all, got neither")
            if source.views > 1 and not (self.cache_images and self.augment):
                raise ValueError(f"data.mix.{name}.views needs data.cache_images and data.augment, got {source.views}")
            if source.hard_negatives > self.negatives:
                found = f"{source.hard_negatives} of {self.negatives}"
                raise ValueError(f"data.mix.{name}.hard_negatives must be at most data.negatives, got {found}")
        for transform in self.augment:
            if len(transform) != 1:
                raise ValueError(f"data.augment must list one name with its arguments each, got {transform}")
