"""PyLate (tested with 1.6.0): its scores, losses, evaluators and re-ranking with our scorer, on CPU and GPU.

PyLate's document masks multiply similarities by 0, so that a masked token can win over negative ones; so they do here
(``masking="multiply"``). Scores are float32 even where PyLate's would be half precision.
"""

from typing import Any

from lateint_kernels.adapters.clusters import pooled
from lateint_kernels.adapters.coded import coded
from lateint_kernels.adapters.switch import Switch, needed
from lateint_kernels.maxsim import maxsim, maxsim_pairs


def colbert_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    backend: str | None = None,
) -> Any:
    """`pylate.scores.colbert_scores`: queries ``[Nq, Lq, dim]``, documents ``[Nd, Ld, dim]`` -> ``[Nq, Nd]``.

    Masks ``[Nq, Lq]`` and ``[Nd, Ld]``. ``backend`` is one of ours; see `lateint_kernels.maxsim`.
    """
    queries, documents = _tensor(queries_embeddings), _tensor(documents_embeddings)
    return maxsim(
        queries,
        documents,
        query_mask=_mask(queries_mask, queries),
        document_mask=_mask(documents_mask, documents),
        masking="multiply",
        backend=backend,
    )


def colbert_kd_scores(
    queries_embeddings: Any,
    documents_embeddings: Any,
    queries_mask: Any = None,
    documents_mask: Any = None,
    backend: str | None = None,
) -> Any:
    """`pylate.scores.colbert_kd_scores`: each query with its own documents ``[Nq, K, Ld, dim]`` -> ``[Nq, K]``."""
    return colbert_scores(queries_embeddings, documents_embeddings, queries_mask, documents_mask, backend)


def colbert_scores_pairwise(queries_embeddings: Any, documents_embeddings: Any, backend: str | None = None) -> Any:
    """`pylate.scores.colbert_scores_pairwise`: query b with document b -> ``[B]``; lengths may differ."""
    # PyLate stops at the shorter of the two.
    pairs = list(zip(queries_embeddings, documents_embeddings, strict=False))
    queries, documents = ([_tensor(matrix) for matrix in side] for side in zip(*pairs, strict=True))
    return maxsim_pairs(queries, documents, backend=backend)


class ColBERTScores:
    """`pylate.scores.ColBERTScores`, the default ``score_metric`` of PyLate's contrastive losses.

    Queries ``[Nq, Lq, dim]`` with the documents of all queries ``[Nd, K, Ld, dim]`` -> ``[Nq, Nd * K]``, in one call.
    """

    def __call__(
        self,
        queries_embeddings: Any,
        documents_embeddings: Any,
        queries_mask: Any = None,
        documents_mask: Any = None,
        backend: str | None = None,
    ) -> Any:
        documents = _tensor(documents_embeddings).flatten(0, 1)
        mask = None if documents_mask is None else _tensor(documents_mask).flatten(0, 1)
        return colbert_scores(queries_embeddings, documents, queries_mask, mask, backend)


def xtr_scores(scores: Any, queries: Any, documents: Any, queries_mask: Any, documents_mask: Any) -> Any:
    """`pylate.scores.XTRScores` on tensors ``[Nq, Lq, dim]`` and ``[Nq, K, Ld, dim]`` -> ``[Nq, Nq * K]``; its ``self``
    is ``scores``.

    What is not among the k tokens counts 0, also beside a lower maximum, and the sum is divided by the number of
    maxima above 0, at least 0.001: PyLate's reading of XTR, which differs from that of `lateint_kernels.scores.xtr`.
    """
    from lateint_kernels.dense.maxima import retrieved, sum_by_query
    from lateint_kernels.dense.options import Options
    from lateint_kernels.dense.tensor_edge import problem_of, trains

    documents = documents.flatten(0, 1)
    mask = None if documents_mask is None else documents_mask.reshape(documents.shape[:2])
    options = Options(None, mask, None, False, "exclude", False, False, None)
    problem, _ = problem_of(queries, documents, options, candidates=False)
    best, found, _ = retrieved(problem, scores.k, trains(problem), None)
    best = best.where(found, 0).clamp(min=0)
    if queries_mask is not None:
        best = best * queries_mask.reshape(-1, 1)
    count = sum_by_query(problem, best.gt(0).to(best.dtype)).clamp(min=1e-3)
    return sum_by_query(problem, best) / count


def pool_embeddings_hierarchical(
    model: Any, documents_embeddings: list[Any], pool_factor: int = 1, protected_tokens: int = 1
) -> list[Any]:
    """Its ``ColBERT.pool_embeddings_hierarchical``; clusters come in the order of their first tokens.

    Documents on one GPU are pooled there, and come to the CPU afterwards, as there.
    """
    import torch

    found = list(documents_embeddings)
    if len({document.device for document in found}) > 1:
        found = [document.cpu() for document in found]
    rest = [tokens[protected_tokens:] for tokens in found]
    counts = [max(len(tokens) // pool_factor, 1) for tokens in rest]
    some = [i for i, count in enumerate(counts) if count < len(rest[i])]
    means = pooled([rest[i] for i in some], [counts[i] for i in some]) if some else []
    for i, tokens in zip(some, means, strict=True):
        found[i] = torch.cat([found[i][:protected_tokens], tokens])
    return [document.cpu() for document in found]


def patch(coding: Any = None) -> Switch:
    """Makes PyLate score with `lateint_kernels` wherever its backend is "auto", its default, or "lik".

    It is done where PyLate itself chooses a backend, so functions and losses that exist already are reached, too. Its
    backend "torch" stays what it is, to compare with.

    With ``coding``, a `lateint_kernels.coding.Coding`, documents are scored as an index of codes would score them, and
    trained for that; they must be tensors then.
    """
    with needed("pylate", "1.6"):
        from pylate.models.colbert import ColBERT
        from pylate.scores import _lik_backend as kernels
        from pylate.scores import colbert as chooser
        from pylate.scores.xtr import XTRScores

    def score_xtr(scores: Any, queries: Any, documents: Any, *masks: Any) -> Any:
        return xtr_scores(scores, queries, documents if coding is None else coding(documents), *masks)

    return Switch(
        {
            (chooser, "_try_flash"): lambda backend, *tensors: False,
            (chooser, "_try_lik"): lambda backend, *tensors: backend in ("auto", "lik"),
            (kernels, "colbert_scores_lik"): coded(colbert_scores, coding),
            (kernels, "colbert_kd_scores_lik"): coded(colbert_kd_scores, coding),
            (kernels, "colbert_scores_pairwise_lik"): coded(colbert_scores_pairwise, coding),
            (XTRScores, "_score"): score_xtr,
            (ColBERT, "pool_embeddings_hierarchical"): pool_embeddings_hierarchical,
        }
    )


def _tensor(values: Any) -> Any:
    from pylate.utils.tensor import convert_to_tensor

    return convert_to_tensor(values)


def _mask(mask: Any, tokens: Any) -> Any:
    """As PyLate's broadcasting takes it: on the device of the tokens, possibly one row for all."""
    return None if mask is None else _tensor(mask).to(tokens.device).expand(tokens.shape[:-1])
