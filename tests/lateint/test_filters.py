"""Filters: both notations, against SQLite; what is refused; searches under them."""

import json
import math
import sqlite3
import time
from datetime import date, datetime, timezone

import numpy as np
import pytest
from histories import documents
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lateint import FieldError, FilterError, Index
from lateint.fields import columns, values
from lateint.filtering import masks, resolving
from lateint.filtering.tree import DEEPEST

FIELDS = ("a", "b", "c.d", "e")
NUMBERS = [0, 1, -1, 7, 2**31, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 0.5, -0.0, 1e300, -1e300, 1.0,
           float(2**53), float(2**63), math.inf, -math.inf, 5e-324]  # fmt: skip
STRINGS = [
    "",
    "a",
    "b",
    "ab",
    "a%",
    "a_",
    "%",
    "_",
    "\\",
    "a\\b",
    "it's",
    '"',
    "ü",
    "Ü",
    "a" * 20,
    "\x00",
    "~",
    "𐍈",
    "z;--",
]
scalars = st.sampled_from([*NUMBERS, *STRINGS, True, False])
rows = st.lists(
    st.dictionaries(
        st.sampled_from(FIELDS),
        scalars | st.none() | st.just(math.nan) | st.lists(scalars | st.none(), max_size=4),
        max_size=4,
    ),
    min_size=1,
    max_size=12,
)


def conditions():
    """Filters as mappings."""
    value = scalars | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
    operator = st.one_of(
        st.tuples(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$contains"]), value),
        st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(value, max_size=7)),
        st.tuples(st.sampled_from(["$containsany", "$containsall"]), st.lists(value, min_size=1, max_size=3)),
        st.tuples(st.just("$exists"), st.booleans()),
        st.tuples(st.just("$like"), st.text("ab%_ü'~", max_size=6)),
        st.tuples(st.just("$like"), st.sampled_from(["a\\%", "%\\_%", "\\\\", "a%b%", "_", "%%", "__%"])),
    )
    leaf = st.builds(lambda field, pair: {field: {pair[0]: pair[1]}}, st.sampled_from(FIELDS), operator)
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(
                lambda key, parts: {key: parts},
                st.sampled_from(["$and", "$or"]),
                st.lists(inner, min_size=1, max_size=3),
            ),
            st.builds(lambda part: {"$not": part}, inner),
        ),
        max_leaves=6,
    )


# ------------------------------------------------------------------------------- what SQLite says


def held(value):
    """As the oracle stores it: booleans as blobs, for SQLite has none."""
    if isinstance(value, bool):
        return b"t" if value else b"f"
    return value


def oracle(rows):
    base = sqlite3.connect(":memory:")
    base.execute("PRAGMA case_sensitive_like = ON")
    base.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, f0, f1, f2, f3)")
    base.execute("CREATE TABLE elements (n, field, value)")
    for n, row in enumerate(rows):
        found = [row.get(field) for field in FIELDS]
        base.execute(
            "INSERT INTO t VALUES (?,?,?,?,?)", [n, *(b"list" if isinstance(v, list) else held(v) for v in found)]
        )
        for field, value in enumerate(found):
            if isinstance(value, list):
                base.executemany("INSERT INTO elements VALUES (?,?,?)", [(n, field, held(v)) for v in value])
    return base


def kinds(value):
    """What SQLite calls values that compare with this one; lists are blobs, too, but of their own."""
    if isinstance(value, bool):
        return "(typeof({f}) = 'blob' AND {f} != x'6c697374')"
    return "typeof({f}) = 'text'" if isinstance(value, str) else "typeof({f}) IN ('integer', 'real')"


def number(value, bind):
    """A constant; SQLite has no integers beyond int64, so they are put between two that it has."""
    bind.append(held(value))
    return "?"


def equal(f, value, bind):
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        if float(value) == value:
            return f"({f} = {number(float(value), bind)})"
        return f"({f} IS NOT NULL AND 0 OR {f} IS NULL AND NULL)"
    return f"({f} = {number(value, bind)})"


