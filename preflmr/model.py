"""PreFLMR: pictures and texts to rows that lateint scores (Lin et al. 2024, arXiv 2402.08327; FLMR: 2309.17133).

A query is ``[text rows | MLP rows | patch rows]``, a document ``[MLP rows | text rows]``, each row of length 1, or 0 where
it is masked. Without a transformer mapping there are no patch rows: that is FLMR. Documents never have any.
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, PreTrainedModel
from transformers.utils import ModelOutput

from lateint_kernels import distributed, losses, maxsim
from preflmr.config import BERT_BASE, FLMRConfig, FLMRTextConfig
from preflmr.mapping import MLPMapping, TransformerMapping
from preflmr.processing import ImageProcessor
from preflmr.tokenization import FLMRDocumentTokenizer, FLMRQueryTokenizer
from preflmr.vision import VisionEncoder, VisionOutput

logger = logging.getLogger(__name__)
Flags = bool | Sequence[bool] | None


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
        pooler_output: ``[B, dim]``, row 0 before its length became 1.
        text_last_hidden_state: ``[B, tokens, hidden]``, of the text encoder.
        vision_last_hidden_state: ``[B * R, 1 + patches, hidden]`` of R pictures each.
        vision_penultimate_hidden_state: the same before the last layer.
        vision_prefix_tokens: ``[B * R, N_vt * dim]``, what the MLP makes of CLS.
    """

    loss: Tensor | None = None
    scores: Tensor | None = None
    in_batch_negative_loss: Tensor | None = None
    query_late_interaction_output: Tensor | None = None
    context_late_interaction_output: Tensor | None = None
    late_interaction_output: Any = None
    mask: Tensor | None = None
    context_mask: Tensor | None = None
    pooler_output: Tensor | None = None
    text_last_hidden_state: Tensor | None = None
    vision_last_hidden_state: Tensor | None = None
    vision_penultimate_hidden_state: Tensor | None = None
    vision_prefix_tokens: Tensor | None = None


class TextEncoder(nn.Module):  # type: ignore[misc]
    """A BERT, or another encoder of transformers: ids ``[B, L]`` to states ``[B, L, hidden]``."""

    def __init__(self, config: FLMRTextConfig) -> None:
        super().__init__()
        self.bert_model = text_network(config)
        # In the checkpoint, and never used: without gradients, which distributed training would wait for.
        if getattr(self.bert_model, "pooler", None) is not None:
            self.bert_model.pooler.requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        states: Tensor = self.bert_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states


def text_network(config: FLMRTextConfig) -> nn.Module:
    """The encoder that a text config describes, with random weights."""
    if config.text_encoder_base_model == BERT_BASE and config.base_config is None:
        fields = {name: getattr(config, name) for name in BERT_FIELDS}
        return BertModel(BertConfig(**fields), add_pooling_layer=True)
    if config.base_config is not None:
        fields = dict(config.base_config)
        base = AutoConfig.for_model(fields.pop("model_type"), **fields)
    else:
        base = AutoConfig.from_pretrained(config.text_encoder_base_model)
    return AutoModel.from_config(base)


BERT_FIELDS = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act hidden_dropout_prob "
    "attention_probs_dropout_prob max_position_embeddings type_vocab_size initializer_range layer_norm_eps pad_token_id"
).split()


def _shared(name: str) -> property:
    """The context's part, which is the query's where they share one: one module, under one name."""

    def get(self: "PreFLMR") -> nn.Module:
        found = self._modules.get(f"context_{name}") or self._modules.get(f"query_{name}")
        if found is None:
            raise AttributeError(f"this model has no {name}")
        return found

    return property(get)


