"""The comparison with other engines: who is asked what, how often, and what the page says of it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = str(Path(__file__).parents[1])
sys.path.append(ROOT)  # benchmarks are in the tree alone; all else is what is installed

from benchmarks.embeddings import collections_of, load, shorten, write_truth  # noqa: E402
from benchmarks.rivals import page, turns  # noqa: E402
from benchmarks.rivals.cases import Case, cases  # noqa: E402
from benchmarks.rivals.processes import OtherWork  # noqa: E402
from benchmarks.rivals.run import Result  # noqa: E402
from benchmarks.rivals.turns import Contender, Worker, batches, take_turns  # noqa: E402

ADAPTER = """
from benchmarks.rivals.measure import main

class Searcher:
    def single(self, query, setting):
        print("chatter of a library")
        if setting.get("fails"):
            raise ValueError("no such setting")
        return [len(query), setting["shift"]]

    def batch(self, queries, setting):
        return [self.single(query, setting) for query in queries]

main(("numpy",), None, lambda job: Searcher())
"""


class Clock:
    """In place of a worker: every answer takes as long as the setting says."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, list[int]]] = []

    def ask(self, setting: dict[str, Any], queries: list[int], batch: bool = False) -> dict[str, Any]:
        self.asked.append((setting["seconds"], list(queries)))
        if setting["seconds"] < 0:
            raise RuntimeError("it failed")
        spent = [setting["seconds"] * len(queries)] if batch else [setting["seconds"]] * len(queries)
        return {
            "seconds": spent,
            "cpu_seconds": [x / 2 for x in spent],
            "ids": [[query] for query in queries],
            "peak_rss": 1,
        }


def contender(clock: Clock, seconds: float) -> Contender:
    return Contender(f"takes {seconds}", clock, {"seconds": seconds})  # type: ignore[arg-type]


def test_turns_ask_the_slow_less_and_the_fast_more_often() -> None:
    fast, slow, failing = contender(Clock(), 0.001), contender(Clock(), 0.1), contender(Clock(), -1)
    take_turns([fast, slow, failing], 100, most=4.0, rounds=3)
    assert set(fast.seconds) == set(range(100)) and {len(spent) for spent in fast.seconds.values()} == {3}
    assert len(slow.seconds) == 40 and {len(spent) for spent in slow.seconds.values()} == {1}
    assert failing.failed == "it failed" and not failing.seconds
    assert len(failing.worker.asked) == 1  # type: ignore[attr-defined]
    fast.spent = {query: [0.002] for query in fast.spent}
    assert slow.times(fast) == pytest.approx(25) and slow.times(fast, clock=True) == pytest.approx(100)
    assert slow.latency() == pytest.approx({"p50_ms": 100, "p95_ms": 100, "cpu_ms": 50, "queries": 40, "searches": 40})


def test_turns_share_the_queries_of_the_slow() -> None:
    clocks = Clock(), Clock()
    one, two = contender(clocks[0], 0.2), contender(clocks[1], 1.0)
    take_turns([one, two], 100, most=10.0, rounds=1)
    assert len(one.seconds) == 50 and len(two.seconds) == turns.FEWEST
    assert set(two.seconds) < set(one.seconds)
    assert all(len(queries) <= turns.BLOCK for clock in clocks for _, queries in clock.asked)


def test_batches_say_queries_a_second() -> None:
    fast, slow = contender(Clock(), 0.001), contender(Clock(), 0.1)
    fast.cost, slow.cost = 0.001, 0.1
    rates = batches([fast, slow], 100, most=4.0, rounds=2)
    assert rates[fast.name]["queries_per_second"] == pytest.approx(1000)
    assert rates[slow.name] == {"queries_per_second": pytest.approx(10), "batch_queries": 40}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="processes are pinned to cores")
