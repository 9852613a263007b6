"""What a model returns."""

from dataclasses import dataclass
from typing import Any

from transformers.utils import ModelOutput


@dataclass
class FLMROutput(ModelOutput):  # type: ignore[misc]  # transformers is untyped here
    """What `PreFLMR.query`, `PreFLMR.doc` and `PreFLMR.forward` return; what does not apply is None.

    Args:
        loss: scalar.
        scores: ``[B, 1 + K]``, of each query with its own documents, the positive first.
        in_batch_negative_loss: the loss, where it is one over the whole batch.
        query_late_interaction_output: ``[B, Lq, dim]``.
        context_late_interaction_output: ``[B * (1 + K), Ld, dim]``.
        late_interaction_output: ``[B, L, dim]``; with ``keep_dims=False`` a list of ``[L_i, dim]``.
        mask: ``[B, L]`` bool, the rows that take part.
        context_mask: ``[B, L, 1]`` bool, the same of documents.
        pooler_output: ``[B, dim]``, row 0; of queries before its length became 1.
        text_last_hidden_state: ``[B, tokens, hidden]``, of the text encoder.
        vision_last_hidden_state: ``[B * R, 1 + patches, hidden]`` of R pictures each.
        vision_penultimate_hidden_state: the same before the last layer.
        vision_prefix_tokens: ``[B * R, N_vt * dim]``, what the MLP makes of CLS.
    """

    loss: Any = None
    scores: Any = None
    in_batch_negative_loss: Any = None
    query_late_interaction_output: Any = None
    context_late_interaction_output: Any = None
    late_interaction_output: Any = None
    mask: Any = None
    context_mask: Any = None
    pooler_output: Any = None
    text_last_hidden_state: Any = None
    vision_last_hidden_state: Any = None
    vision_penultimate_hidden_state: Any = None
    vision_prefix_tokens: Any = None
