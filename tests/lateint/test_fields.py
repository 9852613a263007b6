"""Texts and metadata: what goes in comes out, through builds, changes, files and damage."""

import json
import math
import runpy
import shutil
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from histories import documents

from lateint import Document, FieldError, FormatError, Index
from lateint.disk.manifest import Bundle
from lateint.fields import columns, values

COUNT = 12
TEXTS = [f"text {i}" if i % 3 else None for i in range(COUNT)]
METADATA = [
    {"lang": "en", "year": 2020, "tags": ["a", "b"], "author": {"name": "x", "age": 7}},
    {"lang": "de", "year": 2.5, "when": date(2024, 5, 17)},
    {"lang": "ü%_", "year": "n.d.", "when": datetime(2024, 5, 17, 9, 30, tzinfo=timezone(timedelta(hours=2)))},
    None,
    {},
    {"lang": None, "year": True, "tags": []},
    {"year": -(2**63), "tags": [1, "a", 2.5, None, True]},
    {"year": 2**63 - 1, "odd": [{"x": [1]}], "empty": {}},
    {"year": math.inf, "a.b": 1},
    {"a": {"b": 2}, "year": 2**53 + 1},
    {"tags": [date(1999, 1, 2)], "naïve": datetime(1, 1, 1)},
    {"when": datetime(9999, 12, 31, 23, 59, 59, 999999)},
]


def build(path=None, **settings):
    rng = np.random.default_rng(0)
    given = {"texts": TEXTS, "metadata": METADATA, "ncentroids": 3, "progress": False, **settings}
    return Index.build(documents(rng, COUNT), path, **given)


def contents(index):
    return [(one.id, one.text, one.metadata) for one in index.documents]


EXPECTED = [(i, text, metadata or {}) for i, (text, metadata) in enumerate(zip(TEXTS, METADATA, strict=True))]


@pytest.mark.parametrize("disk", [False, True])
def test_what_goes_in_comes_out(tmp_path, disk):
    index = build(tmp_path / "i" if disk else None)
    assert contents(index) == EXPECTED
    index.save(tmp_path / "saved")
    index.snapshot(tmp_path / "copy")
    Index.merge([index], tmp_path / "merged")
    for name in ("saved", "copy", "merged"):
        assert contents(Index.open(tmp_path / name, verify=True)) == EXPECTED
        assert Index.verify(tmp_path / name).problems == []


def test_types_come_back_as_they_were():
    when = build().get([2])[0].metadata["when"]
    assert when.utcoffset() == timedelta(hours=2)
    assert type(build().get([5])[0].metadata["year"]) is bool
    found = build(metadata=[{"x": math.nan}] * COUNT).get([0])[0].metadata["x"]
    assert math.isnan(found)


def test_get():
    index = build()
    assert index.get([1, 0]) == [Document(*EXPECTED[1]), Document(*EXPECTED[0])]
    assert index.get([1, 0], ["lang", "text"]) == [
        Document(1, "text 1", {"lang": "de"}),
        Document(0, None, {"lang": "en"}),
    ]
    assert index.get([0], ["author.name"]) == [Document(0, None, {"author": {"name": "x"}})]
    assert index.get([1], ["text"]) == [Document(1, "text 1", {})]
    assert index.get([], ["text"]) == []
    with pytest.raises(FieldError, match=r"no document has a field 'colour'; there are: a, a.b, "):
        index.get([0], ["colour"])
    with pytest.raises(TypeError, match="fields must be a list of names, got the string 'lang'"):
        index.get([0], "lang")
    with pytest.raises(KeyError, match="99"):
        index.get([99])


def test_hits_read_their_documents():
    index = build()
    query = index.reconstruct(7)
    hits = index.search(query, 3)
    assert [one.id for one in hits.documents()] == hits.ids.tolist()
    assert hits.documents(["year"])[0].metadata == {"year": 2**63 - 1}
    index.delete([7])
    assert hits.documents(["year"])[0].metadata == {"year": 2**63 - 1}  # as it was when it was found
    assert index.rerank(query, [1, 2]).documents(["text"])[0].text in ("text 1", "text 2")


