"""What writes answers: an image-text-to-text model of transformers, its prompts, and how sure it is of an answer.

A model whose processor has a chat template is asked in a chat; another reads RA-VQA's prompt (Lin and Byrne 2022),
``Question: ... Knowledge: ... Answer:``.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch

from lateint.arguments import positive

PROMPT = "Question: {question} Knowledge: {passage} Answer:"
CHAT = "Knowledge: {passage}\nQuestion: {question}\nAnswer the question using a single word or phrase."
ALONE = {PROMPT: "Question: {question} Answer:", CHAT: CHAT.partition("\n")[2]}  # without passages


class Generator:
    """A model that answers a question about pictures, beside a passage or alone.

    Args:
        model: what ``AutoModelForImageTextToText`` loads; an encoder-decoder (BLIP-2 with T5) or a decoder alone.
        processor: its ``AutoProcessor``.
        passages: whether prompts hold a passage.
        prompt: a template with ``{question}`` and, if ``passages``, ``{passage}``; it may name the image token of a
            model that wants it said. None: `CHAT` for a processor with a chat template, else `PROMPT`; without their
            knowledge if there are no passages.
        beams: of the beam search; 1: greedy.
        max_new_tokens: an answer is at most so long.
        max_length: tokens of a prompt, without those of pictures. What is longer loses the end of its passage. At most
            what the tokenizer says that the model reads.

    Raises:
        ValueError: a number is below 1, the template has no place for what it must hold, or the model reads no
            pictures.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        passages: bool = True,
        prompt: str | None = None,
        beams: int = 5,
        max_new_tokens: int = 10,
        max_length: int = 512,
    ) -> None:
        self.model, self.processor = model.eval(), processor
        _check_reads_pictures(model, processor)
        self.tokenizer = processor.tokenizer
        self.chats = bool(getattr(processor, "chat_template", None))
        if prompt is None:
            prompt = CHAT if self.chats else PROMPT
            prompt = prompt if passages else ALONE[prompt]
        wanted = {"question", "passage"} if passages else {"question"}
        if set(_places(prompt)) != wanted:
            names = " and ".join(f"{{{name}}}" for name in sorted(wanted, reverse=True))
            raise ValueError(f"prompt must hold {names}{'' if passages else ' and no {passage}'}, got {prompt!r}")
        self.template, self.passages = prompt, passages
        self.beams, self.max_new_tokens = positive(beams, "beams"), positive(max_new_tokens, "max_new_tokens")
        self.max_length = min(positive(max_length, "max_length"), int(self.tokenizer.model_max_length))

    @classmethod
    def from_pretrained(cls, name: str, *, dtype: Any = None, device: Any = None, **settings: Any) -> Generator:
        """From a folder or the hub.

        Args:
            dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``; None: as it was saved.
            device: None: a GPU if there is one.
            settings: see `Generator`.

        Raises:
            OSError: there is no such model.
            ValueError: it is none that reads pictures and writes text.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            model = AutoModelForImageTextToText.from_pretrained(name, dtype="auto" if dtype is None else dtype)
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            raise ValueError(f"{name} must read pictures and write text (image-text-to-text), it does not") from None
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
        return cls(model.to(device), AutoProcessor.from_pretrained(name), **settings)

    def prompt(self, question: str, passage: str = "", pictures: int = 1) -> tuple[str, bool]:
        """What the model reads, and whether the passage had to be cut for it; the question never is.

        Raises:
            ValueError: there is no room for the question, or there are several pictures and no chat to show them in.
        """
        if pictures != 1 and not self.chats:
            raise ValueError(f"a generator without chat template reads one picture, got {pictures}")

        def written(end: int) -> str:
            text = _filled(self.template, question=question, passage=passage[:end].rstrip())
            return self._in_chat(text, pictures) if self.chats else text

        if self._length(whole := written(len(passage))) <= self.max_length:
            return whole, False
        end = bisect_right(range(len(passage)), self.max_length, key=lambda end: self._length(written(end)))
        if end == 0:
            raise ValueError(f"a prompt must fit into {self.max_length:,} tokens, this question alone is longer")
        return written(end - 1), True

    def generate(self, prompts: Sequence[str], pictures: Sequence[Sequence[Any]]) -> list[tuple[str, float]]:
        """An answer to each prompt, and the mean log-probability of its tokens, that which ends it included.

        Args:
            prompts: see `prompt`.
            pictures: for each of them.

        Raises:
            ValueError: the processor puts no picture into a prompt.
            FloatingPointError: a score is infinite or NaN, as T5's may be in float16.
        """
        inputs = self.inputs(prompts, pictures)
        with torch.inference_mode():
            made = self.model.generate(
                **inputs,
                num_beams=self.beams,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                length_penalty=1.0,  # the score is divided by the length
                return_dict_in_generate=True,
                output_scores=True,
            )
        tokens, asked = made.sequences, inputs["input_ids"]
        if not self.model.config.is_encoder_decoder and torch.equal(tokens[:, : asked.shape[1]], asked):
            tokens = tokens[:, asked.shape[1] :]
        scores = made.sequences_scores if self.beams > 1 else self._greedy_scores(tokens, made.scores)
        if not bool(scores.isfinite().all()):
            raise FloatingPointError(f"the generator's scores are not finite in {self.model.dtype}: try bfloat16")
        texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [(text.strip(), score) for text, score in zip(texts, scores.tolist(), strict=True)]

    def inputs(self, prompts: Sequence[str], pictures: Sequence[Sequence[Any]]) -> Any:
        """Tensors of the model, on its device."""
        config = self.model.config
        settings: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
        # A decoder goes on from the last token, which must be none of padding.
        settings["padding_side"] = "right" if config.is_encoder_decoder else "left"
        shown = [list(some) for some in pictures]
        images = shown if self.chats else [image for some in shown for image in some]
        inputs = self.processor(images=images, text=list(prompts), **settings, **self._specials(prompts[0]))
        token = getattr(config, "image_token_id", None)
        if token is not None and not bool((inputs["input_ids"] == token).any(1).all()):
            raise ValueError("prompt must have a place for the picture: put the generator's image token into it")
        return inputs.to(self.model.device, self.model.dtype)

    def _specials(self, text: str) -> dict[str, bool]:
        """A chat that begins with the first token already does not get it twice."""
        bos = self.tokenizer.bos_token
        return {"add_special_tokens": False} if self.chats and bos and text.startswith(bos) else {}

    def _in_chat(self, text: str, pictures: int) -> str:
        content = [*({"type": "image"} for _ in range(pictures)), {"type": "text", "text": text}]
        message = [{"role": "user", "content": content}]
        return str(self.processor.apply_chat_template(message, add_generation_prompt=True))

    def _length(self, text: str) -> int:
        return len(self.tokenizer(text, verbose=False, **self._specials(text))["input_ids"])

    def _greedy_scores(self, tokens: Any, logits: Sequence[Any]) -> Any:
        """What beam search calls a sequence's score, ``[B]``, from ``[B, vocabulary]`` logits of each step."""
        tokens = tokens[:, -len(logits) :]  # an encoder-decoder's first token was not generated
        steps = torch.stack(list(logits), 1).float().log_softmax(-1)
        chosen = steps.gather(-1, tokens[..., None])[..., 0]
        ends = torch.isin(tokens, torch.tensor(sorted(self.ends()), device=tokens.device))
        counted = ends.cumsum(1) - ends.long() == 0  # up to the first end
        return chosen.masked_fill(~counted, 0.0).sum(1) / counted.sum(1)

    def ends(self) -> set[int]:
        """Ids of tokens that end an answer."""
        language_model = getattr(self.model, "language_model", None)
        found = [self.tokenizer.eos_token_id]
        for model in (self.model, language_model):  # BLIP-2's language model generates by its own configuration
            ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
            found += ids if isinstance(ids, list) else [ids]
        return {id for id in found if id is not None}


def _check_reads_pictures(model: Any, processor: Any) -> None:
    if getattr(processor, "image_processor", None) is None or getattr(processor, "tokenizer", None) is None:
        raise ValueError(f"generator must read pictures and text, its processor is a {type(processor).__name__}")
    if hasattr(processor, "num_query_tokens"):  # BLIP-2 saved by an old transformers: its prompts would have no picture
        if getattr(model.config, "image_token_id", None) is None:
            raise ValueError("generator must have an image_token_index in its config: save it with transformers 4.46")
        if processor.num_query_tokens is None:
            processor.num_query_tokens = model.config.num_query_tokens


def _places(template: str) -> list[str]:
    return re.findall(r"\{(question|passage)\}", template)


def _filled(template: str, **values: str) -> str:
    """In one go, so that braces in a passage stay as they are."""
    return re.sub(r"\{(question|passage)\}", lambda place: values[place[1]], template)
