"""colpali-engine (tested with 0.3.17 and 0.3.18): models that read pages as pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from lateint.encoders.models import imported, loaded, name_of_model


class ColPali:
    """A model of colpali-engine with its processor: ColPali, ColQwen2, ColQwen2.5, ColIdefics3 and their kin.

    Documents are pages: PIL images, or paths of pictures. Queries are texts.

    Args:
        model: the model, or the name or folder of one, which is loaded.
        processor: its processor; None: the one that belongs to the name.
        kind: which model of colpali-engine a name is of, such as ``"ColPali"`` or ``"ColQwen2_5"``.
        name: what an index calls it; None: the name that it was loaded by.
        batch_size: pages or queries that the model reads at once.
        options: keyword arguments of the model's ``from_pretrained``, where ``model`` is a name.

    Raises:
        ImportError: colpali-engine is not installed.
        ValueError: ``processor`` is missing, or colpali-engine has no model of that ``kind``.

    Source: Faysse et al., ColPali (ICLR 2025), arXiv 2407.01449
    """

    def __init__(
        self,
        model: Any,
        processor: Any = None,
        *,
        kind: str = "ColPali",
        name: str | None = None,
        batch_size: int = 4,
        **options: Any,
    ) -> None:
        if isinstance(model, (str, os.PathLike)):
            found = imported("colpali_engine.models", "colpali-engine", "colpali-engine")
            if not hasattr(found, kind) or not hasattr(found, f"{kind}Processor"):
                raise ValueError(f"kind must name a model of colpali-engine, such as ColPali or ColQwen2, got {kind!r}")
            processor = processor or getattr(found, f"{kind}Processor").from_pretrained(model)
            self.model = loaded(model, lambda: getattr(found, kind).from_pretrained(model, **options).eval())
        else:
            if processor is None:
                raise ValueError("processor must be given with a model that is loaded already")
            self.model = model.eval()
        self.processor, self.batch_size = processor, batch_size
        self.name = name or name_of_model(model, self.model)

    @property
    def settings(self) -> dict[str, Any]:
        """What documents' embeddings depend on."""
        return {"image_rows_only": bool(getattr(self.model, "mask_non_image_embeddings", False))}

    def encode_query(self, texts: Sequence[str]) -> list[Any]:
        """``[Lq, dim]`` each, in the type in which the model computes."""
        return self._encoded(list(texts), lambda batch: self.processor.process_queries(texts=batch))

    def encode_document(self, pages: Sequence[Any]) -> list[Any]:
        """``[Ld, dim]`` each, in the type in which the model computes."""
        return self._encoded(list(pages), lambda batch: self.processor.process_images([_picture(p) for p in batch]))

    def _encoded(self, items: list[Any], processed: Any) -> list[Any]:
        import torch

        found = []
        for first in range(0, len(items), self.batch_size):
            inputs = processed(items[first : first + self.batch_size]).to(self.model.device)
            with torch.inference_mode():
                rows = self.model(**inputs)
            # Padding is zero, on whichever side, and so are rows that the model masks.
            kept = inputs["attention_mask"].bool() & (rows != 0).any(-1)
            found += [row[keep].cpu() for row, keep in zip(rows, kept, strict=True)]
        return found


def _picture(page: Any) -> Any:
    if not isinstance(page, (str, os.PathLike)):
        return page
    from PIL import Image

    with Image.open(page) as image:
        return image.convert("RGB")
