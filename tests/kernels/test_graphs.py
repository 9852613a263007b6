"""Recorded searches: what is kept, replayed and copied.

A recorder on the CPU runs the function again, as a graph would. With a GPU, tests of the engine record true graphs.
"""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
from random_index import make

torch = pytest.importorskip("torch")

from lateint_kernels.codes.device import engine as device_engine  # noqa: E402
from lateint_kernels.codes.device import graphs  # noqa: E402
from lateint_kernels.codes.device.engine import DeviceEngine  # noqa: E402
from lateint_kernels.codes.engine import Limits  # noqa: E402


class Recorder:
    """Keeps what it recorded."""

    def __init__(self):
        self.recordings, self.replays = [], 0

    def __call__(self, compute, inputs):
        held = [tensor.clone() for tensor in inputs]
        output = compute(*held)

        def replay():
            self.replays += 1
            output.copy_(compute(*held))

        self.recordings.append(graphs.Recording(held, output, replay))
        return self.recordings[-1]


def test_what_is_asked_for_twice_is_recorded():
    recorder = Recorder()
    ours = graphs.Graphs(recorder)
    for number in range(4):
        given = torch.tensor([number, 1.0])
        assert ours.run("a", lambda x: 2 * x, [given]).tolist() == [2 * number, 2]
        assert ours.run("b", lambda x: 3 * x, [given]).tolist() == [3 * number, 3]
    assert len(recorder.recordings) == 2 and recorder.replays == 6


def test_results_do_not_change_later():
    ours = graphs.Graphs(Recorder())
    found = [ours.run("a", lambda x: 2 * x, [torch.tensor([number])]).clone() for number in range(5)]
    assert torch.cat(found).tolist() == [0, 2, 4, 6, 8]


def test_the_last_ones_are_kept(monkeypatch):
    monkeypatch.setattr(graphs, "KEPT", 3)
    recorder = Recorder()
    ours = graphs.Graphs(recorder)
    for key in (1, 2, 3, 1, 2, 3, 4, 4, 1):  # 4 takes the place of 1
        ours.run(key, lambda x: x, [torch.zeros(1)])
    assert len(recorder.recordings) == 4 and recorder.replays == 4
    ours.run(1, lambda x: x, [torch.zeros(1)])
    assert len(recorder.recordings) == 5


def test_what_cannot_be_recorded_runs_all_the_same():
    def record(compute, inputs):
        raise RuntimeError("operation not permitted when stream is capturing")

    ours = graphs.Graphs(record)
    assert ours.run("a", lambda x: x + 1, [torch.ones(1)]).tolist() == [2]
    with pytest.warns(UserWarning, match="without CUDA graphs, which cannot record them: operation not permitted"):
        assert ours.run("a", lambda x: x + 1, [torch.ones(1)]).tolist() == [2]
    assert ours.run("a", lambda x: x + 1, [torch.ones(1)]).tolist() == [2]  # and no warning again


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    return make(rng, rng.integers(0, 30, 300).tolist(), count=60, cuts=(100,))


def test_searches(made, monkeypatch):
    """Of several lengths and limits, each of them more than twice: those of the engine of the CPU."""
    recorder, rng = Recorder(), np.random.default_rng(0)
    ours = DeviceEngine(made.codec, made.segments, "cpu")
    ours._graphs = graphs.Graphs(recorder)
    allowed = (rng.random(300) < 0.5).astype(np.uint8)
    for _ in range(3):
        for lengths in ([1], [7], [3, 4]):
            offsets = np.cumsum([0, *lengths])
            queries = rng.standard_normal((offsets[-1], 40)).astype(np.float32)
            for k, nprobe, candidates, patience, mask in [
                (3, 2, 50, 32, None), (4, 2, 50, 32, None), (3, 3, 50, 32, None), (3, 2, 60, 32, None),
                (3, 2, 50, 0, None), (3, 2, 50, 32, allowed),
            ]:  # fmt: skip
                limits = Limits(nprobe, candidates, patience, deviations=patience / 32, lists=k - 2)
                found, expected = (
                    engine.search(queries, offsets, k, limits, allowed=mask) for engine in (ours, made.engine)
                )
                for left, right in zip(found, expected, strict=True):
                    assert left[0].tolist() == right[0].tolist() and left[1].tobytes() == right[1].tobytes()
    assert len(recorder.recordings) == 3 * 5 and recorder.replays == 2 * 3 * 5  # a mask is not recorded
    monkeypatch.setattr(device_engine, "RECORDED", 6)
    ours.search(np.ones((7, 40), np.float32), np.array([0, 7]), 3, Limits(2, 50, patience=32))
    assert recorder.replays == 2 * 3 * 5


def test_the_engines_device_is_recorded(monkeypatch):
    """And not the current one, on which nothing would be recorded: a replay would give the old result."""
    current, made = ["cuda:0"], []

    @contextmanager
    def entered(device):
        current.append(str(device))
        yield
        current.pop()

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {
        "graph_pool_handle": lambda: (0, 1),
        "device": entered,
        "current_stream": lambda: stream,
        "Stream": lambda: made.append(current[-1]) or stream,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": lambda: SimpleNamespace(replay=None),
        "graph": lambda graph, **settings: made.append(current[-1]) or nullcontext(),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    recorded = graphs.Recorder(torch.device("cuda:1"))(lambda x: 2 * x, [torch.ones(2)])
    assert made == ["cuda:1", "cuda:1"] and current == ["cuda:0"] and recorded.output.tolist() == [2, 2]


def test_which_searches(made, monkeypatch):
    assert DeviceEngine(made.codec, made.segments, "cpu")._graphs is None
    assert graphs.wanted(torch.device("cuda")) and not graphs.wanted(torch.device("cpu"))
    monkeypatch.setenv("LATEINT_GRAPHS", "off")
    assert not graphs.wanted(torch.device("cuda"))
