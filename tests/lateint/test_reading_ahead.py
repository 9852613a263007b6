"""An index that is not in memory: a search reads what it needs, and little else."""

import ctypes
import gc
import mmap
import os
import sys

import numpy as np
import pytest

from lateint import Index, Ragged

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system's cache is looked at as Linux lets one")

DOCUMENTS, TOKENS, DIM, CANDIDATES = 2000, 64, 128, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((DOCUMENTS * TOKENS, DIM), dtype=np.float32)
    documents = Ragged.from_lengths(tokens, np.full(DOCUMENTS, TOKENS))
    path = tmp_path_factory.mktemp("cold") / "index"
    Index.build(documents, path, nbits=8, ncentroids=64, progress=False)
    os.sync()
    return path


def in_memory(path):
    """Bytes of a file that are in the system's cache."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as data,
    ):
        pages = (ctypes.c_ubyte * -(-len(data) // mmap.PAGESIZE))()
        here = ctypes.c_char.from_buffer(data)
        assert (
            ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(here)), ctypes.c_size_t(len(data)), pages) == 0
        )
        del here
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def forget(folder):
    for path in folder.rglob("*.npy"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_search_reads_the_codes_of_its_candidates(folder, threads):
    query = np.random.default_rng(1).standard_normal((8, DIM), dtype=np.float32)
    limits = {"k": 10, "candidates": CANDIDATES, "threads": threads}
    hits = Index.open(folder).search(query, **limits)
    expected = hits.ids, hits.scores
    # Hits hold their index, and lateint.search the last one: what is mapped stays in memory.
    del hits
    Index.build([np.ones((1, 8), np.float32)], progress=False)
    gc.collect()
    (codes,) = folder.rglob("codes.npy")
    forget(folder)
    scored = CANDIDATES * TOKENS * DIM
    if (left := in_memory(codes)) > scored:
        pytest.skip("files of this folder stay in memory")
    found = Index.open(folder).search(query, **limits)
    read = in_memory(codes) - left
    np.testing.assert_array_equal(found.ids, expected[0])
    np.testing.assert_array_equal(found.scores, expected[1])
    # Pages are read whole; around each that is missed, the system would read 128 KiB at least.
    assert 0 < read < 3 * scored < CANDIDATES << 17 < codes.stat().st_size
