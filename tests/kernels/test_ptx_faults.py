"""Faults planted in the kernels are noticed when their PTX is executed: each in turn, and none without them."""

from dataclasses import replace

import pytest

pytest.importorskip("torch")

from ptx.cuda import Simulation
from ptx.memory import Fault
from test_cuda import AMPERE, HOPPER, exact, make_problem

from lateint_kernels.dense.cuda import forward
from lateint_kernels.gpu import support

pytestmark = pytest.mark.long

# Room for two tiles: the ring of stages wraps, again and again.
SMALL_HOPPER = replace(HOPPER, multiprocessors=1, shared_per_block=28 * 1024)
SMALL_AMPERE = replace(AMPERE, multiprocessors=1)
HOPPER_PROBLEM = dict(query_lengths=[32] * 5, document_lengths=[150, 70, 90, 160], dim=64)
AMPERE_PROBLEM = dict(query_lengths=[20, 32], document_lengths=[150, 300, 200], dim=32, weights=True)
ORDERS = [
    dict(seed=seed, late=late, skew=skew, base=1040)
    for seed, (late, skew) in enumerate(
        [(True, 0.15), (False, 0.15), (True, 0.8), (False, 0.8), (True, 0.3), (True, 0.3)]
    )
]

HOPPER_FAULTS = {
    "the stride of eight rows is half of what it is": ("1024ull >> 4 << 32", "512ull >> 4 << 32"),
    "another swizzle": ("1ull << 62", "2ull << 62"),
    "the wrong parity for a free buffer": (
        "wait_barrier(&shared.empty[stage.index], stage.parity ^ 1);",
        "wait_barrier(&shared.empty[stage.index], stage.parity);",
    ),
    "half of the bytes expected": ("COLUMNS * DIM * sizeof(TOKEN));", "COLUMNS * DIM);"),
    "no wait for the tile": ("wait_barrier(&shared.full[stage.index], stage.parity);", ""),
    "no wait for the lower half's products": ("wait_products<0>(lower);", ""),
    "no barrier before the sums": ("sync_threads(1 + group, WARPS * 32);", ""),
    "a tile freed before it is read": (
        "wait_products<1>(upper);",
        "if (lane == 0) arrive(&shared.empty[stage.index]); wait_products<1>(upper);",
    ),
    "maxima of one document taken into the next": ("best[i] = Best{minus_infinity(), 0};", ""),
    "no mask at a document's end": ("if (!WHOLE && column >= limit) value", "if (false) value"),
}
AMPERE_FAULTS = {
    "no wait for the copies": ("wait_copies<STAGES - 2>();", ""),
    "no barrier between a tile's copies and its products": ("__syncthreads();  // this tile is there", "//"),
    "a buffer filled again before it is read": ("(stage + STAGES - 1) % STAGES, ahead", "stage, ahead"),
}


def outcome(monkeypatch, gpu, kernel, problem, change, order):
    """What is noticed: a fault's message, that scores are wrong, or None."""
    if reason := support._missing():
        pytest.skip(reason)

    def changed(name, source):
        assert change[0] in source, "the fault has no place in the source"
        return source.replace(*change)

    monkeypatch.setattr(forward, "BLOCKS_PER_MULTIPROCESSOR", 1)
    simulation = Simulation(gpu, **order, of_source=changed).install(monkeypatch, forward)
    wanted, where, _ = exact(problem)
    try:
        scores, argmax = forward.maxsim(problem, True)
    except Fault as fault:
        return str(fault)
    assert {name for name, _ in simulation.launched} == {kernel}
    near = (scores.double() - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    return None if near and (problem.query_weights is not None or (argmax == where).all()) else "wrong scores"


def noticed(*given):
    return any(outcome(*given, order) for order in ORDERS)


NOTHING = "larger(", "larger("


@pytest.mark.parametrize("order", ORDERS[:4], ids=str)
def test_nothing_is_noticed_where_nothing_is_wrong(monkeypatch, order):
    problem = make_problem(**HOPPER_PROBLEM)
    assert outcome(monkeypatch, SMALL_HOPPER, "forward_hopper", problem, NOTHING, order) is None
    problem = make_problem(**AMPERE_PROBLEM)
    assert outcome(monkeypatch, SMALL_AMPERE, "forward", problem, NOTHING, order) is None


@pytest.mark.parametrize("fault", HOPPER_FAULTS)
def test_hopper(monkeypatch, fault):
    assert noticed(monkeypatch, SMALL_HOPPER, "forward_hopper", make_problem(**HOPPER_PROBLEM), HOPPER_FAULTS[fault])


@pytest.mark.parametrize("fault", AMPERE_FAULTS)
def test_ampere(monkeypatch, fault):
    assert noticed(monkeypatch, SMALL_AMPERE, "forward", make_problem(**AMPERE_PROBLEM), AMPERE_FAULTS[fault])
