"""Documents from files and data sets give the index that the same arrays give."""

import json

import numpy as np
import pytest

from lateint import Index, Ragged, sources
from lateint.indexing import sources as implementation
from lateint_kernels import to_bfloat16


def write_safetensors(path, tensors, dtype="F32"):
    """As the format's description says."""
    header, data = {"__metadata__": {"made": "by hand"}}, b""
    for name, tensor in tensors.items():
        part = tensor.tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def same(one, other, queries):
    for query in queries[:4]:
        hits = one.search(query, 10, exhaustive=True), other.search(query, 10, exhaustive=True)
        np.testing.assert_array_equal(hits[0].scores, hits[1].scores)


@pytest.mark.parametrize("chunk", [1, 200, 1 << 15])
def test_npy(collection, queries, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(implementation, "CHUNK", chunk)
    half = len(collection) // 2
    parts = [list(collection)[:half], list(collection)[half:]]
    for number, part in enumerate(parts):
        np.save(tmp_path / f"tokens-{number}.npy", np.concatenate(part))
        np.save(tmp_path / f"lengths-{number}.npy", [len(one) for one in part])
    source = sources.Npy(
        [tmp_path / "tokens-0.npy", tmp_path / "tokens-1.npy"], [tmp_path / "lengths-0.npy", tmp_path / "lengths-1.npy"]
    )
    np.testing.assert_array_equal(np.concatenate([tokens for tokens, _ in source]), collection.tokens)
    np.testing.assert_array_equal(np.concatenate([lengths for _, lengths in source]), collection.lengths)
    index = Index.build(source, progress=False)
    same(index, Index.build(list(source), progress=False), queries)
    assert len(index) == len(collection)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_safetensors(collection, queries, tmp_path, dtype):
    cast = {"F32": np.float32, "F16": np.float16}
    documents = [to_bfloat16(one) if dtype == "BF16" else one.astype(cast[dtype]) for one in collection]
    write_safetensors(tmp_path / "b.safetensors", {f"{i:04d}": one for i, one in enumerate(documents)}, dtype)
    source = sources.Safetensors(tmp_path / "b.safetensors")
    for got, one in zip(source, documents, strict=True):
        assert got.dtype == one.dtype and got.tobytes() == one.tobytes()
    index = Index.build(source, ids=source.ids, progress=False)
    assert index.ids.tolist() == [f"{i:04d}" for i in range(len(collection))]
    same(index, Index.build(dict(enumerate(documents)).values(), progress=False), queries)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a safetensors file: its header would have 0 bytes"),
        (b"\xff" * 20, "is not a safetensors file: its header would have"),
        (b"\x02" + b"\0" * 7 + b"[]", "is not a safetensors file"),
    ],
)
def test_what_is_no_safetensors_file(tmp_path, data, message):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        list(sources.Safetensors(tmp_path / "x.safetensors"))


def test_tensors_that_are_no_documents(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", {"a": np.zeros((2, 2, 2), np.float32)})
    with pytest.raises(ValueError, match=r"a must be \[Ld, dim\] of F32, F16, BF16, got F32 \[2, 2, 2\]"):
        list(sources.Safetensors(tmp_path / "x.safetensors"))
    write_safetensors(tmp_path / "x.safetensors", {"a": np.zeros((2, 2), np.int32)}, "I32")
    with pytest.raises(ValueError, match="got I32"):
        list(sources.Safetensors(tmp_path / "x.safetensors"))
    write_safetensors(tmp_path / "x.safetensors", {"a": np.zeros((2, 2), np.float32)})
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-1])
    with pytest.raises(ValueError, match="a lies outside of the file, which is damaged"):
        list(sources.Safetensors(tmp_path / "x.safetensors"))


def test_npy_files_that_do_not_fit(tmp_path):
    np.save(tmp_path / "tokens.npy", np.ones((5, 4), np.float32))
    np.save(tmp_path / "lengths.npy", [2, 2])
    with pytest.raises(ValueError, match=r"lengths\.npy must add up to the 5 tokens of .*tokens\.npy, got 4"):
        list(sources.Npy(tmp_path / "tokens.npy", tmp_path / "lengths.npy"))
    with pytest.raises(ValueError, match=r"lengths\.npy must have 2 axes, got 1"):
        list(sources.Npy(tmp_path / "lengths.npy", tmp_path / "lengths.npy"))
    with pytest.raises(ValueError, match="lengths must name a file for each of tokens, got 1 for 2"):
        sources.Npy(["a.npy", "b.npy"], "c.npy")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_column_of_a_data_set(collection, queries, streamed):
    datasets = pytest.importorskip("datasets")
    rows = [one.tolist() for one in collection]
    dataset = datasets.Dataset.from_dict({"title": ["x"] * len(rows), "embeddings": rows})
    if streamed:
        dataset = dataset.to_iterable_dataset()
    source = sources.Column(dataset, "embeddings")
    found = Ragged.pack([part for tokens, lengths in source for part in np.split(tokens, np.cumsum(lengths)[:-1])])
    np.testing.assert_array_equal(found.tokens, collection.tokens)
    np.testing.assert_array_equal(found.offsets, collection.offsets)
    index = Index.build(source, progress=False)
    same(index, Index.build(list(source), progress=False), queries)
    with pytest.raises(ValueError, match="column must be one of title, embeddings, got 'tokens'"):
        sources.Column(dataset, "tokens")
    with pytest.raises(ValueError, match="column 'title' must hold a list of lists in each row, got"):
        list(sources.Column(dataset, "title"))
