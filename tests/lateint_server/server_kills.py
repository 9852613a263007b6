"""A server that is killed while it answers: what it acknowledged must be there afterwards."""

import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from lateint import Index
from lateint.client import RemoteIndex

DIM = 16


class Server:
    """``lateint serve`` of one index, in a process of its own."""

    def __init__(self, path, *options):
        command = [sys.executable, "-m", "lateint", "serve", f"it={path}", "--port", "0", "--log-level", "error"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert line.startswith("lateint: open http"), line
        self.address = line.split()[2].rstrip("/")
        self.url = self.address + "/v1/indexes/it"

    def end(self, how=signal.SIGTERM):
        """Sends a signal and gives the status that the process ends with."""
        self.process.send_signal(how)
        return self.status()

    def status(self):
        with self.process.stdout:
            return self.process.wait(60)


@dataclass
class Told:
    """What one client was told: ids that are there, or not any more, and those of which it knows nothing."""

    there: set = field(default_factory=set)
    gone: set = field(default_factory=set)
    unknown: set = field(default_factory=set)
    requests: int = 0
    wrong: list = field(default_factory=list)


def documents(rng, count):
    made = rng.standard_normal((count, 8, DIM)).astype(np.float32)
    return list(made / np.linalg.norm(made, axis=2, keepdims=True))


def mixed(url, told, first, seed, stop):
    """Searches, adds, replaces and deletes documents of its own, numbered from ``first``, until the server is gone."""
    rng, number = np.random.default_rng(seed), first
    with RemoteIndex(url, timeout=20) as index:
        while not stop.is_set():
            kind, mine = rng.integers(0, 10), sorted(told.there)
            concerned = set()
            try:
                if kind < 6:
                    (query,) = documents(rng, 1)
                    scores = index.search(query, 5).scores
                    if (np.diff(scores) > 0).any():
                        told.wrong.append(f"scores are not in order: {scores}")
                elif kind < 8 or not mine:
                    ids = list(range(number, number + int(rng.integers(1, 4))))
                    number, concerned = ids[-1] + 1, set(ids)
                    index.add(documents(rng, len(ids)), ids=ids)
                    told.there |= concerned
                elif kind < 9:
                    concerned = {int(rng.choice(mine))}
                    index.add(documents(rng, 1), ids=list(concerned), on_duplicate="replace")
                else:
                    concerned = {int(rng.choice(mine))}
                    index.delete(concerned)
                    told.there -= concerned
                    told.gone |= concerned
                told.requests += 1
            except Exception as error:
                if not stop.wait(5):  # nobody has killed it
                    told.wrong.append(repr(error))
                if kind == 9:
                    told.there -= concerned
                told.unknown |= concerned if kind != 8 else set()
                return


def run(path, *, requests, kills, clients=4, seed=0):
    """Mixed requests of clients with ``kill -9`` among them; figures, and an AssertionError if anything is wrong."""
    rng = np.random.default_rng(seed)
    Index.build(documents(rng, 100), path, ids=np.arange(100), progress=False)
    told = [Told() for _ in range(clients)]
    lost, visible, next_id = 0, 0, 1000
    for turn in range(kills + 1):
        server, stop = Server(path), threading.Event()
        threads = []
        for number, one in enumerate(told):
            arguments = (server.url, one, next_id + 1_000_000_000 * number, seed + 1000 * turn + number, stop)
            threads.append(threading.Thread(target=mixed, args=arguments))
        next_id += 100_000
        for thread in threads:
            thread.start()
        share = requests * (turn + 1) / (kills + 1)
        while sum(one.requests for one in told) < share and any(thread.is_alive() for thread in threads):
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0, 0.02)))
        stop.set()
        assert server.end(signal.SIGKILL if turn < kills else signal.SIGTERM) == (-9 if turn < kills else 0)
        for thread in threads:
            thread.join()
        assert not (wrong := [one for client in told for one in client.wrong]), wrong[:3]
        report = Index.verify(path)
        assert not report.problems, report.problems
        ids = set(Index.open(path).ids.tolist())
        lost += sum(len(one.there - ids) for one in told)
        visible += sum(len(one.gone & ids) for one in told)
    return {
        "requests": sum(one.requests for one in told),
        "kills": kills,
        "acknowledged documents": sum(len(one.there) for one in told),
        "lost": lost,
        "deleted and back": visible,
        "unanswered": sum(len(one.unknown) for one in told),
    }
