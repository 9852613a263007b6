"""Shards behind servers."""

from contextlib import ExitStack

import numpy as np
import pytest
from servers import serving, tokens

from lateint import Index, LostError, Shards, train_codec


@pytest.fixture(scope="module")
def parts():
    documents = tokens(90, seed=5)
    codec = train_codec(documents, progress=False)
    sparse = [{"all": 1.0 + number % 7, f"of {number % 5}": 2.0} for number in range(90)]
    whole = Index.build(documents, codec=codec, sparse=sparse, progress=False)
    cut = [
        Index.build(
            documents[first : first + 30],
            ids=range(first, first + 30),
            codec=codec,
            sparse=sparse[first : first + 30],
            progress=False,
        )
        for first in (0, 30, 60)
    ]
    return whole, cut


def test_shards_of_servers_find_what_one_index_finds(parts):
    whole, cut = parts
    queries = tokens(5, seed=6, length=4)
    with ExitStack() as stack:
        urls = [f"{stack.enter_context(serving({'part': one}))}/v1/indexes/part" for one in cut]
        with Shards([urls[0], cut[1], urls[2]], replicas=[None, urls[1], None]) as shards:
            for query in queries:
                found, expected = shards.search(query, exhaustive=True), whole.search(query, exhaustive=True)
                assert found.ids.dtype == expected.ids.dtype and list(found) == list(expected)
                for asked, how in ((None, {}), (query, {"exhaustive": True})):
                    how |= {"sparse": {"all": 0.5, "of 3": 1.0}}
                    assert list(shards.search(asked, **how)) == list(whole.search(asked, **how))
            batch = shards.search(np.stack(queries), 4, exhaustive=True)
            assert [list(hits) for hits in batch] == [
                list(hits) for hits in whole.search(np.stack(queries), 4, exhaustive=True)
            ]
            assert list(shards.rerank(queries[0], [70, 3, 40])) == list(whole.rerank(queries[0], [70, 3, 40]))
            assert shards.has([3, 70, 90]).tolist() == [True, True, False] and len(shards) == 90
            assert list(shards.explain(queries[0], 70)) == list(whole.explain(queries[0], 70))
            assert [document.id for document in batch[0].documents()] == batch[0].ids.tolist()


def test_a_server_that_went_away_is_lost(parts):
    whole, cut = parts
    (query,) = tokens(1, seed=7, length=4)
    with ExitStack() as stack, serving({"part": cut[0]}) as first:
        gone = stack.enter_context(serving({"part": cut[1]}))
        urls = [f"{first}/v1/indexes/part", f"{gone}/v1/indexes/part"]
        with Shards([*urls, cut[2]]) as shards:
            assert shards.search(query, exhaustive=True).coverage == 1.0
            stack.close()
            with pytest.raises(LostError, match=f"1 of 3 shards did not answer: {urls[1]}"):
                shards.search(query)
            found = shards.search(query, 90, exhaustive=True, partial=True)
            assert found.lost == (urls[1],) and found.coverage == pytest.approx(2 / 3)
            there = [*range(30), *range(60, 90)]
            assert list(found) == list(whole.search(query, 90, exhaustive=True, subset=there))
            with pytest.raises(LostError, match="shards do not answer"):
                Shards(urls)
