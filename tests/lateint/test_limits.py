"""How much a search looks at, by default."""

import pytest

from lateint.retrieval.limits import fitting, for_share, limits, rungs, wider


@pytest.mark.parametrize(
    ("centroids", "tokens", "nprobe", "lists"),
    [
        (1_000, 240_000, 16, 0),  # few for so many tokens
        (1_000, 48_000, 16, 0),
        (18_698, 10**6, 68, 48),
        (66_344, 10**7, 96, 48),
        (235_399, 10**8, 130, 65),
        (835_230, 10**9, 456, 228),
        (1 << 24, 10**12, 2048, 1024),
    ],
)
def test_probes_grow_with_centroids(centroids, tokens, nprobe, lists):
    found = limits(10, centroids=centroids, documents=10**7, tokens=tokens)
    assert (found.nprobe, found.lists) == (nprobe, lists)
    asked = limits(10, 5, centroids=centroids, documents=10**7, tokens=tokens)
    assert (asked.nprobe, asked.lists) == (5, 0)


def test_all_lists_are_read_where_all_centroids_are_probed():
    usual = limits(10**6, centroids=90, documents=1000, tokens=4_300)
    assert (usual.nprobe, usual.lists) == (90, 0)
    some = limits(10, centroids=66_344, documents=10**5, tokens=10**7)
    assert for_share(some, 0.6, 66_344)[0::7] == (160, 80)
    assert for_share(some, 0.6, 150)[0::7] == (150, 0)
    assert fitting(some, 90, 1000)[0::7] == (90, 0)
    assert wider(some, 66_344)[0::7] == (768, 0)
    rungs_of = rungs(10, centroids=66_344, tokens=10**7)
    assert all(rung.lists * 2 == rung.nprobe for rung in rungs_of)
