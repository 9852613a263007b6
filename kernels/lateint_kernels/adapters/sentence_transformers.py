"""sentence-transformers 6 (tested with 6.2.0): multi-vector models, their similarity and losses with our scorer.

Padding and masks mean what they mean there: masked document tokens never win, query masks may be weights, and a
document without any token scores -1e9 and is warned of. What ``chunk_elements`` bounds there, a tensor of token
similarities, does not exist here; it still bounds how much is padded at a time.
"""

from typing import Any

from lateint_kernels.adapters.clusters import pooled
from lateint_kernels.adapters.coded import coded
from lateint_kernels.adapters.switch import Switch, needed
from lateint_kernels.maxsim import maxsim as score
from lateint_kernels.maxsim import maxsim_pairs as score_pairs


def maxsim(
    a: Any,
    b: Any,
    a_mask: Any = None,
    b_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
    device: Any = None,
) -> Any:
    """`sentence_transformers.util.maxsim`: queries ``a`` with documents ``b`` -> ``[Nq, Nd]`` float32."""
    with patch():
        return _similarity().maxsim(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)


def maxsim_pairwise(
    a: Any,
    b: Any,
    a_mask: Any = None,
    b_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
    device: Any = None,
) -> Any:
    """`sentence_transformers.util.maxsim_pairwise`: query i with document i -> ``[n]`` float32."""
    with patch():
        return _similarity().maxsim_pairwise(a, b, a_mask, b_mask, chunk_elements, length_normalize, device)


def colbert_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Any:
    """``colbert_scores`` of its scoring functions: a ``similarity_fct`` of contrastive losses.

    Queries ``[Nq, Lq, dim]`` with the documents of all queries ``[Nd, K, Ld, dim]`` -> ``[Nq, Nd * K]``, in one call.
    """
    documents = _tensor(documents_embeddings).flatten(0, 1)
    mask = None if documents_mask is None else _tensor(documents_mask).flatten(0, 1)
    return maxsim(queries_embeddings, documents, queries_mask, mask, chunk_elements, length_normalize)


def colbert_kd_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Any:
    """``colbert_kd_scores``: a ``similarity_fct`` of distillation; documents ``[Nq, K, Ld, dim]`` -> ``[Nq, K]``."""
    with patch():
        return _scoring().colbert_kd_scores(
            queries_embeddings, documents_embeddings, queries_mask, documents_mask, chunk_elements, length_normalize
        )


def colbert_scores_pairwise(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    chunk_elements: int | None = None,
    length_normalize: bool = False,
) -> Any:
    """``colbert_scores_pairwise``: a ``similarity_fct`` of margin-MSE; query b with document b -> ``[B]``."""
    return maxsim_pairwise(
        queries_embeddings, documents_embeddings, queries_mask, documents_mask, chunk_elements, length_normalize
    )


def xtr_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    top_k: int = 256,
    chunk_elements: int | None = None,
) -> Any:
    """``xtr_scores`` of its scoring functions, by `lateint_kernels.scores.xtr`: ``[Nq, Nd * K]``.

    Query masks are yes or no here; ``chunk_elements`` bounds nothing, for there is no tensor of token similarities.
    """
    from lateint_kernels.scores import xtr

    queries, documents = _floats(queries_embeddings), _floats(documents_embeddings).flatten(0, 1)
    if documents_mask is None:
        documents_mask = _similarity()._zero_row_mask(documents)
    if queries_mask is None:
        queries_mask = _similarity()._zero_row_mask(queries)
    mask = documents_mask.reshape(documents.shape[:2])
    found = xtr(queries, documents, top_k, query_mask=queries_mask, document_mask=mask, check=False)
    return _filled(found, documents, mask)


def hierarchical_pool_one(
    embedding: Any, pool_factor: float, num_protected_tokens: int, normalize_embeddings: bool = True
) -> Any:
    """What its ``HierarchicalTokenPooling`` does with a document; clusters come in the order of their first tokens."""
    import torch
    from sentence_transformers.multi_vector_encoder.modules.token_pooling import _normalize_token_embeddings

    kept, rest = embedding[:num_protected_tokens], embedding[num_protected_tokens:]
    count = max(int(len(rest) // pool_factor), 1)
    if count < len(rest):
        embedding = torch.cat([kept, *pooled([rest], [count])])
    return _normalize_token_embeddings(embedding) if normalize_embeddings else embedding


def patch(coding: Any = None) -> Switch:
    """Makes sentence-transformers score with `lateint_kernels`: similarity of models, losses and evaluators.

    It is done where a padded chunk is scored, so that models, losses and functions that exist already are reached, too,
    and everything around it stays theirs; token pooling, and `XTRScores` and `XTRKDScores`, are reached, though
    not an `xtr_scores` that was imported before.

    With ``coding``, a `lateint_kernels.coding.Coding`, documents are scored as an index of codes would score them, and
    trained for that; they must be tensors then.
    """
    with needed("sentence-transformers", "6.2"):
        from sentence_transformers.multi_vector_encoder import scoring
        from sentence_transformers.multi_vector_encoder.modules import token_pooling
        from sentence_transformers.multi_vector_encoder.modules.token_pooling import (
            _normalize_token_embeddings,  # noqa: F401 - what pooling calls for each document; older releases lack it
        )
        from sentence_transformers.multi_vector_encoder.scoring import xtr

    similarity = _similarity()
    return Switch(
        {
            (similarity, "_maxsim_score_documents"): coded(_score_documents, coding),
            (similarity, "_maxsim_score_pairs"): coded(_score_pairs, coding),
            (xtr, "xtr_scores"): coded(xtr_scores, coding),
            (scoring, "xtr_scores"): coded(xtr_scores, coding),
            (token_pooling, "_hierarchical_pool_one"): hierarchical_pool_one,
        }
    )


def _score_documents(a: Any, b: Any, a_mask: Any, b_mask: Any) -> Any:
    return _filled(_score(score, a, b, a_mask, b_mask), b, b_mask)


def _score_pairs(a: Any, b: Any, a_mask: Any, b_mask: Any) -> Any:
    return _filled(_score(score_pairs, a, b, a_mask, b_mask), b, b_mask)


def _score(function: Any, a: Any, b: Any, a_mask: Any, b_mask: Any) -> Any:
    if b.shape[1] == 0:
        # No token anywhere: what is scored instead does not matter, and is overwritten.
        b, b_mask = b.new_zeros(b.shape[0], 1, b.shape[2]), b.new_zeros(b.shape[0], 1)
    import torch

    weights = None if a_mask is None else a_mask.to(torch.promote_types(a.dtype, torch.float32))
    return function(a, b.to(a.dtype), query_weights=weights, document_mask=b_mask, check=False)


def _filled(scores: Any, b: Any, b_mask: Any) -> Any:
    """With -1e9 for documents without a token, and their warning."""
    import torch

    if b.shape[1] == 0:
        empty = b.new_ones(b.shape[0], dtype=torch.bool)
    elif b_mask is None:
        return scores
    else:
        empty = ~b_mask.bool().any(dim=-1)
    return _similarity()._fill_empty_document_scores(scores, empty)


def _similarity() -> Any:
    from sentence_transformers.util import similarity

    return similarity


def _scoring() -> Any:
    from sentence_transformers.multi_vector_encoder import scoring

    return scoring


def _floats(values: Any) -> Any:
    tensor = _tensor(values)
    return tensor if tensor.is_floating_point() else tensor.float()


def _tensor(values: Any) -> Any:
    from sentence_transformers.util.tensor import _convert_to_tensor

    return _convert_to_tensor(values)
