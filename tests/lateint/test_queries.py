"""What a query may be; test_search.py has what is found."""

import numpy as np
import pytest

from lateint.retrieval.queries import read
from lateint_kernels import Ragged


def test_queries_are_cut_from_one_run_of_tokens():
    tokens = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    queries = read([tokens[:2], tokens[2:3], tokens[3:]], 4)
    assert len(queries) == 3 and not queries.single
    np.testing.assert_array_equal(queries.tokens, tokens)
    assert queries.offsets.tolist() == [0, 2, 3, 9]
    np.testing.assert_array_equal(queries[2], tokens[3:])
    few = queries.some([2, 0])
    assert few.offsets.tolist() == [0, 6, 8]
    np.testing.assert_array_equal(few.tokens, tokens[[3, 4, 5, 6, 7, 8, 0, 1]])
    one = read(tokens, 4)
    assert len(one) == 1 and one.single and np.shares_memory(one.tokens, tokens)


QUERY = np.ones((2, 32), np.float32)


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        (QUERY[:, :31], ValueError, r"Q must be \[Lq, 32\], but query 0 is \(2, 31\)"),
        ([QUERY, QUERY[:, :3]], ValueError, r"Q must be \[Lq, 32\], but query 1 is \(2, 3\)"),
        (QUERY[0], ValueError, r"Q must be \[Lq, 32\] or \[Nq, Lq, 32\], got \(32,\)"),
        (QUERY[None, None], ValueError, r"Q must be \[Lq, 32\] or \[Nq, Lq, 32\], got \(1, 1, 2, 32\)"),
        (QUERY[:0], ValueError, "Q must hold at least one token, but query 0 has none"),
        ([QUERY, QUERY[:0]], ValueError, "Q must hold at least one token, but query 1 has none"),
        (np.zeros((2, 0, 32), np.float32), ValueError, "Q must hold at least one token, but query 0 has none"),
        (Ragged.from_lengths(QUERY, [2, 0], allow_empty=True), ValueError, "query 1 has none"),
        (Ragged.from_lengths(QUERY[:, :8], [2]), ValueError, r"Q must be \[Lq, 32\], but query 0 is \(2, 8\)"),
        (
            np.ones((65_537, 32), np.float32),
            ValueError,
            "Q must hold at most 65,536 tokens a query, but query 0 has 65,537",
        ),
        ([], ValueError, r"Q must be \[Lq, 32\]"),
        (QUERY.astype(int), TypeError, "Q must be float32, float16, bfloat16 or float64, got int64"),
        (QUERY.astype(np.int8), TypeError, "Q must be float32, .* got int8"),
        (Ragged.from_lengths(QUERY.astype(np.int8), [2]), TypeError, "Q must be float32, .* got int8"),
        ([QUERY, QUERY.astype(complex)], TypeError, "query 1 must be float32, .* got complex128"),
        ("a question", TypeError, "Q must be an array, got str"),
        (None, TypeError, "Q must be an array, got NoneType"),
        (QUERY * np.float32("nan"), ValueError, "Q must hold numbers up to 1e.18, but token 0 holds nan"),
        (QUERY * np.float32(1e20), ValueError, "Q must hold numbers up to 1e.18, but token 0 holds 1e.20"),
        ([QUERY, np.full_like(QUERY, -np.inf)], ValueError, "but token 0 of query 1 holds -inf"),
    ],
)
def test_bad_queries(query, error, message):
    with pytest.raises(error, match=message):
        read(query, 32)


def test_a_token_of_a_bad_query_is_named():
    query = np.ones((3, 4, 32), np.float32)
    query[2, 1, 7] = np.nan
    with pytest.raises(ValueError, match="token 1 of query 2 holds nan"):
        read(query, 32)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, -1.1e18, 1.1e18])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_a_number_that_is_too_large_is_found_in_any_query(number, where):
    queries = [np.ones((n, 8), np.float32) for n in (3, 1, 5)]
    queries[where][-1, 3] = number
    with pytest.raises(
        ValueError, match=f"token {len(queries[where]) - 1} of query {where} holds {number:g}".replace("+", ".")
    ):
        read(queries, 8)
    queries[where][-1, 3] = -1e18
    assert (read(queries, 8).tokens == np.concatenate(queries)).all()


def test_what_cannot_be_written_to_is_read_where_it_is():
    tokens = np.frombuffer(np.ones(24, np.float32).tobytes(), np.float32).reshape(3, 8)
    assert np.shares_memory(read(tokens, 8).tokens, tokens)


def test_a_large_batch_is_packed_without_pythons_lock():
    tokens = np.random.default_rng(0).standard_normal((1 << 13, 64)).astype(np.float32)
    queries = [tokens[first : first + 512] for first in range(0, len(tokens), 512)]
    np.testing.assert_array_equal(read(queries, 64).tokens, tokens)
    tokens[-1, -1] = np.nan
    with pytest.raises(ValueError, match="token 511 of query 15 holds nan"):
        read(queries, 64)
