"""Recall that one can ask for: what is promised, what is refused, and what becomes of it when an index changes."""

import json
import warnings
from itertools import pairwise

import numpy as np
import pytest

from lateint import FormatError, Index
from lateint.calibration import EXHAUSTIVE, Calibration, Ladder, Rung, needed
from lateint.retrieval import calibrating
from lateint.retrieval.limits import RUNGS, rungs
from lateint.retrieval.planning import EXHAUSTIVE as ALL
from lateint.retrieval.queries import read
from lateint_kernels.codes.engine import Limits

DIM, COUNT = 16, 600


def unit(tokens):
    return tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)


def collection(count=COUNT, seed=0):
    """Documents on a few hundred subjects, so that there is something to tell apart."""
    rng = np.random.default_rng(seed)
    subjects = np.random.default_rng(99).standard_normal((count // 4, DIM))
    drawn = subjects[rng.integers(0, len(subjects), (count, 6))]
    return list(unit(drawn + 0.5 * rng.standard_normal(drawn.shape)).astype(np.float32))


def asked(documents, count=300, seed=1):
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(documents), count)
    return [unit(documents[i][:4] + 0.4 * rng.standard_normal((4, DIM))).astype(np.float32) for i in chosen]


DOCUMENTS = collection()
QUERIES = asked(DOCUMENTS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("calibrated") / "index"
    metadata = [{"n": i} for i in range(COUNT)]
    index = Index.build(DOCUMENTS, path, metadata=metadata, ncentroids=150, progress=False)
    index.calibrate(QUERIES[:200], k=(10, 30))
    return path


@pytest.fixture
def index(made, tmp_path):
    """A copy that a test may change."""
    Index.open(made).snapshot(tmp_path / "index")
    return Index.open(tmp_path / "index")


def losses(index, queries, k=10):
    """``[queries, rungs]``, and the settings."""
    manifest, everything = index._snapshot.manifest, index._snapshot.everything
    settings = rungs(k, centroids=manifest.centroids, ncells=manifest.cells, tokens=index.tokens)
    batch, engine = read(queries, DIM), index._snapshot.engine
    best = engine.exhaustive(batch.tokens, batch.offsets, k)
    found = [engine.search(batch.tokens, batch.offsets, k, rung) for rung in settings]
    assert everything.documents == len(index)
    return calibrating.missed(best, found, k), settings


# The rule


@pytest.mark.parametrize(("recall", "least"), [(0.5, 1), (0.9, 9), (0.95, 19), (0.99, 99), (0.999, 999)])
def test_a_recall_needs_so_many_queries(recall, least):
    ladder = Ladder(10, (EXHAUSTIVE,))
    assert needed(recall) == least
    assert ladder.lowest(recall, least) == 0
    assert ladder.lowest(recall, least - 1) is None


def test_the_cheapest_rung_that_holds_is_taken():
    limits = [Limits(n, n) for n in (1, 2, 3)]
    ladder = Ladder(10, (*map(Rung, limits, (0.2, 0.1, 0.02)), EXHAUSTIVE))
    n = 99  # a mean loss of x holds 1 - target if 0.99 x + 0.01 does
    assert ladder.lowest(1 - (0.99 * 0.1 + 0.01), n) == 1
    assert ladder.lowest(1 - (0.99 * 0.1 + 0.01) + 1e-6, n) == 2
    assert ladder.lowest(0.99, n) == 3
    assert ladder.lowest(0.5, n) == 0


def test_a_loss_counts_as_the_largest_from_its_rung_on():
    found = calibrating.ladder(
        5, [Limits(1, 1), Limits(2, 2), Limits(3, 3)], np.array([[0.2, 0.0, 0.1], [0.4, 0.2, 0]])
    )
    assert [rung.loss for rung in found.rungs] == pytest.approx([0.3, 0.15, 0.05, 0.0])


def test_risk_control_holds_for_synthetic_losses():
    """Of exchangeable losses: the mean loss of one more query, over many draws of all of them, is what was allowed."""
    rng, settings = np.random.default_rng(0), [Limits(i + 1, i + 1) for i in range(12)]
    for target, n in ((0.9, 30), (0.9, 60), (0.95, 60), (0.98, 120)):
        kept = []
        for _ in range(400):
            hardness = rng.pareto(1.5, (n + 1, 1))
            drawn = np.minimum(1.0, hardness * 0.3 * 0.6 ** np.arange(12)) * (rng.random((n + 1, 12)) < 0.7)
            ladder = calibrating.ladder(10, settings, drawn[:n])
            chosen = ladder.lowest(target, n)
            kept.append(0.0 if chosen == len(settings) else drawn[n, chosen])
        assert 0.0 < np.mean(kept) <= 1 - target, (target, n)


def test_most_splits_of_a_collection_meet_the_target(made):
    index = Index.open(made)
    lost, settings = losses(index, asked(DOCUMENTS, 240, seed=2))
    with_all = np.concatenate([lost, np.zeros((len(lost), 1))], axis=1)
    assert lost[:, 0].mean() > 0.1 > 0.01 > lost[:, -1].mean()  # there is something to choose
    rng = np.random.default_rng(0)
    for target in (0.9, 0.95, 0.98, 0.99):
        means = []
        for _ in range(200):
            order = rng.permutation(len(lost))
            half = len(lost) // 2
            chosen = calibrating.ladder(10, settings, lost[order[:half]]).lowest(target, half)
            means.append(with_all[order[half:], chosen].mean())
        assert np.mean(means) <= 1 - target
        assert np.mean(np.array(means) <= 1 - target) >= 0.6


def test_what_is_promised_is_found(made):
    index = Index.open(made)
    unseen = asked(DOCUMENTS, 100, seed=3)
    for target in (0.9, 0.98):
        for k in (3, 10, 20):
            best = index.search(unseen, k, exhaustive=True)
            found = index.search(unseen, k, recall=target)
            shares = [len(np.intersect1d(a.ids, b.ids)) / k for a, b in zip(best, found, strict=True)]
            error = np.std(shares) / len(shares) ** 0.5
            assert np.mean(shares) + 3 * error >= target, (target, k)


def test_rungs_become_no_less():
    for k, centroids, tokens in ((1, 4, 100), (10, 150, 3600), (100, 20000, 10**6), (10, 100, 10**6), (1000, 9, 10)):
        found = rungs(k, centroids=centroids, ncells=round(centroids**0.5), tokens=tokens)
        assert len(found) == len(RUNGS)
        for low, high in pairwise(found):
            assert all(a <= b for a, b in zip(low, high, strict=True))


# The search


def test_a_search_takes_the_settings_that_hold(made):
    index = Index.open(made)
    ladder = index.calibration.ladders[0]
    chosen = ladder.rungs[ladder.lowest(0.95, 200)]
    found = index.search(QUERIES[250], 7, recall=0.95)
    assert found.plan.recall == 0.95
    assert found.plan.limits == chosen.limits
    assert found.plan.nprobe == chosen.limits.nprobe
    settings = chosen.limits
    ((best, scores),) = index._snapshot.engine.search(QUERIES[250], np.array([0, 4]), 10, settings)
    assert found.ids.tolist() == best[:7].tolist()
    assert found.scores.tolist() == scores[:7].tolist()
    assert index.search(QUERIES[250], 7).plan.recall is None


def test_a_batch_finds_what_each_query_finds(made):
    index = Index.open(made)
    for threads in (1, 3):
        for query, hits in zip(QUERIES[:20], index.search(QUERIES[:20], 9, recall=0.98, threads=threads), strict=True):
            one = index.search(query, 9, recall=0.98)
            assert (one.ids.tolist(), one.scores.tobytes()) == (hits.ids.tolist(), hits.scores.tobytes())


@pytest.mark.parametrize("device", ["torch:cpu", ["torch:cpu", "torch:cpu"]])
def test_devices_measure_and_find_the_same(device, made, tmp_path):
    pytest.importorskip("torch")
    Index.open(made).snapshot(tmp_path / "index")
    here, there = Index.open(made), Index.open(tmp_path / "index", device=device)
    assert there.calibration == here.calibration
    for a, b in zip(here.search(QUERIES[:4], 5, recall=0.9), there.search(QUERIES[:4], 5, recall=0.9), strict=True):
        assert (a.ids.tolist(), a.scores.tobytes(), a.plan) == (b.ids.tolist(), b.scores.tobytes(), b.plan)
    assert there.calibrate(QUERIES[:20], k=10) == Index.open(tmp_path / "index").calibrate(QUERIES[:20], k=10)


def test_the_highest_rung_is_the_exhaustive_scan():
    index = Index.build(DOCUMENTS[:100], ncentroids=80, progress=False)
    made = index.calibrate(QUERIES[:100], k=5)
    lossy = [Rung(rung.limits, 0.5) for rung in made.ladders[0].rungs[:-1]]
    with index._draft() as draft:
        draft.calibrate(Calibration(made.source, 100, (Ladder(5, (*lossy, EXHAUSTIVE)),), made.tokens,
                                    made.residual_norm, made.codec_crc32))  # fmt: skip
    found, best = index.search(QUERIES[0], 4, recall=0.9), index.search(QUERIES[0], 4, exhaustive=True)
    assert found.plan.kind == ALL
    assert found.ids.tolist() == best.ids.tolist()


@pytest.mark.parametrize("share", [0.02, 0.2, 0.7, 1.0])
def test_filters_look_into_more_lists(share, made):
    index, most = Index.open(made), int(share * COUNT)
    condition, queries = {"n": {"$lt": most}}, QUERIES[:60]
    best = index.search(queries, 5, filter=condition, exhaustive=True)
    found = index.search(queries, 5, filter=condition, recall=0.95)
    plain = index.search(queries[0], 5, recall=0.95).plan
    shares = [len(np.intersect1d(a.ids, b.ids)) / 5 for a, b in zip(best, found, strict=True)]
    assert np.mean(shares) >= 0.95
    assert all(hits.ids.max() < most for hits in found)
    plan = found[0].plan
    assert plan.recall == 0.95
    assert plan.kind == "scan" or plan.nprobe >= min(int(plain.nprobe / share), plain.nprobe)


# Refusals


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"recall": 1.0}, ValueError, "recall must be above 0 and below 1, got 1"),
        ({"recall": 0}, ValueError, "recall must be above 0 and below 1, got 0"),
        ({"recall": float("nan")}, ValueError, "recall must be above 0 and below 1, got nan"),
        ({"recall": "0.9"}, TypeError, "recall must be a number, got str"),
        ({"recall": True}, TypeError, "recall must be a number, got bool"),
        ({"recall": 0.999}, ValueError, "recall 0.999 needs a calibration with at least 999 queries, this one has 200"),
        ({"recall": 0.9, "k": 31}, ValueError, "recall is known for k up to 30, got k 31"),
        ({"recall": 0.9, "nprobe": 3}, ValueError, "recall stands for nprobe; give one or the other"),
        ({"recall": 0.9, "cells": 0, "exhaustive": True}, ValueError, "recall stands for cells and exhaustive"),
    ],
)
def test_what_cannot_be_known_is_refused(how, error, words, made):
    with pytest.raises(error, match=words):
        Index.open(made).search(QUERIES[0], **how)


