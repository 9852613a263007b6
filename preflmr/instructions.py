"""Instructions that tell a query what to look for: PreFLMR's templates (arXiv 2402.08327, appendix A) by task."""

from __future__ import annotations

import random
from typing import Any

_DOCUMENT = (
    "Identify the document that is connected to this image.",
    "Provide information about the document linked to this image.",
    "Please describe the document that corresponds to this image.",
    "What is the document that this image is related to?",
    "Could you elucidate the document associated with this image?",
    "Describe the document that accompanies this image.",
    "Please give information on the document that goes with this image.",
    "What document is represented by this image?",
    "Identify the document that this image pertains to.",
)
_PERSON = ("Provide a brief description of the image and the relevant details of the person in the image.",)
_CAPTION = (
    "Describe the image concisely.",
    "Provide a brief description of the given image.",
    "Offer a succinct explanation of the picture presented.",
    "Summarize the visual content of the image.",
    "Give a short and clear explanation of the subsequent image.",
    "Share a concise interpretation of the image provided.",
    "Present a compact description of the photo's key features.",
    "Relay a brief, clear account of the picture shown.",
    "Render a clear and concise summary of the photo.",
    "Write a terse but informative summary of the picture.",
    "Create a compact narrative representing the image presented.",
)
_TEXT = (
    "Retrieve the document that answers this question.",
    "Find the document that is most relevant to the question.",
    "Obtain the document that resolves this query.",
    "Acquire the document that elucidates this question.",
    "Choose the document most relevant to the query.",
    "Identify the document most applicable to the question.",
    "Extract the document that answers this query.",
    "Locate the document that addresses the query.",
)
_DESCRIPTION = (
    "Provide a brief description of the image along with the following question:",
    "Provide a concise explanation of the image along with the following question:",
)
_KNOWLEDGE = (
    "Using the provided image, obtain documents that address the subsequent question:",
    "Retrieve documents that provide an answer to the question alongside the image:",
    "Extract documents linked to the question provided in conjunction with the image:",
    "Utilizing the given image, obtain documents that respond to the following question:",
    "Using the given image, access documents that provide insights into the following question:",
    "Obtain documents that correspond to the inquiry alongside the provided image:",
    "With the provided image, gather documents that offer a solution to the question:",
    "Utilizing the given image, obtain documents that respond to the following question:",  # twice, as in the paper
)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "WIT": _DOCUMENT,
    "IGLUE": _DOCUMENT,
    "KVQA": _PERSON,
    "CC": _CAPTION,
    "MSMARCO": _TEXT,
    "OVEN": _KNOWLEDGE,
    "LLaVA": _DESCRIPTION,
    "OKVQA": _KNOWLEDGE,
    "Infoseek": _KNOWLEDGE,
    "EVQA": _KNOWLEDGE,
}


def join(instruction: str | None, question: str | None, separator: str | None = ":") -> str:
    """The text of a query, as PreFLMR's published evaluation writes it.

    The instruction is stripped, gets a colon unless it ends with one, and every colon in it becomes ``separator``, up
    to the first of which a model masks the text. Two spaces and the question follow, then a space.

    Args:
        instruction: None is an empty one: the separator alone, so that a colon inside the question masks nothing.
        question: None is an empty one.
        separator: the model's ``mask_instruction_token``; None: the model masks no instruction, so colons stay, and
            without an instruction the question stands alone.

    >>> join("Describe the image concisely.", "")
    'Describe the image concisely.:   '
    >>> join("Answer the question: ", "Why?")
    'Answer the question:  Why? '
    >>> join(None, "Why?"), join(None, "Why?", None)
    (':  Why? ', 'Why?')
    """
    head, question = (instruction or "").strip(), question or ""
    if separator is None and not head:
        return question
    if not head.endswith(":"):
        head += ":"
    return " ".join([head if separator is None else head.replace(":", separator), "", question, ""])


def choose(key: str, rng: random.Random | Any) -> str:
    """One of a task's templates, drawn evenly.

    Args:
        rng: a `random.Random`, or a numpy ``Generator``.

    Raises:
        ValueError: ``key`` names no templates.
    """
    if key not in TEMPLATES:
        raise ValueError(f"instructions must name templates, one of {', '.join(TEMPLATES)}, got {key!r}")
    templates = TEMPLATES[key]
    if isinstance(rng, random.Random):
        return templates[rng.randrange(len(templates))]
    return templates[int(rng.integers(len(templates)))]
