"""What strangers may put into an index: refused when it is opened, or with ``verify=True``, and named."""

import json
import shutil
import zlib

import numpy as np
import pytest

from lateint import FormatError, Index
from lateint.disk import store

PART = "segments/000000"


def add_file(folder, name, array):
    """Writes an array as another program would, with the right checksum."""
    np.save(folder / f"{name}.npy", array)
    data = (folder / f"{name}.npy").read_bytes()
    entry = {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": len(data), "crc32": zlib.crc32(data)}
    rewrite(folder, lambda manifest: manifest["files"].update({f"{name}.npy": entry}))


def rewrite(folder, change):
    manifest = json.loads((folder / "index.json").read_text())
    change(manifest)
    (folder / "index.json").write_text(json.dumps(manifest))


@pytest.fixture
def copy(saved, tmp_path):
    """An index that may be spoiled: its ids are numbers."""
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def named(clustered, tmp_path):
    """One whose ids are strings."""
    names = ["a", "b", "\u00e4\u00f6", ""]
    Index.build(clustered([3, 4, 5, 6]), ids=names, progress=False).save(tmp_path / "named")
    return tmp_path / "named"


def at(index, value):
    def change(array):
        array[index] = value

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("mean", at(3, np.nan), r"must hold numbers up to 1e\+18 in size"),
        ("mean", at(0, -np.inf), r"must hold numbers up to 1e\+18 in size"),
        ("mean", at(0, 1e30), r"must hold numbers up to 1e\+18 in size"),
        ("rotation", at((0, 1, 1), np.nan), "must be finite"),
        ("permutation", at(0, 1), "must hold each number from 0 to 31 once"),
        ("permutation", at(0, -1), "must hold each number from 0 to 31 once"),
        ("permutation", at(5, 32), "must hold each number from 0 to 31 once"),
        ("cell_offsets", at(1, 0), "must increase at every step, found 0 and then 0"),
        ("cell_offsets", at(1, 1 << 40), "must increase at every step, found 1099511627776 and then"),
        ("cell_offsets", at(0, -1), "must run from 0 to 76, found -1 to 76"),
        (f"{PART}/offsets", at(-1, 3652), "must run from 0 to 3651, found 0 to 3652"),
        (f"{PART}/offsets", at(5, 1 << 40), "must not decrease, found 1099511627776 and then"),
        (f"{PART}/offsets", at(5, -7), "must not decrease, found .* and then -7"),
        (f"{PART}/list_offsets", at(0, 1), r"must run from 0 to \d+, found 1 to"),
        (f"{PART}/list_offsets", at(3, 1 << 62), "must not decrease"),
        (f"{PART}/list_documents", at(0, 158), "must hold documents of each list, ascending and below 158"),
        (f"{PART}/list_documents", at(9, 2**32 - 1), "must hold documents of each list, ascending and below 158"),
        (f"{PART}/list_documents", at(1, 0), "must hold documents of each list, ascending and below 158"),
        (f"{PART}/centroid_ids", at(7, 76), "must hold numbers of centroids, below 76"),
    ],
)
@pytest.mark.parametrize("size", ["small", "large"])
def test_numbers_that_cannot_be(copy, monkeypatch, name, change, message, size):
    """Small files are looked at whenever an index is opened, large ones with ``verify=True``."""
    if size == "large":
        monkeypatch.setattr(store, "ALWAYS_CHECKED", 0)
    array = np.load(copy / f"{name}.npy")
    change(array)
    add_file(copy, name, array)
    with pytest.raises(FormatError, match=rf"{name}\.npy {message}.*; the index is damaged"):
        Index.open(copy, verify=size == "large")


def test_a_rotation_that_is_none(copy):
    array = np.load(copy / "rotation.npy")
    add_file(copy, "rotation", 2 * array)
    Index.open(copy)
    with pytest.raises(FormatError, match=r"rotation\.npy must hold orthogonal matrices"):
        Index.open(copy, verify=True)


@pytest.mark.parametrize("step", [1, 0.5, 3])
def test_a_step_may_be_any_number(copy, step):
    rewrite(copy, lambda manifest: manifest.update(step=step))
    assert Index.open(copy, verify=True).reconstruct(0).shape == (1, 32)


@pytest.mark.parametrize("step", [0, -1, 1e-30, 1e30, 10**400, float("inf"), float("nan"), True, "1", None, [1]])
def test_steps_that_cannot_be(copy, step):
    rewrite(copy, lambda manifest: manifest.update(step=step))
    with pytest.raises(FormatError, match=r"index\.json is damaged: step cannot be"):
        Index.open(copy)


