"""The names that weights have had: every known one to the published one.

Known are the published checkpoints; later ones that hold a tensor under two names, or the text encoder under another;
those with buffers or heads that nothing needs; RAVQA's Lightning checkpoints, LoRA included; ColBERT's text encoder.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# A wrapper's prefix, taken off once each, in this order.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "flmr.")
# Applied in this order to what is left.
_RENAMED = (
    (r"^(?:model\.)?bert\.", "{text}_text_encoder.bert_model."),
    (r"^(?:model\.)?linear\.", "{text}_text_encoder_linear."),
    (r"^(?:model\.)?query_encoder\.(?:bert\.|bert_model\.|text_model\.)?", "query_text_encoder.bert_model."),
    (r"^(?:model\.)?query_linear\.", "query_text_encoder_linear."),
    (r"^(?:model\.)?doc_vision_projection\.", "context_vision_projection."),
    (r"^(?:model\.)?vision_projection\.", "query_vision_projection."),
    (r"^(?:model\.)?(transformer_mapping_\w+)\.", r"\1."),
    (r"^((?:query|context)_text_encoder)\.text_model\.", r"\1.bert_model."),
    (r"^((?:query|context)_vision_encoder\.vision_model)\.(?!vision_model\.)", r"\1.vision_model."),
)
_LORA = re.compile(r"^(.*)\.lora_(A|B|embedding_A|embedding_B)(?:\.\w+)?\.weight$")
PAPER_LORA = (16, 32)  # rank and alpha (PreFLMR, section 5.2)


def is_published(names: Mapping[str, object]) -> bool:
    """Whether these are names of FLMR's own files, and not of RAVQA's or ColBERT's."""
    return any(
        re.match(r"^(module\.|flmr\.|base_model\.model\.)?(query|context)_text_encoder\.", name) for name in names
    )


def published(state: Mapping[str, Tensor], lora_alpha: float | None = None) -> dict[str, Tensor]:
    """Weights by their published names; tied tensors may still be there twice, as ``query_*`` and ``context_*``.

    Args:
        state: weights by any known name. Unknown names are kept as they are.
        lora_alpha: of LoRA weights, which are added to what they adapt; None for the paper's 32, if the rank is its 16.

    Raises:
        ValueError: two names of one tensor hold different values, or LoRA weights do not fit.
    """
    separate = any(".query_encoder." in f".{name}" for name in state)
    found: dict[str, Tensor] = {}
    lora: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        new = _name(name, "context" if separate else "query")
        if new is None:
            continue
        if adapter := _LORA.match(new):
            lora.setdefault(adapter[1] + ".weight", {})[adapter[2][-1]] = tensor
        elif new in found and not torch.equal(found[new], tensor):
            raise ValueError(f"a tensor must have one value under all its names, got two for {new}")
        else:
            found[new] = tensor
    for name, pair in lora.items():
        found[name] = _merged(name, found.get(name), pair, lora_alpha)
    return found


def untied(state: dict[str, Tensor], text: bool, vision: bool) -> dict[str, Tensor]:
    """Without the ``context_*`` names of what queries and documents share.

    Args:
        state: weights by their published names.
        text: whether there is one text encoder for both.
        vision: whether there is one vision encoder, and MLP mapping, for both.

    Raises:
        ValueError: what should be shared differs.
    """
    shared = [part for part, is_shared in (("text", text), ("vision", vision)) if is_shared]
    out = dict(state)
    for name in state:
        if not name.startswith(tuple(f"context_{part}_" for part in shared)):
            continue
        tensor, twin = out.pop(name), "query_" + name.removeprefix("context_")
        if twin not in out:
            out[twin] = tensor
        elif not torch.equal(out[twin], tensor):
            raise ValueError(f"{name} must equal {twin}, for the config says that they are shared; they differ")
    return out


def _name(name: str, text: str) -> str | None:
    """The published name; None for what is not a weight of ours: buffers, and heads called ``cls``."""
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    name = name.replace("base_model.model.", "").replace(".base_layer.", ".")
    pieces = name.split(".")
    if pieces[-1] in ("position_ids", "token_type_ids") or "cls" in pieces[:-1]:
        return None
    for pattern, new in _RENAMED:
        name, changed = re.subn(pattern, new.format(text=text), name)
        if changed:
            break
    return name


def _merged(name: str, weight: Tensor | None, pair: dict[str, Tensor], alpha: float | None) -> Tensor:
    if weight is None or set(pair) != {"A", "B"}:
        raise ValueError(f"LoRA weights must be a pair and have a weight to adapt, got no such thing for {name}")
    rank = pair["A"].shape[0]
    if alpha is None and rank != PAPER_LORA[0]:
        raise ValueError(f"lora_alpha must be given where the rank is not {PAPER_LORA[0]}, got rank {rank} for {name}")
    scale = (PAPER_LORA[1] if alpha is None else alpha) / rank
    return (weight.float() + scale * (pair["B"].float() @ pair["A"].float())).to(weight.dtype)