class PreFLMR(PreTrainedModel):  # type: ignore[misc]
    """Queries and documents of text and pictures to rows, and the losses that train them.

    Args:
        config: what it is made of; weights are random, `from_pretrained` loads them.
        query_tokenizer: needed where instructions are masked (``config.mask_instruction_token``).
        document_tokenizer: needed where punctuation is masked (``config.mask_punctuation``).
        context_tokenizer: the same by its published name.
    """

    config_class = FLMRConfig
    base_model_prefix = "flmr"
    main_input_name = "query_input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    context_text_encoder = _shared("text_encoder")
    context_text_encoder_linear = _shared("text_encoder_linear")
    context_vision_encoder = _shared("vision_encoder")
    context_vision_projection = _shared("vision_projection")

    def __init__(
        self,
        config: FLMRConfig,
        query_tokenizer: FLMRQueryTokenizer | None = None,
        document_tokenizer: FLMRDocumentTokenizer | None = None,
        *,
        context_tokenizer: FLMRDocumentTokenizer | None = None,
    ) -> None:
        super().__init__(config)
        self.query_tokenizer = query_tokenizer
        self.document_tokenizer = document_tokenizer if document_tokenizer is not None else context_tokenizer
        self.queries_without_separator = 0
        self._punctuation: Tensor | None = None

        hidden = config.text_config.hidden_size
        for side in ("query", "context") if config.separate_query_and_context_text_encoder else ("query",):
            setattr(self, f"{side}_text_encoder", TextEncoder(config.text_config))
            setattr(self, f"{side}_text_encoder_linear", nn.Linear(hidden, config.dim, bias=False))
        if config.use_vision_encoder:
            size, rows = config.vision_config.hidden_size, config.mapping_network_prefix_length
            for side in ("query", "context") if config.separate_query_and_context_vision_encoder else ("query",):
                setattr(self, f"{side}_vision_encoder", VisionEncoder(config.vision_config))
                setattr(self, f"{side}_vision_projection", MLPMapping(size, rows, config.dim))
        if config.use_transformer_mapping_network:
            base, layers = config.mapping_base(), config.transformer_mapping_num_hidden_layers or 1
            self.transformer_mapping_input_linear = nn.Linear(size, hidden)
            self.transformer_mapping_network = TransformerMapping(base, layers)
            self.transformer_mapping_output_linear = nn.Linear(hidden, config.dim)
        self.post_init()

    @property
    def context_tokenizer(self) -> FLMRDocumentTokenizer | None:
        return self.document_tokenizer

    @property
    def image_processor(self) -> ImageProcessor:
        """Pictures to ``pixel_values``: ``processor(pictures) -> [B, 3, image_size, image_size]`` float32."""
        return ImageProcessor(self.config.vision_config.image_size)

    def query(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_features: Tensor | None = None,
        concat_output_from_vision_encoder: Flags = None,
        concat_output_from_text_encoder: Flags = None,
    ) -> FLMROutput:
        """Rows of queries: ``[text | MLP | patches]``.

        Args:
            input_ids: ``[B, tokens]`` int64, as the query tokenizer gives them. May be absent where neither text rows
                nor a transformer mapping need them.
            attention_mask: ``[B, tokens]``, likewise; None for all ones.
            pixel_values: ``[B, 3, H, W]``, or ``[B, R, 3, H, W]`` for R pictures each, whose rows follow each other in
                each block.
            image_features: ``[B, hidden]`` or ``[B, R, hidden]``, CLS features instead of pixels; not with a transformer
                mapping, which needs patches.
            concat_output_from_vision_encoder: whether vision rows are there; or ``[B]`` bools that make a query's vision
                rows zero where False; None for what the config says, and no vision rows without a picture.
            concat_output_from_text_encoder: the same of text rows.

        Returns:
            `FLMROutput` with ``late_interaction_output [B, L, dim]`` and ``mask [B, L]``.

        Raises:
            ValueError: something needed is absent, or a shape does not match.
        """
        return self._encode(
            "query", input_ids, attention_mask, pixel_values, image_features,
            concat_output_from_vision_encoder, concat_output_from_text_encoder,
        )  # fmt: skip

    def doc(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_features: Tensor | None = None,
        concat_output_from_vision_encoder: Flags = None,
        concat_output_from_text_encoder: Flags = None,
        keep_dims: bool = True,
        return_mask: bool = True,
    ) -> FLMROutput:
        """Rows of documents: ``[MLP | text]``. Pictures are seen through the MLP mapping alone.

        Args:
            input_ids, attention_mask, pixel_values, image_features: as for `query`, by the document tokenizer.
            concat_output_from_vision_encoder, concat_output_from_text_encoder: as for `query`.
            keep_dims: whether rows are returned as one tensor with zeros where masked, or as a list without those.
            return_mask: whether ``context_mask [B, L, 1]`` is returned.

        Returns:
            `FLMROutput` with ``late_interaction_output [B, L, dim]``, ``mask [B, L]`` and ``context_mask``.

        Raises:
            ValueError: something needed is absent, a shape does not match, or no row of a document takes part.
        """
        out = self._encode(
            "context", input_ids, attention_mask, pixel_values, image_features,
            concat_output_from_vision_encoder, concat_output_from_text_encoder,
        )  # fmt: skip
        if out.mask.device.type == "cpu" and not bool(out.mask.any(dim=1).all()):
            number = int((~out.mask.any(dim=1)).nonzero()[0])
            raise ValueError(f"a document must have a row that takes part, got an empty one at number {number}")
        out.context_mask = out.mask.unsqueeze(2) if return_mask else None
        if not keep_dims:
            rows = zip(out.late_interaction_output, out.mask, strict=True)
            out.late_interaction_output = [one[kept] for one, kept in rows]
        return out

    def forward(
        self,
        query_input_ids: Tensor | None = None,
        query_attention_mask: Tensor | None = None,
        query_pixel_values: Tensor | None = None,
        query_image_features: Tensor | None = None,
        context_input_ids: Tensor | None = None,
        context_attention_mask: Tensor | None = None,
        context_pixel_values: Tensor | None = None,
        context_image_features: Tensor | None = None,
        use_in_batch_negatives: bool = True,
        in_batch_negatives_from_all_gpus: bool = False,
        num_negative_examples: int = 1,
        query_concat_output_from_vision_encoder: Flags = None,
        query_concat_output_from_text_encoder: Flags = None,
        context_concat_output_from_vision_encoder: Flags = None,
        context_concat_output_from_text_encoder: Flags = None,
    ) -> FLMROutput:
        """Scores and loss of B queries and ``B * (1 + K)`` documents: positive and K negatives of query 1, of query 2, ...

        ``l_i = -log( exp(S(q_i, d_i+)) / sum_d exp(S(q_i, d)) )``, the mean over queries (eq. 10, where it is a sum);
        d goes over all documents of the batch, or over the query's own.

        Args:
            query_...: as for `query`.
            context_...: as for `doc`.
            use_in_batch_negatives: whether other queries' documents are negatives, too.
            in_batch_negatives_from_all_gpus: whether those of all ranks are. Every rank then has the loss and the
                scores of the queries of all ranks, and gradients of which the sum over ranks is that of the loss: where
                ranks are averaged, multiply the loss by their number (see `lateint_kernels.distributed`).
            num_negative_examples: K.

        Raises:
            ValueError: as for `query` and `doc`, or there are not ``1 + K`` documents for each query.
        """
        queries = self.query(
            query_input_ids, query_attention_mask, query_pixel_values, query_image_features,
            query_concat_output_from_vision_encoder, query_concat_output_from_text_encoder,
        )  # fmt: skip
        documents = self.doc(
            context_input_ids, context_attention_mask, context_pixel_values, context_image_features,
            context_concat_output_from_vision_encoder, context_concat_output_from_text_encoder,
        )  # fmt: skip
        q, d = queries.late_interaction_output, documents.late_interaction_output
        each = 1 + num_negative_examples
        if num_negative_examples < 0 or len(d) != len(q) * each:
            found = f"{len(d)} documents for {len(q)} queries with num_negative_examples={num_negative_examples}"
            raise ValueError(f"context_input_ids must hold 1 + num_negative_examples documents for each query, got {found}")
        if in_batch_negatives_from_all_gpus and not use_in_batch_negatives:
            raise ValueError("in_batch_negatives_from_all_gpus needs use_in_batch_negatives, which is False")

        if use_in_batch_negatives:
            loss, scores = self._loss_of_batch(queries, documents, each, in_batch_negatives_from_all_gpus)
        else:
            own, own_mask = d.unflatten(0, (-1, each)), documents.mask.unflatten(0, (-1, each))
            scores = maxsim(q, own, query_mask=queries.mask, document_mask=own_mask, check=False)  # [B, 1 + K]
            loss = losses.contrastive(scores, torch.zeros(len(q), dtype=torch.int64))
        return FLMROutput(
            loss=loss,
            scores=scores,
            in_batch_negative_loss=loss if use_in_batch_negatives else None,
            query_late_interaction_output=q,
            context_late_interaction_output=d,
            mask=queries.mask,
            context_mask=documents.context_mask,
        )

    def parts(self) -> dict[str, list[nn.Module]]:
        """The modules of ``text_encoder``, ``vision_encoder`` and ``mapping``: what is frozen, or learns, together."""
        names = {
            "text_encoder": ("text_encoder", "text_encoder_linear"),
            "vision_encoder": ("vision_encoder",),
            "mapping": ("vision_projection", "input_linear", "network", "output_linear"),
        }
        prefixes = ("query_", "context_", "transformer_mapping_")
        found = {part: [f"{prefix}{name}" for prefix in prefixes for name in those] for part, those in names.items()}
        return {part: [self._modules[name] for name in those if name in self._modules] for part, those in found.items()}

    def separate_text_encoders(self) -> None:
        """Copy a shared text encoder, so that queries and documents each have their own from here on (stage 3)."""
        if self.config.separate_query_and_context_text_encoder:
            return
        for name in ("text_encoder", "text_encoder_linear"):
            setattr(self, f"context_{name}", copy.deepcopy(self._modules[f"query_{name}"]))
        self.config.separate_query_and_context_text_encoder = True

    def query_mask(self, input_ids: Tensor) -> Tensor:
        """Which text rows of a query take part: no padding, nothing of the skip list, and nothing of the instruction.

        The instruction ends with the first ``mask_instruction_token``; the first two rows, markers, always stay. Where
        it is missing nothing is masked, which is logged once and counted in ``queries_without_separator``.

        Shapes: ``[B, tokens]`` int64 -> ``[B, tokens]`` bool.
        """
        keep = input_ids != (self.config.text_config.pad_token_id or 0)
        if self.config.query_mask_input_ids_skip_list:
            keep &= ~torch.isin(input_ids, self._skipped("query", input_ids.device))
        if self.config.mask_instruction_token is not None:
            separators = input_ids == self._separator_id()
            end = separators.int().argmax(dim=1, keepdim=True).clamp(min=1)  # [B, 1]; 0 where there is none
            self._count_missing(int((end == 1).sum()))
            place = torch.arange(input_ids.shape[1], device=input_ids.device)
            keep &= (place > end) | (place < 2)
        return keep

    def document_mask(self, input_ids: Tensor) -> Tensor:
        """Which text rows of a document take part: no padding, and no punctuation if ``mask_punctuation``.

        Shapes: ``[B, tokens]`` int64 -> ``[B, tokens]`` bool.
        """
        keep = input_ids != (self.config.text_config.pad_token_id or 0)
        if self.config.mask_punctuation:
            keep &= ~torch.isin(input_ids, self._skipped("context", input_ids.device))
        return keep

    def _encode(
        self,
        side: str,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        pixel_values: Tensor | None,
        image_features: Tensor | None,
        vision_flags: Flags,
        text_flags: Flags,
    ) -> FLMROutput:
        """Both `query` and `doc`: blocks of rows, masked, put together and brought to length 1."""
        mapped = side == "query" and self.config.use_transformer_mapping_network
        given = pixel_values is not None or image_features is not None
        vision, vision_flags = self._wanted(side, "vision", vision_flags, given)
        text, text_flags = self._wanted(side, "text", text_flags, input_ids is not None)
        if not vision and not text:
            raise ValueError(f"a {side} must have text rows or vision rows, got input and flags that leave neither")
        if vision and mapped and input_ids is None:
            raise ValueError("the transformer mapping looks at the text: input_ids must be given with pixel_values")
        out = FLMROutput()
        if text or (vision and mapped):
            out.text_last_hidden_state = self._text_states(side, input_ids, attention_mask)
        blocks: dict[str, tuple[Tensor, Tensor]] = {}
        if text:
            rows = getattr(self, f"{side}_text_encoder_linear")(out.text_last_hidden_state)  # [B, tokens, dim]
            mask = (self.query_mask if side == "query" else self.document_mask)(input_ids.to(rows.device))
            blocks["text"] = _flagged(rows, mask, text_flags, "text")
        if vision:
            rows = self._vision_rows(side, pixel_values, image_features, mapped, input_ids, out)
            mask = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
            blocks["vision"] = _flagged(rows, mask, vision_flags, "vision")
        order = ("text", "vision") if side == "query" else ("vision", "text")
        parts = [blocks[name] for name in order if name in blocks]
        if len({len(rows) for rows, _ in parts}) > 1:
            sizes = " and ".join(f"{len(blocks[name][0])} of {name}" for name in blocks)
            raise ValueError(f"input_ids and pictures must be as many, got {sizes}")
        rows = torch.cat([rows for rows, _ in parts], dim=1)
        out.mask = torch.cat([mask for _, mask in parts], dim=1)
        rows = rows.masked_fill(~out.mask.unsqueeze(2), 0.0)
        out.pooler_output = rows[:, 0]
        out.late_interaction_output = functional.normalize(rows, dim=2)
        return out

    def _wanted(self, side: str, what: str, flags: Flags, given: bool) -> tuple[bool, Flags]:
        """Whether there is a block of ``what`` at all, and which samples have it, if not all."""
        argument = "pixel_values or image_features" if what == "vision" else "input_ids"
        name = f"concat_output_from_{what}_encoder"
        if what == "vision" and not self.config.use_vision_encoder:
            if given or (flags is not None and _any(flags)):
                raise ValueError("pixel_values and image_features must be absent: this model has no vision encoder")
            return False, None
        if flags is None:
            return bool(getattr(self.config, f"{side}_{name}")) and given, None
        if not _any(flags):
            return False, None
        if not given:
            raise ValueError(f"{argument} must be given where {name} is True, got none")
        return True, None if isinstance(flags, bool) else flags

    def _text_states(self, side: str, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        longest = self.config.text_config.max_position_embeddings
        if input_ids.ndim != 2 or not 1 <= input_ids.shape[1] <= longest:
            raise ValueError(f"input_ids must be [B, tokens] of at most {longest} tokens, got {tuple(input_ids.shape)}")
        if attention_mask is not None:
            if attention_mask.shape != input_ids.shape:
                shapes = f"{tuple(attention_mask.shape)} and {tuple(input_ids.shape)}"
                raise ValueError(f"attention_mask must have the shape of input_ids, got {shapes}")
            attention_mask = attention_mask.to(self.device)
        states: Tensor = getattr(self, f"{side}_text_encoder")(input_ids.to(self.device), attention_mask)
        return states

    def _vision_rows(
        self,
        side: str,
        pixel_values: Tensor | None,
        image_features: Tensor | None,
        mapped: bool,
        input_ids: Tensor | None,
        out: FLMROutput,
    ) -> Tensor:
        """``[B, R * N_vt, dim]``, with a transformer mapping followed by ``R * patches`` rows."""
        seen: VisionOutput | None = None
        if pixel_values is not None and image_features is not None:
            raise ValueError("pixel_values and image_features must not be given together")
        if pixel_values is not None:
            if pixel_values.ndim not in (4, 5):
                rule = "pixel_values must be [B, 3, H, W] or [B, R, 3, H, W]"
                raise ValueError(f"{rule}, got {tuple(pixel_values.shape)}")
            pixels, pictures = pixel_values.to(self.device), 1
            if pixels.ndim == 5:
                pixels, pictures = pixels.flatten(0, 1), pixels.shape[1]
            seen = getattr(self, f"{side}_vision_encoder")(pixels)
            out.vision_last_hidden_state, out.vision_penultimate_hidden_state = seen
            features = seen.last_hidden_state[:, 0]  # [B * R, hidden]
        else:
            if mapped:
                raise ValueError("the transformer mapping needs patches: pixel_values, not image_features, must be given")
            size = self.config.vision_config.hidden_size
            if image_features.ndim not in (2, 3) or image_features.shape[-1] != size:
                rule = f"image_features must be [B, {size}] or [B, R, {size}]"
                raise ValueError(f"{rule}, got {tuple(image_features.shape)}")
            features, pictures = image_features.to(self.device), 1
            if features.ndim == 3:
                features, pictures = features.flatten(0, 1), features.shape[1]
        out.vision_prefix_tokens = getattr(self, f"{side}_vision_projection")(features)
        rows = out.vision_prefix_tokens.reshape(-1, pictures * self.config.mapping_network_prefix_length, self.config.dim)
        if not mapped:
            return rows
        if len(rows) != len(input_ids):
            raise ValueError(f"input_ids and pictures must be as many, got {len(input_ids)} and {len(rows)}")
        return torch.cat([rows, self._patch_rows(seen.penultimate[:, 1:], pictures, input_ids, out)], dim=1)

    def _patch_rows(self, patches: Tensor, pictures: int, input_ids: Tensor, out: FLMROutput) -> Tensor:
        """``[B, R * patches, dim]``: each picture's patches look at each other and at the start of the query's text."""
        length = self.config.transformer_mapping_cross_attention_length
        text = out.text_last_hidden_state[:, :length]
        # Whatever the tokenizer's mask says, [MASK] padding and instruction are looked at.
        text_mask = None
        if self.config.query_mask_input_ids_skip_list:
            ids = input_ids[:, :length].to(text.device)
            text_mask = ~torch.isin(ids, self._skipped("query", text.device))
        if pictures > 1:
            text = text.repeat_interleave(pictures, dim=0)
            text_mask = None if text_mask is None else text_mask.repeat_interleave(pictures, dim=0)
        mixed = self.transformer_mapping_network(self.transformer_mapping_input_linear(patches), text, text_mask)
        rows: Tensor = self.transformer_mapping_output_linear(mixed)  # [B * R, patches, dim]
        return rows.reshape(len(input_ids), -1, self.config.dim)

    def _loss_of_batch(
        self, queries: FLMROutput, documents: FLMROutput, each: int, everywhere: bool
    ) -> tuple[Tensor, Tensor]:
        """Loss over all documents of the batch, and each query's scores with its own: ``[B, each]``."""
        d, mask, ranks = documents.late_interaction_output, documents.mask, 1
        if everywhere:
            d, mask, _ = distributed.gather_documents(d, mask)
            ranks = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        scores = maxsim(queries.late_interaction_output, d, query_mask=queries.mask, document_mask=mask, check=False)
        if everywhere:
            scores = distributed.gather_rows(scores)  # [B of all ranks, documents of all ranks]
        positives = torch.arange(0, len(d), each, device=scores.device)
        loss = losses.contrastive(scores, positives)
        if everywhere:
            # Every rank computes the same loss, and gathering sums the gradients that they all send back.
            loss = loss.detach() + (loss - loss.detach()) / ranks
        columns = positives[:, None] + torch.arange(each, device=scores.device)
        return loss, scores.gather(1, columns)

    def _separator_id(self) -> int:
        token = self.config.mask_instruction_token
        if self.query_tokenizer is None:
            raise ValueError(f"query_tokenizer must be given: instructions up to {token!r} are masked by its id")
        return int(self.query_tokenizer.convert_tokens_to_ids(token))

    def _count_missing(self, missing: int) -> None:
        if missing and not self.queries_without_separator:
            token = self.config.mask_instruction_token
            logger.warning(
                "a query has no %r between instruction and question, so that no row of it is masked; "
                "counted in .queries_without_separator from here on",
                token,
            )
        self.queries_without_separator += missing

    def _skipped(self, side: str, device: torch.device) -> Tensor:
        """Ids of tokens that never make a row: punctuation of documents, the config's list for queries."""
        if side == "query":
            return torch.tensor(self.config.query_mask_input_ids_skip_list, device=device)
        if self.document_tokenizer is None:
            raise ValueError("document_tokenizer must be given: punctuation is masked by its ids")
        known = self._punctuation
        if known is None or known.device != device:
            self._punctuation = known = torch.tensor(self.document_tokenizer.punctuation_ids(), device=device)
        return known


def _any(flags: bool | Sequence[bool]) -> bool:
    return flags if isinstance(flags, bool) else any(flags)


def _flagged(rows: Tensor, mask: Tensor, flags: Flags, what: str) -> tuple[Tensor, Tensor]:
    """Rows and mask, nothing left of the samples whose flag is False."""
    if flags is None or isinstance(flags, bool):
        return rows, mask
    if len(flags) != len(rows):
        raise ValueError(f"concat_output_from_{what}_encoder must have a bool for each of {len(rows)}, got {len(flags)}")
    return rows, mask & torch.tensor([bool(flag) for flag in flags], device=mask.device)[:, None]
