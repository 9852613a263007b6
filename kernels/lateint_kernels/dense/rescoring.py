"""Scores at maxima that are known, in torch's own operations: for derivatives that no backend has.

``S_ij = sum_s w_s <q_s, d_t>``, t being the token of document j where query token s found its maximum. Around tokens
where the maxima are elsewhere by a margin this is MaxSim, so its derivatives are those of MaxSim, whatever their order.
"""

import torch
from torch import Tensor

from lateint_kernels.dense.problem import Problem, multiplied, padded_rows
from lateint_kernels.dense.torch import blocks, budget_of


def rescored(problem: Problem, argmax: Tensor) -> Tensor:
    """Scores ``[Nq, Nd]`` or ``[P]`` for positions ``[Nd, TQ]`` or ``[P, Lq]``; 0 for a document without tokens.

    A token of weight 0 is absent, so that its weight has no derivative.
    """
    weights, normalize = problem.query_weights, problem.query_inverse_norms is not None
    queries = multiplied(problem.queries, None if weights is None else weights != 0, normalize)
    documents = multiplied(problem.documents, problem.document_mask, normalize)
    if problem.document_scales is not None:
        documents = documents * problem.document_scales[:, None]
    starts = problem.document_offsets[:-1]
    parts = []
    for first, last in blocks(len(argmax), budget_of(problem) // max(argmax.shape[1] * problem.dim, 1)):
        if problem.query_index is None:
            begin, owner = starts[first:last], torch.arange(problem.Nq, device=argmax.device)
        else:
            assert problem.document_index is not None
            begin, owner = starts[problem.document_index[first:last]], problem.query_index[first:last]
        rows, inside = padded_rows(problem.query_offsets, owner, problem.max_query_length, len(queries))
        where = argmax[first:last].long()
        if problem.query_index is None:
            where, begin = where[:, rows], begin[:, None]  # [n, Nq, Lq]
        winners = documents[(begin[..., None] + where).clamp(max=len(documents) - 1)]
        best = (queries[rows] * winners).sum(-1)
        if weights is not None:
            best = best * weights[rows]
        parts.append(best.masked_fill(~inside, 0).sum(-1))
    if not parts:
        return problem.queries.new_zeros(problem.scores_shape, dtype=problem.scores_dtype)
    return torch.cat(parts) if problem.query_index is not None else torch.cat(parts).mT