def test_an_index_that_was_not_calibrated_refuses():
    index = Index.build(DOCUMENTS[:20], progress=False)
    assert index.calibration is None
    with pytest.raises(ValueError, match="recall needs a calibrated index, and this one is not"):
        index.search(QUERIES[0], recall=0.9)


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"k": 0}, ValueError, "k must be at least 1, got 0"),
        ({"k": ()}, ValueError, "k must hold at least one number"),
        ({"k": (10, 1.5)}, TypeError, "k must be an integer, got float"),
        ({"k": "10"}, TypeError, "k must be an integer, got str"),
        ({"n": 0}, ValueError, "n must be at least 1"),
        ({"queries": []}, ValueError, "Q must be"),
        ({"queries": [np.zeros((2, 3))]}, ValueError, "Q must be"),
    ],
)
def test_a_wrong_calibration_is_refused(how, error, words, made):
    index = Index.open(made)
    with pytest.raises(error, match=words):
        index.calibrate(**how)
    assert index.generation == 1


def test_an_empty_index_is_not_calibrated():
    index = Index.build(DOCUMENTS[:3], progress=False)
    index.delete([0, 1, 2])
    with pytest.raises(ValueError, match="there is nothing to calibrate"):
        index.calibrate(QUERIES)


# What becomes of it


