"""Fine-tunes a generator with LoRA on what was found once for all questions, as RA-VQA v2 does (Lin et al. 2023).

Of a question's K passages a few are drawn; each is read by itself and is to be answered with a target that it contains,
if there is one: the mean negative log-likelihood of the target's tokens is the loss. The retriever is not trained.
transformers' Trainer trains.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lateint.arguments import positive
from preflmr.asking import Asking, Found
from preflmr.generator import Generator
from preflmr.m2kr import Dataset
from preflmr.metrics import gold_answer

QUESTIONS_PER_STEP = 16


def train(
    generator: Generator,
    dataset: Dataset,
    found: Found | None,
    output: str | os.PathLike[str],
    *,
    steps: int,
    k: int = 5,
    passages: int = 3,
    questions_per_step: int = QUESTIONS_PER_STEP,
    learning_rate: float = 1e-4,
    rank: int = 8,
    alpha: int = 32,
    dropout: float = 0.1,
    targets: Sequence[str] | str | None = None,
    on_missing: str = "error",
    seed: int = 0,
    resume: bool = False,
    arguments: dict[str, Any] | None = None,
) -> Any:
    """Trains adapters, and writes them with the processor; `Generator.from_pretrained` reads the folder.

    The defaults are the paper's (appendix) and, where it is silent, RA-VQA's. There is no validation: compare the
    checkpoints by answering.

    Args:
        generator: made for passages, or for none; its model is given the adapters, in place.
        found: see `preflmr.answering.answer`, for the training questions; None: questions alone.
        output: a folder.
        steps: of the optimiser.
        k, passages: so many of a question's k best passages, drawn anew each time it comes.
        questions_per_step: one after the other, each with its passages at once.
        rank, alpha, dropout, targets: of LoRA; targets None: those that peft has for such a model.
        on_missing: see `preflmr.answering.answer`.
        resume: go on from the last checkpoint in ``output``.
        arguments: further ones, or others, of ``transformers.TrainingArguments``.

    Returns:
        transformers' ``TrainOutput``.

    Raises:
        ValueError: a number is below 1, the data have no answers, or as `preflmr.answering.answer`.
    """
    import peft
    from transformers import Trainer, TrainingArguments

    for name, value in (("steps", steps), ("passages", passages), ("questions_per_step", questions_per_step)):
        positive(value, name)
    if generator.passages != (found is not None):
        raise ValueError("generator must be made for passages if some were found, and for none if not")
    asking = Asking(generator, dataset, found, positive(k, "k"), 1.0, on_missing)
    asking.prepare([example for example in dataset.examples if example.answers])
    rows = _Questions(asking, passages, steps * questions_per_step, seed)
    lora = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
    settings: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": questions_per_step,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.05,
        "optim": "adamw_torch",
        "logging_steps": 10,
        "save_steps": 500,
        "save_total_limit": 1,
        "seed": seed,
        "report_to": "none",
        "remove_unused_columns": False,  # ours are no columns
        "use_cpu": not torch.cuda.is_available(),
    }
    torch.manual_seed(seed)  # the adapters are random
    trainer = Trainer(
        model=peft.get_peft_model(generator.model, lora),
        args=TrainingArguments(str(output), **{**settings, **(arguments or {})}),
        train_dataset=rows,
        data_collator=_Collator(generator),
    )
    # The loss is the mean of each question, and their mean that of a step; else the trainer takes it that the model
    # divides by the tokens of a step, which BLIP-2 does not do.
    trainer.model_accepts_loss_kwargs = False
    trained = trainer.train(resume_from_checkpoint=resume)
    trainer.model.save_pretrained(str(output))
    generator.processor.save_pretrained(str(output))
    generator.model.eval()
    return trained


def target(answers: Sequence[str], passage: str | None) -> str:
    """What a passage is to be answered with: the answer given most often, if the passage contains it or none else.

    Otherwise that one of the others in it which was given most often. Of several the one given first counts.
    Contains: as `preflmr.metrics.pseudo_recall`.

    Raises:
        ValueError: there is no answer.

    >>> target(["dog", "dog", "cat", "cow", "cow"], "Cats and cows"), target(["dog", "cat"], "birds")
    ('cow', 'dog')
    """
    gold = gold_answer(answers)
    lowered = (passage or "").lower()
    ordered = [gold, *(answer for answer, _ in Counter(answers).most_common())]
    return next((answer for answer in ordered if answer.strip().lower() in lowered), gold)


@dataclass(frozen=True)
class _Row:
    prompts: list[str]
    pictures: list[Any]
    targets: list[str]


class _Questions(torch.utils.data.Dataset):  # type: ignore[misc]  # torch is untyped here
    """As many rows as training asks for: the questions again and again, each time with passages of its own draw.

    A row depends on its number alone, so that a run that goes on sees what it would have seen.
    """

    def __init__(self, asking: Asking, passages: int, size: int, seed: int) -> None:
        self.asking, self.passages, self.size, self.seed = asking, passages, size, seed
        self.kept = [number for number, prompts in enumerate(asking.prompts) if prompts]
        if asking.on_missing == "skip":  # a broken picture cannot be left out of a batch later
            self.kept = [number for number in self.kept if asking.shown(asking.asked[number].example) is not None]
        if not self.kept:
            raise ValueError("dataset must hold questions with answers and pictures to train on, found none")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> _Row:
        number = self.kept[row % len(self.kept)]
        example, prompts = self.asking.asked[number].example, self.asking.prompts[number]
        rng = np.random.default_rng((self.seed, row))
        drawn = [prompts[i] for i in sorted(rng.permutation(len(prompts))[: self.passages].tolist())]
        known = self.asking.dataset.passages
        texts = [None if one["passage_id"] is None else known.texts[known.position(one["passage_id"])]
                 for _, one in drawn]  # fmt: skip
        shown = self.asking.shown(example)
        assert shown is not None
        return _Row([prompt for prompt, _ in drawn], shown, [target(example.answers, text) for text in texts])


class _Collator:
    """Prompts and targets as a model's arguments: labels are the targets' tokens and the end."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def __call__(self, rows: Sequence[_Row]) -> dict[str, Any]:
        prompts = [prompt for row in rows for prompt in row.prompts]
        pictures = [row.pictures for row in rows for _ in row.prompts]
        tokens = [self._tokens(text) for row in rows for text in row.targets]
        longest = max(map(len, tokens))
        labels = torch.tensor([ids + [-100] * (longest - len(ids)) for ids in tokens])
        inputs = dict(self.generator.inputs(prompts, pictures, device="cpu"))
        if self.generator.model.config.is_encoder_decoder:
            return {**inputs, "labels": labels}
        return _continued(inputs, labels, self.generator.tokenizer.pad_token_id)

    def _tokens(self, text: str) -> list[int]:
        tokenizer = self.generator.tokenizer
        space = "" if self.generator.chats or self.generator.model.config.is_encoder_decoder else " "
        ids: list[int] = tokenizer(space + text, add_special_tokens=False)["input_ids"]
        return [*ids[: self.generator.max_new_tokens - 1], tokenizer.eos_token_id]


def _continued(inputs: dict[str, Any], labels: Any, pad: int) -> dict[str, Any]:
    """Prompts, padded on the left, go on with their targets, whose padding is on the right: what a decoder learns."""
    prompt, real = inputs["input_ids"], labels != -100
    more = {"input_ids": labels.masked_fill(~real, pad), "attention_mask": real.to(prompt.dtype)}
    for name, value in inputs.items():  # whatever else has a number for each token, such as token types
        if torch.is_tensor(value) and value.shape == prompt.shape:
            inputs[name] = torch.cat([value, more.get(name, torch.zeros_like(labels)).to(value.dtype)], 1)
    return {**inputs, "labels": torch.cat([torch.full_like(prompt, -100), labels], 1)}
