"""Models of transformers that read pages as pictures: ColPali, ColQwen2 and ColModernVBERT.

A query is words. A document is a picture, or, where it has none, words without the tokens that augment a query. Where
it has both, the picture alone is read, as these models were trained.

Source: Faysse et al., ColPali (ICLR 2025), arXiv 2407.01449; Teiletche et al., ModernVBERT, arXiv 2510.01149
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from preflmr.retrievers.kinds import PAGES, QUERY
from preflmr.retrievers.protocol import Adapter, Reading, Tokenized, Tokens, by_pictures, choose_all

NOT_INPUTS = ("labels", "mm_token_type_ids")
VISION = ("vision_tower", "vision_model", "visual")  # what the models inside call their image encoders
CONNECTORS = ("multi_modal_projector", "connector")


class Pages(Adapter):
    """See `preflmr.retrievers.Retriever`; items are texts.

    Args:
        model: a ``ColPaliForRetrieval``, ``ColQwen2ForRetrieval`` or ``ColModernVBertForRetrieval``.
        processor: its processor.
        name: where it was loaded from.
    """

    def __init__(self, model: Any, processor: Any, name: str | None = None) -> None:
        super().__init__(model, name or str(getattr(model, "name_or_path", "") or "") or None)
        self.processor = processor

    @classmethod
    def load(cls, kind: str, place: str, **options: Any) -> Pages:
        """A model and its processor from a folder or the hub; ``options`` are of ``from_pretrained``."""
        import transformers

        model, processor = (getattr(transformers, name) for name in PAGES[kind])
        return cls(model.from_pretrained(place, **options), processor.from_pretrained(place), place)

    @property
    def reading(self) -> Reading:
        return Reading(pictures=True, document_pictures=True)

    def tokenized(self, side: str, texts: Sequence[str]) -> Tokenized:
        """See `Retriever.tokenized`."""
        found = self.processor.tokenizer(list(texts))["input_ids"] if texts else []
        return Tokenized(list(texts), np.array([len(ids) or 1 for ids in found], np.int64))

    def inputs(
        self, side: str, items: Sequence[Any], pictures: Sequence[Sequence[Any]] | None = None
    ) -> dict[str, Tensor]:
        """What the processor makes of texts and of pages, each padded to the longest of both; ``pictures`` ``[n]`` says
        which are pages."""
        counts = [len(some) for some in pictures or [()] * len(items)]
        if side == QUERY and any(counts):
            raise ValueError("queries must have no pictures: this model reads words with questions")
        if max(counts) > 1:
            raise ValueError(f"a document must have one picture, its page, got {max(counts)}")
        texts = [item for item, count in zip(items, counts, strict=True) if not count]
        pages = [some[0] for some in pictures or () if some]
        parts = [self._texts(side, texts)] if texts else []
        parts += [self._process(self.processor.process_images, images=pages)] if pages else []
        order = sorted(range(len(items)), key=counts.__getitem__)
        back = torch.tensor(order).argsort()
        names = dict.fromkeys(name for part in parts for name in part)
        found = {name: _joined([part.get(name) for part in parts], [len(texts), len(pages)])[back] for name in names}
        return found | {"pictures": torch.tensor(counts)}

    def rows(
        self, side: str, inputs: dict[str, Tensor], *, text: bool | None = None, vision: bool | None = None
    ) -> Tokens:
        """See `Retriever.rows`; a row is there for every token, those of the prompt and of query augmentation, too."""
        choose_all(text, vision, type(self.model).__name__)
        pages = {name for name in inputs if name.startswith(("pixel_", "image_"))}

        def some(members: Tensor, count: int) -> Tokens:
            given = {
                name: value[members]
                for name, value in inputs.items()
                if name != "pictures" and (count or name not in pages)
            }
            mask = given["attention_mask"].bool()
            return self.model(**given).embeddings, mask

        return by_pictures(inputs["pictures"], some)

    def parts(self) -> dict[str, list[nn.Module]]:
        """The image encoder, the projection of its states with that of the rows, and all else, the language model."""
        vision = _first(self.model.vlm, VISION)
        mapping = [module for name, module in self.model.vlm.named_modules() if name.rpartition(".")[2] in CONNECTORS]
        if (merger := getattr(vision, "merger", None)) is not None:
            mapping.append(merger)
        mapping.append(self.model.embedding_proj_layer)
        language = _first(self.model.vlm, ("language_model", "text_model"))
        return {"text_encoder": [language], "vision_encoder": _without(vision, mapping), "mapping": mapping}

    def save(self, folder: Path) -> None:
        """As transformers saves it, with its processor."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def _texts(self, side: str, texts: list[str]) -> dict[str, Tensor]:
        if side == QUERY:
            return self._process(self.processor.process_queries, text=texts)
        return self._process(self.processor.process_queries, text=texts, suffix="")

    def _process(self, process: Any, **given: Any) -> dict[str, Tensor]:
        found = process(**given, return_tensors="pt")
        return {name: value for name, value in found.items() if name not in NOT_INPUTS}


def _joined(values: list[Tensor | None], sizes: list[int]) -> Tensor:
    """Tensors end to end, each padded with zeros to the largest; zeros where one is None."""
    sizes = [size for size in sizes if size]
    known = [value for value in values if value is not None]
    shape = [max(value.shape[axis] for value in known) for axis in range(1, known[0].ndim)]
    filled = known[0].new_zeros(sum(sizes), *shape)
    start = 0
    for value, size in zip(values, sizes, strict=True):
        if value is not None:
            place = (slice(start, start + size), *(slice(0, length) for length in value.shape[1:]))
            filled[place] = value
        start += size
    return filled


def _first(model: nn.Module, names: Sequence[str]) -> nn.Module:
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in names:
            return module
    raise ValueError(f"model must have one of {', '.join(names)}, {type(model).__name__} has none")


def _without(module: nn.Module, others: Sequence[nn.Module]) -> list[nn.Module]:
    """The module, or its children where one of them is among ``others``."""
    children = list(module.children())
    if not any(child is other for child in children for other in others):
        return [module]
    return [child for child in children if not any(child is other for other in others)]
