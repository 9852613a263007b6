"""How much a search looks at, by default."""

import pytest

from lateint.retrieval.limits import fitting, for_share, limits, rungs, wider


@pytest.mark.parametrize(
    ("centroids", "tokens", "nprobe", "lists"),
    [
        (1_000, 240_000, 16, 0),  # few for so many tokens
        (1_000, 48_000, 16, 0),
        (18_698, 10**6, 68, 0),
        (66_344, 10**7, 96, 0),
        (174_599, 10**8, 96, 0),
        (174_600, 10**8, 194, 65),
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
    some = limits(10, centroids=235_399, documents=10**6, tokens=10**8)
    assert for_share(some, 0.6, 235_399)[0::7] == (433, 145)
    assert for_share(some, 0.6, 150)[0::7] == (150, 0)
    assert fitting(some, 90, 1000)[0::7] == (90, 0)
    assert wider(some, 235_399)[0::7] == (2080, 0)
    rungs_of = rungs(10, centroids=235_399, tokens=10**8)
    assert all(0 <= 3 * rung.lists - rung.nprobe <= 8 for rung in rungs_of)
