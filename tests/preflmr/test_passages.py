"""Passages copied, checked and read back."""

import gzip
import json

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from preflmr.data.images import Images, MissingImage
from preflmr.data.passages import OFFSETS, PASSAGES, Passage, Passages, copy


def write(path, rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


M2KR = [{"passage_id": "a", "passage_content": "one\u2028line"}, {"passage_id": "b", "passage_content": "zwei ä"}]
BEIR = [{"_id": "a", "title": "T", "text": "one"}, {"_id": "b", "title": "", "text": "two"}]
PLAIN = [{"id": 7, "text": "one"}]


@pytest.mark.parametrize(
    "name, rows, expected",
    [
        ("p.jsonl", M2KR, [Passage("a", "one\u2028line"), Passage("b", "zwei ä")]),
        ("p.x.jsonl.gz", M2KR, [Passage("a", "one\u2028line"), Passage("b", "zwei ä")]),
        ("corpus.jsonl", BEIR, [Passage("a", "T one"), Passage("b", "two")]),
        ("p.jsonl", PLAIN, [Passage("7", "one")]),
    ],
)
def test_passages_come_back(tmp_path, folder, name, rows, expected):
    about = copy(write(tmp_path / name, rows), folder, progress=False)
    assert about["count"] == len(rows) and about["source"].endswith(name)
    passages = Passages.open(folder)
    assert list(passages) == expected == [passages[i] for i in range(len(passages))]
    assert list(passages.texts) == [passage.text for passage in expected] and len(passages.texts) == len(expected)


def test_parquet(tmp_path, folder):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(M2KR).to_parquet(tmp_path / "p.parquet")
    copy(tmp_path / "p.parquet", folder, progress=False)
    assert [passage.id for passage in Passages.open(folder)] == ["a", "b"]


def test_equal_passages_have_equal_sums(tmp_path, folder):
    sums = [
        copy(write(tmp_path / name, rows), folder, progress=False)["sha256"]
        for name, rows in (("p.jsonl", M2KR), ("q.jsonl.gz", M2KR), ("p.jsonl", M2KR[::-1]))
    ]
    assert sums[0] == sums[1] != sums[2]


def test_missing_pictures(tmp_path, folder):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = [{"id": name, "text": name, "img_path": f"{name}.png"} for name in "ab"]
    source, images = write(tmp_path / "p.jsonl", rows), Images(tmp_path)

    def copied(**options):
        about = copy(source, folder, progress=False, **options)
        return about["picture_missing"], about["with_picture"], [(one.id, one.image) for one in Passages.open(folder)]

    assert copied() == (0, 0, [("a", None), ("b", None)])
    assert copied(images=images, on_missing="skip") == (1, 1, [("a", "a.png")])
    assert copied(images=images, on_missing="blank") == (1, 1, [("a", "a.png"), ("b", None)])
    with pytest.raises(MissingImage, match=r"p.jsonl, line 2: image 'b.png' is missing"):
        copied(images=images)
    with pytest.raises(ValueError, match="on_missing must be one of error, skip, blank, got 'no'"):
        copied(images=images, on_missing="no")


@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "must hold at least one passage, found none"),
        ([{"id": "a", "text": "x"}, {"id": "b", "text": " "}], "line 2: passage 'b' is empty"),
        ([{"id": "a", "text": None}], "line 1: passage 'a' is empty"),
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], "line 2: the id 'a' comes a second time"),
        ([{"name": "a", "text": "x"}], "must have the columns passage_id and passage_content or .*, found name, text"),
        ([{"id": None, "text": "x"}], "line 1: id and text must be strings, got None and 'x'"),
        ([{"id": "a", "text": "\ud800"}], "line 1: must be text that utf-8 can write"),
    ],
)
def test_wrong_passages(tmp_path, folder, rows, message):
    with pytest.raises(ValueError, match=message):
        copy(write(tmp_path / "p.jsonl", rows), folder, progress=False)


def test_no_file(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match=r"nothing\.jsonl"):
        copy(tmp_path / "nothing.jsonl", folder, progress=False)


def test_changed_passages_are_noticed(tmp_path, folder):
    copy(write(tmp_path / "p.jsonl", M2KR), folder, progress=False)
    assert np.load(folder / OFFSETS).dtype == np.int64
    with (folder / PASSAGES).open("a") as file:
        file.write("more\n")
    with pytest.raises(ValueError, match=r"must have .* bytes, found"):
        Passages.open(folder)
