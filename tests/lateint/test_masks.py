"""Padded documents and queries with a mask: padding may be on either side, or between."""

import numpy as np
import pytest

from lateint import Index


@pytest.fixture(scope="module")
def padded():
    """Six documents of up to nine tokens, the odd ones padded on the left, with numbers in the padding."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((6, 9, 8)).astype(np.float32)
    mask = np.arange(9) < rng.integers(2, 9, (6, 1))
    mask[1::2] = mask[1::2, ::-1]
    return tokens, mask


def same(index, expected, query):
    one, other = index.search(query, k=6, exhaustive=True), expected.search(query, k=6, exhaustive=True)
    return one.ids.tolist() == other.ids.tolist() and one.scores.tolist() == other.scores.tolist()


@pytest.mark.parametrize("kind", ["bool", "int64", "list", "torch"])
def test_a_mask_leaves_tokens_out(padded, kind):
    tokens, mask = padded
    kept = [rows[keep] for rows, keep in zip(tokens, mask, strict=True)]
    expected = Index.build(kept, nbits=8, progress=False)
    if kind == "torch":
        torch = pytest.importorskip("torch")
        tokens, mask = torch.from_numpy(tokens), torch.from_numpy(mask)
    given = {"bool": mask, "int64": mask * 1, "list": mask.tolist(), "torch": mask}[kind]
    index = Index.build(tokens, mask=given, nbits=8, progress=False)
    assert same(index, expected, kept[1])
    assert same(Index.build(list(tokens), mask=list(given), nbits=8, progress=False), expected, kept[1])
    index.delete([5])
    index.add(tokens[:1], mask=given[:1], ids=[7])
    index.update([4], tokens[:1], mask=given[:1])
    for id in (7, 4):
        assert np.array_equal(index.reconstruct(id), index.reconstruct(0))


def test_a_mask_of_queries(padded):
    tokens, mask = padded
    index = Index.build(tokens, nbits=8, progress=False)
    found = index.search(tokens, mask=mask, k=3)
    for hits, rows, keep in zip(found, tokens, mask, strict=True):
        assert list(hits) == list(index.search(rows[keep], k=3)) == list(index.search(rows, mask=keep, k=3))
    assert [list(hits) for hits in index.search(list(tokens), mask=list(mask), k=3)] == [list(hits) for hits in found]


def test_masks_that_cannot_be(padded):
    tokens, mask = padded
    for arguments, message in [
        ({"mask": mask[:, :5]}, r"mask must be \[6, 9\] as the tokens are, got \[6, 5\]"),
        ({"mask": mask * 0.5}, "mask must hold booleans or integers, got float64"),
        ({"mask": mask * 2}, "mask must hold 0 and 1 only, got 0 to 2"),
        ({"mask": mask & False}, "document 0 has no tokens"),
        ({"mask": mask, "lengths": [1] * 6}, "mask says how long documents are: leave out lengths"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            Index.build(tokens, progress=False, **arguments)
    with pytest.raises(ValueError, match="mask goes with padded documents"):
        Index.build(tokens[0], mask=mask[0], progress=False)
    with pytest.raises(ValueError, match="mask goes with padded documents"):
        Index.build(iter(tokens), mask=mask, progress=False)
    with pytest.raises(ValueError, match="mask must have one row for each document, got 5 for 6"):
        Index.build(list(tokens), mask=mask[:5], progress=False)
    empty = mask.copy()
    empty[2] = False
    with pytest.raises(ValueError, match="document 2 has no tokens"):
        Index.build(tokens, mask=empty, progress=False)
    index = Index.build(tokens, progress=False)
    with pytest.raises(ValueError, match="mask must have one row for each query, got 5 for 6 queries"):
        index.search(tokens, mask=mask[:5])
    with pytest.raises(ValueError, match="query 2 has none"):
        index.search(tokens, mask=empty)
