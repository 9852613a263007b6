"""A codec on disk: a folder of .npy files under a manifest of its own, as docs/format.md says."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lateint.disk import files, layout
from lateint.disk.files import FormatError

FORMAT, VERSION = "lateint codec", 1
MANIFEST = "codec.json"


def write(path: Path, manifest: Mapping[str, Any], arrays: files.Arrays, *, overwrite: bool) -> None:
    """Writes a codec, whole or not at all.

    Raises:
        OSError: ``path`` exists already, or cannot be written.
    """
    taken = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if taken and not (path / MANIFEST).is_file():
        raise FileExistsError(f"{path} exists and is not a codec, so it will not be overwritten")
    if taken and not overwrite:
        raise FileExistsError(f"{path} exists already; pass overwrite=True to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.building-{secrets.token_hex(4)}")
    folder.mkdir()
    try:
        entries = {}
        for name, array in arrays.items():
            file = files._File(folder / f"{name}.npy", array.dtype, array.shape)
            file.write(array)
            file.finish()
            entries[f"{name}.npy"] = file.entry
        with (folder / MANIFEST).open("w", encoding="utf-8") as stream:
            json.dump({"format": FORMAT, "version": VERSION, **manifest, "files": entries}, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        files._sync_folder(folder)
        if taken:
            shutil.rmtree(path)
        folder.rename(path)
        files._sync_folder(path.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load(path: Path) -> tuple[dict[str, Any], files.Arrays]:
    """The manifest and the arrays of a codec, whose checksums are compared.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        FormatError: names the file that is missing, damaged or foreign.
    """
    target = path / MANIFEST
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "there is no codec", str(path))
    if not target.is_file():
        raise FormatError(f"{path} is not a codec: it has no {MANIFEST}")
    try:
        manifest = json.loads(target.read_text(encoding="utf-8"))
        name, version = manifest["format"], manifest["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{target} is not the manifest of a codec: {error}") from error
    if name != FORMAT:
        raise FormatError(f"{target} says format {name!r}, a codec of lateint says {FORMAT!r}")
    if version != VERSION:
        raise FormatError(f"{path} was written in version {version} of a codec's format, this lateint reads {VERSION}")
    try:
        kinds = {
            name: kind
            for name, kind in layout.kinds({**manifest, "segments": [_NOTHING], "ids": layout.INT}).items()
            if "/" not in name
        }
        entries = {name: manifest["files"][f"{name}.npy"] for name in kinds}
        for name, kind in kinds.items():
            if not kind.fits(entries[name]["dtype"], entries[name]["shape"]):
                raise FormatError(f"{path / name}.npy must hold {kind}; the codec is damaged")
        arrays = {name: files._load_array(path / f"{name}.npy", entry, True) for name, entry in entries.items()}
    except KeyError as error:
        raise FormatError(f"{target} is damaged: it lacks {error}") from error
    except (TypeError, AttributeError) as error:
        raise FormatError(f"{target} is damaged: {error}") from error
    for name, kind in kinds.items():
        if wrong := kind.wrong_offsets(arrays[name], arrays):
            raise FormatError(f"{path / name}.npy {wrong}; the codec is damaged")
    return manifest, arrays


_NOTHING = {"name": "segments/000000", "documents": 0, "tokens": 0}
