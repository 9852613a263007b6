"""Passages checked, read from where they lie, and written beside an index."""

import gzip
import json

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from preflmr.data.ids import Ascending, Positions, halves, repeats
from preflmr.data.images import Images, MissingImage
from preflmr.data.passages import OFFSETS, PASSAGES, Passages, load_passages


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


M2KR = [{"passage_id": "a", "passage_content": "one\u2028line"}, {"passage_id": "b", "passage_content": "zwei ä"}]
BEIR = [{"_id": "a", "title": "T", "text": "one"}, {"_id": "b", "title": "", "text": "two"}]
PLAIN = [{"id": 7, "text": "one"}]


@pytest.mark.parametrize(
    "name, rows, expected",
    [
        ("p.jsonl", M2KR, [("a", "one\u2028line"), ("b", "zwei ä")]),
        ("p.x.jsonl.gz", M2KR, [("a", "one\u2028line"), ("b", "zwei ä")]),
        ("corpus.jsonl", BEIR, [("a", "T one"), ("b", "two")]),
        ("p.jsonl", PLAIN, [("7", "one")]),
    ],
)
def test_passages_are_read_from_where_they_lie_and_from_a_copy(tmp_path, name, rows, expected):
    loaded = load_passages(write(tmp_path / name, rows))
    (tmp_path / "copy").mkdir()
    loaded.write(tmp_path / "copy")
    for passages in (loaded, Passages.open(tmp_path / "copy", pictured=False)):
        assert list(zip(passages.ids, passages.texts, strict=True)) == expected and passages.images is None
        assert [passages.position(id) for id, _ in expected] == list(range(len(expected)))
        assert passages.sha256 == loaded.sha256 and len(passages) == len(expected)
        assert "c" not in passages.positions and passages.positions.get("c") is None
        with pytest.raises(KeyError):
            passages.position("c")


def test_parquet(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(M2KR).to_parquet(tmp_path / "p.parquet")
    assert load_passages(tmp_path / "p.parquet").ids == ["a", "b"]
    datasets.Dataset.from_list([{"name": "a"}]).to_parquet(tmp_path / "q.parquet")
    with pytest.raises(ValueError, match=r"q\.parquet: must have columns among passage_id, .*, found name"):
        load_passages(tmp_path / "q.parquet")


def test_equal_passages_have_equal_sums(tmp_path):
    one, other, reversed = (
        load_passages(write(tmp_path / name, rows)).sha256
        for name, rows in (("p.jsonl", M2KR), ("q.jsonl.gz", M2KR), ("r.jsonl", M2KR[::-1]))
    )
    assert one == other != reversed


def test_missing_pictures(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = [{"id": name, "text": name, "img_path": f"{name}.png"} for name in "ab"]
    passages, images = load_passages(write(tmp_path / "p.jsonl", rows)), Images(tmp_path)

    def kept(*settings):
        found, missing = passages.without_missing(*settings)
        return missing, list(found.ids), None if found.images is None else list(found.images)

    assert kept(None, "error") == (0, ["a", "b"], None)
    assert kept(images, "skip") == (1, ["a"], ["a.png"])
    assert kept(images, "blank") == (1, ["a", "b"], ["a.png", None])
    with pytest.raises(MissingImage, match=r"passage 'b': image 'b.png' is missing"):
        kept(images, "error")
    with pytest.raises(ValueError, match="on_missing must be one of error, skip, blank, got 'no'"):
        kept(images, "no")
    (tmp_path / "a.png").unlink()
    with pytest.raises(ValueError, match="passages must have pictures that are there, all 2 are missing"):
        kept(images, "skip")


def test_a_passage_that_is_a_picture_alone(tmp_path):
    rows = [{"id": "a", "text": "", "img_path": "a.png"}, {"id": "b", "text": "x", "img_path": None}]
    passages, images = load_passages(write(tmp_path / "p.jsonl", rows)), Images(tmp_path)
    for settings in ((None, "error"), (images, "blank")):
        with pytest.raises(ValueError, match="passage 'a' is empty without its picture"):
            passages.without_missing(*settings)
    assert passages.without_missing(images, "skip")[0].ids == ["b"]


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "must hold at least one passage, found none"),
        ([{"id": "a", "text": "x"}, {"id": "b", "text": " "}], "line 2: passage 'b' is empty"),
        ([{"id": "a", "text": None}], "line 1: 'text' must be a string, got None"),
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], "line 2: passage 'a' comes twice"),
        ([{"id": 1, "text": "x"}, {"id": "1", "text": "y"}], "line 2: passage '1' comes twice"),
        ([{"name": "a", "text": "x"}], "must have the columns passage_id and passage_content or .*, found name, text"),
        ([{"id": None, "text": "x"}], "line 1: 'id' must hold strings or integers, got None"),
    ],
)
def test_wrong_passages(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load_passages(write(tmp_path / "p.jsonl", rows))


def test_half_a_character_is_said(tmp_path):
    passages = load_passages(write(tmp_path / "p.jsonl", [{"id": "a", "text": "\ud800"}]))
    with pytest.raises(ValueError, match="passage 'a': must be text that utf-8 can write"):
        passages.write(tmp_path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.jsonl"):
        load_passages(tmp_path / "nothing.jsonl")


def test_changed_passages_are_noticed(tmp_path):
    (tmp_path / "copy").mkdir()
    load_passages(write(tmp_path / "p.jsonl", M2KR)).write(tmp_path / "copy")
    assert np.load(tmp_path / "copy" / OFFSETS).dtype == np.int64
    with (tmp_path / "copy" / PASSAGES).open("a") as file:
        file.write("more\n")
    with pytest.raises(ValueError, match=r"must have .* bytes, found"):
        Passages.open(tmp_path / "copy")


def test_ids_whose_digests_begin_alike_are_kept_apart():
    first, second = np.array([3, 3, 7, 7, 7], np.uint64), np.array([1, 1, 1, 2, 1], np.uint64)
    digests = Ascending(first, second, np.array([2, 4, 0, 1, 3], np.int32))
    assert repeats(digests).tolist() == [3, 4]
    half, other = halves("b")
    alike = Ascending(np.array([half, half], np.uint64), np.array([0, other], np.uint64), np.arange(2))
    assert Positions(["a", "b"], alike)["b"] == 1
    for ids in (["a"], [str(n) for n in range(1000)]):
        positions = Positions(ids)
        assert [positions[id] for id in ids] == list(range(len(ids))) and list(positions) == ids
        assert "x" not in positions and 3 not in positions
