"""Files: to the byte as docs/format.md says, whole or not there, refused by name when they are not what they were."""

import errno
import importlib.util
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from lateint import FormatError, Index, Ragged, UnknownIdError
from lateint.disk import files, layout, store, whole
from lateint.disk.manifest import Manifest, Segment
from lateint_kernels.codes.residual import depth_of

GOLDEN = Path(__file__).parents[1] / "golden"
FORMAT = Path(__file__).parents[2] / "docs" / "format.md"


def manifest_of(folder):
    return json.loads((folder / "index.json").read_text(encoding="utf-8"))


def rewrite(folder, change):
    """Changes the manifest by hand."""
    manifest = manifest_of(folder)
    change(manifest)
    (folder / "index.json").write_text(json.dumps(manifest), encoding="utf-8")


def add_file(folder, name, array):
    """Adds an array by hand, as another program would."""
    np.save(folder / f"{name}.npy", array)
    data = (folder / f"{name}.npy").read_bytes()
    entry = {"dtype": array.dtype.str, "shape": list(array.shape), "bytes": len(data), "crc32": zlib.crc32(data)}
    rewrite(folder, lambda manifest: manifest["files"].update({f"{name}.npy": entry}))


def delete(folder, segment, positions, name="deleted-1"):
    """Deletes documents by hand."""
    part = manifest_of(folder)["segments"][segment]["name"]
    add_file(folder, f"{part}/{name}", np.array(positions, np.uint32))
    deleted = {"array": f"{part}/{name}", "kind": "positions", "documents": len(positions)}
    rewrite(folder, lambda manifest: manifest["segments"][segment].update(deleted=deleted))


@pytest.fixture
def copy(saved, tmp_path):
    """An index that may be spoiled."""
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(scope="session")
def reader():
    """The reader that docs/format.md ends with."""
    text = FORMAT.read_text(encoding="utf-8")
    names = {}
    exec(compile(text.split("```python\n")[1].split("```")[0], "docs/format.md", "exec"), names)
    return names["read"]


# ------------------------------------------------------------------------- the bytes


def header(descr, shape):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00\x76\x00" + text.encode().ljust(117) + b"\n"


def three_documents(folder):
    """Written through the store, but from numbers chosen by hand: dim 8, 2 bits, 2 centroids, 6 tokens."""
    arrays = {
        "mean": np.zeros(8, np.float32),
        "rotation": np.eye(8, dtype=np.float32)[None],
        "permutation": np.arange(8, dtype=np.int32),
        "centroids": np.repeat(np.array([[118], [138]], np.uint8), 64, axis=1),
        "cells": np.full((1, 64), 128, np.uint8),
        "cell_offsets": np.array([0, 2]),
        "segments/000000/codes": np.arange(12, dtype=np.uint8).reshape(6, 2),
        "segments/000000/scales": np.array([0, 4, 8, 16, 32, 64], np.uint8),
        "segments/000000/offsets": np.array([0, 1, 3, 6]),
        "segments/000000/centroid_ids": np.array([0, 1, 1, 0, 1, 0], np.uint16),
        "segments/000000/list_offsets": np.array([0, 2, 4]),
        "segments/000000/list_documents": np.array([0, 2, 1, 2], np.uint32),
        "segments/000000/id_bytes": np.frombuffer("aßc".encode(), np.uint8),
        "segments/000000/id_offsets": np.array([0, 1, 3, 4]),
    }
    with store.writing(folder, overwrite=False) as written:
        for name, array in arrays.items():
            store.put(written, name, array)
        segment = Segment("segments/000000", documents=3, tokens=6)
        written.commit(Manifest(8, 8, 8, 2, 0.0625, 0, centroids=2, cells=1, segments=(segment,), ids="string"))


