import multiprocessing
import os
import pickle
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pillow = pytest.importorskip("PIL.Image")

from preflmr.data.images import BrokenImage, Images, MissingImage, blank, pictures  # noqa: E402

DATA = Path(__file__).parents[2] / "examples" / "data"


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("a.png", "deep/b.png", "c.jpg")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pillow.new("RGB", (4 + number, 3), (10 * number, 0, 200)).save(path)
    return tmp_path / "pictures"


@pytest.fixture(params=[zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def archive(request, folder):
    path = folder.parent / "pictures.zip"
    with zipfile.ZipFile(path, "w", request.param) as file:
        for one in sorted(folder.rglob("*.*")):
            file.write(one, one.relative_to(folder))
    return path


def test_a_folder_and_a_zip_give_the_same_pictures(folder, archive):
    for name in ("a.png", "deep/b.png", "c.jpg"):
        one, other = Images(folder).open(name), Images(archive).open(name)
        assert one.mode == "RGB" and one.size == other.size and one.tobytes() == other.tobytes()
        assert name in Images(folder) and name in Images(archive)
    assert Images(archive).open("./deep/../a.png").size == (4, 3)


def test_a_tar_gives_the_same_pictures(folder, tmp_path):
    with tarfile.open(tmp_path / "p.tar", "w") as file:
        file.add(folder, ".")
        file.add(folder / "a.png", "deep/b.png")  # again: the last one counts
    images = Images(tmp_path / "p.tar")
    assert images.open("c.jpg").tobytes() == Images(folder).open("c.jpg").tobytes()
    assert images.open("deep/b.png").tobytes() == Images(folder).open("a.png").tobytes()
    assert "deep" not in images and "deep/../a.png" in images
    assert pickle.loads(pickle.dumps(images)).open("a.png").size == (4, 3)
    data = (tmp_path / "p.tar").read_bytes()
    (tmp_path / "p.tar").write_bytes(data[: data.rindex(images.read("deep/b.png")) + 5])
    with pytest.raises(BrokenImage, match=r"image 'deep/b.png' in .*p\.tar is broken: the archive is cut off"):
        images.open("deep/b.png")
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as file:
        file.add(folder, ".")
    for name in ("p.tar.gz", "no.tar"):
        (tmp_path / "no.tar").write_bytes(b"x" * 600)
        with pytest.raises(ValueError, match=rf"{name} is not an uncompressed tar archive"):
            Images(tmp_path / name)


def test_a_zip_behind_other_bytes_opens(archive):
    archive.write_bytes(b"#!/bin/sh\n" * 7 + archive.read_bytes())
    assert Images(archive).open("deep/b.png").size == (5, 3)


def test_the_first_root_that_holds_it_counts(folder, tmp_path):
    (tmp_path / "first").mkdir()
    pillow.new("RGB", (9, 9)).save(tmp_path / "first" / "a.png")
    images = Images([tmp_path / "first", folder])
    assert images.open("a.png").size == (9, 9) and images.open("c.jpg").size == (6, 3)


def test_every_kind_of_picture_becomes_rgb_without_a_warning(tmp_path):
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16"):
        name = f"{mode.replace(';', '')}.{'tiff' if mode == 'CMYK' else 'png'}"
        picture = pillow.new(mode, (2, 2))
        picture.save(tmp_path / name, **({"transparency": b"\0\1"} if mode == "P" else {}))
        assert Images(tmp_path).open(name).mode == "RGB"


def test_a_missing_picture_is_named_with_where_it_was_looked_for(folder, archive):
    for root in (folder, archive):
        with pytest.raises(MissingImage, match=rf"image 'x/y.png' is missing: it is not in .*{root.name}"):
            Images(root).open("x/y.png")
    assert issubclass(MissingImage, FileNotFoundError)


def test_a_broken_picture_is_named(folder):
    pillow.effect_noise((40, 40), 50).save(folder / "a.png")
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:700])
    (folder / "c.jpg").write_bytes(b"not a picture")
    (folder / "empty.png").write_bytes(b"")
    for name, why in (("a.png", "broken: "), ("c.jpg", "broken: it is not a picture"), ("empty.png", "broken: ")):
        with pytest.raises(BrokenImage, match=f"image '{name}' in .*pictures is {why}"):
            Images(folder).open(name)


