"""Masks, weights, normalisation and positions for arrays: the same meaning as for tensors, without torch."""

import numpy as np
import pytest

from lateint_kernels import BackendError, Ragged, maxsim, maxsim_pairs, reference, to_bfloat16

RNG = np.random.default_rng(0)
QUERIES = [RNG.standard_normal((n, 16)).astype(np.float32) for n in (5, 1, 20)]
DOCUMENTS = [RNG.standard_normal((n, 16)).astype(np.float32) - 1 for n in (7, 2, 33, 1)]
WEIGHTS = [RNG.standard_normal(len(x)).astype(np.float32) for x in QUERIES]
QUERY_MASKS = [(RNG.random(len(x)) < 0.6) | (np.arange(len(x)) == 0) for x in QUERIES]
MASKS = [(RNG.random(len(x)) < 0.6) | (np.arange(len(x)) == len(x) - 1) for x in DOCUMENTS]


@pytest.mark.parametrize("masking", ["exclude", "multiply"])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_against_the_reference(masking, normalize, weighed, masked):
    weights = WEIGHTS if weighed else [np.ones(len(x), np.float32) for x in QUERIES]
    if masked:
        weights = [w * mask for w, mask in zip(weights, QUERY_MASKS, strict=True)]
    masks = MASKS if masked else [np.ones(len(x), bool) for x in DOCUMENTS]
    expected = reference.maxsim(
        QUERIES, DOCUMENTS, query_weights=weights, document_masks=masks, normalize=normalize, masking=masking
    )
    options = {
        "query_weights": np.concatenate(WEIGHTS) if weighed else None,
        "query_mask": np.concatenate(QUERY_MASKS) if masked else None,
        "document_mask": np.concatenate(MASKS) if masked else None,
        "normalize": normalize,
        "masking": masking,
    }
    scores, positions = maxsim(QUERIES, DOCUMENTS, return_argmax=True, **options)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert scores.dtype == np.float32 and positions.shape == (3, 4, 20)
    for i, query in enumerate(QUERIES):
        for j, document in enumerate(DOCUMENTS):
            found = reference.maxima(
                query.astype(float), document.astype(float), mask=masks[j], normalize=normalize, masking=masking
            )
            places = [place if w != 0 else -1 for (_, place), w in zip(found, weights[i], strict=True)]
            assert positions[i, j].tolist() == places + [-1] * (20 - len(query))
    index = ([2, 0, 2], [3, 1, 2])
    some, of_pairs = maxsim_pairs(QUERIES, DOCUMENTS, *index, return_argmax=True, **options)
    np.testing.assert_allclose(some, scores[index], rtol=1e-5, atol=1e-5)
    assert (of_pairs == positions[index]).all()


def test_layouts():
    queries, documents = RNG.standard_normal((3, 5, 8)), RNG.standard_normal((3, 4, 7, 8))
    mask = RNG.random((3, 4, 7)) < 0.5
    mask[..., 0] = True
    scores, positions = maxsim(queries, documents, document_mask=mask, return_argmax=True)
    assert scores.shape == (3, 4) and positions.shape == (3, 4, 5)
    for i in range(3):
        alone, found = maxsim(queries[i], documents[i], document_mask=mask[i], return_argmax=True)
        np.testing.assert_array_equal(alone, scores[i])
        np.testing.assert_array_equal(found, positions[i])
    np.testing.assert_array_equal(maxsim_pairs(queries, documents[:, 0], document_mask=mask[:, 0]), scores[:, 0])


@pytest.mark.parametrize("cast", [to_bfloat16, lambda x: x.astype(np.float16), lambda x: (x * 50).astype(np.int8)])
def test_other_dtypes(cast):
    queries, documents = (cast(RNG.standard_normal((2, n, 8)).clip(-2.5, 2.5).astype(np.float32)) for n in (4, 9))
    query_mask, mask = RNG.random((2, 4)) < 0.5, RNG.random((2, 9)) < 0.5
    query_mask[:, 0] = mask[:, 0] = True
    for options in ({}, {"normalize": True}, {"query_weights": RNG.random((2, 4))}):
        scores = maxsim(queries, documents, query_mask=query_mask, document_mask=mask, **options)
        weights = query_mask * options.get("query_weights", 1.0)
        masks = {"query_weights": weights, "document_masks": mask, "normalize": "normalize" in options}
        np.testing.assert_allclose(scores, reference.maxsim(queries, documents, **masks), rtol=1e-4, atol=1e-4)