@pytest.mark.parametrize(
    "changes",
    [{"dim": 5000, "width": 5000}, {"centroids": 1 << 25}, {"cells": 77}, {"block": 64}, {"dim": True}, {"nbits": 4.0}],
)
def test_sizes_that_cannot_be(copy, changes):
    rewrite(copy, lambda manifest: manifest.update(changes))
    with pytest.raises(FormatError, match=r"index\.json is damaged: .* cannot be"):
        Index.open(copy)


def test_more_documents_than_positions(copy):
    rewrite(copy, lambda manifest: manifest["segments"][0].update(documents=1 << 32))
    with pytest.raises(FormatError, match="segments cannot have 4,294,967,296 documents or more"):
        Index.open(copy)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("id_bytes", at(0, 0xFF), "id_bytes.npy must hold ids in UTF-8"),
        ("id_bytes", at(3, ord("x")), "id_bytes.npy must hold ids in UTF-8"),
        ("id_offsets", at(2, 3), "id_bytes.npy must hold ids in UTF-8"),  # within a character
        ("id_offsets", at(2, -5), "id_offsets.npy must not decrease"),
        ("id_offsets", at(2, 100), "id_offsets.npy must not decrease"),
        ("id_offsets", at(0, 1), "id_offsets.npy must run from 0 to 6, found 1 to 6"),
    ],
)
@pytest.mark.parametrize("size", ["small", "large"])
def test_ids_that_are_no_text(named, monkeypatch, name, change, message, size):
    if size == "large":
        monkeypatch.setattr(store, "ALWAYS_CHECKED", 0)
    array = np.load(named / PART / f"{name}.npy")
    change(array)
    add_file(named, f"{PART}/{name}", array)
    with pytest.raises(FormatError, match=message):
        Index.open(named, verify=size == "large")


def test_ids_that_are_no_text_are_noticed_when_they_are_read(named, clustered, monkeypatch):
    monkeypatch.setattr(store, "ALWAYS_CHECKED", 0)
    array = np.load(named / PART / "id_bytes.npy")
    array[0] = 0xFF
    add_file(named, f"{PART}/id_bytes", array)
    index = Index.open(named)
    with pytest.raises(FormatError, match="the id of document 0 of a segment is not utf-8; the index is damaged"):
        index.search(clustered([3])[0], 4)


@pytest.mark.parametrize("kind", ["numbers", "strings"])
def test_an_id_that_comes_twice(copy, named, kind):
    folder, name, value, said = (copy, "ids", 7, "7") if kind == "numbers" else (named, "id_bytes", ord("b"), "'b'")
    array = np.load(folder / PART / f"{name}.npy")
    array[0] = value
    add_file(folder, f"{PART}/{name}", array)
    Index.open(folder)
    with pytest.raises(FormatError, match=f"{name}.npy must hold an id once, found {said} again"):
        Index.open(folder, verify=True)
    deleted = {"array": f"{PART}/deleted-1", "kind": "positions", "documents": 1}
    add_file(folder, f"{PART}/deleted-1", np.array([0], np.uint32))
    rewrite(folder, lambda manifest: manifest["segments"][0].update(deleted=deleted))
    assert len(Index.open(folder, verify=True)) == (157 if kind == "numbers" else 3)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("id_hash", at(0, 2**64 - 1), "id_hash.npy must ascend"),
        ("id_row", at(0, 4), "id_row.npy must hold each number from 0 to 3 once"),
        ("id_row", at(0, 2**32 - 1), "id_row.npy must hold each number from 0 to 3 once"),
    ],
)
def test_tables_of_ids_that_cannot_be(named, name, change, message):
    array = np.load(named / PART / f"{name}.npy")
    change(array)
    add_file(named, f"{PART}/{name}", array)
    with pytest.raises(FormatError, match=message):
        Index.open(named)


def test_offsets_of_ids_that_would_take_all_memory(named, monkeypatch):
    """They are looked at before room is made for ids between them."""
    for store_bound in ("ALWAYS_CHECKED", "ALWAYS_CHECKED_WITHIN"):
        monkeypatch.setattr(store, store_bound, 0)
    array = np.load(named / PART / "id_offsets.npy")
    array[1] = 1 << 50
    add_file(named, f"{PART}/id_offsets", array)
    rewrite(named, lambda manifest: manifest["segments"][0].pop("hashed"))  # then the table is made
    with pytest.raises(FormatError, match="where ids begin and end cannot be; the index is damaged"):
        Index.open(named).reconstruct("a")
