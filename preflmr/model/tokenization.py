"""Texts to token ids, as the published models read them: markers, [MASK] padding, fixed lengths.

Every text gets the prefix ``". "``, so that its second token is a ".", and that token is then overwritten by the marker
of queries or documents. Another encoder than BERT has no markers: its texts keep the prefix, and padding stays padding.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from string import punctuation
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoTokenizer, BertTokenizer

logger = logging.getLogger(__name__)
PREFIX = ". "
SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


class _Tokenizer:
    """What both share: a tokenizer of transformers inside, a limit, and counters of what went wrong.

    Args:
        tokenizer: one of transformers, or the path of a ``vocab.txt``.
        max_length: how many tokens a text has at most, markers included; longer ones are cut, which is logged once
            and counted in ``truncated``.
        do_lower_case: for a ``vocab.txt``.
    """

    limit: ClassVar[str]
    marker: ClassVar[str]
    published_class: ClassVar[str]

    def __init__(self, tokenizer: Any, max_length: int, do_lower_case: bool = True) -> None:
        if isinstance(tokenizer, str | Path):
            tokenizer = BertTokenizer(
                vocab=_vocabulary(Path(tokenizer)), do_lower_case=do_lower_case, model_max_length=512
            )
        if max_length < 3:
            raise ValueError(f"{self.limit} must be at least 3, got {max_length}")
        self.tokenizer, self.max_length = tokenizer, int(max_length)
        self.truncated = 0
        self.marker_id = tokenizer.get_vocab().get(self.marker)

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # while unpickled, before there is one
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def __len__(self) -> int:
        return len(self.tokenizer)

    @property
    def is_bert(self) -> bool:
        """Whether there is a marker and a [MASK]."""
        return self.marker_id is not None and self.tokenizer.mask_token_id is not None

    def punctuation_ids(self) -> list[int]:
        """The first token of each of the 32 characters of ``string.punctuation``."""
        pieces = (self.tokenizer.encode(character, add_special_tokens=False) for character in punctuation)
        return sorted({piece[0] for piece in pieces if piece})

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token begins and ends in a text, in characters, padding left out; markers are at (0, 0)."""
        given = self.tokenizer(PREFIX + text, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        places = [tuple(max(0, at - len(PREFIX)) for at in place) for place in given["offset_mapping"]]
        return [(0, 0) if at == 1 and self.is_bert else place for at, place in enumerate(places)]

    def _encode(self, texts: str | Sequence[str], max_length: int, padding: str) -> tuple[Tensor, Tensor]:
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise ValueError("texts must not be empty, got none")
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts must be strings, got {type(text).__name__} at number {number}")
        encoded = self.tokenizer(
            [PREFIX + text for text in texts], padding=padding, truncation=True, max_length=max_length
        )
        self._count(sum(bool(one.overflowing) for one in encoded.encodings or []), max_length)
        ids, mask = torch.tensor(encoded["input_ids"]), torch.tensor(encoded["attention_mask"])
        if self.is_bert:
            ids[:, 1] = self.marker_id
        return ids, mask

    def _count(self, truncated: int, max_length: int) -> None:
        if truncated and not self.truncated:
            logger.warning("texts of more than %d tokens are cut; counted in .truncated from here on", max_length)
        self.truncated += truncated

    @classmethod
    def _load(cls, name_or_path: str | Path, subfolder: str, **hub: Any) -> tuple[Any, dict[str, Any]]:
        folder = Path(name_or_path) / subfolder
        if folder.is_dir():
            fields = _json(folder / "tokenizer_config.json")
            bert = (folder / "vocab.txt").is_file() and "Bert" in fields.get("backend_class", "BertTokenizer")
            kind = BertTokenizer if bert or fields.get("tokenizer_class") == cls.published_class else AutoTokenizer
            return kind.from_pretrained(str(folder)), fields
        tokenizer = BertTokenizer.from_pretrained(str(name_or_path), subfolder=subfolder, **hub)
        return tokenizer, dict(tokenizer.init_kwargs)

    def _save(self, folder: str | Path, fields: dict[str, Any]) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not isinstance(self.tokenizer, BertTokenizer):
            self.tokenizer.save_pretrained(str(folder))
            written = _json(folder / "tokenizer_config.json")
            _write(folder / "tokenizer_config.json", written | fields | {"backend_class": written["tokenizer_class"]})
            return
        added = self.tokenizer.added_tokens_decoder
        base = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        lines = [token for token, number in base if number not in added or token in SPECIAL.values()]
        (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        extra = [str(token) for token in added.values() if str(token) not in SPECIAL.values()]
        special = SPECIAL | ({"additional_special_tokens": extra} if extra else {})
        _write(folder / "special_tokens_map.json", special)
        decoder = {
            str(number): {
                "content": str(token),
                "lstrip": token.lstrip,
                "normalized": token.normalized,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
                "special": token.special,
            }
            for number, token in sorted(added.items())
        }
        common = {
            "added_tokens_decoder": decoder,
            "clean_up_tokenization_spaces": True,
            "do_lower_case": self.tokenizer.do_lower_case,
            "model_max_length": 512,
            "strip_accents": self.tokenizer.strip_accents,
            "tokenize_chinese_chars": self.tokenizer.tokenize_chinese_chars,
            "tokenizer_class": self.published_class,
        }
        _write(folder / "tokenizer_config.json", special | common | fields)


class FLMRQueryTokenizer(_Tokenizer):
    """``[CLS] [unused0] tokens ... [SEP] [MASK] ...``, always ``query_maxlen`` ids.

    The attention mask is 0 on the padding [MASK]s, whose rows yet take part in the score, unless
    ``attend_to_mask_tokens``.
    """

    limit, marker, published_class = "query_maxlen", "[unused0]", "FLMRQueryEncoderTokenizer"

    def __init__(
        self,
        tokenizer: Any,
        query_maxlen: int = 32,
        attend_to_mask_tokens: bool = False,
        do_lower_case: bool = True,
    ) -> None:
        super().__init__(tokenizer, query_maxlen, do_lower_case)
        self.attend_to_mask_tokens = attend_to_mask_tokens
        if attend_to_mask_tokens and not self.is_bert:
            raise ValueError("attend_to_mask_tokens needs a tokenizer that has [unused0] and [MASK], as BERT's has")

    @property
    def query_maxlen(self) -> int:
        return self.max_length

    def __call__(self, texts: str | Sequence[str], max_length: int | None = None) -> dict[str, Tensor]:
        """
        Args:
            texts: strings, or one.
            max_length: how many ids; None for ``query_maxlen``.

        Returns:
            ``input_ids`` and ``attention_mask``, ``[B, max_length]`` int64.
        """
        ids, mask = self._encode(texts, max_length or self.max_length, "max_length")
        if self.is_bert:
            padding = ids == self.tokenizer.pad_token_id
            ids[padding] = self.tokenizer.mask_token_id
            if self.attend_to_mask_tokens:
                mask[padding] = 1
        return {"input_ids": ids, "attention_mask": mask}

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, subfolder: str = "", query_maxlen: int | None = None, **hub: Any
    ) -> "FLMRQueryTokenizer":
        """From a folder or the hub. ``query_maxlen`` is used where the files do not say."""
        tokenizer, fields = cls._load(name_or_path, subfolder, **hub)
        length = fields.get("query_maxlen") or query_maxlen or 32
        return cls(tokenizer, length, bool(fields.get("attend_to_mask_tokens", False)))

    def save_pretrained(self, folder: str | Path) -> None:
        self._save(folder, {"query_maxlen": self.max_length, "attend_to_mask_tokens": bool(self.attend_to_mask_tokens)})


class FLMRDocumentTokenizer(_Tokenizer):
    """``[CLS] [unused1] tokens ... [SEP]``, padded with [PAD]."""

    limit, marker, published_class = "doc_maxlen", "[unused1]", "FLMRContextEncoderTokenizer"

    def __init__(self, tokenizer: Any, doc_maxlen: int = 512, do_lower_case: bool = True) -> None:
        super().__init__(tokenizer, doc_maxlen, do_lower_case)

    @property
    def doc_maxlen(self) -> int:
        return self.max_length

    def __call__(
        self,
        texts: str | Sequence[str],
        max_length: int | None = None,
        padding: str = "max_length",
        allow_empty: bool = True,
    ) -> dict[str, Tensor]:
        """
        Args:
            texts: strings, or one.
            max_length: how many ids at most; None for, and never above, ``doc_maxlen``.
            padding: to ``"max_length"``, or to the ``"longest"`` of these.
            allow_empty: whether a passage may have no text; it then is its markers alone.

        Returns:
            ``input_ids`` and ``attention_mask``, ``[B, L]`` int64.

        Raises:
            ValueError: a passage is empty and may not be.
        """
        if not allow_empty:
            check_not_empty([texts] if isinstance(texts, str) else texts)
        ids, mask = self._encode(texts, min(max_length or self.max_length, self.max_length), padding)
        return {"input_ids": ids, "attention_mask": mask}

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, subfolder: str = "", doc_maxlen: int | None = None, **hub: Any
    ) -> "FLMRDocumentTokenizer":
        """From a folder or the hub. ``doc_maxlen`` is used where the files do not say."""
        tokenizer, fields = cls._load(name_or_path, subfolder, **hub)
        return cls(tokenizer, fields.get("doc_maxlen") or doc_maxlen or 512)

    def save_pretrained(self, folder: str | Path) -> None:
        self._save(folder, {"doc_maxlen": self.max_length})


def check_not_empty(passages: Sequence[str], start: int = 0) -> None:
    """Refuse a passage without text, by its number.

    Args:
        passages: strings.
        start: the number of the first one.

    Raises:
        ValueError: one is empty or nothing but spaces.
    """
    for number, passage in enumerate(passages, start):
        if not passage.strip():
            raise ValueError(f"passages must have a text, got an empty one at number {number}")


def _vocabulary(file: Path) -> dict[str, int]:
    lines = file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    return {token.rstrip("\r"): number for number, token in enumerate(lines)}


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _write(file: Path, fields: dict[str, Any]) -> None:
    file.write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
