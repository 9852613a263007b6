"""Indexes that other libraries made (tests/lateint/foreign), read by lateint: their scores are the ones to be met."""

import json
import os
import sqlite3
import tracemalloc
from itertools import count

import numpy as np
import pytest
from foreign import collection
from hostile_folders import variants

from lateint import Index
from lateint.cli import main
from lateint.converting import reading

FOLDERS = {
    "colbert": ["changed", "nbits-1", "nbits-2", "nbits-4", "nbits-8"],
    "fast-plaid": ["deleted", "nbits-1", "nbits-2", "nbits-4", "nbits-8", "shards", "updated"],
    "xtr-warp": ["compacted", "deleted", "nbits-2", "nbits-4", "updated"],
}
EACH = [pytest.param(library, name, id=f"{library}-{name}") for library, names in FOLDERS.items() for name in names]


@pytest.fixture(scope="session")
def foreign(tmp_path_factory):
    room = tmp_path_factory.mktemp("foreign")
    for library, names in FOLDERS.items():
        assert collection.unpacked(library, room / library) == names
    return room


def read(folder, library="auto", **settings):
    if (folder / "centroids.pt").exists():
        pytest.importorskip("torch")
    return reading.read(folder, library, **{"metadata": False, **settings})


def hits_of(folder):
    return (np.load(folder.with_name(f"{folder.name}.{kind}.npy")) for kind in ("numbers", "scores"))


def queries(dim):
    return collection.widened(collection.queries(), dim)


def maxsim(documents, many):
    ends = np.cumsum(documents.lengths)
    tokens = np.split(np.concatenate(list(documents.chunks(100))), ends[:-1])
    return np.array([[(query @ of.T).max(1).sum() for of in tokens] for query in many])


@pytest.mark.parametrize(("library", "name"), EACH)
def test_decompressed_tokens_score_as_the_library_says(foreign, library, name):
    found = read(foreign / library / name)
    row = {number: i for i, number in enumerate(found.numbers.tolist())}
    scores = maxsim(found.documents, queries(found.documents.dim))
    # fast-plaid reports half precision, xtr-warp-rs adds up parts of a product
    tolerance = {"colbert": 1e-5, "fast-plaid": 2e-3, "xtr-warp": 1e-2}[library]
    for query, numbers, expected in zip(scores, *hits_of(foreign / library / name), strict=True):
        np.testing.assert_allclose([query[row[number]] for number in numbers.tolist()], expected, atol=tolerance)


def test_exhaustive_rankings_at_8_bits_are_those_of_the_libraries(foreign):
    pytest.importorskip("torch")
    overlaps = []
    for library, names in FOLDERS.items():
        for folder in (foreign / library / name for name in names):
            found = read(folder, library)
            index = Index.build(found.documents, ids=found.numbers, nbits=8, progress=False)
            numbers, _ = hits_of(folder)
            hits = index.search(queries(index.dim), numbers.shape[1], exhaustive=True)
            overlaps.append(np.mean([np.isin(of.ids, best).mean() for of, best in zip(hits, numbers, strict=True)]))
    assert min(overlaps) >= 0.985
    assert np.mean(overlaps) >= 0.995


def test_what_was_deleted_or_updated_stays_so(foreign):
    removed = set(range(52)) - {0, 5, 45}
    assert read(foreign / "fast-plaid" / "deleted").numbers.tolist() == list(range(49))
    found = read(foreign / "xtr-warp" / "deleted")
    assert set(found.numbers.tolist()) == removed
    assert found.numbers[-1] == 3  # updated last, to the first document of the third lot; 45 was deleted then
    lengths = [len(tokens) for tokens in collection.documents(2, 2)]
    assert found.documents.lengths[-1] == lengths[0]
    assert read(foreign / "xtr-warp" / "updated").documents.lengths[-2:].tolist() == lengths
    assert set(read(foreign / "colbert" / "changed").numbers.tolist()) == set(range(52)) - {0, 5, 25}


