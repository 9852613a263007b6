"""Text encoders: a BERT of any size, or another encoder of transformers."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from preflmr.config import BERT_BASE, FLMRTextConfig

BERT_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
)
TOKENS = 2560  # at a time: more padding with more, and with fewer each product of matrices takes longer


class TextEncoder(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Ids to states; parameters have published names, ``bert_model.*``."""

    def __init__(self, config: FLMRTextConfig) -> None:
        super().__init__()
        self.bert_model = _network(config)
        # In the checkpoint, and never used: without gradients, for distributed training would wait for them.
        if getattr(self.bert_model, "pooler", None) is not None:
            self.bert_model.pooler.requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """
        Args:
            input_ids: ``[B, tokens]`` int64.
            attention_mask: ``[B, tokens]``, 0 for tokens that none may look at; None for none such.

        Returns:
            ``[B, tokens, hidden]``, the last layer's states.
        """
        states: Tensor = self.bert_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states


def states_by_length(encoder: TextEncoder, input_ids: Tensor, attention_mask: Tensor, padding: int) -> Tensor:
    """What ``encoder`` returns, without most of the work on padding: texts of about one length are encoded together.

    Args:
        encoder: the text encoder.
        input_ids: ``[B, tokens]`` int64.
        attention_mask: ``[B, tokens]``, 0 for tokens that none may look at.
        padding: the id of those whose states nobody needs, where the mask is 0.

    Returns:
        ``[B, tokens, hidden]``; some states of padding are zero.
    """
    needed = (attention_mask != 0) | (input_ids != padding)
    lengths = (needed * torch.arange(1, input_ids.shape[1] + 1)).amax(1).clamp(min=1)
    if bool((lengths == input_ids.shape[1]).all()):
        return encoder(input_ids, attention_mask)
    order = lengths.argsort(descending=True, stable=True)
    states, first = [], 0
    while first < len(order):
        longest = int(lengths[order[first]])
        some = order[first : first + max(1, TOKENS // longest)]
        found = encoder(input_ids[some, :longest], attention_mask[some, :longest])
        states.append(functional.pad(found, (0, 0, 0, input_ids.shape[1] - longest)))
        first += len(some)
    return torch.cat(states)[order.argsort()]


def _network(config: FLMRTextConfig) -> nn.Module:
    if config.text_encoder_base_model == BERT_BASE:
        base = BertConfig(**{name: getattr(config, name) for name in BERT_FIELDS})
        base._attn_implementation = config._attn_implementation
        return BertModel(base)
    if config.base_config is None:
        base = AutoConfig.from_pretrained(config.text_encoder_base_model)
    else:
        fields = dict(config.base_config)
        base = AutoConfig.for_model(fields.pop("model_type"), **fields)
    base._attn_implementation = config._attn_implementation
    return AutoModel.from_config(base)
