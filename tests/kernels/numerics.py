"""MaxSim as one writes it in torch, on lists of tokens: in float64 the exact answer, else what others lose."""

import torch


def tokens(rng, lengths, dim, dtype=torch.float32, device="cpu"):
    """A list of random ``[L, dim]``."""
    return [torch.randn(length, dim, generator=rng).to(device, dtype) for length in lengths]


def expression(queries, documents, *, weights=None, masks=None, normalize=False, masking="exclude", pairs=None):
    """Scores ``[Nq, Nd]``, or ``[P]`` of ``pairs``: a list of two indices."""
    if normalize:
        queries, documents = (
            [torch.nn.functional.normalize(x, dim=1, eps=1e-12) for x in side] for side in (queries, documents)
        )
    if pairs is not None:
        return torch.stack([_score(queries, documents, i, j, weights, masks, masking) for i, j in pairs])
    rows = [
        [_score(queries, documents, i, j, weights, masks, masking) for j in range(len(documents))]
        for i in range(len(queries))
    ]
    return torch.stack([torch.stack(row) for row in rows])


def _score(queries, documents, i, j, weights, masks, masking):
    similarities = queries[i] @ documents[j].T
    if masks is not None and masking == "exclude":
        similarities = similarities.masked_fill(~masks[j], -torch.inf)
    elif masks is not None:
        similarities = similarities * masks[j]
    best = similarities.max(1).values
    return (best if weights is None else torch.where(weights[i] != 0, best * weights[i], 0)).sum()


def gradients(run, leaves, grad_scores):
    """Scores, and gradients of the leaves; ``run`` is called without arguments."""
    scores = run()
    found = torch.autograd.grad(scores, leaves, grad_scores.to(scores.dtype))
    return [scores.detach(), *found]


def assert_as_accurate(actual, exact, plain, factor=2.0, floor=3e-7):
    """``actual`` may be off from the float64 answer by at most twice what plain torch is off, and a last bit."""
    if actual.dtype != torch.float32:
        floor = torch.finfo(actual.dtype).eps / 2  # what rounding the exact answer may lose
    assert actual.shape == exact.shape == plain.shape
    error, lost = ((x.double() - exact).abs().max().item() if exact.numel() else 0.0 for x in (actual, plain))
    allowed = factor * lost + floor * (exact.abs().max().item() if exact.numel() else 0.0)
    assert error <= allowed, f"off by {error:.3g}, allowed {allowed:.3g}"
