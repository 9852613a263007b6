"""A codec on disk: a folder of .npy files under a manifest of its own, as docs/format.md says."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lateint.disk import checks, layout, whole
from lateint.disk.files import Column, array_of
from lateint.disk.folder import Folder
from lateint.disk.manifest import INT, Bundle, FormatError, Manifest
from lateint.disk.store import Arrays

FORMAT, VERSION = "lateint codec", 1
MANIFEST = "codec.json"


def write(path: Path, values: Mapping[str, Any], arrays: Arrays, overwrite: bool) -> None:
    """Writes a codec, whole or not at all.

    Args:
        values: what the manifest says about it.

    Raises:
        OSError: ``path`` exists already, or cannot be written.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        if not (path / MANIFEST).is_file():
            raise FileExistsError(f"{path} exists and is not a codec, so it will not be overwritten")
        if not overwrite:
            raise FileExistsError(f"{path} exists already; pass overwrite=True to replace it")
    with whole.folder(path, replace=overwrite) as folder:
        files = {}
        for name, array in arrays.items():
            column = Column(folder / f"{name}.npy", array.dtype, array.shape)
            column.write(array)
            files[f"{name}.npy"] = column.finish().to_json()
        manifest = {"format": FORMAT, "version": VERSION, **values, "files": files}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def load(path: Path) -> tuple[Manifest, dict[str, Any], Arrays]:
    """What ``codec.json`` says, as a manifest without segments and as it is, and the arrays, all checksums compared.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
        FormatError: names the file that is missing, damaged or foreign.
    """
    values = _values(path)
    try:
        manifest = Manifest.from_json({**values, **_NO_DOCUMENTS})
        _ = values["crc32"], values["training"]
    except KeyError as error:
        raise FormatError(f"{path / MANIFEST} is damaged: it lacks {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path / MANIFEST} is damaged: {error}") from error
    kinds, arrays = layout.kinds(manifest), {}
    with Folder(path) as folder:
        for name, kind in kinds.items():
            file = manifest.files.get(f"{name}.npy")
            if file is None or isinstance(file, Bundle):
                raise FormatError(f"{path / MANIFEST} is damaged: it lacks '{name}.npy'")
            if not kind.fits(file.dtype, file.shape):
                raise FormatError(f"{path / name}.npy must hold {kind}, found {file.dtype} {list(file.shape)}")
            memory = folder.mapped(f"{name}.npy", file.bytes)
            arrays[name] = array_of(memory, file, path / f"{name}.npy", verify=True)
    if wrong := checks.wrong(manifest, arrays, set(arrays), verify=True):
        raise FormatError(f"{path / wrong[0]}.npy {wrong[1]}; the codec is damaged")
    return manifest, values, arrays


_NO_DOCUMENTS = {"version": 2, "generation": 0, "next_segment": 0, "segments": [], "ids": INT}


def _values(path: Path) -> dict[str, Any]:
    target = path / MANIFEST
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "there is no codec", str(path))
    if not target.is_file():
        raise FormatError(f"{path} is not a codec: it has no {MANIFEST}")
    try:
        values = json.loads(target.read_text(encoding="utf-8"))
        name, version = values["format"], values["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{target} is not the manifest of a codec: {error}") from error
    if name != FORMAT:
        raise FormatError(f"{target} says format {name!r}, a codec of lateint says {FORMAT!r}")
    if version != VERSION:
        raise FormatError(f"{path} was written in format version {version}, this lateint reads version {VERSION}")
    return dict(values)