def order(f, operator, value, bind):
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        near = math.inf if value > 1.7e308 else float(value)
        if near != value:  # no float lies between
            operator = ("<" if near > value else "<=") if operator[0] == "<" else (">=" if near > value else ">")
        value = near
    there = kinds(value).format(f=f)
    return f"(CASE WHEN {there} THEN {f} {operator} {number(value, bind)} END)"


def sql(condition, bind):
    ((key, what),) = condition.items()
    if key in ("$and", "$or"):
        return "(" + f" {key[1:].upper()} ".join(sql(part, bind) for part in what) + ")"
    if key == "$not":
        return f"(NOT {sql(what, bind)})"
    number_, ((operator, value),) = FIELDS.index(key), what.items()
    f = f"f{number_}"
    if operator in ("$eq", "$ne"):
        same = equal(f, value, bind)
        return same if operator == "$eq" else f"(NOT {same})"
    if operator in ("$gt", "$gte", "$lt", "$lte"):
        return order(f, {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}[operator], value, bind)
    if operator in ("$in", "$nin"):
        same = " OR ".join(equal(f, one, bind) for one in value) or "0"
        return f"({same})" if operator == "$in" else f"(NOT ({same}))"
    if operator == "$exists":
        return f"({f} IS {'NOT ' if value else ''}NULL)"
    if operator == "$like":
        return f"(CASE WHEN typeof({f}) = 'text' THEN {f} LIKE {number(value, bind)} ESCAPE '\\' END)"
    wanted = [value] if operator == "$contains" else value
    has = [
        f"EXISTS (SELECT 1 FROM elements e WHERE e.n = t.n AND e.field = {number_} AND {equal('e.value', one, bind)})"
        for one in wanted
    ]
    found = (" AND " if operator != "$containsany" else " OR ").join(has)
    return f"(CASE WHEN {f} IS NULL THEN NULL WHEN {f} = x'6c697374' THEN ({found}) ELSE 0 END)"


def sqlites(rows, condition):
    bind = []
    query = f"SELECT n FROM t WHERE {sql(condition, bind)}"
    return [n for (n,) in oracle(rows).execute(query, bind)]


def ours(rows, condition):
    nested = [
        {"c": {"d": row["c.d"]}, **{k: v for k, v in row.items() if k != "c.d"}} if "c.d" in row else row
        for row in rows
    ]
    flat = [values.flattened(row, i).entries for i, row in enumerate(nested)]
    found = masks.mask(resolving.read(condition), columns.of_entries(flat), len(rows))
    return np.flatnonzero(found).tolist()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
@given(rows=rows, condition=conditions())
@example([{"a": 2**53 + 1}, {"a": float(2**53)}], {"a": {"$gt": float(2**53)}})
@example([{"a": float(2**63)}, {"a": 2**63 - 1}], {"a": {"$lt": float(2**63)}})
@example([{"a": "x\x00y"}], {"a": {"$eq": "x\x00y"}})
@example([{"a": True}, {"a": 1}, {"a": None}], {"a": {"$ne": 1}})
@example([{"a": [1]}, {"a": 1}, {}], {"$not": {"a": {"$contains": 1}}})
@example([{"a": math.nan}, {"a": math.inf}], {"a": {"$exists": False}})
def test_what_sqlite_says(rows, condition):
    assert ours(rows, condition) == sqlites(rows, condition)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(value=st.text("ab\n", max_size=12), pattern=st.text("ab%_\n", max_size=8))
def test_patterns(value, pattern):
    expected = sqlites([{"a": value}], {"a": {"$like": pattern}})
    assert ours([{"a": value}], {"a": {"$like": pattern}}) == expected


def test_a_hostile_pattern_takes_no_time():
    rows = [{"a": "a" * 4000}] * 3
    started = time.perf_counter()
    assert ours(rows, {"a": {"$like": "%a" * 1000 + "b%"}}) == []
    assert ours(rows, {"a": {"$like": "%_a" * 1000 + "%"}}) == [0, 1, 2]
    assert time.perf_counter() - started < 5


# ----------------------------------------------------------------------------------- two notations

