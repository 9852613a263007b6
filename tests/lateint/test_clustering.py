import itertools

import numpy as np
import pytest

from lateint.indexing import clustering
from lateint.indexing.clustering import Centroids, assigner, divided, group, regions, train
from lateint_kernels.codes.building import HostOperators


def tokens(n, width=24, clusters=30, seed=0):
    """Bytes around a few centres, padded to 64."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(60, 196, (clusters, width))
    rows = np.full((n, 64), 128, np.uint8)
    rows[:, :width] = np.clip(centres[rng.integers(0, clusters, n)] + rng.normal(0, 8, (n, width)), 0, 255)
    return rows


def distortion(rows, centroids):
    ids = assigner(centroids, HostOperators(), 0)(rows)
    return float(((rows.astype(np.float64) - centroids.rows[ids]) ** 2).sum(1).mean())


def check(centroids, count):
    offsets = centroids.cell_offsets
    assert len(centroids) == count and centroids.rows.shape == (count, 64)
    assert offsets[0] == 0 and offsets[-1] == count and len(offsets) == len(centroids.cells) + 1
    assert (np.diff(offsets) > 0).all()
    assert (centroids.rows[:, 24:] == 128).all() and (centroids.cells[:, 24:] == 128).all()


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("cells_searched", [0, 1, 3])
def test_train(count, cells_searched):
    rows = tokens(1000)
    centroids = train(rows, count, iterations=3, seed=0, cells_searched=cells_searched)
    check(centroids, count)


def test_more_centroids_than_tokens():
    check(train(tokens(5), 50, iterations=2, seed=0, cells_searched=0), 5)


def test_each_iteration_helps():
    rows = tokens(3000)
    errors = [
        distortion(rows, train(rows, 40, iterations=iterations, seed=0, cells_searched=3)) for iterations in (0, 1, 5)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.75 * errors[0]


def test_cells_lose_little():
    rows = tokens(3000)
    flat, routed = (distortion(rows, train(rows, 60, iterations=5, seed=0, cells_searched=cells)) for cells in (0, 3))
    assert routed < 1.1 * flat


def test_the_seed_decides_and_threads_do_not():
    rows = tokens(2000)
    first, *same, other = (
        train(rows, 50, iterations=3, seed=seed, cells_searched=2, operators=HostOperators(threads))
        for seed, threads in ((0, 1), (0, 2), (0, 3), (1, 1))
    )
    for centroids in same:
        np.testing.assert_array_equal(first.rows, centroids.rows)
        np.testing.assert_array_equal(first.cells, centroids.cells)
        np.testing.assert_array_equal(first.cell_offsets, centroids.cell_offsets)
    assert not np.array_equal(first.rows, other.rows)


def test_random_vectors_are_shared_out():
    """They have no clusters, so means of few tokens lie far out. Few may end with a single one or none.

    With fewer tokens in the first iterations, more than half of them did.
    """
    rows = np.clip(np.random.default_rng(0).normal(128, 30, (12_000, 64)), 0, 255).astype(np.uint8)
    centroids = train(rows, 500, iterations=4, seed=0)
    members = np.bincount(assigner(centroids, HostOperators(), 0)(rows), minlength=500)
    assert (members > 1).mean() > 0.85


@pytest.mark.parametrize("distinct", [1, 2, 10])
def test_few_distinct_tokens(distinct):
    """Clusters that stay empty are restarted, in vain here, and change nothing for the others."""
    rows = tokens(distinct)[np.random.default_rng(0).integers(0, distinct, 500)]
    centroids = train(rows, 64, iterations=4, seed=0, cells_searched=3)
    check(centroids, 64)
    assert distortion(rows, centroids) < 1


def test_group():
    rows = tokens(500)
    centroids = group(rows, None, np.random.default_rng(0), HostOperators())
    check(centroids, 500)
    assert sorted(map(bytes, centroids.rows)) == sorted(map(bytes, rows))
    x = centroids.rows.astype(np.float64)
    distances = ((x[:, None] - centroids.cells.astype(np.float64)) ** 2).sum(2)
    cell_of = np.searchsorted(centroids.cell_offsets, np.arange(500), side="right") - 1
    chosen = distances[np.arange(500), cell_of]
    assert (chosen <= distances.min(1) + 1).all()  # half the square is rounded
    again = group(rows, centroids.cells, np.random.default_rng(0), HostOperators())
    assert len(again.cells) <= len(centroids.cells)


def test_large_cells_become_small_ones():
    rows = tokens(5000)
    large = train(rows, 1500, iterations=3, seed=0)
    sizes = np.diff(large.cell_offsets)
    assert (sizes < 16).any()  # which dissolve
    small = divided(large, HostOperators())
    check(small, 1500)
    assert small.small_cells and not large.small_cells and len(small.cells) == 16 * (sizes >= 16).sum()
    assert sorted(map(bytes, small.rows)) == sorted(map(bytes, large.rows))
    for region, cell in enumerate(np.flatnonzero(sizes >= 16)):
        of_region = small.rows[small.cell_offsets[16 * region] : small.cell_offsets[16 * region + 16]]
        were = large.rows[large.cell_offsets[cell] : large.cell_offsets[cell + 1]]
        assert set(map(bytes, were)) <= set(map(bytes, of_region))
    for cell, (first, last) in enumerate(itertools.pairwise(small.cell_offsets)):
        assert np.abs(small.rows[first:last].astype(np.float64).mean(0) - small.cells[cell]).max() <= 0.5


def test_equal_centroids_are_in_small_cells_of_about_one_size():
    """k-means would put them all into one."""
    rows = np.repeat(tokens(2, clusters=2), [100, 20], axis=0)
    large = Centroids(rows, rows[[0, 100]], np.array([0, 100, 120]))
    small = divided(large, HostOperators())
    check(small, 120)
    assert np.diff(small.cell_offsets)[:16].max() <= 13 and np.diff(small.cell_offsets)[16:].max() <= 3
    np.testing.assert_array_equal(small.rows, rows)


def test_training_divides_large_cells(monkeypatch):
    monkeypatch.setattr(clustering, "DIVIDED", 10)
    found = [train(tokens(5000), 700, iterations=3, seed=0, operators=HostOperators(threads)) for threads in (1, 3)]
    check(found[0], 700)
    assert found[0].small_cells
    for one, same in zip(*((a.rows, a.cells, a.cell_offsets) for a in found), strict=True):
        np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("count", [1, 16, 160, 401])
def test_regions(count):
    """Also of a number of cells that a build does not make."""
    rng = np.random.default_rng(count)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 9, count))])
    rows, cells = tokens(offsets[-1]), tokens(count, seed=1)
    centres, found = regions(Centroids(rows, cells, offsets), HostOperators())
    assert found.first.tolist() == [*range(0, count, 16), count] and len(centres) == len(found.first) - 1
    np.testing.assert_array_equal(found.members, np.arange(len(rows)))
    np.testing.assert_array_equal(found.offsets, offsets)
    np.testing.assert_array_equal(found.centres, cells)
    for region, (first, last) in enumerate(itertools.pairwise(found.first)):
        mean = rows[offsets[first] : offsets[last]].astype(np.float64).mean(0)
        assert np.abs(centres[region] - mean).max() <= 0.5


def test_tokens_find_their_centroids_through_regions():
    rows = tokens(5000)
    small = divided(train(rows, 700, iterations=3, seed=0), HostOperators())
    exact = assigner(small, HostOperators(), 0)(rows)
    found = assigner(small, HostOperators())(rows)
    assert (found == exact).mean() > 0.9
    apart = ((rows.astype(np.float64) - small.rows[found]) ** 2).sum(1).mean()
    assert apart < 1.05 * distortion(rows, small)


def test_progress_is_reported():
    calls = []
    train(tokens(100), 4, iterations=3, seed=0, cells_searched=0, report=lambda: calls.append(1))
    assert len(calls) == 3
