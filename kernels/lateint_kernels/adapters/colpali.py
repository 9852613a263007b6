"""colpali-engine (tested with 0.3.17 and 0.3.18): its scores and ColbertLoss family with our scorer, on CPU and GPU.

It knows no masks: padding is zero and takes part, with similarity 0; so it does here. Gradients differ from those of
its torch path in one thing: that one shares a gradient among equal maxima, such as several rows of padding, and here
the first gets it. Scores are float32 even where its torch path would be half precision.
"""

from typing import Any

from lateint_kernels.adapters.clusters import pooled_by_rows
from lateint_kernels.adapters.coded import coded
from lateint_kernels.adapters.switch import Switch, needed
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


def pool_single_embedding(embedding: Any, pool_factor: int) -> Any:
    """What its ``HierarchicalTokenPooler`` does with a page: tokens are as far apart as the rows of ``1 - similarity``.

    Those are as far apart as ``R x`` where ``X = QR`` has the tokens x as its rows, for
    ``|X (x - y)| = |Q R (x - y)| = |R (x - y)|``: of dim numbers instead of as many as there are tokens. Clusters come
    in the order of their first tokens; as there, means are normalised and have no gradient. The last bits of R, and so
    the order of merges that cost all but the same, are those of the device.
    """
    import torch

    count = max(len(embedding) // pool_factor, 1)
    with torch.no_grad():
        wide = embedding.float()
        exact = wide.double()
        rows = exact @ torch.linalg.qr(exact, mode="r").R.T
        found, clusters = pooled_by_rows(wide, rows.float(), count)
        clusters = clusters.cpu()
        parts = clusters.argsort(stable=True).split(clusters.bincount(minlength=count).tolist())
        members = {number: (part,) for number, part in enumerate(parts)}
        return torch.nn.functional.normalize(found, dim=-1).to(embedding), members


def patch(coding: Any = None) -> Switch:
    """Makes colpali-engine score with `lateint_kernels` wherever its backend is "auto", its default, or "lik".

    It is done where colpali-engine calls the kernels it knows, so losses and processors that exist already are reached,
    too. ``COLPALI_SCORES_BACKEND=torch`` stays what it is, to compare with. In-batch scores with ``use_smooth_max`` are
    ours whatever that says, and so is hierarchical token pooling; smooth scores of negatives given for each query stay
    theirs.

    With ``coding``, a `lateint_kernels.coding.Coding`, documents are scored as an index of codes would score them, and
    trained for that.
    """
    with needed("colpali-engine", "0.3.17"):
        from colpali_engine.compression.token_pooling.hierarchical_token_pooling import HierarchicalTokenPooler
        from colpali_engine.loss.late_interaction_losses import ColbertModule
        from colpali_engine.utils import _lik_backend as kernels

    theirs = ColbertModule._inbatch_scores
    their_pooling = HierarchicalTokenPooler._pool_single_embedding

    def inbatch_scores(loss: Any, query_embeddings: Any, doc_embeddings: Any) -> Any:
        if not loss.use_smooth_max:
            return theirs(loss, query_embeddings, doc_embeddings)
        scores = coded(smooth_inbatch, coding)(query_embeddings, doc_embeddings, loss.tau)
        if not loss.normalize_scores:
            return scores
        return loss._apply_normalization(scores, (query_embeddings[:, :, 0] != 0).sum(dim=1))

    def pool(pooler: Any, embedding: Any, pool_factor: int) -> Any:
        if embedding.dim() == 2 and len(embedding) > 1 and pool_factor > 1:
            return pool_single_embedding(embedding, pool_factor)
        return their_pooling(pooler, embedding, pool_factor=pool_factor)

    return Switch(
        {
            (kernels, "maxsim_inbatch_lik"): coded(maxsim_inbatch, coding),
            (kernels, "maxsim_kd_lik"): coded(maxsim_kd, coding),
            (ColbertModule, "_inbatch_scores"): inbatch_scores,
            (HierarchicalTokenPooler, "_pool_single_embedding"): pool,
        }
    )
