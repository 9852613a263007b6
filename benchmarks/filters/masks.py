"""From a filter to a mask of documents, by lateint and by databases; one thread, best of several."""

import sqlite3
import time

import numpy as np

from lateint.fields import columns, metadata
from lateint.fields.records import Given
from lateint.filtering import masks, resolving

LANGUAGES, SOURCES, TAGS = ["en", "de", "fr", "it", "es", "pt", "nl"], 3_000, 200
# As lateint takes them, as SQL, and as an expression of pyarrow.
CONDITIONS = {
    "number, most rows": ({"year": {"$gt": 1957}}, "year > 1957"),
    "string": ({"lang": "en"}, "lang = 'en'"),
    "string and number": ({"lang": "en", "year": {"$gte": 2000}}, "lang = 'en' AND year >= 2000"),
    "two numbers": ({"year": 2024, "price": {"$lt": 80.0}}, "year = 2024 AND price < 80"),
    "rare string": ({"source": "site77", "year": {"$gt": 2015}}, "source = 'site77' AND year > 2015"),
    "tag in a list": ({"tags": {"$contains": "tag3"}}, None),
}
TURNS, TURNS_OF_OTHERS = 15, 3


def rows(count):
    """Documents of five fields, some of them missing."""
    rng = np.random.default_rng(0)
    years, prices = rng.integers(1950, 2027, count).tolist(), np.round(rng.gamma(2, 50, count), 2).tolist()
    languages = np.array(LANGUAGES)[np.minimum(rng.geometric(0.3, count) - 1, 6)].tolist()
    sources = rng.integers(0, SOURCES, count).tolist()
    tags = np.minimum(rng.geometric(0.03, (count, 3)) - 1, TAGS - 1).tolist()
    missing = rng.random(count) < 0.05
    for i in range(count):
        row = {"year": years[i], "lang": languages[i], "price": prices[i], "source": f"site{sources[i]}"}
        row["tags"] = [f"tag{one}" for one in dict.fromkeys(tags[i])]
        if missing[i]:
            del row["price"]
        yield row


def best(call, turns=TURNS):
    """The shortest time of several calls, in ms, and what the last one gave."""
    times, found = [], None
    for _ in range(turns):
        start = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times), found


def measure(folder, count):
    """Milliseconds by condition and engine, and the share of documents."""
    every = list(rows(count))
    start = time.perf_counter()
    leaves = metadata.make(Given(metadata=every))
    made = time.perf_counter() - start
    found = {name: {} for name in CONDITIONS}
    parsed = columns.read(leaves["field_table"], leaves["field_data"], count)
    expected = {}
    for name, (condition, _) in CONDITIONS.items():
        tree = resolving.read(condition)
        first = time.perf_counter()
        masks.mask(tree, parsed, count)  # looks at all numbers of its columns, once
        found[name]["lateint, first time"] = 1e3 * (time.perf_counter() - first)
        found[name]["lateint"], mask = best(lambda tree=tree: masks.mask(tree, parsed, count))
        expected[name] = np.flatnonzero(mask)
        found[name]["share"] = len(expected[name]) / count
    for engine in (_sqlite, _duckdb, _pyarrow):
        try:
            calls = engine(folder, every)
        except ImportError:
            continue
        for name, call in calls.items():
            found[name][engine.__name__[1:]], got = best(call, TURNS_OF_OTHERS)
            assert np.array_equal(np.sort(got), expected[name]), (engine.__name__, name)
    sizes = {name: int(array.nbytes) for name, array in leaves.items()}
    return {"documents": count, "columns made in seconds": made, "bytes": sizes, "milliseconds": found}


def _sqlite(folder, every):
    base = sqlite3.connect(folder / "sqlite")
    base.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, year, lang, price, source)")
    values = ((n, r["year"], r["lang"], r.get("price"), r["source"]) for n, r in enumerate(every))
    base.executemany("INSERT INTO t VALUES (?,?,?,?,?)", values)
    for name in ("year", "lang", "source"):
        base.execute(f"CREATE INDEX by_{name} ON t ({name})")
    base.commit()

    def call(where):
        return lambda: np.array(base.execute(f"SELECT n FROM t WHERE {where}").fetchall(), np.int64).ravel()

    return {name: call(where) for name, (_, where) in CONDITIONS.items() if where}


def _table(every):
    import pyarrow as pa

    fields = {name: [row.get(name) for row in every] for name in ("year", "lang", "price", "source", "tags")}
    return pa.table({"n": np.arange(len(every)), **fields})


def _duckdb(folder, every):
    import duckdb

    documents = _table(every)
    base = duckdb.connect(str(folder / "duckdb"), config={"threads": 1})
    base.execute("CREATE TABLE t AS SELECT * FROM documents")  # the table above, by its name
    del documents

    def call(where):
        return lambda: base.execute(f"SELECT n FROM t WHERE {where}").fetchnumpy()["n"]

    tags = {"tag in a list": call("list_contains(tags, 'tag3')")}
    return {name: call(where) for name, (_, where) in CONDITIONS.items() if where} | tags


def _pyarrow(folder, every):
    import pyarrow as pa
    import pyarrow.compute as pc

    pa.set_cpu_count(1)
    table = _table(every)
    year, lang, price, source = (pc.field(name) for name in ("year", "lang", "price", "source"))
    conditions = [year > 1957, lang == "en", (lang == "en") & (year >= 2000), (year == 2024) & (price < 80)]
    conditions.append((source == "site77") & (year > 2015))
    return {
        name: lambda condition=condition: (
            table.select(["n", "year", "lang", "price", "source"]).filter(condition).column("n").to_numpy()
        )
        for name, condition in zip(CONDITIONS, conditions, strict=False)
    }
