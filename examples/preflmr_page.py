"""Pictures that are found by words: the index and the encoder of the page that ends ``make demo-preflmr``.

PreFLMR asks with pictures and finds passages. The page asks the other way round: pictures are the documents, each the
rows that it has in a question, its patches first; the words of a search are the rows of a passage. The products are the
same, so the page can show which patch of a picture a word is most like.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lateint import Index
from preflmr.encode import encode_documents, encode_queries
from preflmr.model import PreFLMR
from preflmr.model.processing import on_square
from preflmr.model.tokenization import PREFIX
from preflmr.searcher import query_text


class Words:
    """Texts as passages, for ``lateint serve --encoder examples.preflmr_page:Words``.

    Args:
        model: the folder of a PreFLMR.
        dtype: see `preflmr.encode.encode_queries`.
    """

    def __init__(self, model: str, dtype: str | None = None) -> None:
        self.model, self.dtype = PreFLMR.from_pretrained(model).eval(), dtype

    def encode_query(self, texts: Sequence[str]) -> list[np.ndarray]:
        """``[L, dim]`` each."""
        stream = encode_documents(self.model, texts, dtype=self.dtype, progress=False)
        return [rows for tokens, lengths in stream for rows in np.split(tokens, np.cumsum(lengths)[:-1])]

    encode_document = encode_query

    def spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        """``[L, 2]`` each: where the tokens begin and end in a text, in characters."""
        tokenizer = self.model.document_tokenizer
        given = tokenizer.tokenizer(
            [PREFIX + text for text in texts],
            truncation=True,
            max_length=tokenizer.max_length,
            return_offsets_mapping=True,
        )
        skipped = set(tokenizer.punctuation_ids()) if self.model.config.mask_punctuation else set()
        found = []
        for ids, places in zip(given["input_ids"], given["offset_mapping"], strict=True):
            ids[1] = None  # a marker, which takes the place of the prefix
            kept = [place for id, place in zip(ids, places, strict=True) if id not in skipped]
            found.append(np.maximum(np.array(kept, np.int64) - len(PREFIX), 0))
        return found


def build(checkpoint: Path, pictures: Iterable[tuple[str, Any, str, str]], folder: Path, dtype: str | None) -> Index:
    """Writes an index of pictures, the pictures as the model sees them, and what `lateint serve` must be told.

    Args:
        checkpoint: the folder of a PreFLMR.
        pictures: a name, the picture, a title and a caption each.
        folder: a new one, which gets ``index/``, ``pictures/`` and ``encoder.json``.
        dtype: see `preflmr.encode.encode_queries`.
    """
    model = PreFLMR.from_pretrained(checkpoint).eval()
    names, images, titles, captions = map(list, zip(*pictures, strict=True))
    squares = [on_square(image.convert("RGB")) for image in images]
    vision = model.config.vision_config
    side = vision.image_size // vision.patch_size if model.config.use_transformer_mapping_network else 0
    question = query_text(model, "", None, True)
    rows = encode_queries(model, [question] * len(squares), squares, dtype=dtype, text_rows=False, progress=False)
    patches_first = [np.roll(one, side * side, axis=0) for one in rows]  # which come last in a question
    about = [
        {"title": title, "caption": caption, "lateint": {"image": f"{name}.png", "grid": [side, side]}}
        for name, title, caption in zip(names, titles, captions, strict=True)
    ]
    for name, square in zip(names, squares, strict=True):
        path = folder / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        square.resize((252, 252), Image.Resampling.BICUBIC).save(path)
    index = Index.build(patches_first, folder / "index", ids=names, metadata=about, progress=False)
    options = {"model": str(checkpoint.resolve()), "dtype": dtype}
    (folder / "encoder.json").write_text(json.dumps(options), encoding="utf-8")
    return index
