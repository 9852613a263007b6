import pytest

from lateint.disk.layout import Kind, kinds
from lateint.disk.manifest import Manifest

MANIFEST = {
    "dim": 12,
    "width": 16,
    "block": 16,
    "nbits": 4,
    "step": 0.5,
    "centroids": 3,
    "cells": 2,
    "ids": "int64",
    "version": 2,
    "generation": 0,
    "next_segment": 1,
    "files": {},
    "segments": [{"name": "segments/000000", "documents": 5, "tokens": 20}],
}


def leaves(**changes):
    segment = {**MANIFEST["segments"][0], **changes.pop("segment", {})}
    manifest = Manifest.from_json({**MANIFEST, "segments": [segment], **changes})
    return {name: str(kind) for name, kind in kinds(manifest).items()}


def test_the_arrays_of_an_index():
    part = "segments/000000"
    assert leaves() == {
        "mean": "<f4 [12]",
        "rotation": "<f4 [1, 16, 16]",
        "permutation": "<i4 [16]",
        "centroids": "|u1 [3, 64]",
        "cells": "|u1 [2, 64]",
        "cell_offsets": "<i8 [3]",
        f"{part}/offsets": "<i8 [6]",
        f"{part}/codes": "|u1 [20, 8]",
        f"{part}/scales": "|u1 [20]",
        f"{part}/centroid_ids": "<u2 [20]",
        f"{part}/list_offsets": "<i8 [4]",
        f"{part}/list_documents": "<u4 [n]",
        f"{part}/ids": "<i8 [5]",
    }


def deletion(kind):
    return {"array": "segments/000000/deleted-7", "kind": kind, "documents": 2}


def test_sparse_lists():
    found = leaves(segment={"lists": 2})
    assert found["segments/000000/list_centroids"] == "<u4 [2]"
    assert found["segments/000000/list_offsets"] == "<i8 [3]"


@pytest.mark.parametrize(
    ("changes", "more", "less"),
    [
        ({"nbits": 8}, {}, {"scales"}),
        ({"centroids": 65_536}, {}, set()),
        ({"centroids": 65_537}, {"centroid_high": "|u1 [20]"}, set()),
        ({"ids": "string"}, {"id_bytes": "|u1 [n]", "id_offsets": "<i8 [6]"}, {"ids"}),
        ({"version": 1, "segment": {"deleted": "deleted-7"}}, {"deleted-7": "<u4 [n]"}, set()),
        ({"segment": {"deleted": deletion("positions")}}, {"deleted-7": "<u4 [2]"}, set()),
        ({"segment": {"deleted": deletion("mask")}}, {"deleted-7": "|u1 [1]"}, set()),
        (
            {"version": 3, "segment": {"groups": ["texts"]}},
            {"text_offsets": "<i8 [6]", "text_bytes": "|u1 [n]"},
            set(),
        ),
        (
            {"version": 3, "segment": {"groups": ["metadata"]}},
            {
                "metadata_offsets": "<i8 [6]",
                "metadata_bytes": "|u1 [n]",
                "field_table": "|u1 [n]",
                "field_data": "|u1 [n]",
            },
            set(),
        ),
        ({"version": 2, "segment": {"groups": ["texts"]}}, {}, set()),
        ({"segment": {"hashed": True}}, {"id_hash": "<u8 [5]", "id_row": "<u4 [5]"}, set()),
    ],
)
def test_arrays_that_come_and_go(changes, more, less):
    part = "segments/000000/"
    found, usual = leaves(**changes), leaves()
    assert found.keys() - usual.keys() == {part + leaf for leaf in more}
    assert usual.keys() - found.keys() == {part + leaf for leaf in less}
    for leaf, kind in more.items():
        assert found[part + leaf] == kind


@pytest.mark.parametrize("groups", ["texts", [1], ["texts", "texts"], ["newer"], ["../texts"], {}, [None]])
def test_groups_that_cannot_be(groups):
    with pytest.raises((ValueError, TypeError)):
        leaves(version=3, segment={"groups": groups})


def test_fits():
    kind = Kind("a", "<f4", (3, -1), "codec")
    assert kind.fits("<f4", [3, 0]) and kind.fits("<f4", (3, 7))
    for dtype, shape in (("<f8", [3, 7]), ("<f4", [2, 7]), ("<f4", [3]), ("<f4", [3, 7, 1]), ("<f4", [3, -1])):
        assert not kind.fits(dtype, shape)
