import random

import numpy as np
import pytest

from preflmr.data.tasks import TASKS
from preflmr.instructions import TEMPLATES, choose, join


def test_there_are_as_many_templates_as_in_the_paper():
    counts = {"WIT": 9, "IGLUE": 9, "KVQA": 1, "CC": 11, "MSMARCO": 8, "LLaVA": 2}
    counts |= dict.fromkeys(("OVEN", "Infoseek", "EVQA", "OKVQA"), 8)
    assert {name: len(templates) for name, templates in TEMPLATES.items()} == counts
    assert all(len(set(TEMPLATES[name])) == (7 if name in ("OVEN", "OKVQA") else n) for name, n in counts.items()
               if name not in ("Infoseek", "EVQA"))  # fmt: skip
    assert {task.instructions for task in TASKS.values()} == set(TEMPLATES)


@pytest.mark.parametrize(
    ("instruction", "question", "separator", "text"),
    [
        ("Answer this:", "Why?", ":", "Answer this:  Why? "),
        ("  Answer this.  ", "Why?", ":", "Answer this.:  Why? "),
        ("Note: answer: ", "Why: what?", ":", "Note: answer:  Why: what? "),
        ("Note: answer", "Why?", "[S]", "Note[S] answer[S]  Why? "),
        ("Describe", "", ":", "Describe:   "),
        ("Describe", None, ":", "Describe:   "),
        ("", "Why: what?", ":", ":  Why: what? "),
        (None, "Why?", ":", ":  Why? "),
        (None, "Why?", None, "Why?"),
        ("  ", "Why?", None, "Why?"),
        ("Answer", "Why?", None, "Answer:  Why? "),
    ],
)
def test_joining(instruction, question, separator, text):
    assert join(instruction, question, separator) == text


def test_templates_are_drawn_evenly_with_either_generator():
    for rng in (random.Random(0), np.random.default_rng(0)):
        drawn = [choose("MSMARCO", rng) for _ in range(8000)]
        assert all(900 < drawn.count(template) < 1100 for template in TEMPLATES["MSMARCO"])
    assert choose("WIT", random.Random(5)) == choose("WIT", random.Random(5))


def test_unknown_templates_are_refused():
    with pytest.raises(ValueError, match=r"instructions must name templates, one of WIT, IGLUE, .*got 'flags'"):
        choose("flags", random.Random(0))
