"""Parameters, gradients and the optimizer's states shared out over devices: torch's FSDP (Zhao et al. 2023).

Each layer is gathered when its turn comes, and given back after it. A whole model, for validation and for checkpoints
of their own, is kept beside it in the memory of the host, and filled when it is needed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from preflmr.retrievers import adapted


def shard(objective: nn.Module, device: torch.device) -> None:
    """Shares out the parameters of a module, in place: those of each layer together, the rest together.

    Raises:
        RuntimeError: there is one process only.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        raise RuntimeError("sharded needs several devices: start it by accelerate launch or torchrun")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in layers(objective):
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def layers(module: nn.Module) -> list[nn.Module]:
    """Members of lists of modules, in which layers repeat; of lists inside one another the inner ones."""
    found = [one for every in module.modules() if isinstance(every, nn.ModuleList) for one in every]
    members = set(map(id, found))
    return [one for one in found if not any(id(sub) in members for sub in one.modules() if sub is not one)]


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be shared out; all devices must ask."""
    full = getattr(tensor, "full_tensor", None)
    found: Tensor = tensor.detach() if full is None else full().detach()
    return found


def put(parameter: Tensor, value: Tensor) -> None:
    """Fills a parameter that may be shared out with all of its values; all devices must do it."""
    if hasattr(parameter, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    with torch.no_grad():
        parameter.copy_(value)


class WholeModel:
    """A model that is not shared out, of the values of one that is.

    Args:
        model: before it is shared out, a `PreFLMR` or another retriever.
    """

    def __init__(self, model: Any) -> None:
        self._copy = copy.deepcopy(model)
        adapted(self._copy).model.to("cpu").requires_grad_(False)

    @contextmanager
    def filled(self, model: Any, device: torch.device) -> Iterator[Any]:
        """The model as it is now, on a device for a while; all devices must enter together."""
        module = adapted(self._copy).model
        own = dict(module.named_parameters())
        with torch.no_grad():
            for name, parameter in adapted(model).model.named_parameters():
                own[name].copy_(whole(parameter))
        module.to(device)
        try:
            yield self._copy
        finally:
            module.to("cpu")


class ShardedOptimizer:
    """An optimizer's state as checkpoints hold it: whole, whatever the number of devices.

    Args:
        module: whose parameters it moves.
        optimizer: of these.
    """

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.module, self.optimizer = module, optimizer

    def state_dict(self) -> dict[str, Any]:
        """On the first device all, on the others nothing; all of them must ask."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return dict(get_optimizer_state_dict(self.module, self.optimizer, options=options))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """What `state_dict` gave on the first device; all devices must have it."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        options = StateDictOptions(full_state_dict=True)
        set_optimizer_state_dict(self.module, self.optimizer, dict(state), options=options)