def settings_of(index, recall=0.9):
    return index.search(QUERIES[0], 5, recall=recall).plan.limits


def test_it_survives(index, tmp_path):
    known, before = index.calibration, settings_of(index)
    index.add(collection(20, seed=5), ids=range(1000, 1020))
    index.update([3], [DOCUMENTS[4]])
    index.delete([7])
    index.compact(full=True)
    assert settings_of(index) == before
    index.snapshot(tmp_path / "second")
    index.save(tmp_path / "third")
    for path in (index.path, tmp_path / "second", tmp_path / "third"):
        assert Index.open(path, verify=True).calibration == known
        assert settings_of(Index.open(path)) == before
        assert Index.verify(path).problems == []
    assert not index.refresh()


def test_it_is_kept_in_memory_too():
    index = Index.build(DOCUMENTS[:200], ncentroids=80, progress=False)
    made = index.calibrate(QUERIES[:30], k=4)
    index.add(DOCUMENTS[200:210])
    assert index.calibration == made
    assert index.search(QUERIES[0], 3, recall=0.9).plan.recall == 0.9


def test_a_commit_is_all_there_is_to_it(index):
    """Others see it after refresh; within a transaction it comes with the rest, or not at all."""
    other, before = Index.open(index.path), index.calibration
    made = index.calibrate(QUERIES[:50], k=6)
    assert index.generation == other.generation + 1
    assert other.calibration == before
    assert other.refresh() and other.calibration == made
    with pytest.raises(KeyboardInterrupt), index.transaction():
        index.calibrate(QUERIES[:20], k=3)
        raise KeyboardInterrupt
    assert index.calibration == made == Index.open(index.path).calibration


