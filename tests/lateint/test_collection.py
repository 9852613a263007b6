"""Reading BEIR folders, and the sentences that damaged ones give."""

import gzip
import json

import pytest

from lateint.quality.collection import Collection

CORPUS = [{"_id": "d1", "title": "One", "text": "first é"}, {"_id": "d2", "text": "second"}]
QUERIES = [{"_id": "q1", "text": "first?"}, {"_id": "q2", "text": "none"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\n"


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus.jsonl").write_text(jsonl(CORPUS), encoding="utf-8")
    (tmp_path / "queries.jsonl").write_text(jsonl(QUERIES), encoding="utf-8")
    (tmp_path / "qrels.test.tsv").write_text(QRELS)
    return tmp_path


def test_read(folder):
    collection = Collection.read(folder)
    assert collection.doc_ids == ["d1", "d2"]
    assert collection.titles == ["One", ""]
    assert collection.documents == ["One first é", "second"]
    assert (collection.query_ids, collection.queries) == (["q1", "q2"], ["first?", "none"])
    assert collection.qrels == {"q1": {"d1": 2}}
    assert collection.judged == [0]


def test_gzip_gives_the_same(folder):
    plain = Collection.read(folder)
    for name in ("corpus.jsonl", "queries.jsonl"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    assert Collection.read(folder) == plain


def test_windows_line_ends_empty_lines_and_no_header(folder):
    (folder / "qrels.test.tsv").write_bytes(b"q1\td1\t2\r\n\r\nq2\td2\t0\r\n")
    assert Collection.read(folder).qrels == {"q1": {"d1": 2}, "q2": {"d2": 0}}


def test_places_of_the_judgements(folder):
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text(QRELS.replace("\t2", "\t3"))
    (folder / "qrels" / "train.tsv").write_text(QRELS.replace("\t2", "\t4"))
    (folder / "qrels.tsv").write_text(QRELS.replace("\t2", "\t5"))
    assert Collection.read(folder).qrels["q1"]["d1"] == 3
    assert Collection.read(folder, split="train").qrels["q1"]["d1"] == 4
    (folder / "qrels" / "test.tsv").unlink()
    assert Collection.read(folder).qrels["q1"]["d1"] == 2
    (folder / "qrels.test.tsv").unlink()
    assert Collection.read(folder).qrels["q1"]["d1"] == 5
    with pytest.raises(FileNotFoundError, match=r"must hold one of qrels/dev.tsv, qrels.dev.tsv, found none"):
        Collection.read(folder, split="dev")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}\n{oops\n', r"corpus.jsonl, line 2: not JSON: .* at column 2"),
        ("corpus.jsonl", "[1]\n", r"corpus.jsonl, line 1: must be a JSON object, got list"),
        ("corpus.jsonl", '\n{"_id": "d1"}\n', r"corpus.jsonl, line 2: 'text' must be a string, got None"),
        ("corpus.jsonl", '{"_id": 3, "text": ""}\n', r"corpus.jsonl, line 1: '_id' must be a string, got 3"),
        ("corpus.jsonl", "", r"corpus.jsonl: must hold at least one line, found none"),
        ("queries.jsonl", jsonl([*QUERIES, QUERIES[0]]), r"queries.jsonl, line 3: '_id' 'q1' comes a second time"),
        ("qrels.test.tsv", QRELS + "q1 d2 1\n", r"qrels.test.tsv, line 3: must have 3 fields .* tabs, found 1"),
        ("qrels.test.tsv", QRELS + "q1\td2\tx\n", r"qrels.test.tsv, line 3: the score must be an integer, got 'x'"),
        ("qrels.test.tsv", QRELS + "q9\td2\t1\n", r"qrels.test.tsv, line 3: query 'q9' is not in the queries"),
        ("qrels.test.tsv", QRELS + "q1\td9\t1\n", r"qrels.test.tsv, line 3: document 'd9' is not in the corpus"),
        ("qrels.test.tsv", "query-id\tcorpus-id\tscore\n", r"qrels.test.tsv: must hold at least one judgement"),
    ],
)
def test_damaged_lines_are_named(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        Collection.read(folder)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"not gzip at all"])
def test_damaged_gzip_is_named(folder, damage):
    data = gzip.compress((folder / "corpus.jsonl").read_bytes())
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(damage(data))
    with pytest.raises(ValueError, match=r"corpus.jsonl.gz: cannot be read after"):
        Collection.read(folder)


def test_wrong_encoding_is_named(folder):
    (folder / "corpus.jsonl").write_bytes(b'{"_id": "d1", "text": "\xff"}\n')
    with pytest.raises(ValueError, match=r"corpus.jsonl: cannot be read after"):
        Collection.read(folder)


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere: there is no such folder"):
        Collection.read(tmp_path / "elsewhere")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold queries.jsonl or queries.jsonl.gz, found neither"):
        Collection.read(folder)


def test_the_bundled_collection(pytestconfig):
    collection = Collection.read(pytestconfig.rootpath / "examples" / "data" / "scifact")
    assert (len(collection.doc_ids), len(collection.judged)) == (5183, 300)
    assert sum(map(len, collection.qrels.values())) == 339
    assert all(collection.texts)
