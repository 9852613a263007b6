"""The index of passages in a folder, with the passages themselves, so that a search can show what it found.

========================  ============================================================================
``preflmr.json``          what made the index: model, passages, settings
``passages.jsonl``        one object a line in the order of the index: ``id``, ``text`` and, if any, ``image``
``offsets.npy``           ``[n + 1]`` int64: where the lines begin in that file, and its length
``index/``                the index of lateint, whose ids are positions in that file
========================  ============================================================================
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateint import Index
from lateint.disk import whole
from lateint.version import __version__
from preflmr.data.images import Images
from preflmr.data.passages import Passages
from preflmr.indexing.tokens import passage_tokens
from preflmr.retrievers import adapted
from preflmr.weights.fingerprint import fingerprint

ABOUT, INDEX = "preflmr.json", "index"
FORMAT, VERSION = "preflmr-collection", 1


@dataclass(frozen=True)
class PassageIndex:
    """Passages, the index of lateint that finds them by position, and what made it."""

    passages: Passages
    index: Index
    about: dict[str, Any]

    @classmethod
    def build(
        cls,
        model: Any,
        passages: Passages,
        folder: str | os.PathLike[str],
        *,
        about: dict[str, Any] | None = None,
        checkpoint: str | None = None,
        images: Images | None = None,
        on_missing: str = "error",
        tokens: Any = None,
        nbits: int = 4,
        seed: int = 0,
        threads: int | None = None,
        overwrite: bool = False,
        progress: bool = True,
        **encoding: Any,
    ) -> PassageIndex:
        """Writes passages, their index and what made it into a new folder, whole or not at all.

        Args:
            about: more to say of the passages.
            checkpoint: what to call the model; None: the name it was loaded by.
            images, on_missing: see `passage_tokens`.
            tokens: of the passages, if they are at hand.
            nbits, seed, threads: see `lateint.Index.build`.
            overwrite: replace a passage index that is already in ``folder``.
            encoding: of `preflmr.encode.encode_documents`.

        Raises:
            FileExistsError: there is something in ``folder``.
        """
        check_free(folder, overwrite)
        with whole.folder(folder, replace=overwrite) as work:
            passages.write(work)
            if tokens is None:
                tokens = passage_tokens(model, passages, images, on_missing=on_missing, progress=progress, **encoding)
            Index.build(tokens, work / INDEX, nbits=nbits, seed=seed, threads=threads, progress=progress)
            made: dict[str, Any] = {"format": FORMAT, "version": VERSION, "written_by": __version__}
            made |= {"checkpoint": checkpoint or name_of(model)}
            made |= made_from(model, passages, nbits=nbits, seed=seed, dtype=encoding.get("dtype"))
            made["passages"] |= {"with_picture": sum(path is not None for path in passages.images or ())}
            made["passages"] |= {"source": "", "picture_missing": 0} | (about or {})
            (work / ABOUT).write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> PassageIndex:
        """Opens what `build` wrote.

        Raises:
            FileNotFoundError: there is no passage index.
            ValueError: it is damaged or of a newer format.
        """
        folder = Path(folder)
        about = read_about(folder)
        passages = Passages.open(folder, pictured=bool(about["passages"]["with_picture"]))
        index = Index.open(folder / INDEX)
        if len(passages) != len(index) or len(passages) != about["passages"]["count"]:
            raise ValueError(
                f"{folder}: passages and index must be of one run, found {len(passages):,} passages and "
                f"{len(index):,} documents; index the passages again"
            )
        return cls(passages, index, about)


def made_from(model: Any, passages: Passages, *, nbits: int, seed: int, dtype: Any) -> dict[str, Any]:
    """What an index depends on, as ``preflmr.json`` says it."""
    return {
        "fingerprint": fingerprint(adapted(model).model),
        "passages": {"count": len(passages), "sha256": passages.sha256},
        "index": {"nbits": nbits, "seed": seed, "dtype": str(dtype or "float32").removeprefix("torch.")},
    }


def differences(about: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """In words, what differs between the index that ``about`` tells of and `made_from`."""
    found = ["another model"] if about["fingerprint"] != wanted["fingerprint"] else []
    if about["passages"]["sha256"] != wanted["passages"]["sha256"]:
        found.append("other passages")
    return found + [
        f"{name} {about['index'].get(name)} where {value} is asked for"
        for name, value in wanted["index"].items()
        if about["index"].get(name) != value
    ]


def read_about(folder: Path) -> dict[str, Any]:
    """What made a passage index.

    Raises:
        FileNotFoundError: there is none in ``folder``.
        ValueError: it is damaged, or of a newer format.
    """
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        rule = f"it has no {ABOUT}; `preflmr index` makes one"
        raise FileNotFoundError(f"{folder} holds no passages to search: {rule}") from None
    except ValueError as error:
        raise ValueError(f"{folder / ABOUT}: not readable: {error}") from None
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        found = f"{about.get('format')} {about.get('version')}"
        raise ValueError(f"{folder / ABOUT}: must be {FORMAT} {VERSION}, found {found}")
    return about


def check_free(folder: str | os.PathLike[str], overwrite: bool) -> None:
    """Whether a passage index may be written to ``folder``.

    Raises:
        FileExistsError: there is something else, or another one and it is not to be overwritten.
    """
    folder = Path(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / ABOUT).is_file():
        raise FileExistsError(f"{folder} exists and is no index of passages; choose a new folder")
    if not overwrite:
        about = read_about(folder)
        raise FileExistsError(
            f"{folder} exists: {about['passages']['count']:,} passages of {about['passages']['source']}, indexed with "
            f"{about['checkpoint']}; give --overwrite to replace it"
        )


def name_of(model: Any) -> str:
    """What to call a model: where it was loaded from, or its class."""
    return adapted(model).name
