"""One commit: a draft of the newest state under the lock, and then its manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from lateint.changing.draft import Draft
from lateint.changing.encoders import Encoders
from lateint.changing.sinks import Files, Memory
from lateint.disk import commits, store
from lateint.disk.disk import Disk
from lateint.disk.manifest import MANIFEST
from lateint.indexing.codec import Codec
from lateint.state import State, same_codec

Follower = TypeVar("Follower")


@dataclass
class Writing(Generic[Follower]):
    """A draft, and what became of it.

    Attributes:
        committed: what follows the state that is now the index's; None: nothing changed.
    """

    draft: Draft
    committed: Follower | None = None


@contextmanager
def writing(
    state: State,
    codec: Codec,
    folder: Path | None,
    encoders: Encoders,
    follow: Callable[[State], Follower],
    *,
    disk: Disk,
    timeout: float,
) -> Iterator[Writing[Follower]]:
    """A draft that is committed when the block ends without an error.

    Args:
        state: as far as it is known; that of a folder may be newer.
        folder: of the index; None: it is in memory.
        follow: makes of the new state what will search it. It is called before the commit: where that fails, for a
            device has no room for it, nothing has changed.

    Raises:
        LockedError: see `commits.writing`.
        OSError: the disk fails; the message says what became of the index.
    """
    if folder is None:
        one: Writing[Follower] = Writing(Draft(state, codec, Memory(), encoders))
        yield one
        if one.draft.changed:
            one.committed = follow(one.draft.finished())
        return
    with commits.writing(folder, timeout=timeout):
        newest = newer(folder, state)
        if newest is not None:
            codec = codec if same_codec(newest, state) else Codec.of(newest.manifest, newest.arrays)
            state = newest
        commits.clear(disk, folder, state.manifest.files)
        with commits.Commit(disk, folder) as commit:
            one = Writing(Draft(state, codec, Files(commit), encoders))
            yield one
            if not one.draft.changed:
                one.committed = None if newest is None else follow(newest)
                return
            finished = one.draft.finished()
            following = follow(finished)
            try:
                commit.finish(finished.manifest.to_json(), MANIFEST)
            finally:
                if commit.named:
                    one.committed = following
        commits.clear(disk, folder, finished.manifest.files)


def newer(folder: Path, state: State) -> State | None:
    """The state of a folder, if it is not this one."""
    if store.load_manifest(folder) == state.manifest:
        return None
    manifest, arrays = store.load(folder, known=(state.manifest, state.arrays))
    return State.of(manifest, arrays, state)