def test_the_bytes_of_three_documents(tmp_path):
    three_documents(tmp_path / "index")
    eye = b"".join(struct.pack("<8f", *(float(i == j) for j in range(8))) for i in range(8))
    expected = {
        "mean.npy": header("<f4", "(8,)") + bytes(32),
        "rotation.npy": header("<f4", "(1, 8, 8)") + eye,
        "permutation.npy": header("<i4", "(8,)") + struct.pack("<8i", *range(8)),
        "centroids.npy": header("|u1", "(2, 64)") + b"\x76" * 64 + b"\x8a" * 64,
        "cells.npy": header("|u1", "(1, 64)") + b"\x80" * 64,
        "cell_offsets.npy": header("<i8", "(2,)") + struct.pack("<2q", 0, 2),
        "segments/000000/codes.npy": header("|u1", "(6, 2)") + bytes(range(12)),
        "segments/000000/scales.npy": header("|u1", "(6,)") + bytes([0, 4, 8, 16, 32, 64]),
        "segments/000000/offsets.npy": header("<i8", "(4,)") + struct.pack("<4q", 0, 1, 3, 6),
        "segments/000000/centroid_ids.npy": header("<u2", "(6,)") + struct.pack("<6H", 0, 1, 1, 0, 1, 0),
        "segments/000000/list_offsets.npy": header("<i8", "(3,)") + struct.pack("<3q", 0, 2, 4),
        "segments/000000/list_documents.npy": header("<u4", "(4,)") + struct.pack("<4I", 0, 2, 1, 2),
        "segments/000000/id_bytes.npy": header("|u1", "(4,)") + b"a\xc3\x9fc",
        "segments/000000/id_offsets.npy": header("<i8", "(4,)") + struct.pack("<4q", 0, 1, 3, 4),
    }
    found = {path.relative_to(tmp_path / "index").as_posix(): path for path in (tmp_path / "index").rglob("*.*")}
    assert found.keys() == expected.keys() | {"index.json"}
    for name, data in expected.items():
        assert found[name].read_bytes() == data, name
    manifest = manifest_of(tmp_path / "index")
    assert list(manifest["files"]) == sorted(expected)
    assert manifest["files"]["segments/000000/codes.npy"] == {
        "dtype": "|u1",
        "shape": [6, 2],
        "bytes": 140,
        "crc32": zlib.crc32(expected["segments/000000/codes.npy"]),
    }


def test_what_the_bytes_mean(tmp_path, reader):
    """Codes 4, 5 of token 2: components 0 to 7 have 0, 1, 1, 1, 0, 0, 0, 0; its scale 8 puts levels at -3, -1, 1, 3."""
    three_documents(tmp_path / "index")
    index = Index.open(tmp_path / "index", verify=True)
    assert index.ids.tolist() == ["a", "ß", "c"]
    expected = 138 - 128 + np.array([-3, -1, -1, -1, -3, -3, -3, -3])
    np.testing.assert_array_equal(index.reconstruct("ß")[1], expected * 0.0625)
    np.testing.assert_array_equal(reader(tmp_path / "index")["ß"][1], expected * 0.0625)
    assert (index.reconstruct("a") == -10 * 0.0625).all()  # scale 0: the centroid itself


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
@pytest.mark.parametrize("dim", [12, 40])
def test_the_reader_in_the_document_reads_what_is_written(clustered, tmp_path, reader, nbits, dim):
    documents = clustered([3, 0, 50, 1, 20], dim)
    names = None if nbits == 2 else ["a", "b", "", "\u00fc", "e"]
    index = Index.build(documents, tmp_path / "index", ids=names, nbits=nbits, allow_empty=True, progress=False)
    delete(tmp_path / "index", 0, [3])
    found = reader(tmp_path / "index")
    assert list(found) == [name for i, name in enumerate(index.ids) if i != 3]
    for name, tokens in found.items():
        np.testing.assert_allclose(tokens, index.reconstruct(name), atol=1e-5)


def test_a_rotation_in_blocks_is_read_back(tmp_path, reader):
    """Dims beyond the largest block are permuted first."""
    documents = [np.random.default_rng(0).standard_normal((3, 700)).astype(np.float32)]
    index = Index.build(documents, tmp_path / "index", nbits=8, progress=False)
    assert manifest_of(tmp_path / "index")["block"] < 700
    np.testing.assert_allclose(reader(tmp_path / "index")[0], index.reconstruct(0), atol=1e-4)
    np.testing.assert_allclose(index.reconstruct(0), documents[0], atol=0.05)


