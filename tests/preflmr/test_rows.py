import gzip
import json
import pickle
from operator import itemgetter

import numpy as np
import pytest

from preflmr.data import rows

ROWS = [{"id": str(n), "text": f"text {n}", "more": n} for n in range(20)]


@pytest.fixture(params=["jsonl", "jsonl.gz", "parquet", "shards", "saved"])
def table(request, tmp_path, monkeypatch):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    if request.param == "jsonl":
        (tmp_path / "t.jsonl").write_text(lines + "\n\n")
    elif request.param == "jsonl.gz":
        (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    else:
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        data = datasets.Dataset.from_list(ROWS)
        if request.param == "parquet":
            data.to_parquet(tmp_path / "t.parquet")
        elif request.param == "shards":
            for n in range(2):
                data.select(range(10 * n, 10 * n + 10)).to_parquet(tmp_path / f"t-0000{n}-of-00002.parquet")
        else:
            data.save_to_disk(tmp_path / "t")
    found = rows.find(tmp_path, "t")
    assert found is not None and rows.stems(tmp_path) == ["t"]
    return found


def test_every_format_gives_the_same_rows(table):
    found = list(table.rows(("id",), ("text", "absent")))
    assert [(row["id"], row["text"]) for _, _, row in found] == [(row["id"], row["text"]) for row in ROWS]
    assert all(place.startswith(table.name) for place, _, _ in found)


def test_rows_are_read_again_by_key(table):
    keys = [key for _, key, _ in table.rows(("id",), ())]
    for key, row in zip(keys[::-1], ROWS[::-1], strict=True):
        again = table.at(key, ("id", "text", "absent"))
        assert (again["id"], again["text"]) == (row["id"], row["text"])
    assert [table.place(key) for key in keys] == [place for place, _, _ in table.rows(("id",), ())]
    assert dict(pickle.loads(pickle.dumps(table)).at(keys[3], ("text",)))["text"] == "text 3"


def test_a_column_is_a_sequence_that_reads_from_disk(tmp_path):
    long = "x" * 10_000  # more than is read at a time
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in ("a", long, "ä\u2028")))
    table = rows.find(tmp_path, "t")
    keys = np.array([key for _, key, _ in table.rows(("text",), ())])
    column = rows.Column(table, keys, ("text",), itemgetter("text"))
    assert list(column) == ["a", long, "ä\u2028"] == column and column[1:] == [long, "ä\u2028"] != column
    assert (len(column), column[-1]) == (3, "ä\u2028")


def test_a_limit_keeps_the_first_and_a_seed_a_random_choice_in_order(table):
    def ids(**limits):
        return [int(row["id"]) for _, _, row in table.rows(("id",), (), **limits)]

    assert ids(limit=3) == [0, 1, 2] and ids(limit=50) == ids(limit=20, seed=1) == list(range(20))
    some = ids(limit=6, seed=1)
    assert len(some) == 6 and some == sorted(some) == ids(limit=6, seed=1) != ids(limit=6, seed=2)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        ids(limit=0)


def test_places_are_those_of_the_table_even_with_a_limit(table):
    for place, _, row in table.rows(("id",), (), limit=4, seed=3):
        number = int(row["id"])
        assert place.endswith(f", line {number + 1}") or place.endswith(f", row {number}")


def test_missing_columns_are_named_with_those_found(table):
    with pytest.raises(ValueError, match=r"t.*: must have the columns id, words; missing words, found id, text, more"):
        list(table.rows(("id", "words"), ()))


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"id": 1}\n{"id": \n', "line 2: not JSON"), ('{"id": 1}\n\n[1]\n', "line 3: must be a JSON object, got list")],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, content, message):
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        list(rows.at(tmp_path / "t.jsonl", "t").rows(("id",), ()))


def test_a_cut_archive_and_other_bytes_are_named(tmp_path):
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(b'{"id": 1}\n' * 5000)[:-12])
    with pytest.raises(ValueError, match=r"t\.jsonl\.gz: cannot be read after line \d+"):
        list(rows.at(tmp_path, "t").rows(("id",), ()))
    (tmp_path / "u.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"u\.jsonl: cannot be read after line 0"):
        list(rows.at(tmp_path, "u").rows(("id",), ()))


def test_a_table_that_is_not_there_is_said(tmp_path):
    assert rows.find(tmp_path, "t") is None
    with pytest.raises(FileNotFoundError, match=r"there is no table; expected .jsonl, .jsonl.gz or .parquet"):
        rows.at(tmp_path / "t.jsonl", "t")
