"""Parts that were built anywhere with one codec become one index, and nothing is encoded again."""

import os
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from lateint import Codec, Index, train_codec

BUILD = """
import sys
import numpy as np
from lateint import Codec, Index

folder, number, parts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
tokens, lengths = np.load(folder + "/tokens.npy", mmap_mode="r"), np.load(folder + "/lengths.npy")
ends = np.concatenate([[0], np.cumsum(lengths)])
first, last = len(lengths) * number // parts, len(lengths) * (number + 1) // parts
Index.build(tokens[ends[first]:ends[last]], f"{folder}/part-{number}", lengths=lengths[first:last],
            ids=range(first, last), codec=Codec.load(folder + "/codec"), progress=False, threads=1)
"""


@pytest.fixture(scope="module")
def codec(collection):
    return train_codec(collection, progress=False)


def cut(collection, parts):
    """The documents in so many runs, with ids that count on."""
    documents, bounds = list(collection), np.linspace(0, len(collection), parts + 1).astype(int)
    return [(documents[i:j], range(i, j)) for i, j in pairwise(bounds.tolist())]


def built(collection, codec, parts, folder, **settings):
    return [
        Index.build(documents, folder / f"part-{n}", ids=ids, codec=codec, progress=False, **settings)
        for n, (documents, ids) in enumerate(cut(collection, parts))
    ]


def same(one, other, queries):
    assert one.ids.tolist() == other.ids.tolist() and len(one) == len(other)
    for settings in ({}, {"exhaustive": True}, {"nprobe": 2, "candidates": 20}, {"subset": one.ids[3:90].tolist()}):
        for query in queries:
            assert list(one.search(query, 10, **settings)) == list(other.search(query, 10, **settings))


def test_four_parts_of_four_processes_are_one_build(collection, queries, codec, tmp_path):
    np.save(tmp_path / "tokens.npy", collection.tokens)
    np.save(tmp_path / "lengths.npy", collection.lengths)
    codec.save(tmp_path / "codec")
    processes = [subprocess.Popen([sys.executable, "-c", BUILD, str(tmp_path), str(n), "4"]) for n in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    merged = Index.merge([tmp_path / f"part-{n}" for n in range(4)], tmp_path / "merged")
    same(merged, Index.build(collection, codec=codec, progress=False), queries)
    assert merged.stats()["segments"] == 4 and merged.codec.crc32 == codec.crc32
    assert not Index.verify(tmp_path / "merged").problems
    links = [os.stat(path).st_nlink for path in (tmp_path / "merged" / "segments").rglob("*.*")]
    assert links and set(links) == {2}


def test_parts_in_memory_and_on_disk_and_changed_ones(collection, queries, codec, tmp_path):
    """Deleted documents stay deleted, small segments stay small, and what is merged can be changed further."""
    on_disk = built(collection, codec, 3, tmp_path)
    on_disk[1].delete([60, 61, 62])
    on_disk[2].add(list(collection)[:2], ids=[1000, 1001])
    documents, ids = cut(collection, 3)[0]
    in_memory = Index.build(documents, ids=ids, codec=codec, progress=False)
    in_memory.delete([7])
    merged = Index.merge([in_memory, on_disk[1], tmp_path / "part-2"], tmp_path / "merged")
    everything = [*enumerate(collection), (1000, collection[0]), (1001, collection[1])]
    live = [(i, tokens) for i, tokens in everything if i not in (7, 60, 61, 62)]
    expected = Index.build([t for _, t in live], ids=[i for i, _ in live], codec=codec, progress=False)
    same(merged, expected, queries[:4])
    merged.delete([1000])
    merged.add([collection[7]], ids=[7])
    merged.compact(full=True)
    live = [one for one in live if one[0] != 1000] + [(7, collection[7])]
    expected = Index.build([t for _, t in live], ids=[i for i, _ in live], codec=codec, progress=False)
    same(Index.open(tmp_path / "merged"), expected, queries[:4])
    assert not Index.verify(tmp_path / "merged").problems
    same(Index.open(tmp_path / "part-1"), on_disk[1], queries[:2])  # parts stay as they are


def test_string_ids(collection, codec, tmp_path):
    parts = [
        Index.build(documents, ids=[f"doc {i}" for i in ids], codec=codec, progress=False)
        for documents, ids in cut(collection, 3)
    ]
    merged = Index.merge(parts, tmp_path / "merged")
    assert merged.ids.tolist() == [f"doc {i}" for i in range(len(collection))]
    assert merged.rerank(collection[100], ["doc 100", "doc 3"]).ids[0] == "doc 100"
    with pytest.raises(ValueError, match=r"ids must differ between parts, but 'doc \d+' is in part 0 .* and in part 2"):
        Index.merge([parts[0], parts[1], parts[0]], tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nbits": 2}, r"same codec, but part 1 \(.*other\) has nbits 2 and part 0 \(.*part-0\) has 4"),
        ({"ncentroids": 3}, r"same codec, but part 1 \(.*\) has centroids 3 and part 0 \(.*\) has \d+"),
        (
            {"seed": 5},
            r"same codec, but that of part 1 \(.*other\) has crc32 \w{8} and that of part 0 \(.*part-0\) \w{8}",
        ),
    ],
)
def test_the_part_that_differs_is_named(collection, codec, tmp_path, settings, message):
    one = built(collection, codec, 1, tmp_path)[0]
    Index.build(collection, tmp_path / "other", progress=False, **settings)
    with pytest.raises(ValueError, match=message):
        Index.merge([one, tmp_path / "other"], tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "part-0"]


def test_parts_that_cannot_be_merged(collection, codec, tmp_path):
    parts = built(collection, codec, 2, tmp_path)
    strings = Index.build(cut(collection, 2)[1][0], ids=[str(i) for i in range(79)], codec=codec, progress=False)
    with pytest.raises(ValueError, match=r"those of part 1 \(in memory\) are string and those of part 0 .* int64"):
        Index.merge([parts[0], strings], tmp_path / "merged")
    with pytest.raises(ValueError, match=r"but 0 is in part 0 \(.*part-0\) and in part 1 \(.*part-0\)"):
        Index.merge([parts[0], tmp_path / "part-0"], tmp_path / "merged")
    with pytest.raises(ValueError, match="parts must hold at least one index, got none"):
        Index.merge([], tmp_path / "merged")
    with pytest.raises(TypeError, match="parts must be a list of indexes or paths, got str"):
        Index.merge(str(tmp_path), tmp_path / "merged")
    with pytest.raises(FileNotFoundError, match="there is no index"):
        Index.merge([tmp_path / "nothing"], tmp_path / "merged")
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        Index.merge(parts, tmp_path / "part-0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-0", "part-1"]


def test_without_links_files_are_copied(collection, codec, tmp_path, monkeypatch, queries):
    parts = built(collection, codec, 2, tmp_path)

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    merged = Index.merge(parts, tmp_path / "merged")
    shutil.rmtree(tmp_path / "part-0")
    same(Index.open(tmp_path / "merged"), merged, queries[:2])
    assert isinstance(merged.codec, Codec)