def test_an_index_has_the_numbers_or_the_names_that_are_given(foreign, tmp_path):
    folder = foreign / "xtr-warp" / "compacted"
    index = Index.convert(folder, tmp_path / "numbers", progress=False)
    numbers = index.ids.tolist()
    assert numbers == sorted(set(range(40)) - {0, 5, 39})
    assert Index.open(tmp_path / "numbers").search(queries(32)[1], 1).ids[0] == 2
    names = [f"page {number}" for number in numbers]
    assert Index.convert(folder, ids=names, progress=False).ids.tolist() == names
    by_number = {number: f"page {number}" for number in range(40)}
    assert Index.convert(folder, ids=by_number, progress=False).ids.tolist() == names
    with pytest.raises(ValueError, match="ids must have one for each of the 37 documents, got 36"):
        Index.convert(folder, ids=names[1:])
    with pytest.raises(ValueError, match="ids must have every document, but 1 is missing"):
        Index.convert(folder, ids={0: "a"})
    with pytest.raises(TypeError, match="ids must be a list or a mapping, got str"):
        Index.convert(folder, ids="abc")


def test_metadata_of_fast_plaid_follow_their_documents(foreign):
    found = read(foreign / "fast-plaid" / "deleted", metadata=True)
    kept = [number for number in range(52) if number not in (0, 5, 45)]
    assert found.metadata == [{"lang": "de" if i % 3 else "en", "year": 2000 + i, "note": "a 'b' \u00e9"} for i in kept]


def test_metadata_of_xtr_warp_follow_their_documents(foreign):
    pytest.importorskip("duckdb")
    found = read(foreign / "xtr-warp" / "deleted", metadata=True)
    expected = [{"lang": "de" if i % 3 else "en", "year": 2000 + i} for i in found.numbers.tolist()]
    assert found.metadata == expected


def test_texts_and_metadata_are_in_the_index(foreign):
    folder = foreign / "fast-plaid" / "deleted"
    index = Index.convert(folder, nbits=8, texts=[f"text {i}" for i in range(49)], progress=False)
    assert index.get([3])[0].text == "text 3"
    # what was 0 is gone, and so is what was 5
    assert index.get([3])[0].metadata == {"lang": "de", "year": 2004, "note": "a 'b' \u00e9"}
    assert Index.convert(folder, metadata=False, progress=False).get([3])[0].metadata == {}
    given = Index.convert(folder, metadata={number: {"n": number} for number in range(49)}, progress=False)
    assert dict(given.get([7])[0].metadata) == {"n": 7}


def ragatouille(folder, names, texts):
    (folder / "pid_docid_map.json").write_text(json.dumps(names))
    (folder / "collection.json").write_text(json.dumps(texts))
    (folder / "docid_metadata_map.json").write_text(json.dumps({"b": {"lang": "en"}}))


@pytest.fixture
def copied(foreign, tmp_path):
    return lambda library, name: next(variants(foreign / library / name, tmp_path, 1))


def test_what_ragatouille_keeps_beside_an_index_is_read(copied):
    folder = copied("colbert", "changed")
    kept = [number for number in range(52) if number not in (0, 5, 25)]
    ragatouille(folder, {str(number): f"page-{number}" for number in kept}, [f"text {number}" for number in kept])
    found = read(folder, metadata=True)
    assert found.ids == [f"page-{number}" for number in kept]
    assert found.texts == [f"text {number}" for number in kept]
    # several passages of a document: its id cannot be theirs, and the texts of removed ones may still be there
    ragatouille(folder, {str(number): "ab"[number % 2] for number in kept}, [f"text {number}" for number in range(52)])
    found = read(folder, metadata=True)
    assert found.ids is None
    assert found.texts == [f"text {number}" for number in kept]
    assert found.metadata[:2] == [{"document_id": "b", "lang": "en"}, {"document_id": "a"}]
    with pytest.raises(ValueError, match=r"collection.json must be a list with a text for each of 49 passages"):
        ragatouille(folder, {str(number): "a" for number in kept}, ["one"])
        read(folder)