def test_what_is_masked_may_hold_anything():
    queries, documents = np.ones((1, 2, 4), np.float32), np.ones((1, 3, 4), np.float32)
    queries[0, 1] = documents[0, 2] = np.nan
    masks = {"query_mask": np.array([[1, 0]]), "document_mask": np.array([[1, 1, 0]])}
    assert maxsim(queries, documents, **masks).tolist() == [[4.0]]


def test_nothing_left():
    mask = np.array([[True, False], [False, False]])
    tokens = np.ones((2, 2, 4), np.float32)
    for name, what in (("query_mask", "query"), ("document_mask", "document")):
        with pytest.raises(ValueError, match=f"{name} must leave every {what} a token, but {what} 1 has none left"):
            maxsim(tokens, tokens, **{name: mask})
    scores, positions = maxsim(tokens, tokens, document_mask=mask, check=False, return_argmax=True)
    assert scores.tolist() == [[8.0, -np.inf]] * 2 and positions[0].tolist() == [[0, 0], [-1, -1]]
    assert maxsim(tokens, tokens, query_mask=mask, check=False).tolist() == [[4.0, 4.0], [0.0, 0.0]]
    assert maxsim(tokens, tokens, document_mask=mask, masking="multiply").tolist() == [[8.0, 0.0]] * 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"query_mask": np.ones((2, 3))}, ValueError, r"query_mask must be \[2, 2\], one number for each token, got"),
        ({"document_mask": np.ones(4)}, ValueError, r"document_mask must be \[2, 2\], .* got \[4\]"),
        ({"query_weights": np.ones((2, 2), int)}, TypeError, "query_weights must be floats, got int64"),
        ({"masking": "none"}, ValueError, "masking must be 'exclude' or 'multiply', got 'none'"),
        ({"backend": "triton"}, BackendError, "cannot run maxsim of numpy arrays on triton: arrays run on cpp"),
    ],
)
def test_bad_options(options, error, message):
    tokens = np.ones((2, 2, 4), np.float32)
    with pytest.raises(error, match=message):
        maxsim(tokens, tokens, **options)


def test_bad_layouts():
    tokens = np.ones((2, 2, 4), np.float32)
    with pytest.raises(ValueError, match="got 3 sets of candidates for 2 queries"):
        maxsim(tokens, np.ones((3, 1, 2, 4), np.float32))
    with pytest.raises(ValueError, match="pairs without an index need as many queries as documents, got 2, 1"):
        maxsim_pairs(tokens, Ragged.pack([tokens[0]]))
    with pytest.raises(ValueError, match="must be given together or not at all"):
        maxsim_pairs(tokens, tokens, [0])


def test_masks_of_masked_arrays_are_refused():
    tokens, hidden = np.ones((2, 2, 4), np.float32), np.ma.masked_equal(np.array([[1, 0], [1, 1]]), 0)
    for name in ("query_mask", "document_mask", "query_weights"):
        with pytest.raises(TypeError, match=f"{name} must not be masked, got a masked array that masks 1 numbers"):
            maxsim(tokens, tokens, **{name: hidden})
    with pytest.raises(TypeError, match="queries must not be masked, got a masked array that masks 4 numbers"):
        maxsim(np.ma.masked_array(tokens, np.arange(4) == np.zeros((2, 2, 1))), tokens)
    with pytest.raises(TypeError, match="query_index must not be masked"):
        maxsim_pairs(tokens, tokens, np.ma.array([0, 1], mask=[False, True]), [0, 1])


@pytest.mark.parametrize(("threads", "found"), [(2.0, "float"), (True, "bool"), ("2", "str")])
def test_threads_are_an_integer(threads, found):
    tokens = np.ones((2, 2, 4), np.float32)
    with pytest.raises(TypeError, match=f"threads must be an integer, got {found}"):
        maxsim(tokens, tokens, threads=threads)
    assert maxsim(tokens, tokens, threads=np.int64(2)).shape == (2, 2)
