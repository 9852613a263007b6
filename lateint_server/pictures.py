"""Pictures in queries: small enough to be opened, and opened where a query is encoded."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from typing import Any

FORMATS = ("JPEG", "PNG", "WEBP")  # each format more is one more parser that strangers may feed
SCHEMA = {
    "title": "Pictured",
    "description": "A text, which may be empty, and a picture in JPEG, PNG or WebP; where the encoder of the index "
    "reads both. In MessagePack, `picture` holds the bytes themselves.",
    "type": "object",
    "additionalProperties": False,
    "required": ["picture"],
    "properties": {
        "text": {"type": "string"},
        "picture": {"type": "string", "contentEncoding": "base64", "minLength": 1},
    },
}


class TooLarge(Exception):
    """A picture has more bytes than the server takes."""


@dataclass(frozen=True)
class Pictured:
    """A text with a picture, as a file's bytes."""

    text: str
    data: bytes


@dataclass(frozen=True)
class Limits:
    """How large a picture may be.

    Attributes:
        size: in bytes.
        pixels: width times height.
    """

    size: int
    pixels: int

    def check(self, query: Any) -> None:
        """Looks at the bytes of a query.

        Raises:
            TooLarge: it has a picture of more.
        """
        if isinstance(query, Pictured) and len(query.data) > self.size:
            raise TooLarge(f"a picture must have at most {self.size:,} bytes, got {len(query.data):,}")

    def opened(self, query: Any) -> Any:
        """A query as an encoder takes it: one with a picture as a pair of its text and a picture of Pillow.

        Raises:
            ValueError: the picture cannot be read, or has too many pixels.
            ImportError: Pillow is not installed.
        """
        return (query.text, self._picture(query.data)) if isinstance(query, Pictured) else query

    def _picture(self, data: bytes) -> Any:
        try:
            from PIL import Image, ImageOps
        except ImportError:
            raise ImportError("pictures in queries need Pillow: pip install pillow") from None
        wrong = f"Q must have a picture in one of the formats {', '.join(FORMATS)}, and what came is none"
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)  # its first bytes alone
        except Image.DecompressionBombError:
            raise ValueError(f"Q must have a picture of at most {self.pixels:,} pixels") from None
        except Exception:  # a damaged file makes Pillow raise almost anything
            raise ValueError(wrong) from None
        width, height = image.size
        if width * height > self.pixels:
            raise ValueError(f"Q must have a picture of at most {self.pixels:,} pixels, got {width:,} x {height:,}")
        try:
            return ImageOps.exif_transpose(image).convert("RGB")
        except Exception:
            raise ValueError(f"{wrong}: it is damaged") from None


def is_pictured(value: Any) -> bool:
    """Whether this part of a message should be a text with a picture."""
    return isinstance(value, dict) and ("picture" in value or "text" in value)


def read(value: dict[Any, Any]) -> Pictured:
    """The text and the picture of a message.

    Raises:
        ValueError: they are none.
    """
    if not {"picture"} <= set(value) <= {"text", "picture"}:
        raise ValueError(f"must be an object with picture and text, got {sorted(map(str, value))}")
    text, data = value.get("text", ""), value["picture"]
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, got {type(text).__name__}")
    if isinstance(data, str):
        try:
            data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("picture must be a string in base64") from None
    if not isinstance(data, bytes) or not data:
        raise ValueError("picture must be the bytes of a file, in base64 where the message is JSON")
    return Pictured(text, data)