def test_merged_parts_have_none(index, tmp_path):
    part = Index.build(collection(20, seed=5), tmp_path / "part", ids=range(1000, 1020), codec=index.codec)
    merged = Index.merge([index, part], tmp_path / "merged")
    assert merged.calibration is None


def test_it_is_the_same_every_time(made, tmp_path):
    known = Index.open(made).calibration
    for number, threads in enumerate((1, 3)):
        again = Index.build(DOCUMENTS, tmp_path / f"{number}", ncentroids=150, progress=False)
        assert again.calibrate(QUERIES[:200], k=[30, 10, 10], threads=threads) == known
        assert again.calibrate(k=5, n=20, threads=threads) == again.calibrate(k=5, n=20)
        assert again.calibrate(QUERIES, k=5, n=37).queries == 37
        assert again.calibrate(QUERIES, k=5, n=37) == again.calibration
    assert Calibration.from_json(json.loads(json.dumps(known.to_json()))) == known


def test_a_rung_keeps_how_many_lists_are_read(index):
    values = index.calibrate(k=5, n=20).to_json()
    rungs = values["ladders"][0]["rungs"]
    rungs[0]["lists"] = 7
    del rungs[1]["lists"]  # as in older calibrations, which read all
    found = Calibration.from_json(json.loads(json.dumps(values)))
    assert [rung.limits.lists for rung in found.ladders[0].rungs[:2]] == [7, 0]
    assert found.to_json()["ladders"][0]["rungs"][0] == rungs[0]
    rungs[0]["lists"] = -1
    with pytest.raises(ValueError, match="lists cannot be -1"):
        Calibration.from_json(values)


def test_excerpts_stand_for_queries_and_say_so(index):
    made = index.calibrate(k=5, n=50)
    assert (made.source, made.queries) == ("excerpts", 50)
    assert "which need not be like queries" in str(made)
    assert Index.build(DOCUMENTS[:30], progress=False).calibrate(k=(2, 5)).queries == 30


