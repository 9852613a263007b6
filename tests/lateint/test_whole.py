"""Whole or not at all, for a file and for a folder."""

import os
import subprocess
import sys
import threading

import pytest

from lateint.disk import whole


@pytest.fixture(params=["exchange", "two renames"])
def replacing(request, monkeypatch):
    """As file systems do it that can exchange two names, and as others do."""
    if request.param == "two renames":
        monkeypatch.setattr(whole, "_exchange", lambda left, right: False)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, text, **settings):
    with whole.folder(path, **settings) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "text").write_text(text)


def test_a_file(tmp_path):
    path = tmp_path / "file"
    for text in ("one", "two"):
        with whole.file(path) as part:
            part.write_text(text)
            assert not path.exists() or path.read_text() == "one"
        assert path.read_text() == text and left(tmp_path) == ["file"]


def test_a_file_that_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("one")
    with pytest.raises(KeyError), whole.file(path) as part:
        part.write_text("two")
        raise KeyError
    assert path.read_text() == "one" and left(tmp_path) == ["file"]


def test_a_link_to_a_file_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    for text in ("one", "two"):
        with whole.file(tmp_path / "link") as part:
            part.write_text(text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "file").read_text() == text


@pytest.mark.usefixtures("replacing")
def test_a_folder(tmp_path):
    path = tmp_path / "above" / "folder"
    for text in ("one", "two"):
        write(path, text, replace=True)
        assert (path / "below" / "text").read_text() == text and left(path.parent) == ["folder"]


def test_a_folder_is_not_replaced_unless_told(tmp_path):
    write(tmp_path / "folder", "one")
    with pytest.raises(OSError, match="not empty"):
        write(tmp_path / "folder", "two")
    assert (tmp_path / "folder" / "below" / "text").read_text() == "one" and left(tmp_path) == ["folder"]


@pytest.mark.usefixtures("replacing")
def test_a_folder_that_fails(tmp_path):
    write(tmp_path / "folder", "one")
    with pytest.raises(KeyError), whole.folder(tmp_path / "folder", replace=True) as folder:
        (folder / "text").write_text("two")
        raise KeyError
    assert (tmp_path / "folder" / "below" / "text").read_text() == "one" and left(tmp_path) == ["folder"]


@pytest.mark.usefixtures("replacing")
def test_many_writers_of_one_folder(tmp_path):
    """Each replaces what another wrote, and none fails."""
    failed = []

    def writer(number):
        try:
            for turn in range(20):
                write(tmp_path / "folder", f"{number} {turn}", replace=True)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (tmp_path / "folder" / "below" / "text").read_text().endswith("19")


WRITE_FOR_EVER = """
import sys
from lateint.disk import whole
turn = 0
while True:
    with whole.folder(sys.argv[1], replace=True) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "text").write_text(str(turn := turn + 1))
"""


def test_a_folder_that_is_replaced_is_always_there(tmp_path):
    """On a file system that can exchange names: looked at 20,000 times while another process replaces it."""
    path = tmp_path / "folder"
    write(path, "one")
    write(tmp_path / "other", "two")
    if not whole._exchange(path, tmp_path / "other"):
        pytest.skip("this file system cannot exchange two names")
    writer = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, path])
    try:
        while (path / "below" / "text").read_text() == "two":
            assert writer.poll() is None, "the writer has ended"
        assert all(os.path.isdir(path) for _ in range(20_000))
    finally:
        writer.kill()
        writer.wait()
