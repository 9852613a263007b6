import itertools

import numpy as np
import pytest

from lateint_kernels import reference
from lateint_kernels.codes.centroids import Assigner, cluster_means, invert, subdivide
from lateint_kernels.codes.residual import depth_of


def points(rng, n, width, low=0, high=256):
    rows = np.full((n, depth_of(width)), 128, np.uint8)
    rows[:, :width] = rng.integers(low, high, (n, width))
    return rows


def costs(tokens, centroids):
    """What reference.nearest_centroid minimises: [n, K], exact in float64."""
    x, c = tokens.astype(np.float64) - 128, centroids.astype(np.float64) - 128
    return ((c**2).sum(1) + 1) // 2 - x @ c.T


def nearest(tokens, centroids):
    return costs(tokens, centroids).argmin(1)


def cut(count, cells):
    """Offsets of ``cells`` runs of about the same size."""
    return np.linspace(0, count, cells + 1).astype(np.int64)


def flat(centroids, threads=0):
    return Assigner(centroids, centroids[:1], np.array([0, len(centroids)]), threads=threads)


def test_the_nearest_centroid_is_a_loop(isa):
    rng = np.random.default_rng(0)
    tokens, centroids = points(rng, 20, 8), points(rng, 9, 8)
    expected = reference.nearest_centroid(tokens, centroids)
    assert nearest(tokens, centroids).tolist() == expected
    assert flat(centroids).nearest(tokens).tolist() == expected


SHAPES = [
    *itertools.product([8, 40, 96, 128, 136], [1, 2, 15, 16, 17, 255, 256, 257, 300]),
    *itertools.product([320, 1024, 4096], [1, 17, 257]),
]


@pytest.mark.parametrize(("width", "count"), SHAPES)
def test_nearest(isa, width, count):
    rng = np.random.default_rng(count)
    n = 3 if isa == "scalar" else 70
    tokens, centroids = points(rng, n, width), points(rng, count, width)
    expected = nearest(tokens, centroids)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(flat(centroids, threads).nearest(tokens, threads=threads), expected)


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 511, 512, 513, 1100])
def test_any_number_of_tokens(isa, n):
    rng = np.random.default_rng(n)
    tokens, centroids = points(rng, n, 8), points(rng, 40, 8)
    found = flat(centroids).nearest(tokens, threads=3)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, nearest(tokens, centroids))


def test_ties_go_to_the_lowest_id(isa):
    rng = np.random.default_rng(0)
    few = points(rng, 7, 16, 100, 156)
    centroids = few[rng.integers(0, 7, 600)]
    tokens = points(rng, 100, 16, 100, 156)
    expected = nearest(tokens, centroids)
    np.testing.assert_array_equal(flat(centroids).nearest(tokens), expected)
    cells = Assigner(centroids, few, cut(600, 7))
    np.testing.assert_array_equal(cells.nearest(tokens, cells=7), expected)


def test_the_farthest_corners(isa):
    """Every component at one end and the centroid at the other: the largest distances there are."""
    corners = np.array([[0] * 128, [255] * 128], np.uint8)
    assert flat(corners).nearest(corners).tolist() == [0, 1]
    assert flat(corners[::-1]).nearest(corners).tolist() == [1, 0]
    assert flat(corners[:1]).nearest(corners).tolist() == [0, 0]


