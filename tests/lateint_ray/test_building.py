"""Many workers build what one process builds, whatever happens to them."""

import json

import numpy as np
import pytest
from ray_rows import Killing, Words, files, rows

import lateint_ray
from lateint import Index, train_codec

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
HOW = {"workers": 2, "progress": False}


@pytest.fixture(scope="module")
def source():
    return rows(60)


@pytest.fixture(scope="module")
def jsonl(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in source))
    return path


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory):
    """The index of one process, in the same parts."""
    folder, tokens = tmp_path_factory.mktemp("one"), Words().encode_document([row["text"] for row in source])
    codec, parts = train_codec(tokens, progress=False), []
    for number, part in enumerate(np.array_split(np.arange(60), 5)):
        some = [source[row] for row in part]
        parts.append(folder / f"part-{number}")
        Index.build(
            texts=[row["text"] for row in some],
            encoder=Words(),
            path=parts[-1],
            ids=[row["id"] for row in some],
            metadata=[{"year": row["year"]} for row in some],
            codec=codec,
            progress=False,
        )
    Index.merge(parts, folder / "whole")
    return files(folder / "whole")


def built(jsonl, path, **how):
    return lateint_ray.build(str(jsonl), path, parts=5, metadata=["year"], **{**HOW, "encoder": Words, **how})


def test_it_builds_what_one_process_builds(jsonl, expected, tmp_path):
    index = built(jsonl, tmp_path / "index")
    assert files(tmp_path / "index") == expected
    assert len(index) == 60 and index.get(["doc 7"])[0].metadata == {"year": 1907}
    assert [path.name for path in tmp_path.iterdir()] == ["index"]
    with pytest.raises(FileExistsError, match="exists already; pass overwrite=True"):
        built(jsonl, tmp_path / "index")


def test_a_killed_worker_repeats_its_part(source, jsonl, expected, tmp_path):
    (tmp_path / "kills").mkdir()
    # As an object, which is pickled; its name is that of Words.
    killing = Killing(str(tmp_path / "kills"), [source[row]["text"] for row in (3, 30, 31)], late=0.01)
    built(jsonl, tmp_path / "index", encoder=killing)
    assert len(list((tmp_path / "kills").iterdir())) == 3
    assert files(tmp_path / "index") == expected


def test_a_job_goes_on_with_parts_that_are_whole(jsonl, expected, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lateint_ray.building.Index, "merge", stopped)
        with pytest.raises(KeyboardInterrupt):
            built(jsonl, tmp_path / "index")
    parts = sorted((tmp_path / "index.parts").glob("part-*"))
    assert len(parts) == 5
    before = [path.stat().st_ino for path in parts]
    damaged = next(parts[2].rglob("codes.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    built(jsonl, tmp_path / "index", codec=None)
    assert files(tmp_path / "index") == expected
    assert not (tmp_path / "index.parts").exists() and len(before) == 5


def test_rows_may_have_embeddings(source, tmp_path):
    import pandas
    import ray.data

    tokens = Words().encode_document([row["text"] for row in source])
    frame = pandas.DataFrame({"id": np.arange(60), "embedding": [list(map(list, one)) for one in tokens]})
    codec = train_codec(tokens, progress=False)
    index = lateint_ray.build(ray.data.from_pandas(frame), tmp_path / "index", parts=3, codec=codec, **HOW)
    whole = Index.build(tokens, codec=codec, progress=False)
    for query in tokens[:5]:
        found, expected = index.search(query, exhaustive=True), whole.search(query, exhaustive=True)
        assert list(found) == list(expected)


def test_rows_may_have_sparse_vectors(source, tmp_path):
    vectors = [{"even" if n % 2 == 0 else "odd": 0.5 + n, f"of {n}": 1.0} if n % 7 else None for n in range(60)]
    expected = Index.build(
        texts=[row["text"] for row in source],
        encoder=Words(),
        ids=[row["id"] for row in source],
        sparse=vectors,
        progress=False,
    )
    forms = {"objects": vectors, "json": [None if one is None else json.dumps(one) for one in vectors]}
    for form, column in forms.items():
        rows_of = [{**row, "terms": one} for row, one in zip(source, column, strict=True)]
        path = tmp_path / f"{form}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of))
        index = lateint_ray.build(str(path), tmp_path / form, parts=3, encoder=Words, sparse="terms", **HOW)
        for query in ({"even": 1.0}, {"odd": 0.5, "of 11": 3.0}):
            assert list(index.search(None, 60, sparse=query)) == list(expected.search(None, 60, sparse=query))
    with pytest.raises(ValueError, match="source must have a column 'no'"):
        lateint_ray.build(str(path), tmp_path / "none", parts=3, encoder=Words, sparse="no", **HOW)


def test_what_cannot_be_built_is_refused(jsonl, tmp_path):
    with pytest.raises(ValueError, match="source must have a column 'embedding', got id, text, year"):
        built(jsonl, tmp_path / "index", encoder=None)
    with pytest.raises(ValueError, match="source must have a column 'words', which encoder encodes"):
        built(jsonl, tmp_path / "index", text="words")
    with pytest.raises(ValueError, match=r"source must be files that end in one of .parquet, .* got .txt"):
        lateint_ray.build("rows.txt", tmp_path / "index", parts=2, encoder=Words)
    with pytest.raises(TypeError, match=r"source must be a ray.data.Dataset or paths, got int"):
        lateint_ray.build(3, tmp_path / "index", parts=2)
    with pytest.raises(ValueError, match="parts must be at least 1, got 0"):
        lateint_ray.build(str(jsonl), tmp_path / "index", parts=0, encoder=Words)
    assert not (tmp_path / "index").exists()