def test_hits_from_nowhere():
    from lateint import Hits

    with pytest.raises(ValueError, match="come from no index"):
        Hits(np.array([1]), np.array([1.0], np.float32)).documents()


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("given", "kind", "match"),
    [
        ({"texts": "abc"}, TypeError, "texts must be a list with one for each document, got str"),
        ({"texts": ["a"]}, ValueError, "texts must be one for each document, got 1 for 12"),
        ({"texts": ["a"] * 13}, ValueError, "texts must be one for each document, got 13 for 12"),
        ({"texts": [1] * 12}, TypeError, "texts must be strings or None, got int for document 0"),
        ({"texts": ["\ud800"] * 12}, ValueError, "document 0 holds half a character"),
        ({"texts": iter(["a"] * 11)}, ValueError, "texts must be one for each document, got 11 for more documents"),
        ({"texts": iter(["a"] * 13)}, ValueError, "texts must be one for each document, got more than 12"),
        ({"metadata": {"a": 1}}, TypeError, "metadata must be a list with one for each document, got dict"),
        ({"metadata": [3] * 12}, TypeError, "metadata must be mappings or None, got int for document 0"),
        ({"metadata": [{"a": 2**63}] * 12}, ValueError, "must hold integers that fit into int64, but that of 'a'"),
        ({"metadata": [{"a": {1}}] * 12}, TypeError, "but 'a' is a set"),
        ({"metadata": [{"a": b"x"}] * 12}, TypeError, "but 'a' is a bytes"),
        ({"metadata": [{1: 2}] * 12}, TypeError, "must have keys that are strings, got int"),
        ({"metadata": [{"$a": 2}] * 12}, ValueError, r"do not begin with \$, got '\$a'"),
        ({"metadata": [{"": 2}] * 12}, ValueError, "must have keys that are not empty"),
        ({"metadata": [{"a.b": 2, "a": {"b": 1}}] * 12}, ValueError, "must have a field once, but has 'a.b' twice"),
        ({"metadata": [{"a": "\udc00"}] * 12}, ValueError, "holds half a character"),
        ({"metadata": [{"a" * 5000: 1}] * 12}, ValueError, "names of at most 4,096 characters, got one of 5,000"),
        ({"metadata": [{"a": {"$date": "never"}}] * 12}, ValueError, "must be a date in ISO 8601, got 'never'"),
    ],
)
def test_what_cannot_be_stored(given, kind, match, tmp_path):
    with pytest.raises(kind, match=match):
        build(tmp_path / "i", **given)
    assert list(tmp_path.iterdir()) == []


def test_metadata_that_are_too_deep():
    deep = {"a": 1}
    for _ in range(70):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="at most 64 levels deep"):
        build(metadata=[deep] * COUNT)
    lists = [1]
    for _ in range(100_000):
        lists = [lists]
    with pytest.raises(ValueError, match="at most 64 levels deep"):
        build(metadata=[{"a": lists}] * COUNT)


def test_values_of_numpy_are_values():
    given = {"i": np.int32(7), "f": np.float32(0.5), "b": np.bool_(True), "s": np.str_("x")}
    given |= {"l": np.arange(3), "d": np.datetime64("2024-01-02"), "t": np.datetime64("2024-01-02T03:04:05.123456789")}
    found = build(metadata=[given] * COUNT).get([0])[0].metadata
    expected = {"i": 7, "f": 0.5, "b": True, "s": "x", "l": [0, 1, 2]}
    assert found == {**expected, "d": date(2024, 1, 2), "t": datetime(2024, 1, 2, 3, 4, 5, 123456)}


# ------------------------------------------------------------------------------------- changes