def higher(index, recall=0.9):
    """The settings of a search that warns, and the words of the warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = index.search(QUERIES[0], 5, recall=recall)
    return found.plan.limits, [str(one.message) for one in caught]


@pytest.mark.parametrize("change", ["growth", "shrinking", "drift", "rebuild"])
def test_a_stale_calibration_warns_and_takes_one_rung_more(change, index):
    before = settings_of(index)
    if change == "growth":
        index.add(collection(400, seed=6), ids=range(1000, 1400))
    elif change == "shrinking":
        index.delete(range(250))
    elif change == "drift":
        far = np.random.default_rng(8).standard_normal((250, 6, DIM))
        index.add(list(unit(far).astype(np.float32)), ids=range(1000, 1250))
    else:
        index.rebuild(seed=3)
    limits, words = higher(index)
    assert len(words) == 1
    assert words[0].startswith("recall 0.9 may not be reached: ")
    says = {"growth": "held 3,600 tokens then and holds 6,000 now", "shrinking": "holds 2,100 now",
            "drift": "times as far from their centroids", "rebuild": "rebuilt with another codec"}[change]  # fmt: skip
    assert says in words[0]
    settings = [rung.limits for rung in index.calibration.ladders[0].rungs]
    expected = settings[settings.index(before) + 1]
    assert limits == expected._replace(candidates=min(expected.candidates, len(index)))
    assert higher(Index.open(index.path)) == (limits, words)
    index.calibrate(QUERIES[:20], k=10)
    assert higher(index)[1] == []


def test_a_little_more_is_not_stale(index):
    index.add(collection(200, seed=6), ids=range(1000, 1200))
    assert higher(index)[1] == []


# On disk


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["source"], "guesses"), (["queries"], 0), (["queries"], True), (["queries"], 10**400), (["tokens"], -1),
        (["tokens"], 1.5), (["residual_norm"], -1), (["residual_norm"], float("nan")), (["residual_norm"], "x"),
        (["ladders", 1], "x"), (["codec_crc32"], 2**32), (["ladders"], []), (["ladders"], {}), (["ladders", 0], None),
        (["ladders", 0, "k"], 0),
        (["ladders", 0, "k"], 31), (["ladders", 0, "rungs"], None), (["ladders", 0, "rungs", 0], []),
        (["ladders", 0, "rungs", 0, "nprobe"], 0), (["ladders", 0, "rungs", 0, "candidates"], 0),
        (["ladders", 0, "rungs", 0, "patience"], -1), (["ladders", 0, "rungs", 0, "cells"], 2**40),
        (["ladders", 0, "rungs", 0, "deviations"], float("inf")), (["ladders", 0, "rungs", 0, "deviations"], None),
        (["ladders", 0, "rungs", 0, "loss"], 1.5), (["ladders", 0, "rungs", 5, "loss"], 0.99),
        (["ladders", 0, "rungs", 3], "x"), ([], []), ([], {}), ([], "x"),
    ],
)  # fmt: skip
def test_a_calibration_that_cannot_be_is_refused(place, value, index):
    path = index.path / "index.json"
    manifest = json.loads(path.read_text())
    holder, key = manifest, "calibration"
    for step in place:
        holder, key = holder[key], step
    holder[key] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=r"index\.json is damaged"):
        Index.open(index.path)
    assert Index.verify(index.path).problems


def test_an_endless_ladder_is_refused(index):
    path = index.path / "index.json"
    manifest = json.loads(path.read_text())
    manifest["calibration"]["ladders"][0]["rungs"] *= 100
    path.write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="rungs cannot be"):
        Index.open(index.path)


@pytest.mark.parametrize("name", ["nprobe", "candidates", "patience", "cells"])
def test_settings_beyond_any_index_mean_all_of_it(name, index):
    path = index.path / "index.json"
    manifest = json.loads(path.read_text())
    for ladder in manifest["calibration"]["ladders"]:
        for rung in ladder["rungs"]:
            rung[name] = 2**32
    path.write_text(json.dumps(manifest))
    assert len(Index.open(index.path).search(QUERIES[0], 5, recall=0.9)) == 5
