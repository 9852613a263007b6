"""colpali-engine (tested with 0.3.18): its scores and the ColbertLoss family with our scorer, on CPU and GPU.

It knows no masks: padding is zero and takes part, with similarity 0; so it does here. Gradients differ from those of
its torch path in one thing: that one shares a gradient among equal maxima, such as several rows of padding, and here
the first gets it. Scores are float32 even where its torch path would be half precision.
"""

from typing import Any

from lateint_kernels.adapters.switch import Switch
from lateint_kernels.maxsim import maxsim


def maxsim_inbatch(query: Any, doc: Any) -> Any:
    """`colpali_engine.utils.maxsim.maxsim_inbatch`: ``[Nq, Lq, dim]`` with ``[Nd, Ld, dim]`` -> ``[Nq, Nd]``."""
    return maxsim(query, doc)


def maxsim_kd(query: Any, doc: Any) -> Any:
    """`colpali_engine.utils.maxsim.maxsim_kd`: each query with its own ``[Nq, K, Ld, dim]`` -> ``[Nq, K]``."""
    return maxsim(query, doc)


def score_multi_vector(qs: Any, ps: Any, batch_size: int = 128, device: Any = None) -> Any:
    """``score_multi_vector`` of its processors: lists of ``[L, dim]``, or padded -> ``[Nq, Nd]`` float32 on the CPU.

    Padded with zeros ``batch_size`` at a time, as there, so that the numbers are the same.
    """
    from colpali_engine.utils.processing_utils import BaseVisualRetrieverProcessor

    with patch():
        return BaseVisualRetrieverProcessor.score_multi_vector(qs, ps, batch_size=batch_size, device=device)


def smooth_inbatch(query: Any, doc: Any, temperature: float) -> Any:
    """What its losses call smooth max: ``[Nq, Lq, dim]`` with ``[Nd, Ld, dim]`` -> ``[Nq, Nd]``."""
    from lateint_kernels.scores import smooth_maxsim

    return smooth_maxsim(query, doc, temperature)


def patch() -> Switch:
    """Makes colpali-engine score with `lateint_kernels` wherever its backend is "auto", its default, or "lik".

    It is done where colpali-engine calls the kernels it knows, so losses and processors that exist already are reached,
    too. ``COLPALI_SCORES_BACKEND=torch`` stays what it is, to compare with. In-batch scores with ``use_smooth_max`` are
    ours whatever that says; those with negatives given for each query stay theirs.
    """
    from colpali_engine.loss.late_interaction_losses import ColbertModule
    from colpali_engine.utils import _lik_backend as kernels

    theirs = ColbertModule._inbatch_scores

    def inbatch_scores(loss: Any, query_embeddings: Any, doc_embeddings: Any) -> Any:
        if not loss.use_smooth_max:
            return theirs(loss, query_embeddings, doc_embeddings)
        scores = smooth_inbatch(query_embeddings, doc_embeddings, loss.tau)
        if not loss.normalize_scores:
            return scores
        return loss._apply_normalization(scores, (query_embeddings[:, :, 0] != 0).sum(dim=1))

    return Switch(
        {
            (kernels, "maxsim_inbatch_lik"): maxsim_inbatch,
            (kernels, "maxsim_kd_lik"): maxsim_kd,
            (ColbertModule, "_inbatch_scores"): inbatch_scores,
        }
    )
