"""A second index of the same files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from lateint.disk import store
from lateint.disk.manifest import MANIFEST, Manifest


def link(source: Path, target: Path, *, overwrite: bool) -> None:
    """Makes a folder of links to the files of an index, or of copies where a file system cannot link.

    Raises:
        FileExistsError, OSError: as `store.writing`.
    """
    with store.writing(target, overwrite=overwrite) as files:
        while True:
            manifest = store.load_manifest(source)
            try:
                for name in manifest.files:
                    link_file(source / name, files.folder / name)
                break
            except FileNotFoundError:  # a commit came between
                if store.load_manifest(source) == manifest:
                    raise
        _write(manifest, files.folder / MANIFEST)
        files.committed = True


def link_file(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where a file system cannot link; nothing where there is one already."""
    if target.exists():
        return  # of the manifest before
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _write(manifest: Manifest, path: Path) -> None:
    path.write_text(json.dumps(manifest.to_json()), encoding="utf-8")
