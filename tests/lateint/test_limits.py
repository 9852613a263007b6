"""How much a search looks at, by default."""

import pytest

from lateint.retrieval.limits import fitting, for_share, limits, rungs, wider


@pytest.mark.parametrize(
    ("centroids", "ncells", "tokens", "nprobe", "lists", "cells"),
    [
        (1_000, 32, 240_000, 16, 0, 0),  # few for so many tokens
        (1_000, 32, 48_000, 16, 0, 0),
        (18_698, 137, 10**6, 68, 0, 24),
        (66_344, 258, 10**7, 96, 0, 24),
        (150_000, 6_192, 10**8, 96, 0, 24),
        (174_599, 418, 10**8, 96, 0, 24),
        (174_600, 418, 10**8, 194, 49, 24),
        (235_399, 485, 10**8, 260, 65, 24),  # as indexes were built before cells became small
        (235_399, 7_760, 10**8, 121, 41, 24),
        (835_230, 914, 10**9, 912, 228, 24),
        (835_230, 14_624, 10**9, 228, 76, 24),
        (1 << 24, 1 << 16, 10**12, 1024, 342, 24),
    ],
)
def test_probes_grow_with_centroids(centroids, ncells, tokens, nprobe, lists, cells):
    found = limits(10, centroids=centroids, ncells=ncells, documents=10**7, tokens=tokens)
    assert (found.nprobe, found.lists, found.cells) == (nprobe, lists, cells)
    line = 3.0 if centroids > 4096 or tokens <= 128 * centroids else 0.0
    stops = (1104, 384, 4.0) if lists else (552, 96, line)
    assert (found.candidates, found.patience, found.deviations) == stops
    asked = limits(10, 5, centroids=centroids, ncells=ncells, documents=10**7, tokens=tokens)
    assert (asked.nprobe, asked.lists) == (5, 0)


def test_lists_keep_their_share_of_the_probes_but_for_all_centroids():
    def probes_and_lists(found):
        return found.nprobe, found.lists

    usual = limits(10, centroids=235_399, ncells=485, documents=10**6, tokens=10**8)
    assert probes_and_lists(for_share(usual, 0.6, 235_399)) == (433, 109)
    assert probes_and_lists(for_share(usual, 0.6, 150)) == (150, 0)
    assert probes_and_lists(fitting(usual, 90, 1000)) == (90, 0)
    assert probes_and_lists(wider(usual, 235_399)) == (2080, 0)
    many = limits(10**6, centroids=90, ncells=9, documents=1000, tokens=4_300)
    assert probes_and_lists(many) == (90, 0)
    for ncells, part in ((485, 4), (7760, 3)):
        ladder = rungs(10, centroids=235_399, ncells=ncells, tokens=10**8)
        assert all(0 <= part * rung.lists - rung.nprobe <= 16 for rung in ladder)


@pytest.mark.parametrize(
    ("centroids", "ncells", "tokens"), [(16_384, 128, 780_000), (235_399, 485, 10**8), (235_399, 7_760, 10**8)]
)
def test_one_rung_is_the_default(centroids, ncells, tokens):
    size = {"centroids": centroids, "ncells": ncells, "tokens": tokens}
    assert rungs(10, **size)[8] == limits(10, **size, documents=10**7)
