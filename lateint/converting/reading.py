"""Which library a folder is of, and what is in it."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from lateint.converting import colbert, fast_plaid, xtr_warp
from lateint.converting.folder import Folder
from lateint.converting.foreign import Foreign

AUTO = "auto"
FORMATS: dict[str, ModuleType] = {"colbert": colbert, "fast-plaid": fast_plaid, "xtr-warp": xtr_warp}
NAMES = "ColBERT, fast-plaid or xtr-warp-rs"


def read(source: str | os.PathLike[str], format: str = AUTO, *, texts: bool = True, metadata: bool = True) -> Foreign:
    """The documents of an index of another library.

    Args:
        source: its folder.
        format: one of `FORMATS`; ``"auto"``: whichever it is.
        texts, metadata: read these, too, where there are any.

    Raises:
        FileNotFoundError: there is no such folder, or a file of it is missing.
        ValueError: it is none of these, or damaged.
        ImportError: a package that reads it is missing.
    """
    if format not in (AUTO, *FORMATS):
        raise ValueError(f"format must be {', '.join((AUTO, *FORMATS))}, got {format!r}")
    path = Path(source).absolute()
    if not path.is_dir():
        raise FileNotFoundError(f"source must be the folder of an index, and there is none at {path}")
    folder = Folder(path)
    if format == AUTO:
        format = _detected(folder)
    elif not FORMATS[format].found(folder):
        raise ValueError(f"{path} is not an index of {format}: it lacks files that such an index has")
    foreign: Foreign = FORMATS[format].read(folder, texts=texts, metadata=metadata)
    if not foreign.documents.lengths.sum():
        raise ValueError(f"{path} holds no documents, or only deleted ones")
    return foreign


def _detected(folder: Folder) -> str:
    for name, module in FORMATS.items():
        if module.found(folder):
            return name
    if folder.has("index.json"):
        raise ValueError(f"{folder.path} seems to be an index of lateint: Index.open opens it as it is")
    if folder.has("fast_plaid_index"):
        raise ValueError(f"{folder.path} is a folder of PyLate: convert the folder fast_plaid_index in it")
    raise ValueError(f"{folder.path} is not an index of {NAMES}")
