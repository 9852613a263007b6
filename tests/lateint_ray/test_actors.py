"""Shards in actors: found by `lateint.Shards`, and there again after they died."""

import os
import signal
import time

import numpy as np
import pytest
import ray
from ray_rows import Words, rows

import lateint_ray
from lateint import Index, LostError, Shards, UnknownIdError, train_codec

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """An index, and the paths of two halves of it."""
    folder, some = tmp_path_factory.mktemp("parts"), rows(40)
    texts = [row["text"] for row in some]
    tokens = Words().encode_document(texts)
    codec = train_codec(tokens, progress=False)
    sparse = [{word: 1.0 + len(word) for word in text.split()} for text in texts]
    whole = Index.build(tokens, texts=texts, codec=codec, sparse=sparse, progress=False)
    for first in (0, 20):
        Index.build(
            tokens[first : first + 20],
            folder / str(first),
            texts=texts[first : first + 20],
            ids=range(first, first + 20),
            codec=codec,
            sparse=sparse[first : first + 20],
            progress=False,
        )
    return whole, [folder / "0", folder / "20"]


def process_of(one):
    """The process of an actor, or 0 while it is away."""
    try:
        return ray.get(one.actor.__ray_call__.remote(lambda _: os.getpid()), timeout=5)
    except ray.exceptions.RayError:
        return 0


def test_actors_are_shards_and_come_back(parts):
    whole, paths = parts
    queries = Words().encode_query(["word1 word2 word3", "word7 word11"])
    actors = [lateint_ray.ActorIndex(path, num_cpus=0.1, threads=1) for path in paths]
    with Shards(actors, timeout=30) as shards:
        for query in queries:
            found, expected = shards.search(query, exhaustive=True), whole.search(query, exhaustive=True)
            assert found.ids.dtype == expected.ids.dtype and list(found) == list(expected)
            assert found.texts == expected.texts
        batch = shards.search(queries, 3, exhaustive=True)
        assert [list(hits) for hits in batch] == [list(hits) for hits in whole.search(queries, 3, exhaustive=True)]
        for query in (None, queries[0]):
            how = {"sparse": {"word3": 1.0, "word11": 0.5}} | ({} if query is None else {"exhaustive": True})
            assert list(shards.search(query, 9, **how)) == list(whole.search(query, 9, **how))
        assert list(shards.rerank(queries[0], [30, 2])) == list(whole.rerank(queries[0], [30, 2]))
        assert list(shards.explain(queries[0], 30)) == list(whole.explain(queries[0], 30))
        assert shards.has([3, 99]).tolist() == [True, False] and len(shards) == 40
        with pytest.raises(ValueError, match="nprobe must be at least 1"):
            shards.search(queries[0], nprobe=0)
        with pytest.raises(UnknownIdError, match="ids holds 99"):
            actors[0].rerank(queries[0], [99])

        before = process_of(actors[1])
        os.kill(before, signal.SIGKILL)
        killed = time.monotonic()
        while True:
            found = shards.search(queries[0], 40, exhaustive=True, partial=True)
            there = None if not found.lost else np.arange(20)
            assert list(found) == list(whole.search(queries[0], 40, exhaustive=True, subset=there))
            if found.coverage == 1.0 and process_of(actors[1]) not in (0, before):
                break
            assert time.monotonic() - killed < 60
        actors[1].close()
        with pytest.raises(LostError, match=f"1 of 2 shards did not answer: {paths[1]}"):
            shards.search(queries[0])
    actors[0].close()
