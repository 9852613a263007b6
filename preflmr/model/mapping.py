"""From what the vision encoder sees to rows of a query: an MLP for the whole image, a transformer for its patches.

Parameters carry the names of published checkpoints.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer


class MLPMapping(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """``Linear(tanh(Linear(x)))``: an image's feature becomes ``rows`` rows.

    Shapes: ``[N, vision_size]`` -> ``[N, rows * dim]``; half as many numbers in between.
    """

    def __init__(self, vision_size: int, rows: int, dim: int) -> None:
        super().__init__()
        width = rows * dim
        self.model = nn.Sequential(nn.Linear(vision_size, width // 2), nn.Tanh(), nn.Linear(width // 2, width))

    def forward(self, features: Tensor) -> Tensor:
        rows: Tensor = self.model(features)
        return rows


class TransformerMapping(nn.Module):  # type: ignore[misc]
    """Patches that look at each other and at the text of the query: post-norm layers of self-attention,
    cross-attention and feed-forward (PreFLMR, Lin et al. 2024, arXiv 2402.08327, section 3).

    A patch sees every patch: no mask of any kind is ever applied to the self-attention.
    """

    def __init__(self, base: dict[str, Any], layers: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList([MappingLayer(base) for _ in range(layers)])

    def forward(self, patches: Tensor, text: Tensor, text_mask: Tensor | None = None) -> Tensor:
        """
        Args:
            patches: ``[N, patches, hidden]``.
            text: ``[N, tokens, hidden]``, the text encoder's last hidden states.
            text_mask: ``[N, tokens]`` bool, False for tokens that no patch may look at; None for none such.

        Returns:
            ``[N, patches, hidden]``.
        """
        for layer in self.layer:
            patches = layer(patches, text, text_mask)
        return patches


class MappingLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """One layer, with the submodules of BERT's decoder layer and none of its masks."""

    def __init__(self, base: dict[str, Any]) -> None:
        super().__init__()
        self.attention = _AttentionBlock(base)
        self.crossattention = _AttentionBlock(base)
        self.intermediate = nn.Module()
        self.intermediate.dense = nn.Linear(base["hidden_size"], base["intermediate_size"])
        self.activation = ACT2FN[base["hidden_act"]]
        self.output = _AddAndNorm(base, base["intermediate_size"])

    def forward(self, patches: Tensor, text: Tensor, text_mask: Tensor | None) -> Tensor:
        patches = self.attention(patches, patches, None)
        patches = self.crossattention(patches, text, text_mask)
        out: Tensor = self.output(self.activation(self.intermediate.dense(patches)), patches)
        return out


class _AttentionBlock(nn.Module):  # type: ignore[misc]
    def __init__(self, base: dict[str, Any]) -> None:
        super().__init__()
        self.self = _Attention(base)
        self.output = _AddAndNorm(base, base["hidden_size"])

    def forward(self, rows: Tensor, seen: Tensor, seen_mask: Tensor | None) -> Tensor:
        out: Tensor = self.output(self.self(rows, seen, seen_mask), rows)
        return out


class _Attention(nn.Module):  # type: ignore[misc]
    def __init__(self, base: dict[str, Any]) -> None:
        super().__init__()
        size = base["hidden_size"]
        self.heads, self.dropout = base["num_attention_heads"], base["attention_probs_dropout_prob"]
        self.query, self.key, self.value = nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, size)

    def forward(self, rows: Tensor, seen: Tensor, seen_mask: Tensor | None) -> Tensor:
        mixed = functional.scaled_dot_product_attention(
            self._split(self.query(rows)),
            self._split(self.key(seen)),
            self._split(self.value(seen)),
            attn_mask=None if seen_mask is None else seen_mask[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )  # [N, heads, rows, hidden / heads]
        return mixed.transpose(1, 2).flatten(2)

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(2, (self.heads, -1)).transpose(1, 2)


class _AddAndNorm(nn.Module):  # type: ignore[misc]
    def __init__(self, base: dict[str, Any], inputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, base["hidden_size"])
        self.LayerNorm = nn.LayerNorm(base["hidden_size"], eps=base["layer_norm_eps"])
        self.dropout = nn.Dropout(base["hidden_dropout_prob"])

    def forward(self, rows: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dropout(self.dense(rows)) + residual)
        return out