def test_an_update_of_metadata_copies_codes():
    index = build()
    before = {i: index.reconstruct(i) for i in range(COUNT)}
    query = before[4]
    scores = dict(index.search(query, COUNT, exhaustive=True))
    index.update([4, 2], metadata=[{"new": 1}, None])
    assert index.ids.tolist() == [0, 1, 3, 5, 6, 7, 8, 9, 10, 11, 4, 2]
    assert [(one.text, one.metadata) for one in index.get([4, 2])] == [("text 4", {"new": 1}), ("text 2", {})]
    assert dict(index.search(query, COUNT, exhaustive=True)) == scores
    for i in range(COUNT):
        np.testing.assert_array_equal(index.reconstruct(i), before[i])


def test_an_update_keeps_what_is_not_given():
    index = build()
    rng = np.random.default_rng(3)
    index.update([1], documents(rng, 1))
    assert index.get([1]) == [Document(*EXPECTED[1])]
    index.update([1], texts=["other"])
    assert index.get([1]) == [Document(1, "other", METADATA[1])]
    index.update([1], documents(rng, 1), texts=[None], metadata=[{}])
    assert index.get([1]) == [Document(1, None, {})]
    index.add(documents(rng, 1), ids=[2], on_duplicate="replace")
    assert index.get([2]) == [Document(2, None, {})]
    index.add(documents(rng, 2), ids=[2, 99], on_duplicate="skip", texts=["no", "yes"], metadata=[{"a": 1}, {"a": 2}])
    assert index.get([2, 99]) == [Document(2, None, {}), Document(99, "yes", {"a": 2})]


@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda index: index.update([1]), ValueError, "update needs doc_embs, texts, metadata or sparse, got none"),
        (
            lambda index: index.update([1, 1], texts=["a", "b"]),
            ValueError,
            "ids must differ, but 1 occurs more than once",
        ),
        (lambda index: index.update([1, 99], texts=["a", "b"]), KeyError, "99"),
        (
            lambda index: index.update([1, 2], texts=["a"]),
            ValueError,
            "texts must be one for each document, got 1 for 2",
        ),
        (lambda index: index.update([1], texts=["a"], lengths=[1]), ValueError, "lengths goes with doc_embs"),
        (lambda index: index.add(documents(np.random.default_rng(0), 1), texts=["a", "b"]), ValueError, "got 2 for 1"),
    ],
)
def test_a_change_that_is_refused_changes_nothing(call, kind, match):
    index = build()
    with pytest.raises(kind, match=match):
        call(index)
    assert contents(index) == EXPECTED and index.generation == 0


def test_an_update_of_nothing():
    index = build()
    index.update([], texts=[])
    assert contents(index) == EXPECTED and index.generation == 0


def test_a_rebuild_keeps_them():
    index = build()
    index.delete([3])
    index.rebuild()
    assert contents(index) == [one for one in EXPECTED if one[0] != 3]


def test_changes_without_any_leave_version_2(tmp_path):
    index = Index.build(documents(np.random.default_rng(0), 4), tmp_path / "i", progress=False, ncentroids=2)
    index.add(documents(np.random.default_rng(1), 2), texts=[None, None], metadata=[{}, None])
    version = lambda: json.loads((tmp_path / "i" / "index.json").read_text())["version"]  # noqa: E731
    assert version() == 2
    index.update([0], texts=["a"])
    assert version() == 3 and Index.open(tmp_path / "i")._snapshot.manifest.version == 3
    index.update([0], texts=[None])
    index.compact(full=True)
    assert version() == 2 and not index.refresh()


# ---------------------------------------------------------------------------------------- builds


def test_streams_and_segments(tmp_path):
    rng = np.random.default_rng(0)
    source = documents(rng, COUNT)
    codec = Index.build(source, progress=False, ncentroids=3).codec
    lengths = []

    def texts():
        for text in TEXTS:
            lengths.append(text)
            yield text

    passing = Index.build(
        iter(source), tmp_path / "a", codec=codec, texts=texts(), metadata=iter(METADATA), progress=False
    )
    listed = Index.build(source, tmp_path / "b", codec=codec, texts=TEXTS, metadata=METADATA, progress=False)
    assert contents(passing) == contents(listed) == EXPECTED and lengths == TEXTS
    for name in ("text_bytes", "metadata_bytes", "field_table", "field_data"):
        files = [(tmp_path / one / "segments/000000" / f"{name}.npy").read_bytes() for one in "ab"]
        assert files[0] == files[1]


