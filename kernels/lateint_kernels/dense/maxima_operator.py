"""What query tokens find in documents by compiled kernels, as operators of torch."""

from typing import Any

import torch
from torch import Tensor

from lateint_kernels import backends
from lateint_kernels.dense import operator
from lateint_kernels.dense.maxima_torch import one_by_one
from lateint_kernels.dense.operator import DIFFERENTIABLE, LIBRARY, NAMES, PARTS
from lateint_kernels.dense.problem import Problem


def soft_maxima(problem: Problem, temperature: float, backend: str) -> Tensor:
    """``T log sum_t exp(<q_s, d_t> / T)``: see `lateint_kernels.dense.maxima`."""
    found: Tensor = torch.ops.lateint.soft_maxima(*problem.parts, temperature, backend)
    return found


def retrieved(problem: Problem, k: int, backend: str) -> tuple[Tensor, Tensor, Tensor]:
    """Maxima, which are among the k best, and the last of these: likewise."""
    best, _, least = torch.ops.lateint.retrieved(*problem.parts, k, backend)
    return best, ~(best.detach() < least[:, None]), least


def _soft_maxima(*arguments: Any) -> Tensor:
    *parts, temperature, backend = arguments
    problem = operator.problem_of_parts(parts)
    found: Tensor = _resolved("soft_maxima", problem, backend)(problem, temperature)
    return found


def _resolved(op: str, problem: Problem, backend: str) -> Any:
    """The function of a backend, which may not have been looked at yet: not where torch.compile took it."""
    return backends.resolve(op, problem.queries.device, problem.queries.dtype, problem.dim, backend)


def _soft_maxima_fake(*arguments: Any) -> Tensor:
    problem = Problem(*arguments[: len(NAMES)])
    return problem.queries.new_empty((len(problem.queries), problem.Nd), dtype=torch.float32)


def _soft_maxima_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    *parts, temperature, backend, found, gradient, needs = arguments
    problem = operator.problem_of_parts(parts)
    run = _resolved("soft_maxima_backward", problem, backend)
    both = run(problem, temperature, found, gradient.contiguous(), tuple(needs))
    left, right = (operator.or_nothing(x, found, problem.queries.dtype) for x in both)
    return left, right


def _soft_maxima_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    *parts, _, _, found, _, needs = arguments
    problem = Problem(*parts)
    sides = zip((problem.queries, problem.documents), needs, strict=True)
    return tuple(found.new_empty(side.shape if need else (0,), dtype=side.dtype) for side, need in sides)


def _retrieved(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *parts, k, backend = arguments
    problem = operator.problem_of_parts(parts)
    found: tuple[Tensor, Tensor, Tensor] = _resolved("retrieved", problem, backend)(problem, k)
    return found


def _retrieved_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    problem = Problem(*arguments[: len(NAMES)])
    rows, new = len(problem.queries), problem.queries.new_empty
    numbers = (new(shape, dtype=torch.float32) for shape in ((rows, problem.Nd), (rows,)))
    best, least = numbers
    return best, new((problem.Nd, rows), dtype=problem.argmax_dtype), least


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """The parts of a problem, what comes after them, and what was found."""
    parts, ctx.settings = inputs[: len(NAMES)], inputs[len(NAMES) :]
    ctx.others = {i: part for i, part in enumerate(parts) if not isinstance(part, Tensor)}
    found = output[1] if isinstance(output, tuple) else output
    ctx.save_for_backward(*(part for part in parts if isinstance(part, Tensor)), found)


def _soft_maxima_gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    parts, found = operator.restored(ctx)
    needs = [ctx.needs_input_grad[i] for i in DIFFERENTIABLE[:2]]
    both = torch.ops.lateint.soft_maxima_backward(*parts, *ctx.settings, found, gradient, needs)
    return _placed(both, needs, len(ctx.settings))


def _retrieved_gradients(ctx: Any, gradient: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    parts, argmax = operator.restored(ctx)
    needs = [ctx.needs_input_grad[i] for i in DIFFERENTIABLE[:2]]
    problem = one_by_one(Problem(*parts))
    both = torch.ops.lateint.maxsim_backward(*problem.parts, gradient, argmax, [*needs, False], ctx.settings[-1])
    return _placed(both[:2], needs, len(ctx.settings))


def _placed(gradients: tuple[Tensor, ...], needs: list[bool], settings: int) -> tuple[Tensor | None, ...]:
    found: list[Tensor | None] = [None] * (len(NAMES) + settings)
    for i, need, gradient in zip(DIFFERENTIABLE[:2], needs, gradients, strict=True):
        found[i] = gradient if need else None
    return tuple(found)


operator.register(f"soft_maxima({PARTS}, float temperature, str backend) -> Tensor", _soft_maxima, _soft_maxima_fake)
operator.register(
    f"soft_maxima_backward({PARTS}, float temperature, str backend, Tensor found, Tensor gradient, bool[2] needs) "
    "-> (Tensor, Tensor)",
    _soft_maxima_backward,
    _soft_maxima_backward_fake,
)
operator.register(f"retrieved({PARTS}, SymInt k, str backend) -> (Tensor, Tensor, Tensor)", _retrieved, _retrieved_fake)
for _name, _backward in {
    "soft_maxima": _soft_maxima_gradients,
    "retrieved": _retrieved_gradients,
}.items():
    torch.library.register_autograd(f"lateint::{_name}", _backward, setup_context=_remember, lib=LIBRARY)
torch.library.register_autograd("lateint::soft_maxima_backward", operator.twice, lib=LIBRARY)