def test_files_are_what_the_manifest_and_the_layout_say(saved):
    manifest = manifest_of(saved)
    paths = {path.relative_to(saved).as_posix(): path for path in saved.rglob("*.npy")}
    kinds = layout.kinds(Manifest.from_json(manifest))
    assert paths.keys() == manifest["files"].keys() == {f"{name}.npy" for name in kinds}
    for name, path in paths.items():
        entry, data = manifest["files"][name], path.read_bytes()
        array = np.load(path, mmap_mode="r")
        assert array.offset == 128
        assert (entry["dtype"], entry["shape"]) == (array.dtype.str, list(array.shape))
        assert (entry["bytes"], entry["crc32"]) == (len(data), zlib.crc32(data))
        assert len(data) == 128 + array.nbytes


def test_numbers_are_what_the_document_says(saved):
    manifest = manifest_of(saved)
    load = lambda name: np.load(saved / f"{name}.npy")  # noqa: E731
    width, depth, count = manifest["width"], depth_of(manifest["width"]), manifest["centroids"]
    assert (load("centroids")[:, width:] == 128).all() and load("centroids").shape == (count, depth)
    assert (np.diff(load("cell_offsets")) > 0).all()
    assert np.float32(manifest["step"]) == manifest["step"]
    for matrix in load("rotation").astype(np.float64):
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-6)
    part = manifest["segments"][0]["name"]
    offsets, ids = load(f"{part}/offsets"), load(f"{part}/centroid_ids")
    list_offsets, list_documents = load(f"{part}/list_offsets"), load(f"{part}/list_documents")
    document_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    for c in range(count):
        expected = np.unique(document_of[ids == c])
        np.testing.assert_array_equal(list_documents[list_offsets[c] : list_offsets[c + 1]], expected)


# ------------------------------------------------------------------------- golden indexes


@pytest.mark.parametrize("name", ["index-v1", "index-v1-strings"])
def test_golden(name, reader):
    """Written once by version 1, opened for ever after."""
    index = Index.open(GOLDEN / name, verify=True)
    expected = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    assert repr(index).startswith(expected["repr"])
    assert index.ids.tolist() == expected["ids"]
    stats = index.stats()
    assert {key: stats[key] for key in expected["stats"]} == expected["stats"]
    for query, hits in zip(expected["queries"], expected["hits"], strict=True):
        query = np.array(query, np.float32)
        pinned = [(name, pytest.approx(score, abs=1e-6)) for name, score in hits]
        assert list(index.search(query, len(hits), exhaustive=True)) == pinned
        assert list(index.search(query, len(hits), nprobe=1000, candidates=1000)) == pinned
        for document, score in hits[:3]:
            exact = (query @ index.reconstruct(document).T).max(1).sum()
            assert abs(exact - score) < 0.05
    for document, tokens in reader(GOLDEN / name).items():
        np.testing.assert_allclose(tokens, index.reconstruct(document), atol=1e-5)
    for path in (GOLDEN / name).rglob("*.npy"):
        assert b"pickle" not in path.read_bytes()
    assert sum(path.stat().st_size for path in (GOLDEN / name).rglob("*") if path.is_file()) < 60_000


# ------------------------------------------------------------------------- deletion


def test_deleted_documents_are_not_there(copy, queries, index):
    gone = [0, 3, 7, 157]
    delete(copy, 0, gone)
    opened = Index.open(copy, verify=True)
    live = [i for i in range(158) if i not in gone]
    assert len(opened) == 154 and opened.ids.tolist() == live
    assert repr(opened).startswith("Index(154 documents")
    assert opened.stats()["documents"] == 154
    assert opened.stats()["bytes"] == sum(path.stat().st_size for path in copy.rglob("*.npy"))
    for query in queries:
        expected = [pair for pair in index.search(query, 158, exhaustive=True) if pair[0] in live]
        for settings in ({}, {"exhaustive": True}, {"nprobe": 1}, {"subset": live}):
            found = list(opened.search(query, 158, **settings))
            assert found == expected
        assert list(opened.search(query, 3, exhaustive=True)) == expected[:3]
        assert 0 not in opened.search(query, 5).ids
    for name in gone:
        for ask in (
            lambda name: opened.rerank(queries[0], [1, name]),
            lambda name: opened.search(queries[0], subset=[name]),
            lambda name: opened.explain(queries[0], name),
            lambda name: opened.reconstruct(name),
        ):
            with pytest.raises(UnknownIdError, match=f"holds {name}, which is no document of this index"):
                ask(name)


