"""Indexes in object stores: whole or not at all, verified when they are copied, mapped afterwards."""

import pickle

import pytest

fsspec = pytest.importorskip("fsspec")

from lateint import FormatError, Index  # noqa: E402
from lateint.disk import remote  # noqa: E402


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    if request.param == "file":
        yield f"file://{tmp_path}/store/index"
        return
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield "memory://bucket/index"
    memory.store.clear()


@pytest.fixture
def there(url):
    """``there()``: the store's names and bytes, below the index."""

    def look():
        files, root = fsspec.core.url_to_fs(url)
        found = files.find(root) if files.exists(root) else []
        return {name.split("/index/", 1)[1]: files.cat_file(name) for name in found}

    return look


@pytest.fixture
def mine(collection, tmp_path):
    return Index.build(collection, tmp_path / "mine", progress=False)


def same(found, expected):
    assert list(found) == list(expected)


def test_what_is_pushed_is_opened(url, mine, queries, tmp_path):
    mine.push(url)
    index = Index.open(url, cache=tmp_path / "cache")
    for query in queries:
        same(index.search(query), mine.search(query))
    assert url in repr(index) and len(index) == len(mine)
    same(pickle.loads(pickle.dumps(index)).search(queries[0]), mine.search(queries[0]))
    with pytest.raises(ValueError, match=f"cannot be changed: change a copy in a folder .* push it to {url}"):
        index.delete([0])
    index.snapshot(tmp_path / "copy")
    same(Index.open(tmp_path / "copy").search(queries[0]), mine.search(queries[0]))


def test_an_index_in_memory_is_pushed(url, index, queries, tmp_path):
    index.push(url)
    same(Index.open(url, cache=tmp_path / "cache", verify=True).search(queries[1]), index.search(queries[1]))


def test_changes_are_pushed_and_taken_up(url, there, mine, collection, queries, tmp_path):
    mine.push(url)
    mine.push(url)  # nothing new
    reader = Index.open(url, cache=tmp_path / "cache")
    assert reader.refresh() is False
    mine.add([collection[3]], ids=[1000])
    mine.delete([0])
    before = there()
    mine.push(url)
    assert {name for name in before if there().get(name) != before[name]} == {"index.json"}
    assert reader.refresh() is True and 1000 in reader and 0 not in reader
    same(reader.search(queries[0]), mine.search(queries[0]))
    mine.compact(full=True)
    mine.push(url)
    assert set(there()) == {"index.json", *mine._snapshot.manifest.files}
    assert reader.refresh() is True
    same(reader.search(queries[0]), mine.search(queries[0]))
    kept = {path.name for path in (tmp_path / "cache" / "files").iterdir()}
    assert len(kept) == len(mine._snapshot.manifest.files)


def test_files_are_copied_once(url, mine, tmp_path, monkeypatch):
    mine.push(url)
    copied = []
    get = remote.Store.get
    monkeypatch.setattr(remote.Store, "get", lambda self, name, target: (copied.append(name), get(self, name, target)))
    Index.open(url, cache=tmp_path / "cache")
    assert sorted(copied) == sorted(mine._snapshot.manifest.files)
    Index.open(url, cache=tmp_path / "cache")
    mine.add([mine.reconstruct(1)])
    mine.push(url)
    Index.open(url, cache=tmp_path / "cache")
    assert sorted(copied) == sorted(mine._snapshot.manifest.files)


def test_a_push_that_breaks_leaves_what_was_there(url, there, mine, collection, queries, tmp_path, monkeypatch):
    mine.push(url)
    expected, steps = mine.search(queries[0]), 0
    mine.add(list(collection)[:3], ids=[1000, 1001, 1002])
    mine.compact(full=True)
    for name in ("put", "finish"):
        broken = 0

        def fail(self, *arguments, name=name):
            nonlocal broken
            broken += 1
            if name == "put" and broken == 1:
                self.files.pipe_file(self._at(arguments[1]), b"half")
            raise OSError("the network is gone")

        with monkeypatch.context() as patch:
            patch.setattr(remote.Store, name, fail)
            with pytest.raises(OSError, match="the network is gone"):
                mine.push(url)
        same(Index.open(url, cache=tmp_path / f"cache-{name}", verify=True).search(queries[0]), expected)
        steps += 1
    mine.push(url)
    assert steps == 2
    same(Index.open(url, cache=tmp_path / "cache", verify=True).search(queries[0]), mine.search(queries[0]))


def test_damage_is_named(url, there, mine, tmp_path):
    mine.push(url)
    files, root = fsspec.core.url_to_fs(url)
    name = max(mine._snapshot.manifest.files, key=lambda one: mine._snapshot.manifest.files[one].bytes)
    good = files.cat_file(f"{root}/{name}")
    cache = tmp_path / "cache"
    for damaged, said in (
        (good[:-1] + bytes([good[-1] ^ 1]), "does not match its checksum"),
        (good[:-1], f"expected {len(good)} bytes, found {len(good) - 1}"),
    ):
        files.pipe_file(f"{root}/{name}", damaged)
        with pytest.raises(FormatError, match=f"{url}/{name}:? {said}; the index is damaged"):
            Index.open(url, cache=cache)
    files.rm_file(f"{root}/{name}")
    with pytest.raises(FormatError, match=f"{url}/{name} is missing; the index is damaged"):
        Index.open(url, cache=cache)
    files.pipe_file(f"{root}/index.json", b"{}")
    with pytest.raises(FormatError, match=f"{url}/index.json is not the manifest of an index"):
        Index.open(url, cache=cache)
    assert [path.name for path in (cache / "files").iterdir() if path.name.startswith(".")] == []


def test_only_what_follows_is_pushed(url, there, mine, collection, tmp_path):
    mine.snapshot(tmp_path / "fork")
    mine.push(url)
    other = Index.build(list(collection)[:40], tmp_path / "other", progress=False)
    before = there()
    with pytest.raises(FileExistsError, match=f"{url} holds another index, whose .* differs; push to a place"):
        other.push(url)
    mine.delete([1])
    mine.push(url)
    with pytest.raises(FileExistsError, match="holds generation 1 of this index, and this is generation 0"):
        Index.open(tmp_path / "fork").push(url)
    assert {name: data for name, data in there().items() if name in before and name != "index.json"} == {
        name: data for name, data in before.items() if name != "index.json"
    }
    damaged = next((tmp_path / "other").rglob("codes.npy"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(FormatError, match=r"codes.npy does not match its checksum"):
        other.push(f"{url}-2")


def test_what_is_asked_wrongly(url, mine, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no index"):
        Index.open(url, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=f"cache must be a folder for local copies, for path is a url: {url}"):
        Index.open(url)
    with pytest.raises(ValueError, match="cache goes with the url of an index, and path is"):
        Index.open(mine.path, cache=tmp_path / "cache")
