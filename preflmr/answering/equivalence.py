"""BEM: whether an answer means what a right one means, by a classifier that was trained to tell.

Source: Bulian et al., Tomayto, Tomahto (EMNLP 2022), arXiv 2202.07654; the measure of E-VQA (Mensink et al. 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lateint.arguments import positive

BEM = "BEM"
SURE = 0.5  # an answer is right from this probability on


class Equivalence:
    """A classifier of (answer, right answer, question), whose last label is "equivalent".

    Args:
        model: what ``AutoModelForSequenceClassification`` loads, of two labels; such as the reproduction
            ``kortukov/answer-equivalence-bem``.
        tokenizer: its tokenizer.
        batch_size: answers compared at once.

    Raises:
        ValueError: the model has not two labels.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int = 64) -> None:
        if model.config.num_labels != 2:
            raise ValueError(
                f"model must have two labels, not equivalent and equivalent, got {model.config.num_labels}"
            )
        self.model, self.tokenizer = model.eval(), tokenizer
        self.batch_size = positive(batch_size, "batch_size")

    @classmethod
    def from_pretrained(cls, name: str, *, device: Any = None, **settings: Any) -> Equivalence:
        """From a folder or the hub.

        Args:
            device: None: a GPU if there is one.
            settings: see `Equivalence`.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        device = ("cuda" if torch.cuda.is_available() else "cpu") if device is None else device
        model = AutoModelForSequenceClassification.from_pretrained(name).to(device)
        return cls(model, AutoTokenizer.from_pretrained(name), **settings)

    def probabilities(self, questions: Sequence[str], answers: Sequence[str], right: Sequence[str]) -> list[float]:
        """That each answer is equivalent to a right one: ``p(1 | [CLS] answer [SEP] right [SEP] question [SEP])``."""
        separator, found = self.tokenizer.sep_token, []
        for start in range(0, len(questions), self.batch_size):
            some = slice(start, start + self.batch_size)
            pairs = [
                f"{one} {separator} {question}" for one, question in zip(right[some], questions[some], strict=True)
            ]
            inputs = self.tokenizer(list(answers[some]), pairs, padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                logits = self.model(**inputs.to(self.model.device)).logits
            found += logits.float().softmax(-1)[:, -1].tolist()
        return found

    def judge(self, rows: Sequence[tuple[str, str, Sequence[str]]]) -> list[float]:
        """1 where an answer is equivalent to one of the right ones, else 0.

        Args:
            rows: question, answer and right answers of each.
        """
        flat = [(question, answer, one) for question, answer, right in rows for one in dict.fromkeys(right)]
        probabilities = iter(self.probabilities(*map(list, zip(*flat, strict=True)))) if flat else iter(())
        return [
            float(max((next(probabilities) for _ in dict.fromkeys(right)), default=0.0) >= SURE) for *_, right in rows
        ]