def test_the_id_of_a_deleted_document_may_come_again(clustered, tmp_path, monkeypatch):
    """As an update does: the old document is deleted and a segment with the new one follows."""
    monkeypatch.setattr("lateint.indexing.builder.CHUNK", 64)
    documents = clustered([60, 60, 60, 60])
    path = tmp_path / "index"
    Index.build(documents, path, ids=["a", "b", "c", "d"], ncentroids=4, max_ram=54_400, progress=False)
    assert len(manifest_of(path)["segments"]) == 4
    third = manifest_of(path)["segments"][2]["name"]
    name = f"{third}/id_bytes"
    (path / f"{name}.npy").unlink()
    add_file(path, name, np.frombuffer(b"a", np.uint8))
    rewrite(path, lambda manifest: [segment.pop("hashed") for segment in manifest["segments"]])
    delete(path, 0, [0])
    index = Index.open(path, verify=True)
    assert index.ids.tolist() == ["b", "a", "d"]
    np.testing.assert_allclose(index.reconstruct("a"), documents[2], atol=0.2)
    assert index.search(documents[2], 4).ids[0] == "a"
    assert index.search(documents[0], 4).ids.tolist() != ["a", "b", "a", "d"]
    assert [document for document, _ in index.rerank(documents[2], ["a", "d"])] == ["a", "d"]


def test_all_deleted(copy, queries):
    delete(copy, 0, range(158))
    index = Index.open(copy)
    assert len(index) == 0 and index.ids.tolist() == []
    assert len(index.search(queries[0])) == len(index.search(queries[0], exhaustive=True)) == 0


def test_nothing_deleted(copy, queries, index):
    delete(copy, 0, [])
    opened = Index.open(copy)
    assert len(opened) == 158
    assert list(opened.search(queries[4])) == list(index.search(queries[4]))


@pytest.mark.parametrize("positions", [[158], [3, 3], [4, 2]])
def test_deletions_that_cannot_be(copy, positions):
    delete(copy, 0, positions)
    with pytest.raises(FormatError, match=r"deleted-1\.npy must ascend and stay below 158"):
        Index.open(copy)


def test_save_keeps_deletions(copy, tmp_path):
    delete(copy, 0, [5])
    Index.open(copy).save(tmp_path / "saved")
    assert Index.open(tmp_path / "saved", verify=True).ids.tolist() == [i for i in range(158) if i != 5]


# ------------------------------------------------------------------------- what is not an index


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no index: .*nowhere"):
        Index.open(tmp_path / "nowhere")


