"""Pooled tokens are the means of Ward's clusters."""

import numpy as np
import pytest

from lateint_kernels import Ragged, _cpu, pool, reference, to_bfloat16


def cluster(tokens, offsets, counts, cosine=False):
    return _cpu.cluster(tokens, offsets, counts, cosine, False, 0)[0]


def ward(tokens, count):
    """The means of the clusters by their definition, in float64."""
    found = np.array(reference.clusters(tokens, count))
    return np.array([tokens[found == number].astype(np.float64).mean(0) for number in range(count)])


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


def test_protected_tokens_stay():
    documents = random_documents([1, 2, 3, 7, 0, 24], 8)
    pooled = pool(documents, 3, protected=2)
    assert pooled.lengths.tolist() == [min(n, 2) + -(-max(n - 2, 0) // 3) for n in documents.lengths]
    for before, after in zip(documents, pooled, strict=True):
        np.testing.assert_array_equal(after[:2], before[:2])
        if len(before) > 2:
            np.testing.assert_allclose(after[2:], ward(before[2:], len(after) - 2), atol=1e-6)
    np.testing.assert_allclose(pool(documents, 3, protected=0).tokens, pool(documents, 3).tokens)
    with pytest.raises(ValueError, match="protected must be at least 0, got -1"):
        pool(documents, 3, protected=-1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("protected", [0, 1])
def test_tensors(dtype, protected):
    """The same clusters; means have gradients, shared among the tokens of each."""
    torch = pytest.importorskip("torch")
    from lateint_kernels import RaggedTensor

    documents = random_documents([1, 5, 24, 2048 + 30], 8)
    tokens = torch.from_numpy(documents.tokens).to(getattr(torch, dtype)).requires_grad_()
    packed = RaggedTensor.from_lengths(tokens, documents.lengths)
    pooled = pool(packed, 3, protected=protected)
    expected = pool(Ragged.from_offsets(tokens.detach(), documents.offsets), 3, protected=protected)
    assert pooled.tokens.dtype == tokens.dtype and pooled.lengths.tolist() == expected.lengths.tolist()
    tolerance = 1e-2 if dtype == "bfloat16" else 1e-6
    np.testing.assert_allclose(pooled.tokens.detach().float().numpy(), expected.tokens, atol=tolerance)
    pooled.tokens.sum().backward()  # each mean gives 1 to its tokens together
    shares = torch.segment_reduce(tokens.grad.float(), "sum", lengths=packed.lengths, axis=0)
    counts = pooled.lengths.float()[:, None].expand_as(shares)
    torch.testing.assert_close(shares, counts, rtol=1e-2, atol=0.0)
    parts = pool(
        [tokens[a:b] for a, b in zip(documents.offsets[:-1], documents.offsets[1:], strict=True)],
        3,
        protected=protected,
    )
    assert torch.equal(parts.tokens, pooled.tokens)


@pytest.mark.parametrize("cosine", [False, True])
def test_clusters_by_distance(cosine):
    documents = random_documents([1, 9, 30], 8)
    counts = np.array([1, 4, 10])
    found = cluster(documents.tokens, documents.offsets, counts, cosine=cosine)
    for i, tokens in enumerate(documents):
        labels = found[documents.offsets[i] : documents.offsets[i + 1]]
        x = tokens.astype(np.float64)
        distances = 1 - x @ x.T if cosine else np.linalg.norm(x[:, None] - x, axis=2)
        assert labels.tolist() == reference.clusters_by_distance(distances, counts[i])


def test_what_is_not_a_number_is_far_from_everything(isa):
    """Other tokens are merged as if it were not there, and before it."""
    documents = random_documents([12], 8)
    alone = cluster(documents.tokens, documents.offsets, np.array([4]))
    for where in (0, 5, 12):
        for number in (np.nan, np.inf):
            tokens = np.insert(documents.tokens, where, number, axis=0)
            found = cluster(tokens, np.array([0, 13]), np.array([5]))
            assert (found == found[where]).sum() == 1
            rest = np.delete(found, where)
            np.testing.assert_array_equal(rest - (rest > found[where]), alone)
