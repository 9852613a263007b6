"""The lists of many small segments are joined when that pays, and nobody notices but by the time it takes."""

import threading

import numpy as np
import pytest
from random_index import make

from lateint_kernels.codes.engine import Engine, Limits

LIMITS = Limits(4, 60)
QUERIES = np.random.default_rng(9).standard_normal((12, 40)).astype(np.float32)
OFFSETS = np.array([0, 5, 12])


def cut_in(pieces, *, documents=240, sparse=True, seed=0):
    """A random index in so many segments; every one with the same seed has the same documents."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, documents).tolist()
    cuts = np.linspace(0, documents, pieces + 1).astype(int)[1:-1].tolist()
    return make(rng, lengths, count=100, cuts=cuts, sparse=sparse)


def everything(engine):
    """All that a search finds, and what it looked at."""
    found = [(positions.tolist(), scores.tolist()) for positions, scores in engine.search(QUERIES, OFFSETS, 9, LIMITS)]
    gathered = engine.gather(QUERIES[:5], LIMITS)
    return found, gathered.positions.tolist(), gathered.scores.tolist(), gathered.postings, gathered.touched


def searched(engine, most=200):
    """Searches until nothing is joined any more."""
    for _ in range(most):
        engine.search(QUERIES, OFFSETS, 3, LIMITS)
    return engine


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("pieces", [2, 7, 60])
def test_what_is_found_stays_the_same(pieces, sparse):
    expected = everything(cut_in(1).engine)
    engine = cut_in(pieces, sparse=sparse).engine
    assert engine.runs == pieces
    for _ in range(100):
        assert everything(engine) == expected
    assert engine.runs == 1


def test_masks_count_documents_of_the_index():
    one, many = cut_in(1).engine, searched(cut_in(40).engine)
    assert many.runs == 1
    for seed in range(5):
        allowed = (np.random.default_rng(seed).random(240) < 0.3).astype(np.uint8)
        (ranking,) = one.search(QUERIES[:5], OFFSETS[:2], 9, LIMITS, allowed=allowed)
        (found,) = many.search(QUERIES[:5], OFFSETS[:2], 9, LIMITS, allowed=allowed)
        assert found[0].tolist() == ranking[0].tolist() and found[1].tolist() == ranking[1].tolist()


def test_joining_waits_until_searches_have_paid_for_it():
    engine = cut_in(60).engine
    engine.search(QUERIES[:0], np.array([0, 0]), 3, LIMITS)  # of no tokens
    assert engine.runs == 60
    engine.search(QUERIES[:1], np.array([0, 1]), 3, LIMITS)  # 8 lists in 59 pieces too many; there are some 900 to copy
    assert engine.runs == 60


def test_long_lists_are_left_as_they_are():
    """Those of 2,000 documents are long enough; the small ones on both of its sides are joined apart."""
    lengths = [4] * 2060
    made = make(np.random.default_rng(0), lengths, count=100, cuts=[10, 20, 30, 2030, 2040, 2050])
    assert made.engine.runs == 7
    whole = make(np.random.default_rng(0), lengths, count=100)
    assert searched(made.engine).runs == 3
    assert everything(made.engine) == everything(whole.engine)


def test_many_small_segments_are_joined_in_groups():
    """No group has much more than what makes lists long, so none takes long to join."""
    lengths = [4] * 3000
    made = make(np.random.default_rng(0), lengths, count=25, cuts=list(range(50, 3000, 50)), sparse=True)
    whole = make(np.random.default_rng(0), lengths, count=25)
    assert searched(made.engine).runs == 4
    assert everything(made.engine) == everything(whole.engine)


def test_the_next_engine_takes_what_is_joined():
    made = cut_in(60)
    before = searched(made.engine)
    more = make(np.random.default_rng(5), [3, 4], count=100, sparse=True).segments
    after = before.with_segments([*made.segments, *more])
    assert (before.runs, after.runs) == (1, 2)
    alone = Engine(made.codec, [*made.segments, *more])
    assert alone.runs == 61
    assert everything(after) == everything(alone)
    del before
    assert searched(after).runs == 1
    assert everything(after) == everything(alone)


def test_a_segment_that_goes_takes_the_joined_lists_with_it():
    made = cut_in(12)
    left = made.segments[:5] + made.segments[6:]
    after = searched(made.engine).with_segments(left)
    assert after.runs == 11
    alone = Engine(made.codec, left)
    assert everything(searched(after)) == everything(alone)


def test_segments_that_move_keep_theirs():
    """Those before them may become one."""
    made = cut_in(12)
    last = Engine(made.codec, made.segments[6:])
    after = searched(last).with_segments(made.segments)
    assert after.runs == 7
    assert everything(after) == everything(cut_in(1).engine)


@pytest.mark.parametrize("number", [10, 2**32 - 1, None])
def test_damaged_lists_are_not_joined(number):
    """A document of another segment, of none, or twice: a search that meets it says so, as ever; the rest answers."""
    made = cut_in(24)
    broken = made.segments[7].list_documents.copy()
    first = made.segments[7].list_offsets[np.argmax(np.diff(made.segments[7].list_offsets))]
    broken[first : first + 2] = broken[first] if number is None else number
    segments = [*made.segments[:7], made.segments[7]._replace(list_documents=broken), *made.segments[8:]]
    engine, failed = Engine(made.codec, segments), 0
    for i in range(300):
        query = np.random.default_rng(i).standard_normal((2, 40)).astype(np.float32)
        try:
            engine.search(query, np.array([0, 2]), 3, LIMITS)
        except RuntimeError as error:
            failed += 1
            assert "list_documents holds" in str(error)
    assert failed < 300 and (failed > 0 or number is None)
    assert engine.runs == 24


def test_threads_that_search_while_lists_are_joined():
    """A batch is shared out to threads, so all of them may come to join a group at once, and read what one has made."""
    queries, offsets = np.concatenate([QUERIES] * 20), np.arange(0, 241, 3)
    lengths, cuts = [2] * 1200, list(range(10, 1200, 10))
    whole = make(np.random.default_rng(0), lengths, count=10)
    expected = [(p.tolist(), s.tolist()) for p, s in whole.engine.search(queries, offsets, 5, LIMITS)]
    for _ in range(3):
        engine = make(np.random.default_rng(0), lengths, count=10, cuts=cuts, sparse=True).engine
        assert engine.runs == 120
        for _ in range(10):
            found = engine.search(queries, offsets, 5, LIMITS, threads=4)
            assert [(p.tolist(), s.tolist()) for p, s in found] == expected
        assert engine.runs == 2


def test_callers_that_search_while_lists_are_joined():
    expected, failures = everything(cut_in(1).engine), []

    def ask(engine, segments):
        for _ in range(20):
            if everything(engine) != expected:
                failures.append(engine.runs)
            engine = engine.with_segments(segments)

    for _ in range(3):
        made = cut_in(60)
        callers = [threading.Thread(target=ask, args=(made.engine, made.segments)) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert not failures


def test_segments_without_a_token_are_joined():
    """Their joined lists are all empty, and sparse."""
    made = make(np.random.default_rng(0), [0] * 40, count=100, cuts=list(range(1, 40)), sparse=True)
    assert made.engine.runs == 40
    assert everything(searched(made.engine)) == everything(cut_in(1, documents=0).engine)
    assert made.engine.runs == 1
