"""PreFLMR: pictures and texts to rows that lateint scores (Lin et al. 2024, arXiv 2402.08327; FLMR: 2309.17133).

A query is ``[text rows | MLP rows | patch rows]``, a document ``[MLP rows | text rows]``, each row of length 1, or 0
where it is masked. Without a transformer mapping there are no patch rows: that is FLMR. Documents never have any.
"""

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel

from preflmr.config import FLMRConfig
from preflmr.model import masks, pretrained
from preflmr.model.blocks import ORDER, Block, Flags, Given, assembled
from preflmr.model.mapping import MLPMapping, TransformerMapping
from preflmr.model.output import FLMROutput
from preflmr.model.processing import ImageProcessor
from preflmr.model.scoring import loss_of_batch, loss_of_own
from preflmr.model.text import TextEncoder, states_by_length
from preflmr.model.tokenization import FLMRDocumentTokenizer, FLMRQueryTokenizer
from preflmr.model.vision import VisionEncoder, VisionOutput
from preflmr.weights import checkpoint, hub

logger = logging.getLogger(__name__)
UPLOAD = ("commit_message", "private", "token", "revision", "create_pr")
WITHOUT_EFFECT = ("safe_serialization", "save_function", "save_peft_format", "save_original_format")


def _shared(name: str) -> property:
    """The context's part, which is the query's where they share one: one module, under one name."""

    def get(self: "PreFLMR") -> nn.Module:
        found = self._modules.get(f"context_{name}") or self._modules.get(f"query_{name}")
        if found is None:
            raise AttributeError(f"this model has no {name}")
        return found

    return property(get)


