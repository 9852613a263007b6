"""Opening an index while another takes its place, in many segments, and from folders that are not what they seem."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lateint import FormatError, Index
from lateint.disk import store, whole
from lateint.disk.folder import Folder
from lateint.index import latest


def of(clustered, count):
    """Documents of one length, and of ``count`` tokens, so that arrays of two such indexes do not fit each other."""
    return clustered([count] * count, seed=count)


def test_an_index_that_is_replaced_while_it_is_opened_is_one_of_the_two(clustered, tmp_path, monkeypatch):
    path, mapped = tmp_path / "index", Folder.mapped
    Index.build(of(clustered, 5), path, progress=False)
    Index.build(of(clustered, 7), tmp_path / "other", progress=False)
    asked = []

    def interrupted(folder, name, size):
        asked.append(name)
        if len(asked) == 4:
            with store.writing(path, overwrite=True) as written:
                shutil.copytree(tmp_path / "other", written.folder, dirs_exist_ok=True)
                written.committed = True
        return mapped(folder, name, size)

    monkeypatch.setattr(Folder, "mapped", interrupted)
    index = Index.open(path, verify=True)
    assert len(index) == 7 and [len(index.reconstruct(i)) for i in range(7)] == [7] * 7
    assert len(asked) > 4


REPLACING = """
import sys, time
import numpy as np
from lateint import Index
from lateint.disk import whole
if sys.argv[1] == "two renames":
    whole._exchange = lambda left, right: False
built = [Index.build(np.random.default_rng(n).standard_normal((n, n, 8)).astype("f4"), progress=False) for n in (5, 7)]
ends = time.monotonic() + 60
print("ready", flush=True)
while time.monotonic() < ends:
    for index in built:
        index.save("index", overwrite=True)
"""


@pytest.mark.parametrize("how", ["exchange", "two renames"])
def test_opening_while_two_processes_replace(tmp_path, how):
    """Never a mixture, never damage, never nothing."""
    writers = [
        subprocess.Popen([sys.executable, "-c", REPLACING, how], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        while not (tmp_path / "index").exists():
            time.sleep(0.01)
        sizes = set()
        for _ in range(300):
            index = Index.open(tmp_path / "index", verify=True)
            sizes.add(len(index))
            assert {len(index.reconstruct(i)) for i in range(len(index))} == {len(index)}
        assert sizes <= {5, 7}
        assert all(writer.poll() is None for writer in writers)  # nor does a writer mind the other
    finally:
        for writer in writers:
            writer.kill()
            writer.stdout.close()
            writer.wait()


def test_an_index_that_a_killed_process_moved_aside_is_named(clustered, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    Index.build(of(clustered, 5), tmp_path / "index", progress=False)
    (tmp_path / "index").rename(tmp_path / ".index.replaced-0123abcd")
    with pytest.raises(FileNotFoundError, match=r"there is no index, .* rename .*\.index\.replaced-0123abcd"):
        Index.open(tmp_path / "index")


SEGMENTS = """
import os, resource
import numpy as np
from lateint import Index
from lateint.indexing import builder
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
plan = builder.plan
def small(*arguments):
    planned = plan(*arguments)
    planned.segment_tokens = 5
    return planned
builder.plan = small
tokens = np.random.default_rng(0).standard_normal((500, 8)).astype("f4")
index = Index.build(tokens, "index", lengths=[5] * 100, progress=False)
opened = [Index.open("index") for _ in range(3)]
print(index.stats()["segments"], [index.search(tokens[5 * i : 5 * i + 5], 1).ids[0] for i in (0, 50, 99)])
"""


def test_segments_take_no_descriptors(tmp_path):
    done = subprocess.run([sys.executable, "-c", SEGMENTS], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split(maxsplit=1)[:1] == ["100"], done.stderr
    assert [int(name) for name in done.stdout.split("(")[1:] for name in [name.split(")")[0]]] == [0, 50, 99]


def test_maps_go_with_the_index(clustered, tmp_path):
    path = tmp_path / "index"
    Index.build(of(clustered, 5), progress=False).save(path)

    def maps():
        return Path("/proc/self/maps").read_text().count(str(path))

    if not Path("/proc/self/maps").exists():
        pytest.skip("/proc/self/maps is Linux's")
    before, index = maps(), Index.open(path)
    assert maps() > before
    codes = index._snapshot.state.arrays["segments/000000/codes"]
    total = int(codes.sum())
    with pytest.raises(ValueError, match="WRITEABLE"):
        codes.flags.writeable = True
    del index
    latest.current = None
    assert int(codes.sum()) == total  # as long as one array lives
    del codes
    assert maps() == before


# ------------------------------------------------------------------------- what a folder may hold


@pytest.fixture
def copy(saved, tmp_path):
    """An index that may be spoiled."""
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.parametrize("folder", ["segments", "segments/000000"])
def test_a_folder_that_is_a_link_is_refused(copy, tmp_path, folder):
    (copy / folder).rename(tmp_path / "elsewhere")
    (copy / folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match=r"segments/000000/.*\.npy must not be behind a symbolic link"):
        Index.open(copy)


def test_an_index_and_its_files_may_be_links(copy, tmp_path, queries, index):
    """As caches of downloads lay them out."""
    (copy / "mean.npy").rename(tmp_path / "blob")
    (copy / "mean.npy").symlink_to(tmp_path / "blob")
    (tmp_path / "link").symlink_to(copy)
    assert list(Index.open(tmp_path / "link", verify=True).search(queries[4])) == list(index.search(queries[4]))


@pytest.mark.parametrize("name", ["mean.npy", "segments/000000/codes.npy", "index.json"])
def test_what_is_not_a_file_is_refused_and_not_waited_for(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(FormatError, match=rf"{name} is not a file|is not an index: it has no index\.json"):
        Index.open(copy)


@pytest.mark.parametrize("name", ["", ".", "..", "a/../b", "/a", "a//b", "a/", "a\0b", "\ud800", 7])
@pytest.mark.parametrize("key", ["name", "deleted"])
def test_names_that_lead_elsewhere(copy, name, key):
    manifest = json.loads((copy / "index.json").read_text())
    deleted = {"array": name, "kind": "positions", "documents": 0}
    manifest["segments"][0][key] = name if key == "name" else deleted
    (copy / "index.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=r"index\.json is damaged: a file cannot be"):
        Index.open(copy)


@pytest.mark.parametrize("name", ["mean", "segments/000000/codes", "segments/000000/ids", ...])
def test_arrays_that_share_a_name(copy, name):
    manifest = json.loads((copy / "index.json").read_text())
    if name is ...:
        manifest["segments"] *= 2
    else:
        manifest["segments"][0]["deleted"] = {"array": name, "kind": "positions", "documents": 0}
    (copy / "index.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match=r"index\.json is damaged: two (arrays cannot both be|segments cannot have)"):
        Index.open(copy)


def test_a_manifest_that_is_deeply_nested(copy):
    (copy / "index.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match=r"index\.json is not the manifest of an index"):
        Index.open(copy)


def test_exchanging_what_is_not_there(tmp_path):
    (tmp_path / "one").mkdir()
    assert not whole._exchange(tmp_path / "one", tmp_path / "two")
    assert not whole._exchange(tmp_path / "two", tmp_path / "one")
    assert np.array_equal(sorted(path.name for path in tmp_path.iterdir()), ["one"])