@pytest.mark.parametrize("width", [8, 128, 136])
@pytest.mark.parametrize("cells", [1, 2, 5, 17])
def test_looking_into_the_nearest_cells(isa, width, cells):
    """The nearest centroid among those of the nearest cells; cells of very different sizes, among them empty ones."""
    rng = np.random.default_rng(cells)
    centroids, centres = points(rng, 300, width), points(rng, 20, width)
    tokens = points(rng, 40 if isa == "scalar" else 400, width)
    offsets = np.sort(np.concatenate([[0, 0, 3, 3, 300], rng.integers(3, 300, 16)])).astype(np.int64)
    assert len(offsets) == 21
    cell_of = np.searchsorted(offsets, np.arange(300), side="right") - 1
    order = np.argsort(costs(tokens, centres), axis=1, kind="stable")[:, :cells]
    cost = costs(tokens, centroids)
    reachable = (cell_of[None, :, None] == order[:, None, :]).any(2)
    cost[~reachable] = np.inf
    some = reachable.any(1)
    for threads in (1, 2, 3):
        found = Assigner(centroids, centres, offsets, threads=threads).nearest(tokens, cells=cells, threads=threads)
        np.testing.assert_array_equal(found[some], cost.argmin(1)[some])
        assert (found < 300).all()