PAIRS = [
    ("lang = 'en'", {}, {"lang": "en"}),
    ("'en' = lang", {}, {"lang": "en"}),
    ("2020 <= year", {}, {"year": {"$gte": 2020}}),
    ("lang <> 'en' AND year >= :y", {"y": 2020}, {"lang": {"$ne": "en"}, "year": {"$gte": 2020}}),
    ("lang != 'en' or not year < 5", {}, {"$or": [{"lang": {"$ne": "en"}}, {"$not": {"year": {"$lt": 5}}}]}),
    ("year BETWEEN -1 AND 2.5", {}, {"year": {"$gte": -1, "$lte": 2.5}}),
    ("lang IN ('en', :x)", {"x": "de"}, {"lang": {"$in": ["en", "de"]}}),
    ("lang NOT IN :x", {"x": ["en", "de"]}, {"lang": {"$nin": ["en", "de"]}}),
    ("lang LIKE 'a%'", {}, {"lang": {"$like": "a%"}}),
    ("lang NOT LIKE 'a!%' ESCAPE '!'", {}, {"$not": {"lang": {"$like": "a\\%"}}}),
    ("lang IS NULL", {}, {"lang": {"$exists": False}}),
    ("lang IS NOT NULL", {}, {"lang": {"$exists": True}}),
    ("tags CONTAINS 'a'", {}, {"tags": {"$contains": "a"}}),
    ("tags contains any ('a', 'b')", {}, {"tags": {"$containsany": ["a", "b"]}}),
    ("tags CONTAINS ALL :x", {"x": ["a", "b"]}, {"tags": {"$containsall": ["a", "b"]}}),
    ("NOT tags CONTAINS 'a'", {}, {"$not": {"tags": {"$contains": "a"}}}),
    ("author.name = 'it''s'", {}, {"author.name": "it's"}),
    ("a.b.c.d.e.f = TRUE", {}, {"a.b.c.d.e.f": True}),
    ('"na ve"."x.y" = 1e3', {}, {"na ve.x.y": 1000.0}),
    ("when_ < DATE '2024-05-17'", {}, {"when_": {"$lt": {"$date": "2024-05-17"}}}),
    (
        "when_ < TIMESTAMP '2024-05-17 09:30:00Z'",
        {},
        {"when_": {"$lt": datetime(2024, 5, 17, 9, 30, tzinfo=timezone.utc)}},
    ),
    ("date = 1 and timestamp = 2", {}, {"date": 1, "timestamp": 2}),
    ("a = 1 AND (b = 2 OR c = 3)", {}, {"a": 1, "$or": [{"b": 2}, {"c": 3}]}),
]


@pytest.mark.parametrize(("text", "params", "mapping"), PAIRS)
def test_two_notations(text, params, mapping):
    pytest.importorskip("sqlglot")
    one, other = resolving.read(text, params), resolving.read(mapping)
    assert flat(one) == flat(other)


def flat(tree):
    """A range is two comparisons, in whatever order."""
    return sorted(map(repr, tree.parts)) if type(tree).__name__ in ("And", "Or") else repr(tree)


def test_a_long_chain_is_not_deep():
    pytest.importorskip("sqlglot")
    assert len(resolving.read(" OR ".join(f"a = {i}" for i in range(4000))).parts) == 4000


