"""`Problem` -> scores as operators of torch, so that autograd, torch.compile and tracing know them.

``lateint::maxsim`` and ``lateint::maxsim_backward`` take the fields of a problem one by one, since operators take
tensors and numbers only, and hand them to a backend as a `Problem` again. An output that was not asked for has no
elements.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from lateint_kernels import backends
from lateint_kernels.dense.problem import Problem

FIELDS = (
    "Tensor queries, Tensor query_offsets, Tensor documents, Tensor document_offsets, "
    "SymInt max_query_length, SymInt max_document_length, Tensor? query_weights, Tensor? query_inverse_norms, "
    "Tensor? document_inverse_norms, Tensor? document_scales, Tensor? document_mask, Tensor? query_index, "
    "Tensor? document_index"
)
NAMES = [field.name for field in fields(Problem)]
LENGTHS = slice(
    NAMES.index("max_query_length"), NAMES.index("max_document_length") + 1
)  # the only fields that are ints
DIFFERENTIABLE = [NAMES.index(name) for name in ("queries", "documents", "query_weights")]


def maxsim(problem: Problem, need_argmax: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    """Scores, differentiable if ``need_argmax``, and the positions of the maxima: see `Problem` for both."""
    scores, argmax = torch.ops.lateint.maxsim(*(getattr(problem, name) for name in NAMES), need_argmax, backend)
    return scores, argmax if need_argmax else None


def checked_mask(mask: Tensor, offsets: Tensor, what: str) -> Tensor:
    """A copy of ``mask [T]`` that leaves every matrix a token; ValueError otherwise. The host waits for the device."""
    return torch.ops.lateint.checked_mask(mask, offsets, what)


def checked_index(index: Tensor, size: int, name: str, what: str) -> Tensor:
    """A copy of ``index [P]``, all from 0 to size - 1; ValueError otherwise. The host waits for the device."""
    return torch.ops.lateint.checked_index(index, size, name, what)


def _maxsim(*arguments: Any) -> tuple[Tensor, Tensor]:
    *parts, need_argmax, backend = arguments
    problem = _problem(parts)
    with _without_autocast(problem.queries.device.type):
        run = backends.resolve("maxsim", *_like(problem), backend)
        if 0 in problem.scores_shape:  # backends need not think of it
            return _maxsim_fake(*arguments)
        scores, argmax = run(problem, need_argmax)
    return scores, _or_nothing(argmax, scores, problem.argmax_dtype)


def _maxsim_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    *parts, need_argmax, _ = arguments
    problem = Problem(*parts)
    scores = problem.queries.new_empty(problem.scores_shape, dtype=problem.scores_dtype)
    shape = problem.argmax_shape if need_argmax else (0,)
    return scores, problem.queries.new_empty(shape, dtype=problem.argmax_dtype)


class _Maxsim(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """``lateint::maxsim`` with a gradient; `torch.library.register_autograd` would cost 0.1 ms a call."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        scores, argmax = _below_autograd(*arguments)
        ctx.lengths, ctx.backend = arguments[LENGTHS], arguments[-1]
        ctx.save_for_backward(*arguments[: LENGTHS.start], *arguments[LENGTHS.stop : len(NAMES)], argmax)
        ctx.mark_non_differentiable(argmax)
        return scores, argmax

    @staticmethod
    def backward(ctx: Any, grad_scores: Tensor, _: object) -> tuple[Tensor | None, ...]:
        *tensors, argmax = ctx.saved_tensors
        parts = (*tensors[: LENGTHS.start], *ctx.lengths, *tensors[LENGTHS.start :])
        needs = [ctx.needs_input_grad[i] for i in DIFFERENTIABLE]
        gradients = torch.ops.lateint.maxsim_backward(*parts, grad_scores, argmax, needs, ctx.backend)
        found: list[Tensor | None] = [None] * (len(parts) + 2)
        for i, need, gradient in zip(DIFFERENTIABLE, needs, gradients, strict=True):
            found[i] = gradient if need else None
        return tuple(found)


def _with_autograd(*arguments: Any) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled() and any(arguments[i] is not None and arguments[i].requires_grad for i in DIFFERENTIABLE):
        return _Maxsim.apply(*arguments)  # type: ignore[no-any-return]
    return _below_autograd(*arguments)