def test_a_build_in_several_segments(tmp_path, monkeypatch):
    from lateint.indexing import builder

    monkeypatch.setattr(builder, "plan", lambda d, s, plan=builder.plan: _small(plan(d, s)))
    index = build(tmp_path / "i", metadata=iter(METADATA))
    assert index.stats()["segments"] > 3
    assert contents(index) == EXPECTED and Index.verify(tmp_path / "i").problems == []


def _small(plan):
    plan.segment_tokens = 12
    return plan


def test_resume_knows_other_texts(tmp_path, monkeypatch):
    from lateint.indexing.encoding import Encoder

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Encoder, "put_lists", stop)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "i", resume=True)
    with pytest.warns(UserWarning, match="other documents"):
        build(tmp_path / "i", resume=True, texts=["x"] * COUNT)
    with pytest.raises(ValueError, match="resume needs metadata that can be read again"):
        build(tmp_path / "j", resume=True, metadata=iter(METADATA))


# -------------------------------------------------------------------------------------- columns


def test_columns_of_an_index():
    index = build()
    found = index.documents
    assert len(found) == COUNT and found[1] == Document(*EXPECTED[1]) and found[-1].id == 11
    assert [one.id for one in found[2:4]] == [2, 3]
    assert found.fields["year"] == ("bool", "int64", "float64", "string")
    assert found.fields["lang"] == ("null", "string") and found.fields["odd"] == ("object",)
    lang = found["lang"]
    assert lang[0] == "en" and lang.mask.tolist() == [i > 2 for i in range(COUNT)]
    assert found["when"].dtype == "datetime64[us]" and found["when"][2] == np.datetime64("2024-05-17T07:30:00")
    assert found["year"][2] == "n.d." and found["year"].mask[3]
    assert found["author.age"].compressed().tolist() == [7] and found["a.b"].compressed().tolist() == [1, 2]
    with pytest.raises(FieldError, match="no document has a field 'nothing'"):
        found["nothing"]


def test_arrow():
    pa = pytest.importorskip("pyarrow")
    table = build().documents.arrow()
    assert table.column("id").to_pylist() == list(range(COUNT)) and table.column("text").to_pylist() == TEXTS
    assert table.column("year (int64)").to_pylist()[9] == 2**53 + 1
    assert table.schema.field("when").type == pa.timestamp("us", tz="UTC")
    assert table.column("tags").to_pylist()[0] == ['"a"', '"b"']  # lists of several kinds


def test_a_field_in_few_documents_takes_little_room(tmp_path):
    index = build(tmp_path / "i", metadata=[{f"only here {i}": i} for i in range(COUNT)])
    part = index._snapshot.state.parts[0]
    assert all(column.rows is not None for column in part.fields.columns.values())
    assert index.get([3], ["only here 3"])[0].metadata == {"only here 3": 3}


def test_numbers_take_the_room_they_need():
    part = build(
        metadata=[{"a": i, "b": 1000 * i, "c": 10**9, "s": str(i)} for i in range(COUNT)]
    )._snapshot.state.parts[0]
    types = {key.field: column.values.dtype.str for key, column in part.fields.columns.items()}
    assert types == {"a": "|i1", "b": "<i2", "c": "<i4", "s": "|u1"}