INJECTIONS = [
    "1=0 UNION SELECT content FROM read_text('/etc/hostname')",
    "1=0 UNION SELECT sqlite_version()",
    "lang = 'en'; DROP TABLE documents",
    "lang = 'en' -- and more",
    "lang = 'en' /* and more */",
    "lang = 'en' OR 1=1",
    "1 = 1",
    "TRUE",
    "lang",
    "lang = other",
    "lang = (SELECT 1)",
    "EXISTS (SELECT 1)",
    "load_extension('x') = 1",
    "lang = read_text('/etc/passwd')",
    "lang IN (SELECT lang FROM t)",
    "lang IN (f(1))",
    "CAST(year AS TEXT) = '1'",
    "year::text = '1'",
    "year + 1 = 2",
    "lang || 'x' = 'enx'",
    "lang = 'a' COLLATE NOCASE",
    "CASE WHEN year THEN 1 END",
    "lang GLOB 'a*'",
    "lang ILIKE 'a'",
    "lang REGEXP 'a'",
    "year = 0x10",
    "year = $1",
    "year = ?",
    "year = @@version",
    "tags[0] = 'a'",
    "a:b = 1",
    "year IS TRUE",
    "year = NULL",
    "year = 1 = 2",
    "(year, lang) = (1, 'x')",
    "year AS x",
    "*",
    "",
    "   ",
    "lang = 'unclosed",
    'lang = "en"',
    "lang = `en`",
    "lang = 'a' LIMIT 1",
    "PRAGMA table_info(t)",
    "ATTACH DATABASE 'x' AS y",
    "COPY t TO 'x'",
    "{x: 1}",
    "year = - - 5",
    "year = ~5",
    "AND",
    "year >",
    "(year = 1",
    "year = 1)",
    "year LIKE 5",
    "lang LIKE 'a' ESCAPE 'bc'",
    "lang LIKE 'a\\'",
    "\x00",
    "lang = '\ud800'",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_is_no_condition_is_refused(text):
    pytest.importorskip("sqlglot")
    with pytest.raises(FilterError) as raised:
        resolving.read(text)
    assert len(str(raised.value)) < 400


def test_where_a_mistake_is():
    pytest.importorskip("sqlglot")
    with pytest.raises(FilterError, match="at line 2, column 9, near '=': something is missing"):
        resolving.read("lang = 'en' AND\n year = = 2")
    with pytest.raises(FilterError, match=r"at character \d+: F\(year\)"):
        resolving.read("lang = 'en' AND f(year) = 2")


@pytest.mark.parametrize(
    ("text", "params", "kind", "match"),
    [
        ("year = :y", None, FilterError, "params must have a value for :y"),
        ("year = :y", {"y": 1, "z": 2}, FilterError, "params has 'z', which the condition does not name"),
        ("year = :y", [1], TypeError, "params must be a mapping"),
        ("year = :y", {"y": None}, FilterError, "cannot be compared with None"),
        ("year = :y", {"y": [1]}, FilterError, "with a string, number, boolean or date, got list"),
        ("year = :y", {"y": {"$gt": 1}}, FilterError, "got dict"),
        ("x = DATE 'never'", None, FilterError, "must be a date in ISO 8601"),
        ("year = " + "9" * 5000, None, FilterError, "a number that is none"),
    ],
)
def test_parameters(text, params, kind, match):
    pytest.importorskip("sqlglot")
    with pytest.raises(kind, match=match):
        resolving.read(text, params)


DEEP = [
    "(" * 10_000 + "a = 1" + ")" * 10_000,
    "NOT " * 10_000 + "a = 1",
    "a = " + "-" * 10_000 + "1",
    "[" * 10_000,
    "NOT (" * 5_000 + "a = 1" + ")" * 5_000,
    "((a = 1) AND " * 3000,
]


@pytest.mark.parametrize("text", DEEP)
def test_deep_strings(text):
    pytest.importorskip("sqlglot")
    with pytest.raises(FilterError, match=f"at most {DEEPEST} levels deep"):
        resolving.read(text)


def deep(levels):
    found = {"a": 1}
    for _ in range(levels):
        found = {"$not": found}
    return found


@pytest.mark.parametrize("condition", [deep(10_000), {"a": deep(10_000)}, {"$and": [deep(100)]}, deep(DEEPEST)])
def test_deep_mappings(condition):
    with pytest.raises(FilterError):
        resolving.read(condition)
    assert resolving.read(deep(DEEPEST - 1))


@pytest.mark.parametrize(
    ("condition", "match"),
    [
        ("x" * 10_000_000, "at most 65,536 characters, got 10,000,000"),
        ({"a": "x" * 10_000_000}, "at most 1,048,576 characters"),
        ({"x" * 10_000_000: 1}, "at most 1,048,576 characters"),
        ({"a": {"$in": list(range(1_000_000))}}, "at most 131,072 conditions and values"),
        ({"$or": [{"a": 1}] * 1_000_000}, "at most 131,072 conditions and values"),
        ({"a": {"$like": "x" * 10_000_000}}, "at most 4,096 characters"),
    ],
)
def test_large_filters(condition, match):
    pytest.importorskip("sqlglot")
    started = time.perf_counter()
    with pytest.raises(FilterError, match=match) as raised:
        resolving.read(condition)
    assert len(str(raised.value)) < 400 and time.perf_counter() - started < 3


@pytest.mark.parametrize(
    ("condition", "kind", "match"),
    [
        ([], TypeError, "filter must be a mapping or a condition in SQL, got list"),
        ({}, FilterError, "got an empty mapping; None stands for no filter"),
        ({"a": {}}, FilterError, "'a' must have a condition, got an empty mapping"),
        ({"a": None}, FilterError, "cannot be compared with None, which nothing is equal to; ask whether it exists"),
        ({"a": math.nan}, FilterError, "cannot be compared with NaN"),
        ({"a": ["x"]}, FilterError, "cannot be compared with a list; use \\$in"),
        ({"a": {"b": 1}}, FilterError, "nested fields are written a.b"),
        ({"a": {"$regex": "x"}}, FilterError, "must have operators, which are \\$eq, .*, got '\\$regex'"),
        ({"$where": "x"}, FilterError, "an operator '\\$where' where a field"),
        ({"$and": []}, FilterError, "must be a list of one condition or more"),
        ({"$or": {"a": 1}}, FilterError, "must be a list of one condition or more"),
        ({"$and": [1]}, FilterError, "filter must be made of mappings, got int 1"),
        ({1: 2}, FilterError, "keys that are strings, got int 1"),
        ({"a": {"$in": "x"}}, FilterError, "\\$in of 'a' must be a list, got str"),
        ({"a": {"$in": [None]}}, FilterError, "cannot be compared with None"),
        ({"a": {"$exists": 1}}, FilterError, "\\$exists of 'a' must be true or false"),
        ({"a": {"$like": 5}}, FilterError, "must be a string, got int"),
        ({"a": {"$like": "x\\"}}, FilterError, "must not end with its escape character"),
        ({"a": b"x"}, FilterError, "got bytes"),
        ({"a": object()}, FilterError, "got object"),
        ({"a": "\ud800"}, FilterError, "text that utf-8 can write"),
        ({"a": {"$date": 5}}, FilterError, "must be a string in ISO 8601"),
    ],
)
def test_mappings_that_are_no_condition(condition, kind, match):
    with pytest.raises(kind, match=match):
        resolving.read(condition)


def test_without_sqlglot_mappings_still_work(monkeypatch):
    import sys

    from lateint.filtering import sql

    sql._language.cache_clear()
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    with pytest.raises(ImportError, match=r"a filter that is a string needs sqlglot: pip install lateint\[sql\]"):
        resolving.read("a = 1")
    assert resolving.read({"a": 1})
    sql._language.cache_clear()


# ---------------------------------------------------------------------------------------- searches

COUNT = 120


@pytest.fixture(scope="module")
def index():
    rng = np.random.default_rng(0)
    metadata = [
        {"n": i, "lang": ["en", "de", "fr"][i % 3], "tags": [f"t{i % 5}", "all"], "o": {"deep": [{"x": 1}]}}
        for i in range(COUNT)
    ]
    return Index.build(documents(rng, COUNT), metadata=metadata, progress=False, ncentroids=20)


QUERIES = documents(np.random.default_rng(1), 4)


@pytest.mark.parametrize(
    "condition", [{"lang": "en"}, {"n": {"$lt": 7}}, {"tags": {"$contains": "t1"}}, {"n": {"$ne": 3}}]
)
def test_a_filter_is_the_subset_of_its_documents(index, condition):
    rows = [one.id for one in index.documents if ours([one.metadata | {"a": 0}], condition)]
    assert index.count(condition) == len(rows) > 0
    mask = np.isin(index.ids, rows)
    for extra in ({}, {"exhaustive": True}, {"nprobe": 1, "candidates": 3}):
        for subset in (rows, mask, index.subset(rows), index.subset(mask)):
            by_filter, by_ids = (
                index.search(QUERIES, 9, filter=condition, **extra),
                index.search(QUERIES, 9, subset=subset, **extra),
            )
            for one, other in zip(by_filter, by_ids, strict=True):
                assert one.ids.tolist() == other.ids.tolist() and one.scores.tobytes() == other.scores.tobytes()
                assert set(one.ids.tolist()) <= set(rows) and len(one) == min(9, len(rows))
    assert index.rerank(QUERIES[0], index.ids[:40], filter=condition).ids.tolist() == [
        name for name in index.rerank(QUERIES[0], index.ids[:40]).ids.tolist() if name in set(rows)
    ]


def test_a_filter_and_a_subset_must_both_hold(index):
    hits = index.search(QUERIES[0], COUNT, filter={"lang": "en"}, subset=range(10))
    assert sorted(hits.ids.tolist()) == [0, 3, 6, 9]
    assert len(index.search(QUERIES[0], 5, filter={"n": -1})) == 0
    assert index.rerank(QUERIES[0], [1, 2], filter={"n": -1}).ids.tolist() == []


def test_plans(index):
    assert index.search(QUERIES[0], 3).plan.kind == "pruned"
    assert index.search(QUERIES[0], 3, exhaustive=True).plan.kind == "exhaustive"
    few = index.search(QUERIES[0], 3, filter={"n": {"$lt": 4}}).plan
    assert (few.kind, few.documents, few.nprobe) == ("scan", 4, None)


def test_an_unknown_field(index):
    for call in (
        lambda: index.search(QUERIES[0], filter={"colour": 1}),
        lambda: index.search(QUERIES[0], filter={"$or": [{"n": 1}, {"$not": {"colour": {"$exists": True}}}]}),
        lambda: index.count({"colour": 1}),
        lambda: index.delete(filter={"colour": 1}),
        lambda: index.rerank(QUERIES[0], [1], filter={"colour": 1}),
    ):
        with pytest.raises(FieldError, match="no document has a field 'colour'; there are: lang, n, o, "):
            call()
    with pytest.raises(FieldError, match="field 'o' holds mappings"):
        index.count({"o": 1})
    assert index.count({"o": {"$exists": True}}) == COUNT


@pytest.mark.parametrize(
    "name", ["'; DROP TABLE x; --", "$n", "../../etc", "\x00", "n n", "N", "n.", ".n", "🦊", "a" * 5000]
)
def test_hostile_names_of_fields(index, name):
    with pytest.raises((FieldError, FilterError)) as raised:
        index.count({name: 1})
    assert len(str(raised.value)) < 400
    stored = Index.build(
        documents(np.random.default_rng(0), 2), metadata=[{"x" + name[:9]: 1}, {}], progress=False, ncentroids=1
    )
    assert stored.count({"x" + name[:9]: 1}) == 1


def test_subsets_that_cannot_be(index):
    with pytest.raises(ValueError, match=r"subset must be a mask of the 120 documents, got \(3,\)"):
        index.search(QUERIES[0], subset=np.ones(3, bool))
    with pytest.raises(KeyError, match="999"):
        index.subset([1, 999])
    with pytest.raises(ValueError, match="params goes with a filter"):
        index.search(QUERIES[0], params={"a": 1})
    with pytest.raises(FilterError, match=r"params goes with a filter that is a string"):
        index.search(QUERIES[0], filter={"n": 1}, params={"a": 1})


def changing():
    rng = np.random.default_rng(2)
    metadata = [{"n": i} if i % 2 else {"n": i, "even": True} for i in range(10)]
    return Index.build(documents(rng, 10), metadata=metadata, progress=False, ncentroids=3)


def test_a_prepared_subset_follows_changes():
    index = changing()
    ids, mask = index.subset([3, 4, 5]), index.subset(index.ids > 5)
    index.delete([0])
    index.update([4], metadata=[{"n": 40}])
    assert sorted(index.search(QUERIES[0], 9, subset=ids).ids.tolist()) == [3, 4, 5]
    with pytest.raises(ValueError, match="a mask of documents of an index that has changed"):
        index.search(QUERIES[0], subset=mask)
    assert sorted(index.search(QUERIES[0], 9, subset=index.ids > 5).ids.tolist()) == [6, 7, 8, 9]
    index.delete([3])
    with pytest.raises(KeyError, match="3"):
        index.search(QUERIES[0], subset=ids)


def test_filters_follow_changes():
    index = changing()
    assert index.count({"n": {"$gte": 5}}) == 5
    index.add(documents(np.random.default_rng(3), 2), metadata=[{"n": 99}, {"n": "x"}])
    index.update([9], metadata=[{"n": 0}])
    assert index.count({"n": {"$gte": 5}}) == 5
    assert index.search(QUERIES[0], 9, filter={"n": 0}).ids.tolist() in ([0, 9], [9, 0])
    assert index.delete(filter={"n": {"$gte": 5}}) == 5
    assert index.count({"n": {"$exists": True}}) == 7 and index.count({"n": {"$gte": 5}}) == 0
    assert index.delete(filter={"n": 12345}) == 0


def test_a_field_is_unknown_when_its_last_document_is_gone():
    index = changing()
    index.delete(filter={"even": True})
    for _ in range(2):
        with pytest.raises(FieldError):
            index.count({"even": True})
        index.compact(full=True)


def test_deleting_needs_one_of_two():
    index = changing()
    for given_ in ({}, {"ids": [1], "filter": {"n": 1}}):
        with pytest.raises(ValueError, match="delete needs ids or filter, and not both"):
            index.delete(**given_)
    with pytest.raises(FilterError):
        index.delete(filter={})
    assert len(index) == 10


def test_segments_and_damage(tmp_path):
    """What a filter reads of a damaged column is refused, and never leads out of an array."""
    rng = np.random.default_rng(0)
    Index.build(
        documents(rng, 30),
        tmp_path / "i",
        metadata=[{"s": f"v{i}", "n": i, "t": [i]} for i in range(30)],
        progress=False,
        ncentroids=3,
    )
    name = "segments/000000/field_data.npy"
    data = (tmp_path / "i" / name).read_bytes()
    manifest = json.loads((tmp_path / "i" / "index.json").read_text())
    import zlib

    for _ in range(60):
        broken = bytearray(data)
        for at in rng.integers(128, len(data), 4):
            broken[at] = rng.integers(256)
        (tmp_path / "i" / name).write_bytes(broken)
        manifest["files"][name]["crc32"] = zlib.crc32(broken)
        (tmp_path / "i" / "index.json").write_text(json.dumps(manifest))
        opened = Index.open(tmp_path / "i")
        for condition in (
            {"s": "v3"},
            {"n": {"$gt": 3}},
            {"t": {"$contains": 3}},
            {"s": {"$like": "%1%"}},
            {"s": {"$lt": "v2"}},
        ):
            try:
                opened.count(condition)
            except ValueError as error:
                assert "the index is damaged" in str(error)


def test_dates():
    metadata = [
        {"d": date(2024, 1, 1)},
        {"d": datetime(2024, 1, 1, 12)},
        {"d": datetime(2024, 1, 1, 12, tzinfo=timezone.utc)},
        {"d": "2024"},
    ]
    index = Index.build(documents(np.random.default_rng(0), 4), metadata=metadata, progress=False, ncentroids=1)
    assert index.count({"d": {"$date": "2024-01-01"}}) == 1
    assert index.count({"d": {"$gte": date(2024, 1, 1)}}) == 3
    assert index.count({"d": datetime(2024, 1, 1, 12)}) == 2
    assert index.count({"d": np.datetime64("2024-01-01T12:00")}) == 2
    assert index.count({"d": "2024"}) == 1


def test_deleted_documents_decide_nothing(clustered):
    """A search under a filter goes about it as in an index that never had them, and finds the same."""
    lengths = [4] * 1500 + [40] * 500
    documents = clustered(lengths)
    metadata = [{"n": i} for i in range(len(lengths))]
    index = Index.build(documents, metadata=metadata, progress=False)
    index.delete(range(1500, 2000))
    fresh = Index.build(list(documents)[:1500], metadata=metadata[:1500], codec=index.codec, progress=False)
    queries = list(clustered([6] * 4, seed=5))
    for most in range(100, 1500, 100):
        ours, theirs = (one.search(queries, 5, filter={"n": {"$lt": most}}) for one in (index, fresh))
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.plan == other.plan
            assert list(mine) == list(other)
