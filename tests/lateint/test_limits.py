"""How much a search looks at, by default."""

import pytest

from lateint.retrieval.limits import fitting, for_share, limits, rungs, wider


@pytest.mark.parametrize(
    ("centroids", "tokens", "nprobe", "lists"),
    [
        (1_000, 240_000, 16, 0),  # few for so many tokens
        (1_000, 48_000, 16, 0),
        (18_698, 10**6, 68, 0),
        (36_863, 10**7, 95, 0),
        (36_864, 10**7, 192, 64),
        (66_344, 10**7, 192, 64),
        (235_399, 10**8, 260, 87),
        (835_230, 10**9, 912, 304),
        (1 << 24, 10**12, 4096, 1366),
    ],
)
def test_probes_grow_with_centroids(centroids, tokens, nprobe, lists):
    found = limits(10, centroids=centroids, documents=10**7, tokens=tokens)
    assert (found.nprobe, found.lists) == (nprobe, lists)
    asked = limits(10, 5, centroids=centroids, documents=10**7, tokens=tokens)
    assert (asked.nprobe, asked.lists) == (5, 0)


def test_all_lists_are_read_where_all_centroids_are_probed():
    for centroids, nprobe in ((90, 90), (192, 96)):
        usual = limits(10**6, centroids=centroids, documents=1000, tokens=4_300)
        assert (usual.nprobe, usual.lists) == (nprobe, 0)
    some = limits(10, centroids=66_344, documents=10**5, tokens=10**7)
    assert for_share(some, 0.6, 66_344)[0::7] == (320, 107)
    assert for_share(some, 0.6, 150)[0::7] == (150, 0)
    assert fitting(some, 90, 1000)[0::7] == (90, 0)
    assert wider(some, 66_344)[0::7] == (1536, 0)
    rungs_of = rungs(10, centroids=66_344, tokens=10**7)
    assert all(3 * rung.lists - 2 <= rung.nprobe <= 3 * rung.lists for rung in rungs_of)
