"""PreFLMR and FLMR as retrievers: queries and documents of words and pictures, each with rows of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lateint.encoders import Places
from preflmr.model.flmr import PreFLMR
from preflmr.retrievers.kinds import DOCUMENT, QUERY
from preflmr.retrievers.protocol import PARTS, Reading, Tokenized, Tokens, by_pictures

AT_ONCE = 256  # texts of about one length that are tokenized together
WORDS = ("input_ids", "attention_mask")
PICTURES = ("pixel_values", "image_features")


class FLMR:
    """See `preflmr.retrievers.Retriever`; items are arrays ``[2, L]`` of ids and their attention mask.

    Args:
        model: a `PreFLMR`.
    """

    def __init__(self, model: PreFLMR) -> None:
        self.model = model

    @property
    def name(self) -> str:
        return str(self.model.name_or_path or type(self.model).__name__)

    @property
    def reading(self) -> Reading:
        config = self.model.config
        sees = bool(config.use_vision_encoder)
        documents = bool(config.context_concat_output_from_vision_encoder)
        return Reading(
            pictures=sees,
            query_pictures=sees and bool(config.query_concat_output_from_vision_encoder),
            document_pictures=documents,
            separator=config.mask_instruction_token,
            use_instructions=config.use_instructions,
            without_image=config.without_image,
            document_parts=PARTS if documents else ("text_encoder",),
        )

    @property
    def truncated(self) -> dict[str, int]:
        return {side: getattr(self._tokenizers[side], "truncated", 0) for side in (QUERY, DOCUMENT)}

    @property
    def _tokenizers(self) -> dict[str, Any]:
        return {QUERY: self.model.query_tokenizer, DOCUMENT: self.model.document_tokenizer}

    def check(self, side: str) -> None:
        """See `Retriever.check`."""
        self._tokenizer(side)

    def tokenized(self, side: str, texts: Sequence[str]) -> Tokenized:
        """See `Retriever.tokenized`."""
        tokenizer, items = self._tokenizer(side), [np.zeros((2, 0), np.int64)] * len(texts)
        padding = {} if side == QUERY else {"padding": "longest"}
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), AT_ONCE):
            some = order[start : start + AT_ONCE]
            found = tokenizer([texts[i] for i in some], **padding)
            # Documents without their padding; queries always have all of their rows.
            for i, ids, mask in zip(some, *(found[name].numpy() for name in WORDS), strict=True):
                items[i] = np.stack([ids, mask]) if side == QUERY else np.stack([ids[mask == 1], mask[mask == 1]])
        return Tokenized(items, np.array([item.shape[1] for item in items], np.int64))

    def inputs(
        self, side: str, items: Sequence[Any], pictures: Sequence[Sequence[Any]] | None = None
    ) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` ``[n, L]``; with pictures ``pixel_values`` ``[n, R, 3, H, W]``, and
        ``pictures`` ``[n]``, how many of R each has."""
        longest = max(item.shape[1] for item in items)
        padded = torch.zeros(2, len(items), longest, dtype=torch.int64)
        padded[0] = self._tokenizer(side).pad_token_id or 0
        for number, item in enumerate(items):
            padded[:, number, : item.shape[1]] = torch.from_numpy(item)
        return dict(zip(WORDS, padded.unbind(), strict=True)) | self._pixels(pictures)

    def rows(
        self, side: str, inputs: dict[str, Tensor], *, text: bool | None = None, vision: bool | None = None
    ) -> Tokens:
        """See `Retriever.rows`."""
        encode = self.model.query if side == QUERY else self.model.doc
        flags: dict[str, Any] = {} if text is None else {"concat_output_from_text_encoder": text}
        counts = inputs.get("pictures")

        def some(members: Any, count: int) -> Tokens:
            words = {name: inputs[name][members] for name in WORDS}
            pictures = {name: inputs[name][members, :count] for name in PICTURES if count and name in inputs}
            shown = vision if pictures else bool(vision)
            own = flags if shown is None else flags | {"concat_output_from_vision_encoder": shown}
            output = encode(**words, **pictures, **own)
            return output.late_interaction_output, output.mask

        return some(slice(None), 0) if counts is None or vision is False else by_pictures(counts, some)

    def query_places(self, text: str, picture: Any) -> Places:
        """What the rows of a query stand for: words, the whole picture, and its patches.

        Args:
            text: instruction and question.
            picture: of Pillow, or None.
        """
        config, tokenizer, words = self.model.config, self._tokenizer(QUERY), []
        if config.query_concat_output_from_text_encoder:
            taking_part = self.model.query_mask(tokenizer([text])["input_ids"])[0].tolist()
            spans = tokenizer.spans(text)
            spans += [(0, 0)] * (len(taking_part) - len(spans))  # padding
            words = [text[first:last] for (first, last), there in zip(spans, taking_part, strict=True) if there]
        if not self.reading.query_pictures:
            return Places(words)
        vision = config.vision_config
        side = vision.image_size // vision.patch_size if config.use_transformer_mapping_network else 0
        first = len(words) + config.mapping_network_prefix_length
        words += [""] * (config.mapping_network_prefix_length + side**2)
        if picture is None or not side:  # an absent picture is a black one
            return Places(words)
        return Places(words, (side, side), first, self.model.image_processor.box(picture.size))

    def document_spans(self, text: str) -> NDArray[np.int64]:
        """``[L, 2]``: where the tokens of a document begin and end in its text, in characters."""
        tokenizer = self._tokenizer(DOCUMENT)
        taking_part = self.model.document_mask(tokenizer([text], padding="longest")["input_ids"])[0].tolist()
        return np.array([s for s, there in zip(tokenizer.spans(text), taking_part, strict=True) if there], np.int64)

    def parts(self) -> dict[str, list[nn.Module]]:
        """See `Retriever.parts`."""
        return self.model.parts()

    def save(self, folder: Path) -> None:
        """The published layout."""
        self.model.save_pretrained(folder)

    def _tokenizer(self, side: str) -> Any:
        tokenizer = self._tokenizers[side]
        if tokenizer is None:
            raise ValueError(f"model must have a {side}_tokenizer, got None; load it with its tokenizers or set one")
        return tokenizer

    def _pixels(self, pictures: Sequence[Sequence[Any]] | None) -> dict[str, Tensor]:
        counts = [len(some) for some in pictures or ()]
        if not self.model.config.use_vision_encoder or not any(counts):
            return {}
        every = [one for some in pictures or () for one in some]
        distinct = {id(one): one for one in every}
        place = {key: number for number, key in enumerate(distinct)}
        pixels = self.model.image_processor(distinct.values())[[place[id(one)] for one in every]]  # [sum, 3, H, W]
        filled = pixels.new_zeros(len(counts), max(counts), *pixels.shape[1:])
        for row, some in zip(filled, pixels.split(counts), strict=True):
            row[: len(some)] = some
        return {"pixel_values": filled, "pictures": torch.tensor(counts)}