def test_join_gives_what_make_gives():
    rng = np.random.default_rng(1)
    rows = [values.flattened(METADATA[i], i).entries for i in rng.integers(0, COUNT, 40)]
    cuts = [rows[:7], rows[7:9], rows[9:]]
    kept = [np.flatnonzero(rng.random(len(cut)) < 0.6) for cut in cuts]
    parts, at = [], 0
    for cut, some in zip(cuts, kept, strict=True):
        places = np.full(len(cut), -1)
        places[some] = np.arange(at, at + len(some))
        at += len(some)
        parts.append((columns.of_entries(cut), places))
    joined = columns.written(columns.joined(parts, at))
    made = columns.written(columns.of_entries([cut[i] for cut, some in zip(cuts, kept, strict=True) for i in some]))
    for name in made:
        np.testing.assert_array_equal(joined[name], made[name])


# --------------------------------------------------------------------------------------- damage


def damaged(folder, leaf, change):
    """Changes an array of the first segment, with the right checksum."""
    import zlib

    manifest = json.loads((folder / "index.json").read_text())
    name = f"segments/000000/{leaf}.npy"
    data = bytearray((folder / name).read_bytes())
    change(memoryview(data)[128:])
    (folder / name).write_bytes(data)
    manifest["files"][name]["crc32"] = zlib.crc32(data)
    (folder / "index.json").write_text(json.dumps(manifest))


def put(at, byte):
    def change(data):
        data[at] = byte

    return change


@pytest.mark.parametrize(
    ("leaf", "change", "match"),
    [
        ("text_offsets", put(8, 200), "text_offsets must not decrease"),
        ("text_offsets", put(15, 0x80), "text_offsets must not decrease"),
        ("text_offsets", put(-8, 1), "text_offsets must run from 0 to"),
        ("text_bytes", put(1, 0xFE), "text_bytes must hold UTF-8"),
        ("metadata_offsets", put(8, 200), "metadata_offsets must not decrease"),
        ("metadata_bytes", put(0, 0x58), "metadata_bytes must hold JSON"),
        ("metadata_bytes", put(0, 0x5B), "metadata_bytes must hold JSON"),
        ("metadata_bytes", put(9, 0x58), "field_table and field_data must hold what the metadata say"),
        ("field_table", put(0, 0x58), "field_table is no table of columns"),
        ("field_data", put(0, 0xF3), "field_table"),
    ],
)
def test_damage_is_found(tmp_path, leaf, change, match):
    build(tmp_path / "i")
    damaged(tmp_path / "i", leaf, change)
    with pytest.raises(FormatError, match=match):
        Index.open(tmp_path / "i", verify=True)
    assert any(match in problem for problem in Index.verify(tmp_path / "i").problems)
    opened = Index.open(tmp_path / "i")
    try:
        contents(opened)
        opened.documents["year"]
        opened.compact(full=True)
        opened.update([1, 2], texts=["a", "b"])
    except FormatError as error:
        assert "damaged" in str(error) or "must" in str(error)


