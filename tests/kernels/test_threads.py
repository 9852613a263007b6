import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lateint_kernels import Ragged, _cpu, maxsim


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("tasks", [0, 1, 2, 100])
def test_every_task_runs_once(tasks, threads):
    ran = []
    _cpu.parallel_for(tasks, threads, lambda task, worker: ran.append((task, worker)))
    assert sorted(task for task, _ in ran) == list(range(tasks))
    assert all(0 <= worker < threads for _, worker in ran)


def test_threads_work_at_the_same_time():
    meeting = threading.Barrier(3, timeout=10)
    _cpu.parallel_for(3, 3, lambda task, worker: meeting.wait())


def test_a_worker_runs_one_task_at_a_time():
    busy = [threading.Lock() for _ in range(3)]

    def body(task, worker):
        assert busy[worker].acquire(blocking=False)
        time.sleep(0.001)
        busy[worker].release()

    _cpu.parallel_for(30, 3, body)


def test_nested_calls_run_in_place():
    seen = []

    def outer(task, worker):
        here = threading.get_ident()
        _cpu.parallel_for(3, 3, lambda inner, other: seen.append((task, inner, other, threading.get_ident() == here)))

    _cpu.parallel_for(4, 2, outer)
    assert sorted(seen) == [(task, inner, 0, True) for task in range(4) for inner in range(3)]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_exception_comes_back(threads):
    def body(task, worker):
        if task == 5:
            raise KeyError("five")

    with pytest.raises(KeyError, match="five"):
        _cpu.parallel_for(100, threads, body)
    ran = []
    _cpu.parallel_for(10, threads, lambda task, worker: ran.append(task))  # and the pool lives on
    assert len(ran) == 10


def some_scores(threads=2):
    rng = np.random.default_rng(0)
    documents = Ragged.from_lengths(rng.standard_normal((2000, 32), dtype=np.float32), [40] * 50)
    return maxsim(rng.standard_normal((3, 10, 32), dtype=np.float32), documents, threads=threads)


def test_concurrent_callers():
    expected, results = some_scores(), [None] * 6

    def call(i):
        for _ in range(20):
            results[i] = some_scores(threads=1 + i % 3)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(np.array_equal(result, expected) for result in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_makes_its_own_pool():
    expected = some_scores()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for result in pool.map_async(some_scores, [2, 3, 2]).get(timeout=30):
            assert np.array_equal(result, expected)
    assert np.array_equal(some_scores(), expected)


def test_the_gil_is_released():
    """A Python thread must get on while a kernel runs; one that waits for the GIL would not count at all."""
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((64, 32, 64), dtype=np.float32)
    documents = rng.standard_normal((200, 100, 64), dtype=np.float32)
    counted, done = 0, threading.Event()

    def score():
        while not done.is_set():
            maxsim(queries, documents, threads=1)

    before = sys.getswitchinterval()
    sys.setswitchinterval(100)  # nobody is asked to hand the GIL over
    worker = threading.Thread(target=score)
    try:
        worker.start()
        end = time.monotonic() + 10
        while counted < 50 and time.monotonic() < end:
            time.sleep(0.0001)
            counted += 1
    finally:
        done.set()
        sys.setswitchinterval(before)
        worker.join()
    assert counted == 50


def threads_at_work():
    """Native ids of two threads that run tasks, the caller's first, with the cores that they may use."""
    found, meeting = {}, threading.Barrier(2, timeout=10)

    def body(task, worker):
        found[worker] = (threading.get_native_id(), os.sched_getaffinity(0))
        meeting.wait()

    _cpu.parallel_for(2, 2, body)
    return found[0], found[1]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads are not bound to cores here")
def test_a_worker_that_has_slept_may_use_the_cores_that_it_had():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    found = run("import test_threads; test_threads.check_cores()", PYTHONPATH=path)  # where there is one worker
    assert found.returncode == 0, found.stderr


def check_cores():
    (caller, mine), _ = threads_at_work()
    time.sleep(0.05)
    others = threads_at_work()
    assert others == ((caller, mine), (others[1][0], mine))
    time.sleep(0.05)
    asleep = os.sched_getaffinity(others[1][0])  # not where the caller is
    wanted = mine - asleep or {min(mine)}
    os.sched_setaffinity(others[1][0], wanted)
    try:
        assert [threads_at_work()[1] for _ in range(50)] == [(others[1][0], wanted)] * 50
    finally:
        os.sched_setaffinity(others[1][0], mine)


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True
    )


PRINT = "from lateint_kernels import _cpu; print(_cpu.default_threads())"


def test_environment_sets_the_number():
    assert run(PRINT, LATEINT_NUM_THREADS="5").stdout.strip() == "5"


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5", "99999999999999999999"])
def test_a_bad_number_fails_the_import(value):
    assert (
        f"LATEINT_NUM_THREADS must be an integer from 1 to 4096, got '{value}'"
        in run(PRINT, LATEINT_NUM_THREADS=value).stderr
    )


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_the_default_follows_the_affinity_mask():
    cpu = min(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, [{cpu}]); {PRINT}"
    assert run(program, LATEINT_NUM_THREADS="").stdout.strip() == "1"


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_more_threads_than_a_machine_has_use_are_not_made():
    program = """
import os
from lateint_kernels import _cpu
ran = []
_cpu.parallel_for(3000, 100000, lambda task, worker: ran.append(task))
assert sorted(ran) == list(range(3000))
print(len(os.listdir("/proc/self/task")))
"""
    done = run(program)
    assert int(done.stdout) <= 2 * max(64, os.cpu_count()), done


def test_a_process_ends_while_workers_sleep():
    program = "from lateint_kernels import _cpu; _cpu.parallel_for(8, 4, lambda task, worker: None)"
    done = run(program)
    assert (done.returncode, done.stderr) == (0, "")
