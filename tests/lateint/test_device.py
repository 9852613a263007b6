"""An index on a device gives the results of the same index on the CPU, bit for bit."""

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lateint
from lateint import Index
from lateint.disk.manifest import Deletion
from lateint.indexing import builder
from lateint.snapshot import Snapshot
from lateint_kernels.devices import Place

torch = pytest.importorskip("torch")

DEVICES = ["torch:cpu", *["cuda"] * torch.cuda.is_available()]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def on(index, device):
    snapshot = index._snapshot
    return Index(Snapshot.of(snapshot.manifest, snapshot.arrays, Place.of(device)), index.path)


def same(left, right):
    for hits, others in zip(left, right, strict=True):
        assert hits.ids.tolist() == others.ids.tolist() and hits.ids.dtype == others.ids.dtype
        assert hits.scores.tobytes() == others.scores.tobytes()


@pytest.fixture(scope="module")
def large(clustered):
    """Enough documents for pruning to leave something out, in two segments, with names, some of them deleted."""
    documents = clustered(np.random.default_rng(0).integers(0, 40, 2500).tolist(), 64, clusters=300)
    names = [f"document {i}" for i in range(2500)]
    before = builder.plan

    def plan(*arguments):
        planned = before(*arguments)
        planned.segment_tokens = 30_000
        return planned

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "plan", plan)
        index = Index.build(documents, ids=names, nbits=2, allow_empty=True, progress=False)
    manifest, arrays = index._snapshot.manifest, index._snapshot.state.arrays
    first, second = manifest.segments
    segments = first, replace(second, deleted=Deletion(f"{second.name}/deleted-1", 100))
    arrays = {**arrays, f"{second.name}/deleted-1": np.arange(0, 300, 3, dtype=np.uint32)}
    return Index(Snapshot.of(replace(manifest, segments=segments), arrays))


@pytest.fixture(scope="module")
def questions(clustered):
    return list(clustered([8, 1, 32, 100], 64, seed=3, clusters=300))


@pytest.mark.parametrize(
    "settings",
    [{}, {"exhaustive": True}, {"nprobe": 2}, {"candidates": 60}, {"nprobe": 1, "candidates": 1}],
    ids=str,
)
def test_search(large, questions, device, settings):
    ours = on(large, device)
    for k in (1, 10, 100):
        same(ours.search(questions, k, **settings), large.search(questions, k, **settings))
    same([ours.search(questions[0], 10, **settings)], [large.search(questions[0], 10, **settings)])


@pytest.mark.parametrize("cells", [1, 7])
def test_centroids_through_cells(large, questions, device, cells):
    """With the same ``cells``, the same results."""
    assert large.stats()["cells"] > 7
    ours, routed = on(large, device), large.search(questions, 100, nprobe=4, cells=cells)
    if cells == 1:
        flat = large.search(questions, 100, nprobe=4)
        assert any(left.ids.tolist() != right.ids.tolist() for left, right in zip(flat, routed, strict=True))
    same(ours.search(questions, 100, nprobe=4, cells=cells), routed)
    for settings in ({}, {"candidates": 60}, {"nprobe": 1}, {"subset": large.ids[::2].tolist(), "nprobe": 2}):
        settings = {**settings, "cells": cells}
        same(ours.search(questions, 10, **settings), large.search(questions, 10, **settings))


def test_many_centroids(large, questions, device, monkeypatch):
    """With more than 32,768 centroids, queries look into cells."""
    monkeypatch.setattr("lateint.retrieval.limits.MANY", 100)
    monkeypatch.setattr("lateint.retrieval.limits.CELLS_PROBED", 1)
    ours = on(large, device)
    for k in (10, 100):
        same(ours.search(questions, k, nprobe=4), large.search(questions, k, nprobe=4))
        same(ours.search(questions, k, nprobe=4), large.search(questions, k, nprobe=4, cells=1))
        same(ours.search(questions, k, nprobe=4, cells=0), large.search(questions, k, nprobe=4, cells=0))


def test_more_than_one_round_of_probing_finds(large, questions, device):
    """A search for more documents than its lists hold looks into more of them."""
    assert len(large.search(questions[1], 2400, nprobe=1)) > 2000
    same(on(large, device).search(questions[:2], 2400, nprobe=1), large.search(questions[:2], 2400, nprobe=1))


def test_a_prepared_subset_is_copied_to_the_device_once(large, questions, device, monkeypatch):
    monkeypatch.setattr("lateint.retrieval.searching.scans", lambda *_: False)
    ours = on(large, device)
    engine, prepared = ours._snapshot.engine, ours.subset(large.ids[::2])
    for subset in (prepared, prepared, ours.subset(large.ids[1::2]), np.asarray(large.ids < "document 2", bool)):
        same(ours.search(questions, 10, subset=subset), large.search(questions, 10, subset=_plain(subset)))
    mask = prepared.of(ours._snapshot).mask
    assert engine.mask(mask) is engine.mask(mask) and engine.mask(mask.copy()) is not engine.mask(mask)


def _plain(subset):
    return subset if isinstance(subset, np.ndarray) else subset._ids


@pytest.mark.parametrize("size", [1, 20, 1500])
@pytest.mark.parametrize("small", [4096, 100])
def test_subset(large, questions, device, size, small, monkeypatch):
    monkeypatch.setattr("lateint.retrieval.searching.scans", lambda selection, *_: selection.documents <= small)
    subset = np.random.default_rng(size).permutation(large.ids)[:size].tolist()
    for settings in ({}, {"exhaustive": True}, {"candidates": 70}):
        found = on(large, device).search(questions, 10, subset=subset, **settings)
        same(found, large.search(questions, 10, subset=subset, **settings))
    assert [len(hits) for hits in on(large, device).search(questions, 10, subset=[])] == [0] * 4


