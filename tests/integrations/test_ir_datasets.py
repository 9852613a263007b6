"""What the documentation does with ir_datasets, on a collection of files instead of one that is downloaded."""

import pytest

ir_datasets = pytest.importorskip("ir_datasets")
from printed import program
from words import Words

import lateint

TEXTS = {"a": "red rose", "b": "blue sky", "c": "red sky", "d": "white cat"}


@pytest.fixture(autouse=True)
def collection(tmp_path, monkeypatch):
    """Four documents, two queries and what they should find, under the name of any collection."""
    (tmp_path / "docs.tsv").write_text("".join(f"{id}\t{text}\n" for id, text in TEXTS.items()))
    (tmp_path / "queries.tsv").write_text("1\tred rose\n2\tblue sky\n")
    (tmp_path / "qrels.txt").write_text("1 0 a 1\n2 0 b 1\n")
    files = {"docs_tsv": "docs.tsv", "queries_tsv": "queries.tsv", "qrels_trec": "qrels.txt"}
    made = ir_datasets.create_dataset(**{name: str(tmp_path / file) for name, file in files.items()})
    monkeypatch.setattr(ir_datasets, "load", lambda name: made)


def test_a_collection_becomes_an_index():
    names = {"encoder": Words(), "lateint": lateint}
    exec(program("integrations.md", "ir_datasets"), names)
    assert names["index"].ids.tolist() == list(TEXTS)
    assert names["index"].search("red sky", k=1).texts == ["red sky"]


def test_a_collection_is_evaluated(capsys):
    exec(program("evaluation.md", "ir_datasets"), {"encoder": Words()})
    assert "'nDCG@10': 1.0" in capsys.readouterr().out
