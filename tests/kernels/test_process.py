"""What a process may do while it searches: fork, exit, be interrupted. Each in a process of its own."""

import os
import subprocess
import sys
import textwrap

import pytest

ENGINE = """
import os, signal, sys, threading, time
import numpy as np
sys.path.insert(0, {tests!r})
from lateint_kernels import maxsim
from lateint_kernels.codes.engine import Limits
from random_index import make

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
rng = np.random.default_rng(0)

def engine(documents=3, length=1):
    return make(rng, [length] * documents, width=8, count=4, cells=2).engine

def search(engine, queries, threads=1, candidates=10):
    offsets = np.arange(len(queries) + 1)
    return engine.search(queries, offsets, 3, Limits(2, candidates), threads=threads)

queries = rng.standard_normal((1, 8)).astype(np.float32)
"""


def run(program, timeout=300):
    """Runs ENGINE and a program; a test passes if that ends with status 0 in time."""
    text = ENGINE.format(tests=os.path.dirname(__file__)) + textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=timeout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("forks", [200, pytest.param(400, marks=pytest.mark.long)])
def test_a_child_searches_wherever_its_parent_was_when_it_forked(forks):
    done = run(
        f"""
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        searched, ended = engine(), threading.Event()
        def keep_searching():
            while not ended.is_set():
                search(searched, queries)
        threads = [threading.Thread(target=keep_searching) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range({forks}):
            child = os.fork()
            if child == 0:
                signal.alarm(5)  # a child that hangs is killed
                search(searched, queries, threads=2)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert status == 0, status
        ended.set()
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_exits_while_a_thread_searches():
    program = """
        searched, many = engine(2000, 30), rng.standard_normal((200, 8)).astype(np.float32)
        def keep_searching():
            while True:
                search(searched, many)
        for _ in range(3):
            threading.Thread(target=keep_searching, daemon=True).start()
        time.sleep(0.1)
        """
    for _ in range(5):
        done = run(program)
        assert (done.returncode, done.stderr) == (0, "")


WORK = {
    "search": "search(big, np.repeat(queries, 3000, 0), {threads}, candidates=9000)",
    "exhaustive": "big.exhaustive(np.repeat(queries, 3000, 0), np.array([0, 3000]), 3, threads={threads})",
    "score": "big.score(np.repeat(queries, 3000, 0), np.arange(20000).repeat(50), threads={threads})",
    "maxsim": "maxsim(np.repeat(queries, 50000, 0), [np.repeat(queries, 100, 0)] * 3000, threads={threads})",
}


@pytest.mark.parametrize("work", WORK)
def test_an_interrupt_is_heard_in_half_a_second(work):
    """On one thread and on three."""
    done = run(
        f"""
        big = engine(20000, 20)
        before = search(big, queries)
        def interrupt():
            global asked
            time.sleep(0.2)
            asked = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)
        for threads in (1, 3):
            threading.Thread(target=interrupt).start()
            try:
                for _ in range(100):
                    {WORK[work].format(threads="threads")}
            except KeyboardInterrupt:
                print(time.monotonic() - asked)
            after = search(big, queries, threads)
            assert all(np.array_equal(x, y) for x, y in zip(before[0], after[0]))
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    seconds = [float(line) for line in done.stdout.splitlines()]
    assert len(seconds) == 2 and max(seconds) < 0.5


def test_a_handler_that_does_not_raise_changes_nothing():
    done = run(
        """
        big, heard = engine(20000, 20), []
        many = np.repeat(queries, 300, 0)
        expected = search(big, many, 2)
        def handler(number, frame):
            heard.append(search(big, queries))  # and may search itself
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        for threads in (1, 2):
            found = search(big, many, threads)
            for ours, theirs in zip(found, expected):
                assert all(np.array_equal(x, y) for x, y in zip(ours, theirs))
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(heard) > 1
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_other_threads_are_not_interrupted():
    """A signal belongs to the main thread, whoever works."""
    done = run(
        """
        big, result = engine(20000, 20), []
        many = np.repeat(queries, 300, 0)
        thread = threading.Thread(target=lambda: result.append(search(big, many, 2)))
        thread.start()
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
            sys.exit("nobody was interrupted")
        except KeyboardInterrupt:
            thread.join()
        assert len(result[0]) == 300
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