def test_documents_by_id(large, questions, device):
    ours, ids = on(large, device), large.ids[[900, 5, 77, 2000]].tolist()
    for query in questions:
        same(
            [ours.rerank(query, ids), ours.rerank(query, ids, 2)],
            [large.rerank(query, ids), large.rerank(query, ids, 2)],
        )
    for id in ids:
        if len(large.reconstruct(id)):
            mine, theirs = ours.explain(questions[0], id), large.explain(questions[0], id)
            assert mine.tokens.tolist() == theirs.tokens.tolist() and mine.scores.tobytes() == theirs.scores.tobytes()
        np.testing.assert_array_equal(ours.reconstruct(id), large.reconstruct(id))


def test_an_index_on_a_device_makes_room_for_the_next(saved, queries, monkeypatch):
    """`lateint.search` keeps the one that was opened last, but not while another is copied there."""
    monkeypatch.setattr("lateint.index.latest.current", None)
    gone = weakref.ref(Index.open(saved, device="torch:cpu")._snapshot)
    assert len(lateint.search(queries[4])) == 5
    of = Snapshot.of

    def watched(*arguments):
        gc.collect()
        assert gone() is None
        return of(*arguments)

    monkeypatch.setattr(Snapshot, "of", watched)
    Index.open(saved, device="torch:cpu")
    assert len(lateint.search(queries[4])) == 5


def test_parts_of_an_index(collection, queries, device, tmp_path):
    """On several devices, and on one that is too small for it."""
    index = Index.build(collection, tmp_path / "index", progress=False)
    memory = sum(index.stats()["bytes_per_token"][part] for part in ("lists", "codec")) * index.tokens
    memory = int(memory + index.stats()["bytes_per_token"]["codes"] * index.tokens / 3)
    for settings in ({"device": [device, device]}, {"device": device, "device_memory": memory}):
        ours = Index.open(tmp_path / "index", **settings)
        assert ours.device == ",".join([device] * (2 if "device_memory" not in settings else 1))
        for limits in ({}, {"exhaustive": True}, {"subset": index.ids[::7]}):
            same(ours.search(queries, 10, **limits), index.search(queries, 10, **limits))
        same([ours.rerank(queries[0], index.ids[:20])], [index.rerank(queries[0], index.ids[:20])])
        np.testing.assert_array_equal(ours.reconstruct(index.ids[5]), index.reconstruct(index.ids[5]))


@pytest.mark.parametrize(
    ("memory", "error", "message"),
    [
        (0, ValueError, "device_memory must be at least 1, got 0"),
        ("1 GB", TypeError, "device_memory must be an integer, got str"),
        (9, MemoryError, r"device_memory must be at least [\d,]+ bytes for this index, got 9"),
    ],
)
def test_too_little_memory(saved, device, memory, error, message, tmp_path):
    with pytest.raises(error, match=message):
        Index.open(saved, device=device, device_memory=memory)
    with pytest.raises(ValueError, match="device_memory must be left out on the cpu"):
        Index.open(saved, device_memory=1 << 30)
    with pytest.raises(ValueError, match="device_memory must be left out on the cpu"):
        Index.build([], tmp_path / "index", device_memory=1 << 30)
    assert not (tmp_path / "index").exists()  # it was not built first


@pytest.mark.parametrize("nbits", [1, 4, 8])
def test_built_for_a_device(collection, queries, device, nbits, tmp_path):
    settings = {"nbits": nbits, "progress": False}
    index = Index.build(collection, **settings)
    kept, written = (Index.build(collection, path, device=device, **settings) for path in (None, tmp_path / "index"))
    assert (index.device, kept.device, written.device) == ("cpu", device, device)
    assert Index.open(tmp_path / "index").device == "cpu"
    for ours in (kept, written, Index.open(tmp_path / "index", device=device)):
        same(ours.search(queries, 10), index.search(queries, 10))


@pytest.mark.parametrize("name", ["index-v1", "index-v1-strings"])
def test_golden(device, name):
    """Files that were written once, and what searching them gave then."""
    path = Path(__file__).parents[1] / "golden" / name
    index, ours = Index.open(path), Index.open(path, device=device)
    queries = list(np.random.default_rng(0).standard_normal((3, 5, index.dim)).astype(np.float32))
    assert json.loads((path / "index.json").read_text())["version"] == 1
    for settings in ({}, {"exhaustive": True}):
        same(ours.search(queries, 10, **settings), index.search(queries, 10, **settings))


def test_a_device_of_torch(saved, queries):
    assert Index.open(saved, device=torch.device("cpu")).device == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device must be there, but torch finds 0 of CUDA, got 'cuda:0'"):
            Index.open(saved, device=torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        (0, TypeError, r"device must be a string or a torch\.device, or a list of them, got int"),
        (["torch:cpu", 1], TypeError, r"device must be a string or a torch\.device, or a list of them, got int"),
        ([], ValueError, "device must name one device at least, got an empty list"),
        (["torch:cpu", "cpu"], ValueError, "several devices must all be cuda, got 'cpu'"),
        ("gpu", ValueError, "device must be cpu or cuda, got 'gpu'"),
        ("cuda:x", ValueError, r"device must be there, but torch finds \d+ of CUDA, got 'cuda:x'"),
        ("cuda:99", ValueError, r"device must be there, but torch finds \d+ of CUDA, got 'cuda:99'"),
    ],
)
def test_what_is_no_device(collection, saved, device, error, message):
    with pytest.raises(error, match=message):
        Index.open(saved, device=device)
    with pytest.raises(error, match=message):
        Index.build(collection, device=device, progress=False)
