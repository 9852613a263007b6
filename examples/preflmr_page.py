"""Two indexes for the page that ends ``make demo-preflmr``: passages, and pictures.

PreFLMR asks with a picture and a question, and finds passages. That is the index of passages. The other index asks the
other way round: pictures are the documents, each the rows that it has in a question, its patches first; the words of a
search are the rows of a passage. The products are the same, so the page can show which patch of a picture a word is
most like.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lateint import Index
from preflmr import Encoder
from preflmr.encode import encode_documents, encode_queries
from preflmr.model import PreFLMR
from preflmr.model.processing import on_square
from preflmr.retrievers.flmr import FLMR
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
        return [FLMR(self.model).document_spans(text) for text in texts]


def build_passages(
    checkpoint: Path,
    passages: Iterable[tuple[str, str]],
    folder: Path,
    dtype: str | None,
    tokens: Sequence[np.ndarray] | None = None,
) -> Index:
    """Writes an index of passages, and what `lateint serve` must be told of its encoder.

    Args:
        checkpoint: the folder of a PreFLMR.
        passages: an id and a text each, of which a title may be the beginning: ``title: ... content: ...``.
        folder: gets ``passages/`` and ``passages.json``.
        dtype: see `preflmr.encode.encode_queries`.
        tokens: ``[L, dim]`` of each passage, if they are at hand.
    """
    ids, texts = map(list, zip(*passages, strict=True))
    options = {"model": str(checkpoint.resolve()), "name": "demo", "dtype": dtype}
    titles = [text.removeprefix("title: ").partition(" content: ")[0].replace(" section: ", ": ") for text in texts]
    index = Index.build(
        tokens,
        texts=texts,
        encoder=Encoder(**options),
        path=folder / "passages",
        ids=ids,
        metadata=[{"title": title} for title in titles],
        progress=False,
    )
    (folder / "passages.json").write_text(json.dumps(options), encoding="utf-8")
    return index


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
        square.resize((252, 252), Image.Resampling.BICUBIC).save(path, compress_level=1)
    index = Index.build(patches_first, folder / "index", ids=names, metadata=about, progress=False)
    options = {"model": str(checkpoint.resolve()), "dtype": dtype}
    (folder / "encoder.json").write_text(json.dumps(options), encoding="utf-8")
    return index
