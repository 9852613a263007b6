"""A codec by itself: learned, kept, and used in builds."""

import json
import re

import numpy as np
import pytest

import lateint
from lateint import Codec, FormatError, Index, train_codec

ARRAYS = ("mean", "rotation", "permutation", "centroids", "cells", "cell_offsets")


@pytest.fixture(scope="module")
def codec(collection):
    return train_codec(collection, progress=False)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def documents_of(collection):
    """A list, an iterable that starts afresh, and (tokens, lengths): what a build reads in different ways."""
    items = list(collection)

    class Again:
        def __iter__(self):
            return iter(items)

    return {"ragged": (collection, {}), "list": (items, {}), "iterable": (Again(), {}),
            "flat": (collection.tokens, {"lengths": collection.lengths})}  # fmt: skip


@pytest.mark.parametrize(
    "settings", [{}, {"nbits": 2, "seed": 3}, {"nbits": 8, "ncentroids": 7}, {"max_ram": 30_000_000}]
)
def test_a_build_with_the_codec_of_its_documents_gives_the_same_bytes(collection, tmp_path, settings):
    for name, (source, of_source) in documents_of(collection).items():
        plain, given = tmp_path / f"{name} plain", tmp_path / f"{name} given"
        Index.build(source, plain, progress=False, **settings, **of_source)
        codec = train_codec(source, progress=False, **settings, **of_source)
        rest = {"max_ram": settings["max_ram"]} if "max_ram" in settings else {}
        Index.build(source, given, codec=codec, progress=False, **rest, **of_source)
        assert contents(given) == contents(plain), name


def test_on_a_device_the_codec_is_the_same(collection, codec):
    pytest.importorskip("torch")
    there = train_codec(collection, progress=False, device="torch:cpu")
    assert there.crc32 == codec.crc32 and there.training == codec.training
    one = Index.build(collection, codec=codec, progress=False)
    other = Index.build(collection, codec=codec, progress=False, device="torch:cpu")
    for name, array in one._snapshot.state.arrays.items():
        np.testing.assert_array_equal(array, other._snapshot.state.arrays[name])


def test_an_iterator_that_runs_once_is_enough(collection, codec):
    assert train_codec(iter(list(collection)), progress=False).crc32 == codec.crc32


def test_a_saved_codec_comes_back(codec, collection, queries, tmp_path):
    codec.save(tmp_path / "codec")
    back = Codec.load(tmp_path / "codec")
    assert (back.crc32, back.nbits, back.dim, back.seed, back.training) == (
        codec.crc32, codec.nbits, codec.dim, 0, codec.training
    )  # fmt: skip
    for name in ARRAYS:
        np.testing.assert_array_equal(back.arrays[name], codec.arrays[name])
    one, other = (Index.build(collection, codec=c, progress=False).search(queries[0], 10) for c in (codec, back))
    assert list(one) == list(other)
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        codec.save(tmp_path / "codec")
    codec.save(tmp_path / "codec", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["codec"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not a codec, so it will not be overwritten"):
        codec.save(tmp_path / "other", overwrite=True)


def test_the_codec_of_an_index_serves_other_documents(index, codec, clustered, saved):
    assert index.codec.crc32 == codec.crc32 == Index.open(saved).codec.crc32
    other = Index.build(clustered([20] * 30, seed=9), codec=index.codec, progress=False)
    assert other.codec.crc32 == index.codec.crc32


def test_the_checksum_tells_codecs_apart(collection, codec):
    others = [train_codec(collection, progress=False, **settings) for settings in ({"nbits": 2}, {"seed": 1})]
    assert len({codec.crc32, *(other.crc32 for other in others)}) == 3
    assert train_codec(collection, progress=False, threads=3).crc32 == codec.crc32
    assert re.fullmatch(r"Codec\(dim 32, 4 bits, \d+ centroids, crc32 [0-9a-f]{8}\)", repr(codec))


def test_training_says_how_far_tokens_are_from_their_centroids(collection, codec):
    rotation, rows = codec.rotation, codec.centroids.rows
    tokens = rotation.apply(collection.tokens) * rotation.step
    centres = (rows[:, : rotation.width].astype(np.float32) - 128) * rotation.step
    nearest = np.linalg.norm(tokens[:, None] - centres[None], axis=2).min(1)
    assert codec.training.tokens == len(collection.tokens)
    assert codec.training.residual_norm == pytest.approx(nearest.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nbits": 2}, "nbits must be left out or be that of the codec, 4, got 2"),
        ({"seed": 7}, "seed must be left out or be that of the codec, 0, got 7"),
        ({"ncentroids": 3}, r"ncentroids must be left out or be that of the codec, \d+, got 3"),
    ],
)
def test_settings_that_disagree_with_the_codec(collection, codec, settings, message):
    with pytest.raises(ValueError, match=message):
        Index.build(collection, codec=codec, progress=False, **settings)
    agreed = {"nbits": 4, "seed": 0, "ncentroids": len(codec.centroids)}
    Index.build(collection, codec=codec, progress=False, **agreed)


def test_a_codec_of_another_dim_or_none_at_all(clustered, codec):
    with pytest.raises(ValueError, match="doc_embs must have the dim of the codec, 32, got 16"):
        Index.build(clustered([5, 5], dim=16), codec=codec, progress=False)
    with pytest.raises(TypeError, match=r"codec must be a lateint\.Codec, got str"):
        Index.build(clustered([5, 5]), codec="codec", progress=False)
    with pytest.raises(ValueError, match="nbits must be one of 1, 2, 4, 8, got 3"):
        train_codec(clustered([5, 5]), nbits=3)


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), "codec.json"])
def test_a_damaged_codec_names_its_file(codec, tmp_path, name):
    codec.save(tmp_path / "codec")
    file = tmp_path / "codec" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data[: len(data) // 2] if name == "codec.json" else data)
    with pytest.raises(FormatError, match=re.escape(name)):
        Codec.load(tmp_path / "codec")
    file.unlink()
    with pytest.raises(FormatError, match=re.escape(name)):
        Codec.load(tmp_path / "codec")


def test_what_is_not_a_codec(codec, saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no codec"):
        Codec.load(tmp_path / "nothing")
    with pytest.raises(FormatError, match=r"is not a codec: it has no codec\.json"):
        Codec.load(saved)
    codec.save(tmp_path / "codec")
    with pytest.raises(FormatError, match=r"is not an index: it has no index\.json"):
        Index.open(tmp_path / "codec")
    manifest = json.loads((tmp_path / "codec" / "codec.json").read_text())
    for change, message in (
        ({"version": 2}, "version 2"),
        ({"format": "x"}, "says format 'x'"),
        ({"dim": 31}, r"mean\.npy must"),
        ({"crc32": 0}, "another codec"),
    ):
        (tmp_path / "codec" / "codec.json").write_text(json.dumps({**manifest, **change}))
        with pytest.raises(FormatError, match=message):
            Codec.load(tmp_path / "codec")


def test_public_names():
    assert lateint.Codec is Codec and lateint.train_codec is train_codec
