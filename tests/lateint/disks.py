"""Disks that fail, and one that remembers, so that a power cut can be thought of at any instant."""

import errno
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

from lateint.disk.disk import Disk


class FailingDisk(Disk):
    """Raises at one call of those by which it is written to, or does less at it; `calls` counts them."""

    def __init__(self, at=None, error=errno.ENOSPC, short=False):
        self.at, self.error, self.short, self.calls = at, error, short, 0

    def _due(self):
        self.calls += 1
        return self.at is not None and self.calls == self.at

    def append(self, file, data):
        if self._due():
            written = super().append(file, data[: max(1, len(data) // 2)])
            if self.short:
                return written
            raise OSError(self.error, os.strerror(self.error))
        return super().append(file, data)


def _failing(name):
    def call(self, *arguments):
        if self._due() and not self.short:
            raise OSError(self.error, os.strerror(self.error))
        return getattr(Disk, name)(self, *arguments)

    return call


for _name in ("create", "flush", "make_folder", "rename", "link", "remove", "flush_folder"):
    setattr(FailingDisk, _name, _failing(_name))


@dataclass
class Contents:
    """Bytes of a file: those that cannot be lost, and those that can."""

    kept: bytes = b""
    written: bytes = b""


@dataclass
class RecordingDisk(Disk):
    """Does all that it is told, and keeps what a power cut might leave after each call.

    The model is the weakest that POSIX allows: until a file is flushed, its bytes are there, or in part, or as zeros,
    or not; until a folder is flushed, each change of its names has happened or not, whatever came before or after it.
    """

    root: Path
    names: dict = field(default_factory=dict)  # that cannot be lost: name -> Contents
    pending: list = field(
        default_factory=list
    )  # changes of names that can be lost: (folder, [(name, Contents or None)])
    open: dict = field(default_factory=dict)  # descriptor -> Contents
    watch: object = None  # called after each call

    def __post_init__(self):
        for path in self.root.rglob("*"):
            if path.is_file() and path.name != "lock":
                data = path.read_bytes()
                self.names[self._name(path)] = Contents(data, data)

    def _name(self, path):
        return os.path.relpath(path, self.root)

    def _after(self):
        if self.watch is not None:
            self.watch(self)

    def _contents(self, name):
        found = self.names.get(name)
        for _, changes in self.pending:
            found = dict(changes).get(name, found)
        return found

    def create(self, path):
        file = super().create(path)
        self.open[file] = Contents()
        self.pending.append((path.parent, [(self._name(path), self.open[file])]))
        self._after()
        return file

    def append(self, file, data):
        count = super().append(file, data)
        self.open[file].written += bytes(data[:count])
        self._after()
        return count

    def flush(self, file):
        super().flush(file)
        self.open[file].kept = self.open[file].written
        self._after()

    def close(self, file):
        super().close(file)
        del self.open[file]

    def rename(self, old, new):
        contents = self._contents(self._name(old))
        super().rename(old, new)
        self.pending.append((old.parent, [(self._name(old), None), (self._name(new), contents)]))
        self._after()

    def remove(self, path):
        super().remove(path)
        self.pending.append((path.parent, [(self._name(path), None)]))
        self._after()

    def flush_folder(self, path):
        super().flush_folder(path)
        for folder, changes in self.pending:
            if folder == path:
                self._apply(self.names, changes)
        self.pending = [(folder, changes) for folder, changes in self.pending if folder != path]
        self._after()

    @staticmethod
    def _apply(names, changes):
        for name, contents in changes:
            if contents is None:
                names.pop(name, None)
            else:
                names[name] = contents

    def states(self, rng, most):
        """What may be there after a power cut now: dicts of name and bytes, at most so many, the extremes first."""
        count = len(self.pending)
        subsets = [(), tuple(range(count))]
        subsets += [(i,) for i in range(count)] + [tuple(j for j in range(count) if j != i) for i in range(count)]
        if count <= 4:
            subsets += itertools.chain.from_iterable(itertools.combinations(range(count), n) for n in range(count))
        else:
            subsets += [tuple(i for i in range(count) if rng.random() < 0.5) for _ in range(8)]
        seen = set()
        for subset in dict.fromkeys(subsets):
            names = dict(self.names)
            for i in subset:
                self._apply(names, self.pending[i][1])
            for loss in ("all", "nothing", "torn", "zeros"):
                state = {name: self._lossy(contents, loss, rng) for name, contents in names.items()}
                key = tuple(sorted(state.items()))
                if key not in seen:
                    seen.add(key)
                    yield state
                    if len(seen) == most:
                        return

    @staticmethod
    def _lossy(contents, loss, rng):
        kept, written = contents.kept, contents.written
        if kept == written or loss == "nothing":
            return written
        if loss == "all":
            return kept
        cut = int(rng.integers(len(kept), len(written) + 1))
        return written[:cut] if loss == "torn" else written[:cut] + bytes(len(written) - cut)


def put(state, folder):
    """Writes a state into an empty folder."""
    for name, data in state.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
