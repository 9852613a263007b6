"""Batches in other processes: the same rows in the same order, and no failure that hangs or goes unnamed."""

from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from PIL import Image  # noqa: E402

from preflmr.data.images import Images, MissingImage  # noqa: E402
from preflmr.encode import encode_documents, encode_queries  # noqa: E402
from preflmr.encoding.workers import Job, devices, evaluating, results  # noqa: E402
from preflmr.retrievers.protocol import Adapter  # noqa: E402


def test_two_processes(make_tiny, tmp_path):
    model = make_tiny(context_concat_output_from_vision_encoder=True)
    texts = [f"text {n} " * (n % 3 + 1) for n in range(30)]
    for n in range(29):
        Image.new("RGB", (32, 32), (n, 2 * n, 3 * n)).save(tmp_path / f"{n}.png")
    images, source = [f"{n}.png" for n in range(30)], Images(tmp_path)
    stream = encode_documents(
        model, texts, images, batch_size=4, window=8, processes=2, image_source=source, progress=False
    )
    elsewhere = []
    with pytest.raises(MissingImage, match=r"^document 29: image '29.png' is missing"):
        for item in stream:
            elsewhere.append(item)
    tokens, lengths = (np.concatenate(parts) for parts in zip(*elsewhere, strict=True))
    here = encode_documents(model, texts[:24], images[:24], batch_size=4, image_source=source, progress=False)
    expected, expected_lengths = next(here)
    assert np.array_equal(lengths, expected_lengths)
    np.testing.assert_allclose(tokens, expected, atol=2e-6)


def job(kind="document", numbers=(3,)):
    ids = np.array([[4, 2, 9, 5]] * len(numbers))
    return Job(kind, numbers, list(np.stack([ids, np.ones_like(ids)], 1)), None, {})


def test_a_worker_that_ends_is_told_of_with_the_documents(monkeypatch):
    class Pool:
        def __init__(self, *_):
            pass

        def submit(self, *_):
            return self

        def result(self):
            raise BrokenProcessPool

        def shutdown(self, **_):
            pass

    monkeypatch.setattr("preflmr.encoding.workers.ProcessPoolExecutor", Pool)
    with pytest.raises(RuntimeError, match=r"^a worker process ended at or before documents 3 to 8 \(2 of them\): "):
        list(results(Adapter(torch.nn.Linear(1, 1)), [job(numbers=(3, 8))], None, processes=2, device=None))


def test_a_model_that_fails_is_told_of_with_the_queries(make_tiny, monkeypatch):
    model = make_tiny()
    monkeypatch.setattr(model, "query", lambda **_: 1 / 0)
    with pytest.raises(RuntimeError, match=r"^queries 0 to 1 could not be encoded: ZeroDivisionError: "):
        encode_queries(model, ["a", "b"], progress=False)


def test_names_of_jobs():
    names = [job("query", (5,)).name, job("query", (5, 6)).name, job("document", (9, 2)).name]
    assert names == ["query 5", "queries 5 to 6", "documents 2 to 9 (2 of them)"]


def test_devices_are_given_in_turn():
    model = torch.nn.Linear(1, 1)
    assert devices(model, None, 2) == ["cpu", "cpu"]
    assert devices(model, ["cuda:0", "cuda:2"], 3) == ["cuda:0", "cuda:2", "cuda:0"]
    assert devices(model, "cuda:1", 2) == ["cuda:1", "cuda:1"]


def test_evaluating_restores_the_mode_of_each_module_after_an_error():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout().eval())
    with pytest.raises(KeyError), evaluating(list(model.modules())):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False]
