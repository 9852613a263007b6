"""Building, saving and opening an index, and looking at it; what searches return is in test_search.py."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lateint import Index, Ragged, UnknownIdError


def pairs(index, query, **settings):
    return list(index.search(query, **settings))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("settings", [{}, {"nbits": 2, "seed": 3}, {"nbits": 8}, {"max_ram": 6_000_000}])
def test_the_same_input_and_seed_give_the_same_bytes(clustered, tmp_path, settings, monkeypatch):
    """On any number of threads, in memory and saved or built on disk."""
    monkeypatch.setattr("lateint.indexing.builder.CHUNK", 4096)
    documents = clustered(np.random.default_rng(0).integers(1, 300, 500).tolist())
    names = [f"number {i}" for i in range(500)]
    Index.build(documents, tmp_path / "1", ids=names, threads=1, progress=False, **settings)
    expected = contents(tmp_path / "1")
    for threads in (2, 3):
        Index.build(documents, tmp_path / str(threads), ids=names, threads=threads, progress=False, **settings)
        assert contents(tmp_path / str(threads)) == expected
    Index.build(documents, ids=names, progress=False, **settings).save(tmp_path / "saved")
    assert contents(tmp_path / "saved") == expected
    Index.open(tmp_path / "saved").save(tmp_path / "again")
    assert contents(tmp_path / "again") == expected


def test_another_seed_gives_another_index(collection):
    tokens = [Index.build(collection, seed=seed, progress=False).reconstruct(7) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(tokens[0], tokens[1])
    assert not np.array_equal(tokens[0], tokens[2])


def test_instruction_sets_give_the_same_bytes(clustered, tmp_path):
    """A process of its own for each, as a machine without AVX-512 would be."""
    from lateint_kernels.instruction_sets import INSTRUCTION_SETS, why_not

    tokens = clustered([20] * 30, 24).tokens
    np.save(tmp_path / "tokens.npy", tokens)
    program = (
        "import sys, numpy as np; from lateint import Index; tokens = np.load('tokens.npy');"
        "Index.build(tokens, sys.argv[1], lengths=[20] * 30, progress=False)"
    )
    levels = [isa for isa in INSTRUCTION_SETS if why_not(isa) is None]
    for isa in levels:
        subprocess.run(
            [sys.executable, "-c", program, isa], cwd=tmp_path, env={**os.environ, "LATEINT_ISA": isa}, check=True
        )
    for isa in levels:
        assert contents(tmp_path / isa) == contents(tmp_path / levels[0])


def test_several_segments_find_the_same(clustered, tmp_path, queries, monkeypatch):
    """max_ram cuts the index into segments and learns from a smaller sample; with that held, nothing else changes."""
    documents = clustered(np.random.default_rng(0).integers(1, 300, 400).tolist())
    monkeypatch.setattr("lateint.indexing.builder.CHUNK", 4096)
    whole = Index.build(documents, ncentroids=100, progress=False)
    assert whole.stats()["segments"] == 1
    cut = Index.build(documents, tmp_path / "cut", ncentroids=100, max_ram=3_520_000, progress=False)
    assert cut.stats()["segments"] == 4
    assert len(cut) == len(whole) and cut.tokens == whole.tokens
    np.testing.assert_array_equal(cut.ids, whole.ids)
    for settings in ({}, {"exhaustive": True}, {"nprobe": 2, "candidates": 20}, {"subset": range(0, 400, 3)}):
        for query in queries:
            assert pairs(cut, query, k=10, **settings) == pairs(whole, query, k=10, **settings)
    for document in (0, 199, 399):
        np.testing.assert_array_equal(cut.reconstruct(document), whole.reconstruct(document))


# ------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"nbits": 3}, ValueError, "nbits must be one of 1, 2, 4, 8, got 3"),
        ({"nbits": 4.0}, TypeError, "nbits must be an integer, got float"),
        ({"nbits": "4"}, TypeError, "nbits must be an integer, got str"),
        ({"ncentroids": 0}, ValueError, "ncentroids must be between 1 and 16777216, got 0"),
        ({"ncentroids": 1 << 25}, ValueError, "ncentroids must be between 1 and 16777216"),
        ({"ncentroids": 2.5}, TypeError, "ncentroids must be an integer, got float"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"seed": 1.5}, TypeError, "seed must be an integer, got float"),
        ({"max_ram": 0}, ValueError, "max_ram must be at least 1, got 0"),
        ({"max_ram": 1e9}, TypeError, "max_ram must be an integer, got float"),
        (
            {"max_ram": 1000},
            ValueError,
            r"max_ram must be at least [\d,]+ bytes for 3,651 tokens of dim 32 .* got 1,000",
        ),
        ({"nbits": True}, TypeError, "nbits must be an integer, got bool"),
        ({"seed": np.True_}, TypeError, "seed must be an integer, got bool"),
        ({"threads": 0}, ValueError, "threads must be at least 1, got 0"),
        ({"threads": 1 << 40}, ValueError, "threads must be at most 4096, got 1099511627776"),
        ({"ids": [1, 2]}, ValueError, "ids must name each document once, got 2 ids for 158 documents"),
        ({"ids": [7] * 158}, ValueError, "ids must differ, but 7 occurs more than once"),
    ],
)
def test_bad_settings(collection, settings, error, message, tmp_path):
    for path in (None, tmp_path / "index"):
        with pytest.raises(error, match=message):
            Index.build(collection, path, progress=False, **settings)
    assert list(tmp_path.iterdir()) == []


def test_integers_of_numpy_are_integers(collection, tmp_path):
    """They used to fail when the finished index was written."""
    plain = {"nbits": 4, "seed": 3, "ncentroids": 9, "max_ram": 1 << 30, "threads": 2}
    for name, kind in (("plain", int), ("signed", np.int64), ("unsigned", np.uint32)):
        settings = {key: kind(value) for key, value in plain.items()}
        Index.build(collection, tmp_path / name, progress=False, **settings)
    assert contents(tmp_path / "plain") == contents(tmp_path / "signed") == contents(tmp_path / "unsigned")


@pytest.mark.parametrize("ncentroids", [1, 2, 57, 10_000])
@pytest.mark.parametrize("nbits", [1, 4, 8])
def test_any_number_of_centroids(collection, queries, ncentroids, nbits):
    index = Index.build(collection, ncentroids=ncentroids, nbits=nbits, progress=False)
    assert index.stats()["centroids"] == min(ncentroids, index.tokens)
    best = index.search(queries[4], 10, exhaustive=True)
    assert list(index.search(queries[4], 10, nprobe=10_000, candidates=1000)) == list(best)


@pytest.mark.parametrize("dim", [1, 3, 8, 13, 100, 128, 513, 1032])
def test_any_dim(clustered, dim):
    """Documents that differ by more than codes lose are told apart."""
    documents = clustered([3, 5, 2] * 4, dim, clusters=200, noise=1.0)
    if dim < 8:  # there is not much to tell apart: signs and norms
        documents = Ragged(
            documents.tokens * np.linspace(1, 2, len(documents.tokens), dtype=np.float32)[:, None], documents.offsets
        )
    index = Index.build(documents, nbits=8, progress=False)
    assert index.dim == dim and index.reconstruct(3).shape == (3, dim)
    np.testing.assert_allclose(index.reconstruct(3), documents[3], atol=0.02)
    if dim >= 8:
        assert [index.search(documents[i], 1).ids[0] for i in range(12)] == list(range(12))


def test_identical_tokens():
    index = Index.build([np.full((4, 16), 0.25, np.float32)] * 5, progress=False)
    hits = index.search(np.full((2, 16), 0.25), 5)
    assert hits.ids.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(hits.scores, 2.0, rtol=0.01)


def test_tokens_of_one_huge_norm_leave_the_others_alone(clustered):
    """They are cut, with a warning that counts them; without the bound one token would leave the others no bits."""
    documents = clustered([20] * 50)
    plain = Index.build(documents, progress=False)
    tokens = documents.tokens.copy()
    tokens[[300, 700]] *= 1000
    with pytest.warns(UserWarning, match=r"^2 of 1,000 tokens have components up to [\d.]+ times what codes can hold"):
        index = Index.build(Ragged(tokens, documents.offsets), progress=False)
    error = [np.abs(index.reconstruct(i) - documents[i]).mean() for i in range(50) if i not in (15, 35)]
    assert np.mean(error) < 2 * np.mean([np.abs(plain.reconstruct(i) - documents[i]).mean() for i in range(50)])
    length = np.linalg.norm(index.reconstruct(15)[0])
    assert 3 < length < 100


def test_many_equal_tokens_leave_the_others_alone(clustered, recwarn):
    """Nine of ten are padding that the encoder did not leave out, say; no token is cut and nothing is warned of."""
    documents = clustered([20] * 50)
    tokens = documents.tokens.copy().reshape(50, 20, 32)
    tokens[:, 2:] = tokens[0, 0]
    index = Index.build(list(tokens), progress=False)
    assert not recwarn.list
    errors = [np.abs(index.reconstruct(i) - tokens[i])[:2].mean() for i in range(50)]
    assert np.mean(errors) < 0.03


def test_norms_that_differ_tenfold(clustered):
    """Scores stay on the scale; no token is cut."""
    documents, (query,) = clustered([20] * 60), clustered([16], seed=5)
    norms = 10 ** np.random.default_rng(0).uniform(0, 1, (1200, 1))
    documents = Ragged((documents.tokens * norms).astype(np.float32), documents.offsets)
    index = Index.build(documents, progress=False)
    exact = np.array([(query @ document.T).max(1).sum() for document in documents])
    found = np.empty(60)
    hits = index.search(query, 60, exhaustive=True)
    found[hits.ids] = hits.scores
    np.testing.assert_allclose(found, exact, rtol=0.06)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_numbers_that_float32_cannot_multiply(clustered, scale):
    documents = clustered([20] * 5)
    with pytest.raises(ValueError, match=r"doc_embs must hold numbers between 1e-18 and 1e\+10 in size"):
        Index.build(Ragged(documents.tokens * np.float32(scale), documents.offsets), progress=False)


def test_scores_of_the_largest_numbers_are_finite():
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((40, 512)).astype(np.float32)
    index = Index.build(Ragged.from_lengths(tokens * np.float32(1e9), [4] * 10), progress=False)
    hits = index.search(np.full((2000, 512), 1e18, np.float32), 10)
    assert np.isfinite(hits.scores).all() and len(hits.ids) == 10


# ------------------------------------------------------------------------- on disk


def test_open_is_what_was_built(index, saved, queries, collection):
    opened = Index.open(saved)
    assert opened.path == saved and index.path is None
    assert Index.open(str(saved), verify=True).tokens == index.tokens
    for query in queries:
        assert pairs(opened, query) == pairs(index, query)
    np.testing.assert_array_equal(opened.reconstruct(7), index.reconstruct(7))
    np.testing.assert_array_equal(opened.ids, index.ids)


def test_a_relative_path(collection, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    index = Index.build(collection, "below/index", progress=False)
    assert index.path == tmp_path / "below" / "index"
    assert len(Index.open("below/index")) == len(collection)


def test_an_empty_folder_is_a_place(collection, tmp_path):
    (tmp_path / "index").mkdir()
    assert len(Index.build(collection, tmp_path / "index", progress=False)) == len(collection)


def test_overwriting(clustered, tmp_path):
    path = tmp_path / "index"
    first = Index.build(clustered([3, 4]), path, progress=False)
    with pytest.raises(FileExistsError, match="index exists already; pass overwrite=True to replace it"):
        Index.build(clustered([3]), path, progress=False)
    with pytest.raises(FileExistsError, match="index exists already; pass overwrite=True to replace it"):
        first.save(path)
    assert len(Index.open(path)) == 2
    query = clustered([3])[0]
    before = pairs(first, query)
    assert len(Index.build(clustered([3]), path, overwrite=True, progress=False)) == 1
    assert pairs(first, query) == before  # its files are gone by name only
    first.save(path, overwrite=True)
    assert len(Index.open(path)) == 2
    Index.open(path).save(path, overwrite=True)
    assert pairs(Index.open(path, verify=True), query) == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["index"]


def test_overwriting_only_what_is_an_index(collection, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    for name in ("file", "folder"):
        for overwrite in (False, True):
            with pytest.raises(
                FileExistsError, match=f"{name} exists and is not an index, so it will not be overwritten"
            ):
                Index.build(collection, tmp_path / name, overwrite=overwrite, progress=False)
    assert contents(tmp_path) == {"file": b"mine", "folder/mine": b"mine"}


def test_a_path_that_cannot_be_written(collection, tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file" / "index", tmp_path / "file" / "below" / "index"):
        with pytest.raises(OSError, match=r"cannot write the index: .*; nothing was left behind"):
            Index.build(collection, path, progress=False)


# ------------------------------------------------------------------------- looking at it


def test_len_repr_and_properties(index, saved):
    assert len(index) == 158 and index.tokens == 3651 and index.dim == 32 and index.nbits == 4
    assert repr(index) == "Index(158 documents, 3,651 tokens, dim 32, 4 bits, in memory)"
    assert repr(Index.open(saved)) == f"Index(158 documents, 3,651 tokens, dim 32, 4 bits, {saved})"


@pytest.mark.parametrize("ids", [None, "strings"])
@pytest.mark.parametrize("nbits", [1, 4, 8])
def test_stats_add_up_to_the_files(collection, tmp_path, ids, nbits):
    names = None if ids is None else [f"document {i}" for i in range(158)]
    index = Index.build(collection, tmp_path / "index", ids=names, nbits=nbits, progress=False)
    stats = index.stats()
    files = sum(len(data) for name, data in contents(tmp_path / "index").items() if name != "index.json")
    assert stats["bytes"] == files
    each = stats["bytes_per_token"]
    assert each["all"] == files / 3651
    assert sum(size for part, size in each.items() if part != "all") == pytest.approx(each["all"])
    assert each["codes"] == pytest.approx(32 * nbits / 8, rel=0.02)
    assert (stats["documents"], stats["tokens"], stats["dim"], stats["nbits"]) == (158, 3651, 32, nbits)
    assert {"codec", "centroids", "assign", "encode", "write"} <= stats["build_seconds"].keys()
    assert Index.open(tmp_path / "index").stats() == {**stats, "build_seconds": {}}


@pytest.mark.parametrize(("nbits", "error"), [(1, 0.6), (2, 0.35), (4, 0.12), (8, 0.05)])
def test_reconstruct(collection, nbits, error):
    index = Index.build(collection, nbits=nbits, progress=False)
    for document in (0, 7, 157):
        tokens = index.reconstruct(document)
        assert tokens.shape == collection[document].shape and tokens.dtype == np.float32
        assert np.linalg.norm(tokens - collection[document], axis=1).mean() < error


def test_reconstruct_says_what_is_wrong(index):
    with pytest.raises(UnknownIdError, match="id holds 'x', which is no document of this index"):
        index.reconstruct("x")
    assert issubclass(UnknownIdError, KeyError)


# ------------------------------------------------------------------------- progress


def test_progress_is_shown_unless_not_wanted(collection, capsys):
    Index.build(collection, progress=False)
    assert capsys.readouterr().err == ""
    Index.build(collection)
    shown = capsys.readouterr().err
    assert "centroids" in shown and "encode" in shown


@pytest.mark.parametrize("stream", ["None", "io.StringIO()"])
def test_where_there_is_no_standard_error(tmp_path, stream):
    """As in a service, or a window without a console; it used to fail the build."""
    program = f"""
import io, sys
import numpy as np
from lateint import Index
from lateint.quality.evaluation import index_run
sys.stderr = {stream}
if sys.stderr is not None:
    sys.stderr.close()
index = Index.build(np.eye(8, dtype="f4")[None], "index")
print(index_run(index, [np.eye(8)], ["q"])[0]["q"].keys())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "dict_keys([0])\n", done.stderr