def test_a_worker_answers_and_survives_a_setting_that_fails(tmp_path: Path) -> None:
    tokens, lengths = np.ones((5, 4), np.float32), np.array([2, 3])
    np.savez(tmp_path / "queries.npz", tokens=tokens, lengths=lengths)
    (tmp_path / "job.json").write_text(json.dumps({"phase": "answer", "queries": str(tmp_path / "queries.npz")}))
    (tmp_path / "adapter.py").write_text(ADAPTER)
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, str(tmp_path / "adapter.py"), str(tmp_path / "job.json")]
    cores = sorted(os.sched_getaffinity(0))[:1]
    worker = Worker(command, {"PYTHONPATH": os.pathsep.join((str(root), *sys.path))}, cores, tmp_path / "log")
    try:
        assert worker.opened["versions"] == {"numpy": np.__version__}
        reply = worker.ask({"shift": 7}, [1, 0])
        assert reply["ids"] == [[3, 7], [2, 7]] and len(reply["seconds"]) == 2
        with pytest.raises(RuntimeError, match="ValueError: no such setting"):
            worker.ask({"fails": True}, [0])
        assert worker.ask({"shift": 1}, [0, 1], batch=True)["ids"] == [[2, 1], [3, 1]]
        assert worker.peak_rss > 1e6
    finally:
        worker.close()
    with pytest.raises(RuntimeError, match="the process has ended"):
        worker.ask({"shift": 7}, [0])


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    """A folder as benchmarks.embed writes it: 40 documents, a judged query of 3 tokens each and 60 of 33."""
    folder, rng = tmp_path / "tiny", np.random.default_rng(0)
    folder.mkdir()
    lengths = rng.integers(2, 6, 40)
    np.save(folder / "doc_lengths.npy", lengths)
    np.save(folder / "doc_tokens.npy", rng.standard_normal((lengths.sum(), 8)).astype(np.float16))
    np.save(folder / "doc_token_ids.npy", np.arange(lengths.sum()))
    (folder / "doc_ids.json").write_text(json.dumps([f"tiny/{number}" for number in range(40)]))
    widths = [3] * 40 + [33] * 60
    np.save(folder / "tiny_q_lengths.npy", np.array(widths))
    np.save(folder / "tiny_q_tokens.npy", rng.standard_normal((sum(widths), 8)).astype(np.float32))
    (folder / "tiny_q_ids.json").write_text(json.dumps([f"q{number}" for number in range(100)]))
    (folder / "tiny_qrels.json").write_text(json.dumps({f"q{number}": {str(number): 1} for number in range(40)}))
    (folder / "manifest.json").write_text(json.dumps({"collections": {"tiny": {}}}))
    write_truth(folder)
    return folder


def test_cases_are_the_judged_queries_and_the_long_ones(embeddings: Path, tmp_path: Path) -> None:
    judged, long = cases(embeddings, tmp_path / "kept", 10)
    assert (judged.name, len(judged.asked), {len(q.tokens) for q in judged.asked}) == ("tiny", 10, {3})
    assert (long.name, len(long.asked), {len(q.tokens) for q in long.asked}) == ("tiny, 32 tokens", 10, {32})
    for case in (judged, long):
        described, found = case.description(), dict(enumerate(case.top))
        assert case.overlap(found) == 1.0 and described["queries"] == 10
        assert case.overlap({0: case.top[0][:4], 1: []}) == pytest.approx(0.2)
    assert judged.ndcg(dict(enumerate(judged.top))) == described_ndcg(judged) and long.ndcg({0: [1]}) is None


def described_ndcg(case: Case) -> float:
    """Each query has one judged document: the discount of its place, or nothing."""
    places = [
        docs.index(int(query.id[1:])) if int(query.id[1:]) in docs else None
        for query, docs in zip(case.asked, case.top, strict=True)
    ]
    return pytest.approx(np.mean([0 if p is None else 1 / np.log2(p + 2) for p in places]))  # type: ignore[no-any-return]


def test_a_shorter_collection_keeps_tokens_with_their_documents(embeddings: Path, tmp_path: Path) -> None:
    short, whole = load(shorten(embeddings, tmp_path / "short", 7)), load(embeddings)
    assert len(short.ids) == 7 and np.load(short.folder / "exact_docs.npy").max() == 6
    assert cases(short.folder, tmp_path / "kept", 10)[0].name == f"{collections_of(embeddings)[0]}, 7 documents"
    numbers = np.load(short.folder / "doc_token_ids.npy")
    np.testing.assert_array_equal(short.tokens, whole.tokens[numbers])
    first = whole.ids.index(short.ids[3])
    np.testing.assert_array_equal(
        short.tokens[short.offsets[3] : short.offsets[4]], whole.tokens[whole.offsets[first] : whole.offsets[first + 1]]
    )


def record(system: str, variant: str, *searches: tuple[float, float], **setting: Any) -> dict[str, Any]:
    """A system of a case: settings with their overlaps and milliseconds, the first the default."""
    return {
        "system": system,
        "variant": variant,
        "searches": [
            {
                "setting": {"probes": number, **setting} if number else {},
                "default": number == 0,
                "overlap_at_10": overlap,
                "ndcg_at_10": None,
                "one_thread": {"p50_ms": ms, "p95_ms": 2 * ms, "queries": 10, "searches": 10},
                "times_lateint": ms,
            }
            for number, (overlap, ms) in enumerate(searches)
        ],
    }


def test_equal_overlap_is_with_the_fastest_of_ours_that_finds_as_much() -> None:
    ours = record("lateint", "4 bits", (0.95, 1.0), (0.98, 4.0))
    slow = record("TACHIOM", "32 B", (0.94, 10.0), (0.97, 12.0))
    better = record("fast-plaid", "4 bits", (0.99, 100.0))
    case = {"case": "tiny", "queries": 10, "systems": [ours, slow, better]}
    ratio, setting = page.at_equal_overlap(case, slow) or (0, {})
    assert (ratio, setting["overlap_at_10"]) == (3.0, 0.97)
    assert page.at_equal_overlap(case, better) is None
    lines = page.equal_table([case]).splitlines()
    assert lines[2:] == ["| TACHIOM, 32 B | 3.00x at 0.970 |", "| fast-plaid, 4 bits | lateint finds less |"]


