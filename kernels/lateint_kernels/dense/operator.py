"""`Problem` -> scores as operators of torch, so that autograd, torch.compile and tracing know them.

``lateint::maxsim`` and ``lateint::maxsim_backward`` take the parts of a problem one by one, since operators take
tensors and numbers only, and hand them to a backend as a `Problem` again. An output that was not asked for has no
elements.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lateint_kernels import backends
from lateint_kernels.dense import edge
from lateint_kernels.dense.problem import Problem
from lateint_kernels.dense.rescoring import rescored

TYPES = {Tensor: "Tensor", Tensor | None: "Tensor?", int: "SymInt"}  # of a problem's parts, in a schema
PARTS = ", ".join(f"{TYPES[field.type]} {field.name}" for field in fields(Problem))
NAMES = [field.name for field in fields(Problem)]
DIFFERENTIABLE = [NAMES.index(name) for name in ("queries", "documents", "query_weights")]


def maxsim(problem: Problem, need_argmax: bool, backend: str | None) -> tuple[Tensor, Tensor | None]:
    """Scores, differentiable if ``need_argmax``, and the positions of the maxima: see `Problem` for both."""
    if differentiates_forward():
        scores, argmax = _in_forward_mode(problem, backend)
    else:
        run = _Maxsim.apply if _transformed() else torch.ops.lateint.maxsim
        scores, argmax = run(*problem.parts, need_argmax, backend)
    return scores, argmax if need_argmax else None


def differentiates_forward() -> bool:
    """Whether forward-mode differentiation is at work; torch has no public name for that."""
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


def _transformed() -> bool:
    """Whether a transform of torch.func is at work, which sees autograd functions only; no public name either."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def is_transformed() -> bool:
    """Whether derivatives are asked for that only maxima by `maxsim` and plain torch have."""
    return differentiates_forward() or _transformed()


def _in_forward_mode(problem: Problem, backend: str | None) -> tuple[Tensor, Tensor]:
    """By `rescored`, whose operations know every mode of differentiation, also of one derivative by another."""
    scores, argmax = _Found.apply(*problem.parts, True, backend)
    return torch.where(scores.isneginf(), scores, rescored(problem, argmax)), argmax


def checked_mask(mask: Tensor, offsets: Tensor, what: str) -> Tensor:
    """A copy of ``mask [T]`` that leaves every matrix a token; ValueError otherwise. The host waits for the device."""
    return torch.ops.lateint.checked_mask(mask, offsets, what)


def checked_index(index: Tensor, size: int, name: str, what: str) -> Tensor:
    """A copy of ``index [P]``, all from 0 to size - 1; ValueError otherwise. The host waits for the device."""
    return torch.ops.lateint.checked_index(index, size, name, what)


def _maxsim(*arguments: Any) -> tuple[Tensor, Tensor]:
    *parts, need_argmax, backend = arguments
    problem = problem_of_parts(parts)
    with _without_autocast(problem.queries.device.type):
        run = backends.resolve("maxsim", *_like(problem), backend)
        if 0 in problem.scores_shape:  # backends need not think of it
            return _maxsim_fake(*arguments)
        scores, argmax = run(problem, need_argmax)
    return scores, or_nothing(argmax, scores, problem.argmax_dtype)


def _maxsim_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    *parts, need_argmax, _ = arguments
    problem = Problem(*parts)
    scores = problem.queries.new_empty(problem.scores_shape, dtype=problem.scores_dtype)
    shape = problem.argmax_shape if need_argmax else (0,)
    return scores, problem.queries.new_empty(shape, dtype=problem.argmax_dtype)