def divided(rows):
    """What `subdivide` makes of one cell, by loops: its subcells, as centre and members."""
    count = min(16, len(rows))
    centres = np.stack([rows[j * len(rows) // count] for j in range(count)]).astype(np.int64)
    for _ in range(4):
        owner = nearest(rows, centres.astype(np.uint8))
        for j in range(count):
            if (owner == j).any():
                total, n = rows[owner == j].astype(np.int64).sum(0), (owner == j).sum()
                centres[j] = (2 * total + n) // (2 * n)
    owner = nearest(rows, centres.astype(np.uint8))
    return [(centres[j].astype(np.uint8), np.flatnonzero(owner == j)) for j in range(count) if (owner == j).any()]


@pytest.mark.parametrize("width", [8, 128])
def test_subcells(isa, width):
    """Of cells without centroids, with few, with equal ones, and with many."""
    rng = np.random.default_rng(width)
    centroids = points(rng, 200, width)
    centroids[5:40] = centroids[5]
    offsets = np.array([0, 0, 5, 40, 100, 101, 200, 200])
    for threads in (1, 3):
        found = subdivide(centroids, offsets, threads=threads)
        assert found.first[0] == 0 and len(found.first) == len(offsets) and found.offsets[-1] == len(found.members)
        for cell, (begin, end) in enumerate(itertools.pairwise(offsets)):
            expected = divided(centroids[begin:end]) if begin < end else []
            subcells = range(found.first[cell], found.first[cell + 1])
            for subcell, (centre, members) in zip(subcells, expected, strict=True):
                np.testing.assert_array_equal(found.centres[subcell], centre)
                of = found.members[found.offsets[subcell] : found.offsets[subcell + 1]]
                np.testing.assert_array_equal(of, begin + members)


@pytest.mark.parametrize("width", [8, 136])
@pytest.mark.parametrize("cells", [1, 3, 4, 6])
def test_looking_into_subcells(isa, width, cells):
    """Fewer of each cell that is farther off; equal centroids in several of them, and cells with fewer subcells."""
    rng = np.random.default_rng(cells)
    centroids, centres = points(rng, 400, width, 100, 156), points(rng, 9, width, 100, 156)
    centroids[::3] = centroids[rng.integers(0, 4, len(centroids[::3]))]
    tokens = points(rng, 30 if isa == "scalar" else 300, width, 100, 156)
    offsets = np.array([0, 3, 3, 60, 120, 121, 200, 270, 330, 400])
    found = subdivide(centroids, offsets)
    order = np.argsort(costs(tokens, centres), axis=1, kind="stable")[:, :cells]
    cost, far = costs(tokens, centroids), costs(tokens, found.centres)
    expected = np.zeros(len(tokens), np.int64)
    for token in range(len(tokens)):
        seen = []
        for rank, cell in enumerate(order[token]):
            subcells = np.arange(found.first[cell], found.first[cell + 1])
            for subcell in subcells[np.argsort(far[token, subcells], kind="stable")][: cells - rank]:
                seen += found.members[found.offsets[subcell] : found.offsets[subcell + 1]].tolist()
        expected[token] = min(seen, key=lambda member: (cost[token, member], member)) if seen else 0
    for threads in (1, 3):
        assigner = Assigner(centroids, centres, offsets, subcells=found, threads=threads)
        np.testing.assert_array_equal(assigner.nearest(tokens, cells=cells, threads=threads), expected)
    np.testing.assert_array_equal(assigner.nearest(tokens), nearest(tokens, centroids))


def test_all_cells_are_all_centroids(isa):
    rng = np.random.default_rng(0)
    centroids, tokens = points(rng, 200, 40), points(rng, 50, 40)
    assigner = Assigner(centroids, points(rng, 9, 40), cut(200, 9))
    expected = nearest(tokens, centroids)
    for cells in (0, 9, 100):
        np.testing.assert_array_equal(assigner.nearest(tokens, cells=cells), expected)


def test_more_centroids_than_16_bits_count(isa):
    rng = np.random.default_rng(0)
    centroids = points(rng, 70_000, 8)
    tokens = centroids[[0, 65_535, 65_536, 69_999, 12_345]]
    expected = nearest(tokens, centroids)
    assert expected.max() > 65_535
    np.testing.assert_array_equal(flat(centroids).nearest(tokens), expected)


def test_many_tokens_are_taken_a_run_at_a_time():
    """Those on both sides of where a run of 65,536 ends find what they find alone."""
    rng = np.random.default_rng(0)
    centroids, tokens = points(rng, 90, 8), points(rng, 2 * 65_536 + 5, 8)
    assigner = Assigner(centroids, points(rng, 9, 8), cut(90, 9))
    found = assigner.nearest(tokens, cells=3, threads=2)
    for first in range(0, len(tokens), 30_000):
        part = slice(first, first + 30_000)
        np.testing.assert_array_equal(assigner.nearest(tokens[part], cells=3, threads=1), found[part])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_cluster_means(threads):
    rng = np.random.default_rng(0)
    tokens, ids = points(rng, 5000, 40), rng.integers(0, 150, 5000).astype(np.uint32)
    ids[ids == 7] = 8
    means, members = cluster_means(tokens, ids, 151, threads=threads)
    np.testing.assert_array_equal(members, np.bincount(ids, minlength=151))
    assert members[7] == members[150] == 0
    sums = np.zeros((151, 64), np.int64)
    np.add.at(sums, ids, tokens)
    np.testing.assert_array_equal(means, np.floor(sums / np.maximum(members, 1)[:, None] + 0.5))


def test_cluster_means_are_rounded_half_up():
    tokens = np.zeros((5, 64), np.uint8)
    tokens[:, 0], tokens[:, 1] = [0, 1, 255, 255, 254], [3, 4, 0, 0, 1]
    means, members = cluster_means(tokens, np.array([0, 0, 1, 1, 1], np.uint32), 2)
    assert means[:, :2].tolist() == [[1, 4], [255, 0]] and members.tolist() == [2, 3]


def test_cluster_means_of_nothing():
    means, members = cluster_means(np.zeros((0, 64), np.uint8), np.zeros(0, np.uint32), 3)
    assert not means.any() and members.tolist() == [0, 0, 0]


@pytest.mark.parametrize("count", [1, 5, 70_000])
def test_invert(count):
    rng = np.random.default_rng(count)
    lengths = rng.integers(0, 9, 60)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(0, count, offsets[-1]).astype(np.uint32)
    list_offsets, list_documents = invert(ids, offsets, count)
    lists = [set() for _ in range(count)]
    for document, (first, last) in enumerate(itertools.pairwise(offsets)):
        for centroid in ids[first:last]:
            lists[centroid].add(document)
    assert list_offsets[0] == 0 and list_offsets[-1] == len(list_documents)
    assert list_documents.dtype == np.uint32
    for c in set(ids.tolist()) | {0, count - 1}:
        assert list_documents[list_offsets[c] : list_offsets[c + 1]].tolist() == sorted(lists[c])