def _below_autograd(*arguments: Any) -> tuple[Tensor, Tensor]:
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.lateint.maxsim.default(*arguments)  # type: ignore[no-any-return]


def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    *parts, grad_scores, argmax, needs, backend = arguments
    problem = _problem(parts)
    with _without_autocast(problem.queries.device.type):
        run = backends.resolve("maxsim_backward", *_like(problem), backend)
        if 0 in problem.scores_shape:
            return tuple(gradient.zero_() for gradient in _backward_fake(*arguments))
        of_queries, of_documents, of_weights = run(problem, grad_scores.contiguous(), argmax, tuple(needs))
    if of_weights is not None and problem.query_weights is not None:  # a token of weight 0 is absent
        of_weights = of_weights.masked_fill(problem.query_weights == 0, 0)
    dtypes = _gradient_dtypes(problem)
    found = (of_queries, of_documents, of_weights)
    return tuple(_or_nothing(x, grad_scores, dtype) for x, dtype in zip(found, dtypes, strict=True))


def _backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    *parts, grad_scores, _, needs, _ = arguments
    problem = Problem(*parts)
    shapes = (problem.queries.shape, problem.documents.shape, problem.queries.shape[:1])
    return tuple(
        grad_scores.new_empty(shape if need else (0,), dtype=dtype)
        for shape, need, dtype in zip(shapes, needs, _gradient_dtypes(problem), strict=True)
    )


def _twice(ctx: Any, *_: object) -> None:
    raise RuntimeError("maxsim can be differentiated once only: its gradient has no gradient (no create_graph=True)")


def _checked_mask(mask: Tensor, offsets: Tensor, what: str) -> Tensor:
    _refuse_capture(mask)
    counts = torch.nn.functional.pad(mask.cumsum(0), (1, 0))[offsets].diff()
    if not bool((counts > 0).all()):
        i = int((counts == 0).nonzero()[0])
        raise ValueError(f"{what}_mask must leave every {what} a token, but {what} {i} has none left")
    return mask.clone()


def _checked_index(index: Tensor, size: int, name: str, what: str) -> Tensor:
    _refuse_capture(index)
    if index.numel() and not bool(((index >= 0) & (index < size)).all()):
        raise ValueError(f"{name} must be from 0 to {size - 1}, for there are {size} {what}")
    return index.clone()


def _refuse_capture(tensor: Tensor) -> None:
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("check=True reads masks and indices, which a CUDA graph cannot record: pass check=False")


def _like(problem: Problem) -> tuple[torch.device, torch.dtype, int]:
    return problem.queries.device, problem.queries.dtype, problem.dim


def _without_autocast(kind: str) -> AbstractContextManager[Any]:
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _problem(parts: Sequence[Any]) -> Problem:
    """The fields as a problem, made contiguous if a compiler has rearranged them."""
    whole: list[Any] = [part if part is None or isinstance(part, int) else part.contiguous() for part in parts]
    return Problem(*whole)


def _or_nothing(found: Tensor | None, like: Tensor, dtype: torch.dtype) -> Tensor:
    return like.new_empty(0, dtype=dtype) if found is None else found


def _gradient_dtypes(problem: Problem) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    return problem.queries.dtype, problem.documents.dtype, problem.scores_dtype


def _register(schema: str, run: Any, fake: Any) -> None:
    name = LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lateint::{name}", fake, lib=LIBRARY)


LIBRARY = torch.library.Library("lateint", "FRAGMENT")
_register(f"maxsim({FIELDS}, bool need_argmax, str? backend) -> (Tensor, Tensor)", _maxsim, _maxsim_fake)
_register(
    f"maxsim_backward({FIELDS}, Tensor grad_scores, Tensor argmax, bool[3] needs, str? backend) "
    "-> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
_register(
    "checked_mask(Tensor mask, Tensor offsets, str what) -> Tensor",
    _checked_mask,
    lambda mask, offsets, what: torch.empty_like(mask),
)
_register(
    "checked_index(Tensor index, SymInt size, str name, str what) -> Tensor",
    _checked_index,
    lambda index, size, name, what: torch.empty_like(index),
)
LIBRARY.impl("maxsim", _with_autograd, "Autograd")
torch.library.register_autograd("lateint::maxsim_backward", _twice, lib=LIBRARY)