class _Maxsim(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """``lateint::maxsim`` with derivatives; `torch.library.register_autograd` would cost 0.1 ms a call."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        return _below_autograd(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        *parts, _, ctx.backend = inputs
        ctx.others = {i: part for i, part in enumerate(parts) if not isinstance(part, Tensor)}
        tensors = [*(part for part in parts if isinstance(part, Tensor)), output[1]]
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad_scores: Tensor, _: object) -> tuple[Tensor | None, ...]:
        parts, argmax = restored(ctx)
        needs = [ctx.needs_input_grad[i] for i in DIFFERENTIABLE]
        run = _Gradients.apply if _transformed() else torch.ops.lateint.maxsim_backward
        gradients = run(*parts, grad_scores, argmax, needs, ctx.backend)
        found: list[Tensor | None] = [None] * (len(parts) + 2)
        for i, need, gradient in zip(DIFFERENTIABLE, needs, gradients, strict=True):
            found[i] = gradient if need else None
        return tuple(found)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return _one_by_one(_Maxsim, info, in_dims, arguments)


class _Found(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """Scores and positions as numbers that nothing is differentiated through."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        return _below_autograd(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *_: object) -> tuple[None, ...]:
        return (None,) * (len(NAMES) + 2)

    @staticmethod
    def jvp(ctx: Any, *_: object) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return _one_by_one(_Found, info, in_dims, arguments)


class _Gradients(torch.autograd.Function):  # type: ignore[misc]  # torch has no types here
    """``lateint::maxsim_backward`` under a transform of torch.func."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return torch.ops.lateint.maxsim_backward(*arguments)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: object) -> None:
        twice(ctx)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return _one_by_one(_Gradients, info, in_dims, arguments)


def _one_by_one(
    function: Any, info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """The rule of `torch.vmap`: each member of the batch by itself."""
    members = [
        function.apply(
            *(x.select(dim, i) if isinstance(dim, int) else x for x, dim in zip(arguments, in_dims, strict=True))
        )
        for i in range(info.batch_size)
    ]
    outputs = tuple(torch.stack(parts) for parts in zip(*members, strict=True))
    return outputs, (0,) * len(outputs)


def restored(ctx: Any) -> tuple[list[Any], Tensor]:
    """The parts of a problem and the positions of its maxima."""
    *tensors, argmax = ctx.saved_tensors
    rest = iter(tensors)
    return [ctx.others[i] if i in ctx.others else next(rest) for i in range(len(NAMES))], argmax


def _with_autograd(*arguments: Any) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled() and any(arguments[i] is not None and arguments[i].requires_grad for i in DIFFERENTIABLE):
        return _Maxsim.apply(*arguments)  # type: ignore[no-any-return]
    return _below_autograd(*arguments)


def _below_autograd(*arguments: Any) -> tuple[Tensor, Tensor]:
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.lateint.maxsim.default(*arguments)  # type: ignore[no-any-return]


def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    *parts, grad_scores, argmax, needs, backend = arguments
    problem = problem_of_parts(parts)
    with _without_autocast(problem.queries.device.type):
        run = backends.resolve("maxsim_backward", *_like(problem), backend)
        if 0 in problem.scores_shape:
            return tuple(gradient.zero_() for gradient in _backward_fake(*arguments))
        of_queries, of_documents, of_weights = run(problem, grad_scores.contiguous(), argmax, tuple(needs))
    if of_weights is not None and problem.query_weights is not None:  # a token of weight 0 is absent
        of_weights = of_weights.masked_fill(problem.query_weights == 0, 0)
    dtypes = _gradient_dtypes(problem)
    found = (of_queries, of_documents, of_weights)
    return tuple(or_nothing(x, grad_scores, dtype) for x, dtype in zip(found, dtypes, strict=True))


def _backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    *parts, grad_scores, _, needs, _ = arguments
    problem = Problem(*parts)
    shapes = (problem.queries.shape, problem.documents.shape, problem.queries.shape[:1])
    return tuple(
        grad_scores.new_empty(shape if need else (0,), dtype=dtype)
        for shape, need, dtype in zip(shapes, needs, _gradient_dtypes(problem), strict=True)
    )


def twice(ctx: Any, *_: object) -> None:
    raise RuntimeError("maxsim can be differentiated once only: its gradient has no gradient (no create_graph=True)")


def _checked_mask(mask: Tensor, offsets: Tensor, what: str) -> Tensor:
    _refuse_capture(mask)
    counts = torch.nn.functional.pad(mask.cumsum(0), (1, 0))[offsets].diff()
    if not bool((counts > 0).all()):
        raise edge.nothing_left(what, int((counts == 0).nonzero()[0]))
    return mask.clone()


def _checked_index(index: Tensor, size: int, name: str, what: str) -> Tensor:
    _refuse_capture(index)
    if index.numel() and not bool(((index >= 0) & (index < size)).all()):
        raise edge.out_of_range(name, size, what)
    return index.clone()


def _refuse_capture(tensor: Tensor) -> None:
    if tensor.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError("check=True reads masks and indices, which a CUDA graph cannot record: pass check=False")


def _like(problem: Problem) -> tuple[torch.device, torch.dtype, int]:
    return problem.queries.device, problem.queries.dtype, problem.dim


def _without_autocast(kind: str) -> AbstractContextManager[Any]:
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def problem_of_parts(parts: Sequence[Any]) -> Problem:
    """The fields as a problem, made contiguous if a compiler has rearranged them."""
    whole: list[Any] = [part if part is None or isinstance(part, int) else part.contiguous() for part in parts]
    return Problem(*whole)


def or_nothing(found: Tensor | None, like: Tensor, dtype: torch.dtype) -> Tensor:
    return like.new_empty(0, dtype=dtype) if found is None else found


def _gradient_dtypes(problem: Problem) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    return problem.queries.dtype, problem.documents.dtype, problem.scores_dtype


def register(schema: str, run: Any, fake: Any) -> None:
    name = LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"lateint::{name}", fake, lib=LIBRARY)


LIBRARY = torch.library.Library("lateint", "FRAGMENT")
register(f"maxsim({PARTS}, bool need_argmax, str? backend) -> (Tensor, Tensor)", _maxsim, _maxsim_fake)
register(
    f"maxsim_backward({PARTS}, Tensor grad_scores, Tensor argmax, bool[3] needs, str? backend) "
    "-> (Tensor, Tensor, Tensor)",
    _backward,
    _backward_fake,
)
register(
    "checked_mask(Tensor mask, Tensor offsets, str what) -> Tensor",
    _checked_mask,
    lambda mask, offsets, what: torch.empty_like(mask),
)
register(
    "checked_index(Tensor index, SymInt size, str name, str what) -> Tensor",
    _checked_index,
    lambda index, size, name, what: torch.empty_like(index),
)
LIBRARY.impl("maxsim", _with_autograd, "Autograd")
torch.library.register_autograd("lateint::maxsim_backward", twice, lib=LIBRARY)
