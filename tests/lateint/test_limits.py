"""How much a search looks at, by default."""

import pytest

from lateint.retrieval.limits import limits


@pytest.mark.parametrize(
    ("centroids", "tokens", "nprobe"),
    [
        (1_000, 240_000, 16),  # few for so many tokens
        (1_000, 48_000, 16),
        (18_698, 10**6, 68),
        (66_344, 10**7, 96),
        (235_399, 10**8, 130),
        (835_230, 10**9, 456),
        (1 << 24, 10**12, 2048),
    ],
)
def test_probes_grow_with_centroids(centroids, tokens, nprobe):
    assert limits(10, centroids=centroids, documents=10**7, tokens=tokens).nprobe == nprobe
    assert limits(10, 5, centroids=centroids, documents=10**7, tokens=tokens).nprobe == 5
