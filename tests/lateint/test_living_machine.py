"""Anything in any order: histories that Hypothesis makes, each step checked against a build."""

import tempfile

import numpy as np
import pytest
from disks import FailingDisk
from histories import answers, documents, expected, forgetful, step
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lateint import Index
from lateint.changing import compaction

pytestmark = pytest.mark.filterwarnings("ignore:.* what codes can hold:UserWarning")


class Living(RuleBasedStateMachine):
    """Against a dictionary: every search finds what a build of it finds. A crash is a copy that was never told."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = f"{self.folder.name}/index"

    @initialize(seed=st.integers(0, 99), nbits=st.sampled_from([1, 4, 8]))
    def build(self, seed, nbits):
        self.rng = np.random.default_rng(seed)
        self.live = dict(enumerate(documents(self.rng, 6)))
        self.index = Index.build(
            list(self.live.values()), self.path, text_search=True, progress=False, ncentroids=3, nbits=nbits
        )

    @rule()
    def change(self):
        self.live = step(self.index, self.live, self.rng)

    @rule(count=st.integers(1, 3), name=st.integers(0, 12))
    def add(self, count, name):
        names = list(range(name, name + count))
        new = documents(self.rng, count)
        self.index.add(new, ids=names, on_duplicate="replace")
        for one in names:
            self.live.pop(one, None)
        self.live |= dict(zip(names, new, strict=True))

    @precondition(lambda self: len(self.live) > 1)
    @rule(data=st.data())
    def delete(self, data):
        some = data.draw(st.lists(st.sampled_from(sorted(self.live)), min_size=1, unique=True))
        self.index.delete(some)
        for name in some:
            del self.live[name]

    @rule(full=st.booleans())
    def compact(self, full):
        self.index.compact(full=full)

    @rule(at=st.integers(1, 25))
    def crash(self, at):
        """Killed at a call, in the middle of an update: it happened, or it did not."""
        self.index._disk = FailingDisk(at)
        new = dict(zip([0, 1], documents(self.rng, 2), strict=True))
        try:
            self.index.add(list(new.values()), ids=[0, 1], on_duplicate="replace")
            happened = True
        except OSError as error:
            happened = "the change is there" in str(error)
        if happened:
            for name in new:
                self.live.pop(name, None)
            self.live |= new
        self.index = Index.open(self.path)

    @rule()
    def reopen(self):
        self.index = Index.open(self.path)

    @invariant()
    def is_what_a_build_gives(self):
        if hasattr(self, "index"):
            assert answers(self.index) == expected(self.live, self.index.codec)

    def teardown(self):
        self.folder.cleanup()


Living.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=10,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # shrinking would take minutes, for each step writes to a disk
)
TestLiving = Living.TestCase


def test_the_machine_would_notice_that_compaction_forgets(monkeypatch):
    monkeypatch.setattr(compaction.Joined, "__init__", forgetful)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Living, settings=settings(Living.TestCase.settings, phases=[Phase.generate]))