def test_a_file(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(FormatError, match="file is not an index: it is a file, not a folder"):
        Index.open(tmp_path / "file")


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "text").write_text("text")
    with pytest.raises(FormatError, match=r"is not an index: it has no index\.json"):
        Index.open(tmp_path)
    assert issubclass(FormatError, ValueError)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '"lateint"', "{}", '{"format": "lateint"}', "\x00\x01", '{"version": 1}']
)
def test_a_manifest_of_something_else(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(FormatError, match=r"index\.json is not the manifest of an index"):
        Index.open(tmp_path)


def test_a_manifest_that_is_not_text(tmp_path):
    (tmp_path / "index.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(FormatError, match=r"index\.json is not the manifest of an index"):
        Index.open(tmp_path)


def test_another_format(copy):
    rewrite(copy, lambda manifest: manifest.update(format="other"))
    with pytest.raises(FormatError, match=r"index\.json says format 'other', an index of lateint says 'lateint'"):
        Index.open(copy)


@pytest.mark.parametrize("version", [0, 4, 99, "1", None])
def test_another_version(copy, version):
    rewrite(copy, lambda manifest: manifest.update(version=version))
    with pytest.raises(
        FormatError, match=rf"copy was written in format version {version}, this lateint reads versions 1 to 3"
    ):
        Index.open(copy)


def test_what_is_not_known_is_ignored(copy, queries, index):
    rewrite(copy, lambda manifest: (manifest.update(later=[1]), manifest["segments"][0].update(hint="x")))
    add_file(copy, "hints", np.arange(3))
    assert list(Index.open(copy).search(queries[4])) == list(index.search(queries[4]))


KEYS = ["dim", "width", "block", "nbits", "step", "centroids", "cells", "segments", "ids", "files"]
COUNTS = ["generation", "next_segment"]


@pytest.mark.parametrize("key", KEYS + COUNTS)
@pytest.mark.parametrize("value", [..., None, "x", -1, 10**30, [], {}, -0.5], ids=repr)
def test_a_damaged_manifest(copy, key, value):
    """Without a key, or with a value that cannot be."""
    if key == "segments" and value == []:
        return  # it can be
    if value is ...:
        rewrite(copy, lambda manifest: manifest.pop(key))
    else:
        rewrite(copy, lambda manifest: manifest.update({key: value}))
    with pytest.raises(FormatError, match=r"damaged"):
        Index.open(copy)


@pytest.mark.parametrize("key", ["name", "documents", "tokens"])
@pytest.mark.parametrize("value", [..., None, 7, "../../elsewhere", "/elsewhere", [1]])
def test_a_damaged_segment(copy, key, value):
    def change(manifest):
        segment = manifest["segments"][0]
        segment.pop(key) if value is ... else segment.update({key: value})

    rewrite(copy, change)
    with pytest.raises(FormatError, match="damaged"):
        Index.open(copy)


@pytest.mark.parametrize("key", ["dtype", "shape", "bytes", "crc32"])
@pytest.mark.parametrize("value", [..., None, 7, "x", [3]])
def test_a_damaged_entry(copy, key, value):
    def change(manifest):
        entry = manifest["files"]["centroids.npy"]
        entry.pop(key) if value is ... else entry.update({key: value})

    rewrite(copy, change)
    with pytest.raises(FormatError, match=r"centroids|damaged"):
        Index.open(copy)


# ------------------------------------------------------------------------- files that are not what they were


ARRAYS = [
    *["mean", "rotation", "permutation", "centroids", "cells", "cell_offsets"],
    *(
        f"segments/000000/{leaf}"
        for leaf in ("offsets", "codes", "scales", "centroid_ids", "list_offsets", "list_documents", "ids")
    ),
]


@pytest.fixture(params=ARRAYS)
def array(request, copy):
    return copy / f"{request.param}.npy"


def refuses(copy, array, message, **settings):
    with pytest.raises(FormatError, match=message) as raised:
        Index.open(copy, **settings)
    assert str(array) in str(raised.value)


def test_a_missing_file(copy, array):
    array.unlink()
    refuses(copy, array, "is missing; the index is damaged")


def test_a_truncated_file(copy, array):
    data = array.read_bytes()
    for size in (0, 1, 100, 128, len(data) - 1):
        array.write_bytes(data[:size])
        refuses(copy, array, f"expected {len(data)} bytes, found {size}; the index is damaged")


def test_a_longer_file(copy, array):
    array.write_bytes(array.read_bytes() + b"\0")
    refuses(copy, array, "expected .* bytes, found .*; the index is damaged")


@pytest.mark.parametrize("place", [0, 9, 60, -1])
def test_a_corrupted_file(copy, array, place):
    data = bytearray(array.read_bytes())
    data[place] ^= 0x10
    array.write_bytes(data)
    refuses(copy, array, "does not match its checksum; the index is damaged")


def test_a_corrupted_large_file(copy, monkeypatch):
    """The checksums of large files are compared on demand; their headers always make sense."""
    array = copy / "segments/000000/codes.npy"
    good = array.read_bytes()
    monkeypatch.setattr(store, "ALWAYS_CHECKED", 0)
    array.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    Index.open(copy)
    refuses(copy, array, "does not match its checksum", verify=True)
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(good)
        data[rng.integers(0, 128)] = rng.integers(0, 256)
        array.write_bytes(data)
        try:
            Index.open(copy)
        except FormatError as error:
            assert str(array) in str(error)


def test_a_file_of_another_type(copy, array):
    """The manifest agrees, but the layout does not."""
    name, found = array.relative_to(copy).as_posix().removesuffix(".npy"), np.load(array)
    add_file(copy, name, found.astype(np.float64))
    refuses(copy, array, r"must hold .*, found <f8 \[.*\]; the index is damaged")


def test_a_file_of_another_shape(copy, array):
    name, found = array.relative_to(copy).as_posix().removesuffix(".npy"), np.load(array)
    add_file(copy, name, found[None])
    refuses(copy, array, "must hold .* found .*; the index is damaged")


def test_a_foreign_file(copy, array):
    data = b"#!/bin/sh\n".ljust(array.stat().st_size)
    array.write_bytes(data)
    name = array.relative_to(copy).as_posix()
    rewrite(copy, lambda manifest: manifest["files"][name].update(crc32=zlib.crc32(data)))
    refuses(copy, array, r"is not a \.npy file of .*; the index is damaged")


def test_nothing_is_unpickled(copy):
    array = copy / "mean.npy"
    np.save(array, np.array([{"a": 1}], object), allow_pickle=True)
    data = array.read_bytes()
    entry = {"dtype": "|O", "shape": [1], "bytes": len(data), "crc32": zlib.crc32(data)}
    rewrite(copy, lambda manifest: manifest["files"].update({"mean.npy": entry}))
    refuses(copy, array, r"must hold <f4 \[32\], found \|O \[1\]")
    rewrite(copy, lambda manifest: manifest["files"]["mean.npy"].update(dtype="<f4", shape=[32]))
    refuses(copy, array, r"is not a \.npy file of <f4 \[32\]")


@pytest.mark.parametrize("name", ["segments/000000/offsets", "segments/000000/list_offsets", "cell_offsets"])
def test_offsets_that_end_elsewhere(copy, name):
    offsets = np.load(copy / f"{name}.npy")
    offsets[-1] += 1
    add_file(copy, name, offsets)
    refuses(copy, copy / f"{name}.npy", r"must run from 0 to \d+, found 0 to \d+; the index is damaged")


def test_an_empty_cell(copy):
    """A search could look into this cell alone, and find no centroid."""
    offsets = np.load(copy / "cell_offsets.npy")
    assert len(offsets) > 2
    offsets[1] = 0
    add_file(copy, "cell_offsets", offsets)
    message = "must increase at every step, found 0 and then 0; the index is damaged"
    refuses(copy, copy / "cell_offsets.npy", message)


# ------------------------------------------------------------------------- writing


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(collection, tmp_path, monkeypatch, code):
    """Wherever in the build it happens."""
    write, calls = files.Column.write, []
    for fails_at in (1, 5, 9, 13):
        calls.clear()

        def full(self, part, fails_at=fails_at):
            calls.append(part)
            if len(calls) == fails_at:
                raise OSError(code, os.strerror(code))
            write(self, part)

        monkeypatch.setattr(files.Column, "write", full)
        with pytest.raises(
            OSError, match="cannot write the index: the disk is full; nothing was left behind"
        ) as raised:
            Index.build(collection, tmp_path / "index", progress=False)
        assert raised.value.errno == code and raised.value.filename == str(tmp_path / "index")
        assert left(tmp_path) == []


@pytest.mark.parametrize("size", [200, 4_000, 40_000])
def test_a_limit_on_the_size_of_files(tmp_path, size):
    """The system's own error, in a process of its own; buffers that cannot be flushed do not hide it."""
    program = f"""
import resource, sys
import numpy as np
from lateint import Index
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
tokens = np.random.default_rng(0).standard_normal((3000, 64)).astype("float32")
try:
    Index.build(tokens, "index", lengths=[30] * 100, progress=False)
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "cannot write the index: the disk is full; nothing was left behind" in done.stdout, done.stderr
    assert left(tmp_path) == []


def test_a_full_disk_while_spooling(tmp_path):
    program = """
import resource
import numpy as np
from lateint import Index
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Index.build((np.ones((30, 64), "float32") for _ in range(100)), "index", progress=False)
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert "cannot write the index: the disk is full; nothing was left behind" in done.stdout, done.stderr
    assert left(tmp_path) == []


def test_an_old_index_survives_a_failed_build(collection, clustered, tmp_path, monkeypatch):
    path = tmp_path / "index"
    Index.build(clustered([3, 4]), path, progress=False)

    def full(self, part):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.Column, "write", full)
        with pytest.raises(OSError, match="the disk is full"):
            Index.build(collection, path, overwrite=True, progress=False)
    assert len(Index.open(path, verify=True)) == 2 and left(tmp_path) == ["index"]


def test_an_old_index_survives_a_failed_rename(clustered, tmp_path, monkeypatch):
    path = tmp_path / "index"
    Index.build(clustered([3, 4]), path, progress=False)
    rename = Path.rename

    def fails(self, target):
        if ".building-" in self.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(whole, "_exchange", lambda left, right: False)
        patch.setattr(Path, "rename", fails)
        with pytest.raises(OSError, match="cannot write the index: Input/output error; nothing was left behind"):
            Index.build(clustered([3]), path, overwrite=True, progress=False)
    assert len(Index.open(path, verify=True)) == 2 and left(tmp_path) == ["index"]


def test_an_index_that_comes_up_meanwhile_is_not_replaced(clustered, tmp_path):
    path = tmp_path / "index"

    def documents():
        yield from clustered([3, 4])
        Index.build(clustered([5]), path, progress=False)

    with pytest.raises(FileExistsError, match=r"index exists already; pass overwrite=True to replace it"):
        Index.build(documents(), path, progress=False)
    assert len(Index.open(path, verify=True)) == 1 and left(tmp_path) == ["index"]


SLOW_BUILD = """
import sys, time
import numpy as np
from lateint import Index
def documents():
    for i in range(1000):
        yield np.ones((30, 64), "float32") * (i + 1)
        if i == 50:
            print("half", flush=True)
            time.sleep(60)
Index.build(documents(), "index", overwrite=True, progress=False)
"""


def test_a_killed_build_leaves_no_half_index(tmp_path, clustered):
    """And what it does leave goes with the next build, but not what a living process is at."""
    Index.build(clustered([3, 4]), tmp_path / "index", progress=False)
    builds = []
    try:
        for _ in range(2):
            build = subprocess.Popen(
                [sys.executable, "-c", SLOW_BUILD], cwd=tmp_path, stdout=subprocess.PIPE, text=True
            )
            builds.append(build)
            assert build.stdout.readline() == "half\n"
        builds[0].send_signal(signal.SIGKILL)
        builds[0].wait()
        assert len(left(tmp_path)) == 3
        assert len(Index.open(tmp_path / "index", verify=True)) == 2
        Index.build(clustered([5]), tmp_path / "index", overwrite=True, progress=False)
        assert len(Index.open(tmp_path / "index", verify=True)) == 1
        assert len(left(tmp_path)) == 2
        builds[1].send_signal(signal.SIGKILL)
        builds[1].wait()
        Index.build(clustered([5]), tmp_path / "index", overwrite=True, progress=False)
        assert left(tmp_path) == ["index"]
    finally:
        for build in builds:
            build.kill()
            build.stdout.close()
            build.wait()


def test_a_place_killed_between_two_renames(tmp_path, clustered):
    """The old index is moved aside and the new one not yet in its place: the old one is kept, not cleaned away."""
    Index.build(clustered([3, 4]), tmp_path / "index", progress=False)
    (tmp_path / "index").rename(tmp_path / ".index.replaced-0123abcd")
    Index.build(clustered([3]), tmp_path / "index", progress=False)
    assert left(tmp_path) == [".index.replaced-0123abcd", "index"]
    Index.build(clustered([3]), tmp_path / "index", overwrite=True, progress=False)
    assert left(tmp_path) == ["index"]


def test_a_link_to_an_index_stays(tmp_path, clustered):
    """It used to be replaced by a folder, and the old index was left aside."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "index")
    for overwrite, count in ((False, 1), (True, 2), (True, 3)):
        index = Index.build(clustered([3] * count), tmp_path / "link", overwrite=overwrite, progress=False)
        assert (tmp_path / "link").is_symlink() and index.path == tmp_path / "link"
        assert len(index) == len(Index.open(tmp_path / "there" / "index", verify=True)) == count
    index.save(tmp_path / "link", overwrite=True)
    assert left(tmp_path) == ["link", "there"] and left(tmp_path / "there") == ["index"]


def test_links_in_a_circle(tmp_path, clustered):
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    with pytest.raises(OSError, match=r"cannot write the index: .*; nothing was left behind"):
        Index.build(clustered([3]), tmp_path / "one", overwrite=True, progress=False)
    assert left(tmp_path) == ["one", "two"]


def test_a_place_that_cannot_be_taken_is_refused_before_the_work(tmp_path, clustered, monkeypatch):
    Index.build(clustered([3]), tmp_path / "index", progress=False)

    def documents():
        raise AssertionError("read")
        yield

    for place in ("index", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        monkeypatch.setattr(os.path, "ismount", lambda path, place=place: Path(path) == tmp_path / place)
        with pytest.raises(OSError, match=r"cannot write the index: it is a mount point, .*; choose a folder in it"):
            Index.build(documents(), tmp_path / place, overwrite=True, progress=False)
    assert left(tmp_path) == ["empty", "index"]


def test_neighbours_are_left_alone(tmp_path, clustered):
    for name in (".index.building", ".other.building-1", "index.building-1", ".index2.building-1"):
        (tmp_path / name).mkdir()
    Index.build(clustered([3]), tmp_path / "index", progress=False)
    assert len(left(tmp_path)) == 5


def test_files_may_be_read_by_those_who_may(tmp_path, clustered):
    """As the umask says, not as the building folder happened to be made."""
    before = os.umask(0o027)
    try:
        Index.build(clustered([3]), tmp_path / "index", progress=False)
    finally:
        os.umask(before)
    assert (tmp_path / "index").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "index" / "index.json").stat().st_mode & 0o777 == 0o640


def test_opening_takes_no_time(tmp_path):
    """Nothing large is read: a large file that is mostly a hole opens as fast as a small one."""
    documents, tokens = 1000, 20_000_000
    Index.build([np.eye(64, dtype=np.float32)] * 2, tmp_path / "index", progress=False)
    part = manifest_of(tmp_path / "index")["segments"][0]["name"]
    shapes = {
        "codes": (np.uint8, (tokens, 32)),
        "scales": (np.uint8, (tokens,)),
        "centroid_ids": (np.uint16, (tokens,)),
    }
    for leaf, (dtype, shape) in shapes.items():
        path = tmp_path / "index" / part / f"{leaf}.npy"
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with path.open("wb") as stream:
            stream.write(files.header(np.dtype(dtype), shape))
            stream.truncate(128 + size)
        entry = {"dtype": np.dtype(dtype).str, "shape": list(shape), "bytes": 128 + size, "crc32": 0}
        name = f"{part}/{leaf}.npy"
        rewrite(tmp_path / "index", lambda manifest, name=name, entry=entry: manifest["files"].update({name: entry}))
    add_file(tmp_path / "index", f"{part}/offsets", np.linspace(0, tokens, documents + 1).astype(np.int64))
    add_file(tmp_path / "index", f"{part}/ids", np.arange(documents))
    rewrite(tmp_path / "index", lambda manifest: manifest["segments"][0].update(documents=documents, tokens=tokens))
    started = time.perf_counter()
    index = Index.open(tmp_path / "index")
    assert time.perf_counter() - started < 0.5
    assert index.tokens == tokens


def test_ragged_offsets_are_what_is_stored(saved, collection):
    offsets = np.load(saved / "segments/000000/offsets.npy")
    np.testing.assert_array_equal(offsets, Ragged(collection.tokens, offsets).offsets)
    np.testing.assert_array_equal(offsets, collection.offsets)


def test_the_golden_index_of_version_2(reader):
    """Made by tests/golden/make.py: sparse lists, segments in one file, deletions of both kinds."""
    spec = importlib.util.spec_from_file_location("make", GOLDEN / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    folder = GOLDEN / "index-v2"
    expected = json.loads((GOLDEN / "index-v2.json").read_text(encoding="utf-8"))
    index = Index.open(folder, verify=True)
    assert index.ids.tolist() == expected["ids"]
    for query, hits in zip(make.queries(), expected["hits"], strict=True):
        assert [[document, score] for document, score in index.search(query, 5)] == hits
    segments = manifest_of(folder)["segments"]
    assert [segment["deleted"]["kind"] for segment in segments[:2]] == ["positions", "mask"]
    assert segments[2]["lists"] < 10 and segments[1].get("lists") is None
    assert Index.verify(folder).problems == []
    read = reader(folder)
    assert list(read) == expected["ids"]
    for name in expected["ids"][::20]:
        np.testing.assert_allclose(read[name], index.reconstruct(name), atol=1e-5)
