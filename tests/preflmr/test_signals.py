"""Signals to a run in a process of its own, at instants that the run does not choose."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from safetensors.torch import load_file  # noqa: E402
from training import recipe, write_squares  # noqa: E402

from preflmr.training import checkpoints  # noqa: E402
from preflmr.training.recipe import TrainConfig  # noqa: E402
from preflmr.training.recipe_file import build  # noqa: E402
from preflmr.training.signals import Signals  # noqa: E402
from preflmr.training.train import run  # noqa: E402

STEPS = 40


@pytest.fixture(scope="module")
def start(tmp_path_factory, make_tiny):
    """Data, a checkpoint to start from, and what a run without interruption ends with."""
    folder = tmp_path_factory.mktemp("signals")
    write_squares(folder / "squares")
    make_tiny().save_pretrained(folder / "start")
    run(build(TrainConfig, settings(folder, "whole")), cpu=True, progress=False)
    return folder


def settings(folder, output, **changes):
    changes = {"model": {"start": str(folder / "start")}, "steps": STEPS, "log_every": 1, **changes}
    return recipe(folder / output, folder / "squares", **changes)


def started(folder, output, **changes):
    (folder / f"{output}.yaml").write_text(json.dumps(settings(folder, output, **changes)))
    command = [sys.executable, "-m", "preflmr", "train", "--config", str(folder / f"{output}.yaml")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def steps_logged(folder):
    log = folder / "log.jsonl"
    return log.read_text().count("\n") if log.is_file() else 0


def wait_for(condition, process, seconds=400):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)


def assert_goes_on_to_the_same_bits(start, output, **changes):
    run(build(TrainConfig, settings(start, output, **changes)), resume=True, cpu=True, progress=False)
    whole, resumed = (load_file(start / name / "best" / "model.safetensors") for name in ("whole", output))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    "number, status, changes", [(signal.SIGTERM, 143, {}), (signal.SIGINT, 130, {"data": {"workers": 1}})]
)
def test_a_signal_ends_a_run_with_a_checkpoint(start, number, status, changes):
    output = signal.Signals(number).name
    if "data" in changes:
        changes = {f"data__{name}": value for name, value in changes["data"].items()}
    process = started(start, output, **changes)
    wait_for(lambda: steps_logged(start / output) >= 3, process)
    os.killpg(process.pid, number)  # the workers, too, as a terminal does
    _, said = process.communicate(timeout=400)
    assert process.returncode == status, said
    done = checkpoints.latest(start / output)
    assert done is not None and 3 <= int(done.name.removeprefix("step-")) < STEPS
    assert f"stopped at step {int(done.name.removeprefix('step-'))}, with a checkpoint" in said
    assert_goes_on_to_the_same_bits(start, output, **changes)


def test_a_kill_costs_the_configured_minutes(start):
    minutes = 0.01
    process = started(start, "killed", save_minutes=minutes)
    wait_for(lambda: checkpoints.latest(start / "killed") is not None, process)
    process.kill()
    process.wait()
    process.stderr.close()
    lines = [json.loads(line) for line in (start / "killed" / "log.jsonl").read_text().splitlines()]
    step = int(checkpoints.latest(start / "killed").name.removeprefix("step-"))
    lost = [line for line in lines if line["step"] > step]
    assert sum(4 / line["queries_per_second"] for line in lost) < 60 * minutes + 1
    assert_goes_on_to_the_same_bits(start, "killed", save_minutes=minutes)


def test_handlers_are_put_back_and_the_second_signal_does_not_wait():
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        assert signals.agreed(3) == (0, 3)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.agreed() == (signal.SIGTERM,)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        with pytest.raises(SystemExit) as ended, signals.at_once():
            pytest.fail("began")
        assert ended.value.code == 143
    with Signals() as signals, pytest.raises(SystemExit), signals.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert signal.getsignal(signal.SIGTERM) is before