def test_what_is_no_index_is_refused_in_a_sentence(foreign, tmp_path):
    with pytest.raises(ValueError, match=r"is not an index of ColBERT, fast-plaid or xtr-warp-rs$"):
        Index.convert(tmp_path)
    with pytest.raises(FileNotFoundError, match="source must be the folder of an index, and there is none at"):
        Index.convert(tmp_path / "none")
    with pytest.raises(ValueError, match="format must be auto, colbert, fast-plaid, xtr-warp, got 'faiss'"):
        Index.convert(tmp_path, format="faiss")
    with pytest.raises(ValueError, match="is not an index of xtr-warp: it lacks files"):
        Index.convert(foreign / "fast-plaid" / "nbits-4", format="xtr-warp")
    Index.build([np.eye(8, dtype=np.float32)], tmp_path / "own", progress=False)
    with pytest.raises(ValueError, match=r"seems to be an index of lateint: Index.open opens it"):
        Index.convert(tmp_path / "own")
    (tmp_path / "pylate" / "fast_plaid_index").mkdir(parents=True)
    with pytest.raises(ValueError, match="is a folder of PyLate: convert the folder fast_plaid_index in it"):
        Index.convert(tmp_path / "pylate")


def test_memory_does_not_grow_with_the_tokens(tmp_path):
    tokens, dim, rng = 300_000, 128, np.random.default_rng(0)
    (tmp_path / "metadata.json").write_text('{"nbits": 4, "num_chunks": 1}')
    np.save(tmp_path / "centroids.npy", rng.standard_normal((64, dim)).astype(np.float16))
    np.save(tmp_path / "bucket_weights.npy", np.linspace(-0.1, 0.1, 16, dtype=np.float32))
    np.save(tmp_path / "merged_codes.npy", rng.integers(0, 64, tokens + 3))
    np.save(tmp_path / "merged_residuals.npy", rng.integers(0, 256, (tokens + 3, 64), np.uint8))
    (tmp_path / "doclens.0.json").write_text(json.dumps([100] * (tokens // 100)))
    tracemalloc.start()
    try:
        documents = read(tmp_path).documents
        assert documents.pilot(1000).shape == (1000, dim)
        assert sum(len(chunk) for chunk in documents.chunks(1 << 14)) == tokens
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 << 20  # all tokens would be 154 MB


@pytest.mark.parametrize("library", FOLDERS)
def test_a_damaged_folder_is_refused_or_read_within_memory(foreign, tmp_path, library):
    if library == "colbert":
        pytest.importorskip("torch")
    name = {"colbert": "changed", "fast-plaid": "updated", "xtr-warp": "updated"}[library]
    refused = 0
    tracemalloc.start()
    try:
        for folder in variants(foreign / library / name, tmp_path, 50):
            try:
                for chunk in read(folder, metadata=library == "fast-plaid").documents.chunks(64):
                    assert chunk.dtype == np.float32
            except (ValueError, FileNotFoundError) as error:
                assert len(str(error)) < 1000
                refused += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused > 10
    assert peak < 32 << 20


def refusal(folder, message, error=ValueError, **settings):
    with pytest.raises(error, match=message):
        for _ in read(folder, **settings).documents.chunks(100):
            pass


def test_hostile_files_of_numbers_are_refused(copied):
    folder = copied("fast-plaid", "shards")
    codes = np.load(folder / "1.codes.npy")
    for wrong, message in (
        (codes.astype(np.float32), "1.codes.npy must have 1 axis of <i8 or <i4, got shape .* of <f4"),
        (codes[:, None], "1.codes.npy must have 1 axis"),
        (np.full_like(codes, 1 << 40), "1.codes.npy must hold numbers of centroids, 0 to 127, got 1099511627776"),
        (codes - 200, "1.codes.npy must hold numbers of centroids"),
        (codes[:-1], "1.residuals.npy must have"),
        (codes.astype(object), "1.codes.npy is not a readable .npy file: Object arrays"),
    ):
        np.save(folder / "1.codes.npy", wrong, allow_pickle=True)
        refusal(folder, message)
    with (folder / "1.codes.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (10**13,)})
    for size in (1 << 10, 1 << 20):  # read, and mapped
        os.truncate(folder / "1.codes.npy", size)
        refusal(folder, "1.codes.npy is not a readable .npy file")
    np.savez(folder / "1.codes.npy.npz", codes)
    os.replace(folder / "1.codes.npy.npz", folder / "1.codes.npy")
    refusal(folder, "1.codes.npy must be a .npy file, got an archive")


def test_hostile_json_is_refused(copied):
    folder = copied("fast-plaid", "shards")
    for text, message in (
        ("[" * 100_000, "metadata.json is not readable JSON"),
        ("[]", "metadata.json must be an object"),
        ('{"nbits": 3, "num_chunks": 1}', "nbits must be one of 1, 2, 4, 8, got 3"),
        ('{"nbits": true, "num_chunks": 1}', "nbits must be one of"),
        ('{"nbits": 4}', "num_chunks must be an integer from 0 to 1,048,576, got None"),
        ('{"nbits": 4, "num_chunks": 1e300}', "num_chunks must be an integer"),
        ('{"nbits": 4, "num_chunks": 1000000}', "doclens.3.json is missing"),
        ('{"nbits": 4, "num_chunks": 0}', "holds no documents"),
    ):
        (folder / "metadata.json").write_text(text)
        refusal(folder, message, (ValueError, FileNotFoundError))
    os.truncate(folder / "metadata.json", 1 << 30)
    refusal(folder, "metadata.json must have at most 4,194,304 bytes, got 1,073,741,824")
    (folder / "metadata.json").write_text('{"nbits": 4, "num_chunks": 3}')
    for text in ("[1, 2]", "[1e9]", "[-1]", "[1000000000000000000000]", '{"a": 1}', "[true]"):
        (folder / "doclens.1.json").write_text(text)
        refusal(folder, r"doclens.1.json must (be a list of how many tokens|add up to)")


def test_links_out_of_the_folder_and_what_is_no_file_are_refused(copied, tmp_path):
    folder = copied("fast-plaid", "nbits-4")
    (tmp_path / "secret.json").write_text("{}")
    for target, message in (
        (tmp_path / "secret.json", "metadata.json is a link out of the folder, to .*secret.json"),
        ("/dev/zero", "metadata.json is a link out of the folder"),
        ("metadata.json", "metadata.json cannot be followed"),
        ("nothing", "metadata.json is missing"),
    ):
        (folder / "metadata.json").unlink()
        (folder / "metadata.json").symlink_to(target)
        refusal(folder, message, (ValueError, FileNotFoundError))
    (folder / "metadata.json").unlink()
    os.mkfifo(folder / "metadata.json")
    refusal(folder, "metadata.json must be a regular file")


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_nothing_is_unpickled(copied, tmp_path):
    torch = pytest.importorskip("torch")
    mark = str(tmp_path / "mark")
    folder = copied("fast-plaid", "updated")
    for name in ("embeddings.npy", "merged_codes.npy"):
        np.save(folder / name, np.array([Evil(mark)], object), allow_pickle=True)
    refusal(folder, "merged_codes.npy is not a readable .npy file")
    folder = copied("colbert", "changed")
    torch.save(Evil(mark), folder / "0.codes.pt")
    refusal(folder, "0.codes.pt is not a readable file of tensors")
    assert not os.path.exists(mark)


def test_tensors_that_are_larger_than_their_file_are_refused(copied):
    torch = pytest.importorskip("torch")
    folder = copied("colbert", "changed")
    torch.save(torch.zeros(1, dtype=torch.int32).expand(1 << 40), folder / "0.codes.pt")
    refusal(folder, "0.codes.pt must hold all numbers of a tensor of shape")
    torch.save(torch.zeros(10, dtype=torch.int32), folder / "0.codes.pt", _use_new_zipfile_serialization=False)
    refusal(folder, "0.codes.pt must be a file that torch 1.6 or newer wrote")
    torch.save({"a": 1}, folder / "0.codes.pt")
    refusal(folder, "0.codes.pt must hold a dense tensor, got dict")
    torch.save(torch.zeros(10).to_sparse(), folder / "0.codes.pt")
    refusal(folder, "0.codes.pt")


def test_hostile_tables_are_refused(copied):
    folder = copied("fast-plaid", "updated")
    path = folder / "metadata.db"
    for statement in (
        "CREATE VIEW METADATA AS WITH RECURSIVE c(_subset_) AS (SELECT 0 UNION ALL SELECT 0 FROM c) SELECT * FROM c",
        "CREATE TABLE METADATA (_subset_ INTEGER, big GENERATED ALWAYS AS (zeroblob(900000000)))",
        "CREATE TABLE METADATA (other INTEGER)",
        "CREATE TABLE another (_subset_ INTEGER)",
    ):
        path.unlink()
        database = sqlite3.connect(path)
        database.execute(statement)
        database.commit()
        database.close()
        refusal(folder, "metadata.db is not a readable table of metadata", metadata=True)
    path.write_bytes(b"SQLite format 3\0" + bytes(5000))
    refusal(folder, "metadata.db is not a readable table of metadata", metadata=True)
    (folder / "metadata.db-wal").write_bytes(b"x")
    refusal(folder, "metadata.db is being written, or was not closed", metadata=True)


def test_the_command_converts(foreign, tmp_path, capsys):
    folder = str(foreign / "fast-plaid" / "nbits-4")
    (tmp_path / "ids.json").write_text(json.dumps({str(number): f"p{number}" for number in range(40)}))
    main(["convert", folder, str(tmp_path / "index"), "--nbits", "8", "--ids", str(tmp_path / "ids.json")])
    assert "40 documents" in capsys.readouterr().out
    assert Index.open(tmp_path / "index").ids[3] == "p3"
    with pytest.raises(FileNotFoundError, match="SOURCE must be the folder"):
        main(["convert", str(tmp_path / "none"), str(tmp_path / "other")])
    (tmp_path / "ids.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="--ids must be a list, or an object whose keys are numbers"):
        main(["convert", folder, str(tmp_path / "other"), "--ids", str(tmp_path / "ids.json")])


def test_the_command_brings_texts_and_metadata(foreign, tmp_path):
    folder, counter = str(foreign / "fast-plaid" / "deleted"), count()

    def converted(**files):
        options = []
        for name, text in files.items():
            option, _, ending = name.partition("_")
            (path := tmp_path / f"{next(counter)}.{ending}").write_text(text)
            options += [f"--{option}", str(path)]
        main(["convert", folder, path := str(tmp_path / f"index-{next(counter)}"), *options])
        return Index.open(path)

    plain = converted(texts_txt="".join(f"text {i}\n" for i in range(49)))
    assert plain.get([48])[0].text == "text 48" and plain.get([3])[0].metadata["year"] == 2004
    rows = [{"_id": f"d{i}", "title": "T", "text": f"text {i}"} for i in range(60)]
    named = converted(texts_jsonl="".join(json.dumps(row) + "\n" for row in rows))
    assert named.ids[:2].tolist() == ["d0", "d1"] and named.get(["d48"])[0].text == "T text 48"
    columns = converted(texts_tsv="".join(f"{i}\ttext {i}\ttitle\n" for i in reversed(range(49))))
    assert columns.ids[-1] == 48 and columns.get([7])[0].text == "title text 7"
    documents = "".join(json.dumps({"text": f"text {i}", "metadata": {"n": i}}) + "\n" for i in range(49))
    both = converted(documents_jsonl=documents).get([5])[0]
    assert both.text == "text 5" and dict(both.metadata) == {"n": 5}
    for message, files in {
        "--texts must have every document, but 48 is missing": {"texts_txt": "text\n" * 48},
        "--documents must have every document, but 2 is missing": {"documents_jsonl": '{"metadata": {"n": 1}}\n' * 2},
        "line 2: must not be empty, for each line is of one document": {"texts_txt": "text\n\n" + "text\n" * 48},
        "line 1: must be id, text and perhaps title, got 1 columns": {"texts_tsv": "text\n"},
        "--texts: the first column of .* must have numbers, got 'd1'": {"texts_tsv": "d1\ttext\n"},
        "--ids must be left out: the lines of .* have ids": {
            "ids_json": "[]",
            "texts_jsonl": '{"id": 1, "text": ""}\n',
        },
        "--documents must hold metadata alone": {"texts_txt": "text\n", "documents_jsonl": '{"text": "x"}\n'},
    }.items():
        with pytest.raises(ValueError, match=message):
            converted(**files)
