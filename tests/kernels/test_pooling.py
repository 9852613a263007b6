"""Pooled tokens are the means of Ward's clusters."""

import numpy as np
import pytest

from lateint_kernels import Ragged, pool, to_bfloat16


def ward(tokens, clusters):
    """By its definition, in float64: all pairs are looked at before each merge."""
    members = [[i] for i in range(len(tokens))]
    tokens = tokens.astype(np.float64)
    while len(members) > clusters:
        costs = {}
        for i in range(len(members)):
            for j in range(i + 1, len(members)):
                a, b = members[i], members[j]
                apart = tokens[a].mean(0) - tokens[b].mean(0)
                costs[i, j] = len(a) * len(b) / (len(a) + len(b)) * (apart @ apart)
        i, j = min(costs, key=costs.get)
        members[i] += members.pop(j)
    return np.array([tokens[rows].mean(0) for rows in members])


def random_documents(lengths, dim, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((5, dim))
    tokens = centres[rng.integers(0, 5, sum(lengths))] + 0.6 * rng.standard_normal((sum(lengths), dim))
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return Ragged.from_lengths(tokens.astype(np.float32), lengths, allow_empty=True)


@pytest.mark.parametrize("dim", [1, 5, 16, 33])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 16])
def test_against_the_definition(factor, dim):
    documents = random_documents([1, 2, 3, 7, 0, 24, 40], dim, seed=factor)
    pooled = pool(documents, factor)
    assert pooled.lengths.tolist() == [-(-n // factor) for n in documents.lengths]
    assert pooled.tokens.dtype == np.float32
    for before, after in zip(documents, pooled, strict=True):
        if len(before):
            np.testing.assert_allclose(after, ward(before, len(after)), atol=1e-6)


def test_one_thread_or_many_give_the_same_bits():
    documents = random_documents([50] * 30, 24)
    one, many = (pool(documents, 3, threads=threads).tokens for threads in (1, 4))
    np.testing.assert_array_equal(one, many)


def test_equal_tokens_are_merged_first():
    rows = np.random.default_rng(0).standard_normal((10, 8)).astype(np.float32)
    documents = Ragged.from_lengths(np.concatenate([rows, rows]), [20])
    np.testing.assert_array_equal(pool(documents, 2).tokens, rows)


def test_long_documents_are_pooled_in_runs():
    documents = random_documents([2048 + 300], 4)
    pooled = pool(documents, 2)
    runs = [pool(Ragged.from_lengths(part, [len(part)]), 2).tokens for part in np.split(documents.tokens, [2048])]
    np.testing.assert_array_equal(pooled.tokens, np.concatenate(runs))
    assert len(pool(random_documents([5000], 4), 3).tokens) == -(-5000 // 3)


def test_other_dtypes():
    documents = random_documents([9, 4], 8)
    half = Ragged(to_bfloat16(documents.tokens), documents.offsets)
    np.testing.assert_allclose(pool(half, 2).tokens, pool(documents, 2).tokens, atol=0.2)
    with pytest.raises(TypeError, match="float32, float16 or bfloat16 to be pooled, got int8"):
        pool(Ragged(documents.tokens.astype(np.int8), documents.offsets), 2)


@pytest.mark.parametrize("factor", [0, 17])
def test_bad_factors(factor):
    with pytest.raises(ValueError, match=f"factor must be between 1 and 16, got {factor}"):
        pool(random_documents([3], 4), factor)