def test_a_damaged_archive_is_noticed(archive):
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as file:
        info = file.getinfo("a.png")
    data[info.header_offset + 30 + len("a.png") + 20] ^= 0xFF
    archive.write_bytes(data)
    images = Images(archive)
    with pytest.raises(BrokenImage, match=r"image 'a.png' in .*pictures.zip is broken"):
        images.open("a.png")
    data[info.header_offset] = 0
    archive.write_bytes(data)
    with pytest.raises(BrokenImage, match="the archive is damaged"):
        images.open("a.png")


def test_a_compression_that_is_not_read_is_named(folder):
    with zipfile.ZipFile(folder.parent / "x.zip", "w", zipfile.ZIP_BZIP2) as file:
        file.write(folder / "a.png", "a.png")
    with pytest.raises(BrokenImage, match="compression method 12 is not read"):
        Images(folder.parent / "x.zip").open("a.png")


def test_roots_are_checked(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder, zip or tar .*nowhere"):
        Images(tmp_path / "nowhere")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"x\.zip is not a zip archive"):
        Images(tmp_path / "x.zip")
    with pytest.raises(ValueError, match="got an empty list"):
        Images([])


def test_threads_and_forked_and_spawned_workers_read_one_archive():
    images = Images(DATA / "flags_kbvqa" / "images.zip")
    names = [f"{kind}/{country}.png" for kind in ("flat", "alt") for country in ("fr", "de", "jp", "br", "in", "ke")]
    sums = [_sum((images, name)) for name in names]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(_sum, [(images, name) for name in names * 10])) == sums * 10
    assert pickle.loads(pickle.dumps(images)).open(names[0]).size == images.open(names[0]).size


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_while_another_thread_reads_neither_hangs_nor_mixes():
    images = Images(DATA / "flags_kbvqa" / "images.zip")
    names = [f"flat/{country}.png" for country in ("fr", "de", "jp", "br")]
    sums = [_sum((images, name)) for name in names]
    with ThreadPoolExecutor(2) as threads:
        reading = threads.map(_sum, [(images, name) for name in names * 50])
        with pytest.warns() if _fork_warns() else _quiet(), multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(_sum, [(images, name) for name in names * 5]) == sums * 5
        assert list(reading) == sums * 50


def test_what_a_missing_picture_does_is_an_option(folder):
    images = Images(folder)
    (folder / "c.jpg").write_bytes(b"no")
    with pytest.raises(MissingImage):
        pictures(images, ["a.png", "gone.png"])
    with pytest.raises(BrokenImage):
        pictures(images, ["c.jpg"])
    assert pictures(images, ["gone.png", "c.jpg"], "skip") == (None, 2)
    shown, absent = pictures(images, ["a.png", "gone.png"], "blank")
    assert absent == 1 and [one.size for one in shown] == [(4, 3), (336, 336)]
    assert pictures(images, [], "error") == ([], 0)
    with pytest.raises(MissingImage, match="no folder or archive of images was given"):
        pictures(None, ["a.png"])
    with pytest.raises(ValueError, match="on_missing must be one of error, skip, blank, got 'drop'"):
        pictures(images, [], "drop")


def test_the_blank_picture_is_black():
    assert blank().mode == "RGB" and blank().size == (336, 336) and not any(blank().tobytes())


def test_the_bundled_pictures_all_open():
    for name, count in (("flags_kbvqa", 230), ("emoji_captions", 1650)):
        images = Images.under(DATA / name)
        with zipfile.ZipFile(DATA / name / "images.zip") as file:
            names = file.namelist()
        assert len(names) >= count
        assert all(images.open(one).mode == "RGB" for one in names[::25])


def _sum(given):
    images, name = given
    return sum(images.open(name).tobytes())


def _fork_warns():
    import sys

    return sys.version_info >= (3, 12)  # of forks in a process with threads


def _quiet():
    from contextlib import nullcontext

    return nullcontext()
