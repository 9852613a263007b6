"""Losses of a score matrix: what `maxsim` returns goes in, one number to minimise comes out.

Rows are queries, columns are documents. Everything is computed in float32 (float64 scores stay float64), whatever the
scores' dtype is. A score of ``-inf`` means that a document is no candidate of a query: it takes no part, and gets no
gradient.
"""

import torch
from torch import Tensor
from torch.nn import functional

REDUCTIONS = ("mean", "sum", "none")


def contrastive(
    scores: Tensor,
    positives: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    document_ids: Tensor | None = None,
    document_corpora: Tensor | None = None,
    symmetric: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """In-batch contrastive loss: every other document of the batch is a negative.

    ``l_i = -log( exp(s_ip / T) / sum_{j in {p} and N_i} exp(s_ij / T) )`` with p the positive of query i and N_i its
    negatives  (InfoNCE, van den Oord et al. 2018, arXiv 1807.03748, eq. 4; in-batch negatives as in DPR, Karpukhin et
    al. 2020, arXiv 2004.04906, eq. 2). Hard negatives are simply more columns.

    With ``symmetric``, ``l_i`` is the mean of that and of the same with documents for queries: the positive of query i
    against the queries (CLIP, Radford et al. 2021, arXiv 2103.00020, figure 3).

    Args:
        scores: ``[Nq, Nd]`` floating; without queries only if reduction is "none".
        positives: ``[Nq]`` int64, the column of each query's positive; None for column i of query i.
        temperature: T, positive; a scalar tensor is learned with the rest.
        document_ids: ``[Nd]`` integers; documents of one id are the same document, so a copy of the positive is no
            negative. None: every column is a document of its own.
        document_corpora: ``[Nd]`` integers; only documents of the positive's corpus are negatives (PreFLMR, Lin et al.
            2024, arXiv 2402.08327, section 4). None: one corpus.
        symmetric: whether documents choose among queries, too; queries with the same positive, or with one from another
            corpus, are no negatives of it.
        reduction: "mean" over queries, "sum", or "none".

    Returns:
        A scalar, or ``[Nq]`` if reduction is "none"; float32, or float64 if scores are. A query without
        negatives has loss 0.

    Raises:
        TypeError: scores are not floating, or positives, ids or corpora are not integers.
        ValueError: a shape does not match, a positive is not a column, temperature is not positive, or reduction is
            none of these.

    >>> contrastive(torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
    tensor(0.6931)
    """
    scores = _matrix(scores)
    n_queries, n_documents = scores.shape
    positives, same = _labels(scores, positives, document_ids)
    ignored = torch.isneginf(scores) | same
    if document_corpora is not None:
        corpora = _integers(document_corpora, "document_corpora", n_documents).to(scores.device)
        ignored |= corpora[None, :] != corpora[positives, None]

    losses = _cross_entropy(scores, positives, ignored, _temperature(temperature))
    if symmetric:
        # Row i: the positive of query i against every query.
        own = torch.arange(n_queries, device=scores.device)
        losses = losses + _cross_entropy(scores[:, positives].T, own, ignored[:, positives].T, temperature)
        losses = losses / 2
    return _reduce(losses, reduction)


def pairwise(
    scores: Tensor,
    positives: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    hardest: bool = True,
    document_ids: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Each query's positive against its hardest negative, or against each of its negatives.

    ``l_i = log(1 + exp((max_{j in N_i} s_ij - s_ip) / T))``  (ColPali, Faysse et al. 2024, arXiv 2407.01449); without
    ``hardest`` the mean over j of ``log(1 + exp((s_ij - s_ip) / T))``, the pairwise softmax of ColBERT (Khattab &
    Zaharia 2020, arXiv 2004.12832). p is the positive of query i and N_i its negatives.

    Args:
        scores: ``[Nq, Nd]`` floating; without queries only if reduction is "none".
        positives: ``[Nq]`` int64, the column of each query's positive; None for column i of query i.
        temperature: T, positive; a scalar tensor is learned with the rest.
        hardest: whether the negative of the highest score alone counts.
        document_ids: ``[Nd]`` integers; a copy of the positive, which has its id, is no negative.
        reduction: "mean" over queries, "sum", or "none".

    Returns:
        A scalar, or ``[Nq]`` if reduction is "none"; float32, or float64 if scores are. A query without negatives has
        loss 0.

    Raises:
        TypeError, ValueError: as for `contrastive`.

    >>> pairwise(torch.tensor([[2.0, 2.0], [0.0, 3.0]]), reduction="none")
    tensor([0.6931, 0.0486])
    """
    scores = _matrix(scores)
    positives, same = _labels(scores, positives, document_ids)
    ignored = torch.isneginf(scores) | same
    positive = scores.gather(1, positives[:, None])
    gaps = (scores.masked_fill(ignored, 0.0) - positive) / _temperature(temperature)
    if hardest:
        gaps = gaps.masked_fill(ignored, float("-inf")).amax(dim=1, keepdim=True)
        ignored = ignored.all(dim=1, keepdim=True)
        gaps = gaps.masked_fill(ignored, 0.0)
    terms = functional.softplus(gaps).masked_fill(ignored, 0.0)
    return _reduce(terms.sum(dim=1) / (~ignored).sum(dim=1).clamp(min=1), reduction)


def sigmoid(
    scores: Tensor,
    positives: Tensor | None = None,
    *,
    temperature: float | Tensor = 1.0,
    bias: float | Tensor = 0.0,
    document_ids: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Every pair of a query and a document by itself: whether they belong together.

    ``l_ij = log(1 + exp(-z_ij (s_ij / T + b)))``, z_ij being 1 for the positive of query i and -1 for all others
    (SigLIP, Zhai et al. 2023, arXiv 2303.15343, section 3.2).

    Args:
        scores: ``[Nq, Nd]`` floating; without queries only if reduction is "none".
        positives: ``[Nq]`` int64, the column of each query's positive; None for column i of query i.
        temperature: T, positive; a scalar tensor is learned with the rest.
        bias: b; a scalar tensor is learned with the rest.
        document_ids: ``[Nd]`` integers; a copy of the positive, which has its id, is a positive, too.
        reduction: "mean" over all pairs that take part, "sum", or "none".

    Returns:
        A scalar, or ``[Nq, Nd]`` if reduction is "none", 0 where a pair takes no part; float32, or float64 if scores
        are.

    Raises:
        TypeError, ValueError: as for `contrastive`.

    >>> sigmoid(torch.tensor([[2.0, 0.0]]), reduction="none")
    tensor([[0.1269, 0.6931]])
    """
    scores = _matrix(scores)
    _, same = _labels(scores, positives, document_ids)
    absent = torch.isneginf(scores)
    logits = scores.masked_fill(absent, 0.0) / _temperature(temperature) + bias
    losses = functional.softplus(torch.where(same, -logits, logits)).masked_fill(absent, 0.0)
    if reduction == "mean" and losses.numel():
        return losses.sum() / (~absent).sum()
    return _reduce(losses, reduction)


def filter_negatives(
    scores: Tensor,
    positives: Tensor | None = None,
    *,
    threshold: float = 0.95,
    factor: float | None = None,
    document_ids: Tensor | None = None,
) -> Tensor:
    """Scores without the negatives that are probably none: they score nearly as high as the positive, or higher.

    ``s_ij`` with ``s_ij > threshold * s_ip`` becomes -inf, so that it takes no part in a loss (NV-Retriever, Moreira et
    al. 2024, arXiv 2407.15831, section 3: "TopK-PercPos"), or ``factor * s_ij``, as in colpali-engine.

    Args:
        scores: ``[Nq, Nd]`` floating.
        positives: ``[Nq]`` int64, the column of each query's positive; None for column i of query i.
        threshold: share of the positive's score that a negative may have.
        factor: what is multiplied onto the others; None: they are left out.
        document_ids: ``[Nd]`` integers; a copy of the positive is left as it is: losses know it by its id.

    Returns:
        ``[Nq, Nd]`` float32, or float64 if scores are; what stays has its gradient.

    Raises:
        TypeError, ValueError: as for `contrastive`.

    >>> filter_negatives(torch.tensor([[2.0, 1.95, 1.0]]))
    tensor([[2., -inf, 1.]])
    """
    scores = _matrix(scores)
    positives, same = _labels(scores, positives, document_ids)
    high = (scores > threshold * scores.gather(1, positives[:, None])) & ~same
    return scores.masked_fill(high, float("-inf")) if factor is None else torch.where(high, factor * scores, scores)


def kl_divergence(
    scores: Tensor, teacher_scores: Tensor, *, temperature: float = 1.0, reduction: str = "mean"
) -> Tensor:
    """Knowledge distillation: how far a query's distribution over its candidates is from the teacher's.

    ``l_i = T^2 sum_k p_ik log(p_ik / s_ik)``, ``p_i = softmax(teacher_scores_i / T)``, ``s_i = softmax(scores_i / T)``
    (Hinton et al. 2015, arXiv 1503.02531, section 2, whose T^2 keeps gradients of one size; for late interaction:
    Santhanam et al. 2022, ColBERTv2, arXiv 2112.01488, section 3.2)

    Args:
        scores: ``[Nq, K]`` floating, of each query with its K candidates.
        teacher_scores: ``[Nq, K]`` floating; no gradient goes to them. ``-inf`` for a candidate that is not there (then
            ``scores`` may hold ``-inf``, too), so that queries may have different numbers of them.
        temperature: T, positive.
        reduction: "mean" over queries (what torch calls "batchmean"), "sum", or "none".

    Returns:
        A scalar, or ``[Nq]`` if reduction is "none"; float32, or float64 if scores are.

    Raises:
        TypeError: scores are not floating.
        ValueError: shapes differ, temperature is not positive, or reduction is none of these.

    >>> kl_divergence(torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0, 0.0]]))
    tensor(0.)
    """
    student, teacher = _student_and_teacher(scores, teacher_scores)
    scale = _temperature(temperature)
    absent = torch.isneginf(teacher)
    target = functional.log_softmax(teacher / scale, dim=1)
    guess = functional.log_softmax((student / scale).masked_fill(absent, float("-inf")), dim=1)
    # 0 log 0 = 0: filled before the product, for there 0 times infinity would be NaN, in the gradient as well.
    gap = target.masked_fill(absent, 0.0) - guess.masked_fill(absent, 0.0)
    return _reduce((target.exp() * gap).sum(dim=1) * scale**2, reduction)


def margin_mse(scores: Tensor, teacher_scores: Tensor, *, reduction: str = "mean") -> Tensor:
    """Knowledge distillation: the margins between the positive and each negative shall be the teacher's.

    ``l_ik = ((s_i0 - s_ik) - (t_i0 - t_ik))^2``, k >= 1  (Margin-MSE, Hofstätter et al. 2020, arXiv 2010.02666, eq. 3)

    Args:
        scores: ``[Nq, 1 + K]`` floating, of each query with its positive (column 0) and its K >= 1 negatives.
        teacher_scores: ``[Nq, 1 + K]`` floating; no gradient goes to them. ``-inf`` for a negative that is not there.
        reduction: "mean" over all negatives that are there, "sum", or "none".

    Returns:
        A scalar, or ``[Nq, K]`` if reduction is "none", 0 where there is no negative; float32, or float64 if
        scores are.

    Raises:
        TypeError: scores are not floating.
        ValueError: shapes differ, there is no negative, or reduction is none of these.

    >>> margin_mse(torch.tensor([[5.0, 1.0]]), torch.tensor([[3.0, 1.0]]))
    tensor(4.)
    """
    student, teacher = _student_and_teacher(scores, teacher_scores)
    if student.shape[1] < 2:
        raise ValueError(f"scores must be [Nq, 1 + K] with K >= 1 negatives, got {tuple(scores.shape)}")
    present = ~torch.isneginf(teacher[:, 1:])
    gap = (student[:, :1] - student[:, 1:].masked_fill(~present, 0.0)) - (
        teacher[:, :1] - teacher[:, 1:].masked_fill(~present, 0.0)
    )
    losses = gap.masked_fill(~present, 0.0).square()
    if reduction == "mean" and len(losses):
        return losses.sum() / present.sum()
    return _reduce(losses, reduction)


def _labels(scores: Tensor, positives: Tensor | None, document_ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """The column of each query's positive ``[Nq]``, and which documents are that one ``[Nq, Nd]``."""
    n_queries, n_documents = scores.shape
    if positives is None:
        if n_documents < n_queries:
            raise ValueError(f"scores must have a column for each query's positive, got {tuple(scores.shape)}")
        positives = torch.arange(n_queries)
    positives = _positives(positives, n_queries, n_documents).to(scores.device)
    ids = torch.arange(n_documents, device=scores.device)
    if document_ids is not None:
        ids = _integers(document_ids, "document_ids", n_documents).to(scores.device)
    return positives, ids[None, :] == ids[positives, None]


def _cross_entropy(scores: Tensor, targets: Tensor, ignored: Tensor, temperature: float | Tensor) -> Tensor:
    others = ignored.scatter(1, targets[:, None], False)
    # Filled with 0 before the division, for -inf would send NaN to a learned temperature.
    logits = scores.masked_fill(others, 0.0) / temperature
    return functional.cross_entropy(logits.masked_fill(others, float("-inf")), targets, reduction="none")


def _reduce(losses: Tensor, reduction: str) -> Tensor:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if reduction == "none":
        return losses
    if losses.numel() == 0:
        raise ValueError(f"scores of no query have no {reduction}; reduction must be 'none'")
    return losses.mean() if reduction == "mean" else losses.sum()


def _matrix(scores: Tensor) -> Tensor:
    if not scores.is_floating_point():
        raise TypeError(f"scores must be floating, got {scores.dtype}")
    if scores.ndim != 2 or scores.shape[1] == 0:
        raise ValueError(f"scores must be [Nq, Nd] with Nd >= 1, got {tuple(scores.shape)}")
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _student_and_teacher(scores: Tensor, teacher_scores: Tensor) -> tuple[Tensor, Tensor]:
    student = _matrix(scores)
    if teacher_scores.shape != scores.shape:
        shapes = f"{tuple(scores.shape)} and {tuple(teacher_scores.shape)}"
        raise ValueError(f"scores and teacher_scores must have one shape, got {shapes}")
    return student, teacher_scores.detach().to(student)


def _temperature(temperature: float | Tensor) -> float | Tensor:
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return temperature


def _positives(positives: Tensor, n_queries: int, n_documents: int) -> Tensor:
    positives = _integers(positives, "positives", n_queries)
    # Looking at values on a GPU would wait for it.
    if (
        positives.device.type == "cpu"
        and n_queries
        and not 0 <= int(positives.min()) <= int(positives.max()) < n_documents
    ):
        found = f"{int(positives.min())} to {int(positives.max())}"
        raise ValueError(f"positives must be columns from 0 to {n_documents - 1}, got {found}")
    return positives.long()


def _integers(values: Tensor, name: str, length: int) -> Tensor:
    if values.dtype.is_floating_point or values.dtype.is_complex or values.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got {values.dtype}")
    if values.shape != (length,):
        raise ValueError(f"{name} must be [{length}], got {tuple(values.shape)}")
    return values