class PreFLMR(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped here
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
    _supports_flash_attn = True

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
        self.document_tokenizer = context_tokenizer if document_tokenizer is None else document_tokenizer
        self.queries_without_separator = 0
        self._punctuation: Tensor | None = None

        hidden = config.text_config.hidden_size
        for side in config.text_sides():
            setattr(self, f"{side}_text_encoder", TextEncoder(config.text_config))
            setattr(self, f"{side}_text_encoder_linear", nn.Linear(hidden, config.dim, bias=False))
        for side in config.vision_sides():
            if config.vision_config.implementation != "features":
                setattr(self, f"{side}_vision_encoder", VisionEncoder(config.vision_config))
            rows = config.mapping_network_prefix_length
            setattr(self, f"{side}_vision_projection", MLPMapping(config.vision_config.hidden_size, rows, config.dim))
        if config.use_transformer_mapping_network:
            layers = config.transformer_mapping_num_hidden_layers or 1
            self.transformer_mapping_input_linear = nn.Linear(config.vision_config.hidden_size, hidden)
            self.transformer_mapping_network = TransformerMapping(config.mapping_base(), layers)
            self.transformer_mapping_output_linear = nn.Linear(hidden, config.dim)
        self.post_init()

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **kwargs: Any) -> "PreFLMR":
        """A model from a folder, a file of weights, or the hub; see `pretrained.load` for the arguments."""
        model: PreFLMR = pretrained.load(cls, name_or_path, **kwargs)
        return model

    @classmethod
    def from_encoders(cls, text: Any, vision: Any = None, **kwargs: Any) -> "PreFLMR":
        """A new model around pretrained encoders; see `pretrained.start` for the arguments."""
        model: PreFLMR = pretrained.start(cls, text, vision, **kwargs)
        return model

    def save_pretrained(
        self,
        folder: str | Path,
        is_main_process: bool = True,
        state_dict: Any = None,
        max_shard_size: int | str = "5GB",
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Weights in the published layout, ``config.json``, and both tokenizers in their subfolders.

        Args:
            folder: made if it is not there.
            is_main_process: nothing is written where False.
            state_dict: where another has gathered it.
            max_shard_size: beyond it, weights are split over several files.
            push_to_hub: upload the folder afterwards.
            repo_id: to this repository, which is made if it is not there; None: of the folder's name.
            kwargs: of the upload: ``commit_message``, ``private``, ``token``, ``revision``, ``create_pr``; or of
                transformers, without effect here: `WITHOUT_EFFECT`.

        Raises:
            TypeError: an argument is unknown, or asks for another format than safetensors.
        """
        upload = {name: kwargs.pop(name) for name in UPLOAD if name in kwargs}
        unknown = [name for name in kwargs if name not in WITHOUT_EFFECT]
        if unknown or ((upload or repo_id is not None) and not push_to_hub):
            name = next(iter(unknown or upload or ["repo_id"]))
            raise TypeError(f"save_pretrained got {name!r}" + ("" if unknown else ", which needs push_to_hub=True"))
        if kwargs.get("safe_serialization") is False:
            raise TypeError("safe_serialization must be True: weights are written as safetensors only")
        if not is_main_process:
            return
        checkpoint.save(self, self.config, folder, state=state_dict, max_shard_size=max_shard_size)
        if self.query_tokenizer is not None:
            self.query_tokenizer.save_pretrained(Path(folder) / "query_tokenizer")
        if self.document_tokenizer is not None:
            self.document_tokenizer.save_pretrained(Path(folder) / "context_tokenizer")
        if push_to_hub:
            hub.upload(folder, repo_id or Path(folder).absolute().name, **upload)

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
            image_features: ``[B, hidden]`` or ``[B, R, hidden]``, CLS features instead of pixels; with a transformer
                mapping, which needs patches, ``[B, R, 1 + patches, hidden]``: what `image_states` returns.
            concat_output_from_vision_encoder: whether vision rows are there; or B bools that make a query's vision
                rows zero where False; None for what the config says, and no vision rows without a picture.
            concat_output_from_text_encoder: the same of text rows.

        Returns:
            `FLMROutput` with ``late_interaction_output [B, L, dim]`` and ``mask [B, L]``.

        Raises:
            ValueError: something needed is absent, or a shape does not match.
        """
        flags = {"vision": concat_output_from_vision_encoder, "text": concat_output_from_text_encoder}
        given = Given(input_ids, attention_mask, pixel_values, image_features, flags)
        return self._encode("query", given)

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
        flags = {"vision": concat_output_from_vision_encoder, "text": concat_output_from_text_encoder}
        given = Given(input_ids, attention_mask, pixel_values, image_features, flags)
        out = self._encode("context", given)
        # Looking at values on a GPU would wait for it.
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
        """Scores and loss of B queries, and of ``1 + K`` documents of each: positive, K negatives, next query's.

        ``l_i = -log( exp(S(q_i, d_i+)) / sum_d exp(S(q_i, d)) )``, the mean over queries (eq. 10, where it is a sum);
        d goes over all documents of the batch, or over the query's own.

        Args:
            query_input_ids, query_attention_mask, query_pixel_values, query_image_features,
                query_concat_output_from_vision_encoder, query_concat_output_from_text_encoder: as for `query`.
            context_input_ids, context_attention_mask, context_pixel_values, context_image_features,
                context_concat_output_from_vision_encoder, context_concat_output_from_text_encoder: as for `doc`.
            use_in_batch_negatives: whether other queries' documents are negatives, too.
            in_batch_negatives_from_all_gpus: whether those of all ranks are. Every rank then has the loss and the
                scores of the queries of all ranks, and gradients of which the sum over ranks is that of the loss: where
                ranks are averaged, multiply the loss by their number (see `lateint_kernels.distributed`).
            num_negative_examples: K.

        Raises:
            ValueError: as for `query` and `doc`, or there are not ``1 + K`` documents for each query.
        """
        if in_batch_negatives_from_all_gpus and not use_in_batch_negatives:
            raise ValueError("in_batch_negatives_from_all_gpus needs use_in_batch_negatives, which is False")
        queries = self.query(
            query_input_ids,
            query_attention_mask,
            query_pixel_values,
            query_image_features,
            query_concat_output_from_vision_encoder,
            query_concat_output_from_text_encoder,
        )
        documents = self.doc(
            context_input_ids,
            context_attention_mask,
            context_pixel_values,
            context_image_features,
            context_concat_output_from_vision_encoder,
            context_concat_output_from_text_encoder,
        )
        q, d = queries.late_interaction_output, documents.late_interaction_output
        each = 1 + num_negative_examples
        if num_negative_examples < 0 or len(d) != len(q) * each:
            found = f"{len(d)} for {len(q)} queries with num_negative_examples={num_negative_examples}"
            raise ValueError(f"there must be 1 + num_negative_examples documents for each query, got {found}")
        rows = (q, queries.mask, d, documents.mask, each)
        if use_in_batch_negatives:
            loss, scores = loss_of_batch(*rows, across_devices=in_batch_negatives_from_all_gpus)
        else:
            loss, scores = loss_of_own(*rows)
        return FLMROutput(
            loss=loss,
            scores=scores,
            in_batch_negative_loss=loss if use_in_batch_negatives else None,
            query_late_interaction_output=q,
            context_late_interaction_output=d,
            mask=queries.mask,
            context_mask=documents.context_mask,
        )

    @property
    def context_tokenizer(self) -> FLMRDocumentTokenizer | None:
        """The document tokenizer, by its published name."""
        return self.document_tokenizer

    @property
    def image_processor(self) -> ImageProcessor:
        """Pictures to ``pixel_values``: ``processor(pictures) -> [B, 3, image_size, image_size]`` float32."""
        return ImageProcessor(self.config.vision_config.image_size, self.config.vision_config.image_fit)

    def get_input_embeddings(self) -> nn.Module:
        return self.query_text_encoder.bert_model.get_input_embeddings()

    def image_states(self, pixel_values: Tensor) -> Tensor:
        """All that queries need of pictures, to be given again as ``image_features``: CLS, then the patches.

        Shapes: ``[N, 3, H, W]`` -> ``[N, 1 + patches, hidden]``.
        """
        states = self.query_vision_encoder(pixel_values.to(self.device))
        return torch.cat([states.last_hidden_state[:, :1], states.penultimate[:, 1:]], dim=1)

    def parts(self) -> dict[str, list[nn.Module]]:
        """The modules of ``text_encoder``, ``vision_encoder`` and ``mapping``: what is frozen, or learns, together."""
        found: dict[str, list[nn.Module]] = {"text_encoder": [], "vision_encoder": [], "mapping": []}
        for name, module in self.named_children():
            kind = name.removeprefix("query_").removeprefix("context_")
            part = "text_encoder" if kind.startswith("text_") else kind if kind == "vision_encoder" else "mapping"
            found[part].append(module)
        return found

    def separate_text_encoders(self) -> None:
        """Copy a shared text encoder, so that queries and documents each have their own from here on (stage 3)."""
        if self.config.separate_query_and_context_text_encoder:
            return
        for name in ("text_encoder", "text_encoder_linear"):
            setattr(self, f"context_{name}", copy.deepcopy(self._modules[f"query_{name}"]))
        self.config.separate_query_and_context_text_encoder = True

    def query_mask(self, input_ids: Tensor) -> Tensor:
        """Which text rows of a query take part: no padding, nothing of the skip list, and nothing of the instruction.

        Where an instruction's end is not found nothing is masked, which is logged once and counted in
        ``queries_without_separator``.

        Shapes: ``[B, tokens]`` int64 -> ``[B, tokens]`` bool.
        """
        keep = masks.kept(input_ids, self.config.text_config.pad_token_id or 0, self._query_skipped(input_ids.device))
        token = self.config.mask_instruction_token
        if token is None:
            return keep
        if self.query_tokenizer is None:
            raise ValueError(f"query_tokenizer must be given: instructions up to {token!r} are masked by its id")
        separator = self.query_tokenizer.convert_tokens_to_ids(token)
        if separator is None or (separator == self.query_tokenizer.unk_token_id and token != "[UNK]"):
            raise ValueError(f"mask_instruction_token must be a token of the query tokenizer, got {token!r}")
        after, without = masks.after_instruction(input_ids, separator)
        missing = int(without.sum())
        if missing and not self.queries_without_separator:
            rule = "a query has no %r between instruction and question, so that no row of it is masked"
            logger.warning(rule + "; counted in .queries_without_separator from here on", token)
        self.queries_without_separator += missing
        return keep & after

    def document_mask(self, input_ids: Tensor) -> Tensor:
        """Which text rows of a document take part: no padding, and no punctuation if ``mask_punctuation``.

        Shapes: ``[B, tokens]`` int64 -> ``[B, tokens]`` bool.
        """
        if self.config.mask_punctuation and (self._punctuation is None or self._punctuation.device != input_ids.device):
            if self.document_tokenizer is None:
                raise ValueError("document_tokenizer must be given: punctuation is masked by its ids")
            self._punctuation = torch.tensor(self.document_tokenizer.punctuation_ids(), device=input_ids.device)
        skipped = self._punctuation if self.config.mask_punctuation else None
        return masks.kept(input_ids, self.config.text_config.pad_token_id or 0, skipped)

    def _query_skipped(self, device: torch.device) -> Tensor | None:
        ids = self.config.query_mask_input_ids_skip_list
        return torch.tensor(ids, device=device) if ids else None

    def _encode(self, side: str, given: Given) -> FLMROutput:
        """Both `query` and `doc`: blocks of rows, put together, masked and brought to length 1."""
        wanted = given.wanted(self.config, side)
        mapped = side == "query" and wanted["vision"] and self.config.use_transformer_mapping_network
        if mapped and not (given.has_patches and given.input_ids is not None):
            raise ValueError("the transformer mapping needs input_ids and pixel_values, whose patches look at the text")
        out = FLMROutput()
        blocks: dict[str, Block] = {}
        ids: Any = None
        if wanted["text"] or mapped:
            ids, out.text_last_hidden_state = self._text_states(side, given)
        if wanted["text"]:
            rows = getattr(self, f"{side}_text_encoder_linear")(out.text_last_hidden_state)  # [B, tokens, dim]
            mask = self.query_mask(ids) if side == "query" else self.document_mask(ids)
            blocks["text"] = Block(rows.to(self.device), mask)
        if wanted["vision"]:
            rows, pictures = self._vision_rows(side, given, out)
            rows = rows.to(self.device)  # where parts are on several devices
            if mapped:
                if len(rows) != len(ids):
                    raise ValueError(f"input_ids and pictures must be as many, got {len(ids)} and {len(rows)}")
                rows = torch.cat([rows, self._patch_rows(ids, pictures, out).to(self.device)], dim=1)
            blocks["vision"] = Block(rows, torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device))
        rows, out.mask = assembled(blocks, ORDER[side], given.flags)
        out.late_interaction_output = functional.normalize(rows, dim=2)
        out.pooler_output = (rows if side == "query" else out.late_interaction_output)[:, 0]
        return out

    def _text_states(self, side: str, given: Given) -> tuple[Tensor, Tensor]:
        """Ids, where the model is, and ``[B, tokens, hidden]``."""
        ids, mask = given.text(self.config.text_config.max_position_embeddings)
        ids, mask = ids.to(self.device), None if mask is None else mask.to(self.device)
        encoder = getattr(self, f"{side}_text_encoder")
        if ids.device.type != "cpu":
            return ids, encoder(ids, mask)
        if _learns(encoder):
            # A query's patches may look at its padding. Several processes wait for each other, so each of them must
            # encode as often as the others.
            alone = not (distributed.is_available() and distributed.is_initialized())
            if side != "query" and encoder.training and mask is not None and alone:
                return ids, states_by_length(encoder, ids, mask, self.config.text_config.pad_token_id or 0)
            return ids, encoder(ids, mask)
        # Questions without words of their own have the few texts of their instructions: each is encoded once.
        distinct, place = (ids if mask is None else torch.cat([ids, mask.to(ids.dtype)], 1)).unique(
            dim=0, return_inverse=True
        )
        if len(distinct) == len(ids):
            return ids, encoder(ids, mask)
        length = ids.shape[1]
        return ids, encoder(distinct[:, :length], None if mask is None else distinct[:, length:])[place]

    def _vision_rows(self, side: str, given: Given, out: FLMROutput) -> tuple[Tensor, int]:
        """What the MLP makes of R pictures each, ``[B, R * N_vt, dim]``, and R."""
        if given.pixel_values is not None:
            pixels, pictures = given.pixels(self.config)
            states = _picture_states(getattr(self, f"{side}_vision_encoder"), pixels.to(self.device))
            out.vision_last_hidden_state, out.vision_penultimate_hidden_state = states
            features = states.last_hidden_state[:, 0]  # [B * R, hidden]: no LayerNorm on top
        else:
            features, pictures = given.features(self.config)
            features = features.to(self.device)
            if features.ndim == 3:  # with patches
                out.vision_penultimate_hidden_state, features = features, features[:, 0]
        prefix = out.vision_prefix_tokens = getattr(self, f"{side}_vision_projection")(features)
        return prefix.reshape(-1, pictures * self.config.mapping_network_prefix_length, self.config.dim), pictures

    def _patch_rows(self, ids: Tensor, pictures: int, out: FLMROutput) -> Tensor:
        """``[B, R * patches, dim]``: each picture's patches look at each other and at the start of the query's text."""
        length = self.config.transformer_mapping_cross_attention_length
        text, skipped = out.text_last_hidden_state[:, :length], self._query_skipped(ids.device)
        # Whatever the tokenizer's mask says, [MASK] padding and instruction are looked at.
        seen = None if skipped is None else ~torch.isin(ids[:, :length], skipped)
        if pictures > 1:
            text = text.repeat_interleave(pictures, dim=0)
            seen = None if seen is None else seen.repeat_interleave(pictures, dim=0)
        patches = self.transformer_mapping_input_linear(out.vision_penultimate_hidden_state[:, 1:])
        rows = self.transformer_mapping_output_linear(self.transformer_mapping_network(patches, text, seen))
        return rows.reshape(len(ids), -1, self.config.dim)


def _picture_states(encoder: VisionEncoder, pixels: Tensor) -> VisionOutput:
    """Of questions about the same picture, which come together in an evaluation, it is encoded once."""
    place = None
    if pixels.device.type == "cpu" and not _learns(encoder):
        distinct, inverse = pixels.unique(dim=0, return_inverse=True)
        if len(distinct) < len(pixels):
            pixels, place = distinct, inverse
    states: VisionOutput = encoder(pixels)
    return states if place is None else VisionOutput(*(one[place] for one in states))


def _learns(encoder: Any) -> bool:
    """Whether each row has dropout or a gradient of its own."""
    frozen = not torch.is_grad_enabled() or not any(parameter.requires_grad for parameter in encoder.parameters())
    return bool(encoder.training) or not frozen


AutoModel.register(FLMRConfig, PreFLMR, exist_ok=True)