def test_losses_are_said_and_exact_engines_do_not_count_as_better_quality() -> None:
    ours, rival = record("lateint", "4 bits", (0.95, 1.0)), record("rival", "2 bits", (0.97, 0.5))
    reference = record("torch exact", "float32", (1.0, 100.0))
    sizes = {"collection": "tiny", "cpu_seconds": 1.0, "peak_rss": 1e9}
    builds = [
        {**sizes, "system": "lateint", "variant": "4 bits", "bytes_per_token": 70},
        {**sizes, "system": "rival", "variant": "2 bits", "bytes_per_token": 40},
    ]
    case = {"case": "tiny", "queries": 10, "systems": [ours, rival, reference]}
    assert page.losses([case], builds) == [
        "tiny, overlap@10: lateint, 4 bits (0.950) loses to rival, 2 bits (0.970).",
        "tiny, p50: lateint, 4 bits (1.00 ms) loses to rival, 2 bits (0.500 ms).",
        "tiny, p95: lateint, 4 bits (2.00 ms) loses to rival, 2 bits (1.00 ms).",
        "tiny, highest overlap of any setting: 0.970, lateint 0.950.",
        "tiny, bytes/token: lateint, 4 bits (70.0) loses to rival, 2 bits (40.0).",
    ]
    assert page.losses([case], builds, "2 bits") == ["tiny, highest overlap of any setting: 0.970, lateint 0.950."]
    slower = record("rival", "2 bits", (0.94, 2.0))
    assert page.losses([{**case, "systems": [ours, slower, reference]}], builds[:1]) == []


def test_quality_is_compared_on_the_queries_that_both_were_asked() -> None:
    """Ours finds 0.95 of all ten queries and 0.90 of the first four; a slow engine is asked these alone."""
    ours, rival = record("lateint", "4 bits", (0.95, 1.0)), record("rival", "2 bits", (0.93, 50.0))
    (mine,), (theirs,) = ours["searches"], rival["searches"]
    theirs["one_thread"]["queries"] = 4
    case = {"case": "tiny", "queries": 10, "systems": [ours, rival]}
    assert page.on_the_same(mine, theirs, "overlap_at_10") == (0.95, 0.93) and page.losses([case], []) == []
    mine["overlap_at_10"] = 0.92
    assert page.losses([case], []) == [
        "tiny, overlap@10: lateint, 4 bits (0.920) loses to rival, 2 bits (0.930 on 4 queries).",
        "tiny, highest overlap of any setting: 0.930*, lateint 0.920.",
    ]
    mine["overlap_at_10"] = 0.95
    mine["of_queries"] = {"overlap_at_10": [0.9, 0.9, 0.8, 1.0, *[1.0] * 6], "ndcg_at_10": None}
    assert page.on_the_same(mine, theirs, "overlap_at_10") == pytest.approx((0.9, 0.93))
    assert page.losses([case], []) == [
        "tiny, overlap@10: lateint, 4 bits (0.950) loses to rival, 2 bits (0.930 on 4 queries, lateint 0.900).",
        "tiny, highest overlap of any setting: 0.930*, lateint 0.900.",
    ]
    assert page.at_equal_overlap(case, rival) is None
    assert page.overlap_text(case, theirs) == "0.930*" and page.overlap_text(case, mine) == "0.950"


def test_what_is_measured_again_replaces_what_was_there(embeddings: Path, tmp_path: Path) -> None:
    about = {"commit": "abc", "dirty": False, "date": "2026-01-01", "load_at_start": 0.0}
    (case, _), path = cases(embeddings, tmp_path / "kept", 10), tmp_path / "result.json"
    first = Result(path, about, "cpu")
    for system, variant, value in (("TACHIOM", "32 B of codes", 1), ("lateint", "4 bits", 2)):
        first.put(first.case(case)["systems"], system=system, variant=variant, value=value)
    second = Result(path, {**about, "commit": "def"}, "cpu")
    second.put(second.case(case)["systems"], system="lateint", variant="4 bits", value=3)
    kept = json.loads(path.read_text())["cases"][0]["systems"]
    assert [(s["system"], s["value"], s["run"]["commit"]) for s in kept] == [
        ("lateint", 3, "def"),
        ("TACHIOM", 1, "abc"),
    ]
    fewer, _ = cases(embeddings, tmp_path / "kept", 5)
    assert second.case(fewer)["systems"] == []  # other queries: what was measured does not count


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="counted where Linux counts it")
def test_other_work_is_a_share_of_the_processors() -> None:
    others = OtherWork()
    time.sleep(0.1)
    assert 0 <= others.share() <= 1.5  # jiffies are coarse