@pytest.mark.parametrize(
    "table",
    [
        "5",
        "[5]",
        "{}",
        '[{"name":"a","kind":"int64","values":["<i8",0,99999999999]}]',
        '[{"name":"a","kind":"int64","values":["<i8",-64,1]}]',
        '[{"name":"a","kind":"int64","values":["<i8",3,1]}]',
        '[{"name":"a","kind":"int64","values":["|O",0,1]}]',
        '[{"name":"a","kind":"int64","values":["<i8",0,true]}]',
        '[{"name":"a","kind":"int64","values":["<i8",0]}]',
        '[{"name":"a","kind":"int64","values":["<i8",0,1e400]}]',
        '[{"name":"a","kind":"evil","values":["<i8",0,1]}]',
        '[{"name":5,"kind":"int64","values":["<i8",0,1]}]',
        '[{"name":"a","kind":["int64"],"values":["<i8",0,1]}]',
        '[{"name":"a","kind":"null"},{"name":"a","kind":"null"}]',
        "[" * 100_000,
        '[{"name":"a","kind":"list","elements":true}]',
    ],
)
def test_tables_of_a_stranger(table):
    with pytest.raises(FormatError, match="no table of columns"):
        columns.read(np.frombuffer(table.encode(), np.uint8), np.zeros(640, np.uint8), 4)


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"kind": "int64", "values": ["<i8", 0, 3]}, "must have 4 values"),
        ({"kind": "int64"}, "must have 4 values"),
        ({"kind": "null", "rows": ["<u4", 64, 2]}, "rows that ascend and stay below 4"),
        ({"kind": "null", "present": ["|u1", 64, 4]}, "with 0 or 1"),
        ({"kind": "null", "present": ["|u1", 0, 3]}, "with 0 or 1"),
        ({"kind": "null", "present": ["|u1", 0, 4], "rows": ["<u4", 0, 1]}, "both rows and present"),
        ({"kind": "bool", "values": ["|u1", 64, 4]}, "values of 0 and 1"),
        ({"kind": "int64", "elements": True, "values": ["<i8", 0, 4]}, "must have rows"),
        ({"kind": "float64", "values": ["<f8", 128, 4]}, "values that are numbers"),
        ({"kind": "string", "values": ["|u1", 0, 4]}, "must have a dictionary"),
        ({"kind": "string", "values": ["|u1", 64, 4], "dictionary": ["|u1", 0, 0], "dictionary_offsets": ["<i8", 0, 2]},
         "values below 1"),
        ({"kind": "string", "values": ["|u1", 0, 4], "dictionary": ["|u1", 0, 9], "dictionary_offsets": ["<i8", 64, 2]},
         "run from 0 to 9"),
    ],
)  # fmt: skip
def test_columns_of_a_stranger(entry, match):
    data = np.zeros(640, np.uint8)
    data[64:68] = 7
    data[128:160] = 255
    read = columns.read(np.frombuffer(json.dumps([{"name": "a", **entry}]).encode(), np.uint8), data, 4)
    with pytest.raises(FormatError, match=match):
        _ = next(iter(read.values())).checked


def test_arrays_of_a_change_lie_in_one_file(tmp_path):
    index = build(tmp_path / "i")
    index.add(documents(np.random.default_rng(2), 1), texts=["one"], metadata=[{"lang": "en"}])
    bundles = [file for file in index._snapshot.manifest.files.values() if isinstance(file, Bundle)]
    assert len(bundles) == 1 and {"text_bytes", "field_data"} <= bundles[0].arrays.keys()


def test_the_golden_index_of_version_3(tmp_path):
    """Written once by tests/golden/make.py, and read for ever."""
    folder = Path(__file__).parents[1] / "golden" / "index-v3"
    expected = json.loads(folder.with_name("index-v3.json").read_text(encoding="utf-8"))
    make = runpy.run_path(str(folder.with_name("make.py")))
    shutil.copytree(folder, tmp_path / "copy")
    for index in (Index.open(folder, verify=True), Index.open(tmp_path / "copy")):
        if index.path == tmp_path / "copy":
            index.compact(full=True)
        assert json.loads((index.path / "index.json").read_text())["version"] == 3
        assert index.ids.tolist() == expected["ids"]
        assert [one.text for one in index.documents] == expected["texts"]
        assert [repr(one.metadata) for one in index.documents] == expected["metadata"]
        assert [index.select(condition).tolist() for condition in make["CONDITIONS"]] == expected["found"]
        found = [[list(hit) for hit in index.search(query, 5, exhaustive=True)] for query in make["queries"]()]
        assert found == expected["hits"]
    assert all(expected["found"]) and Index.verify(tmp_path / "copy").problems == []


def test_a_manifest_that_calls_a_number_free_that_is_not(tmp_path):
    build(tmp_path / "i")
    manifest = json.loads((tmp_path / "i" / "index.json").read_text())
    (tmp_path / "i" / "index.json").write_text(json.dumps({**manifest, "next_segment": 0}))
    index = Index.open(tmp_path / "i")
    index.update([1, 2], texts=["a", "b"])
    assert [one.text for one in index.documents][-2:] == ["a", "b"] and len(index) == COUNT
    assert Index.verify(tmp_path / "i").problems == []
