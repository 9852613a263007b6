"""Scores of one generated answer against the right ones, as the official evaluations compute them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence

_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
# A word that lacks one of its apostrophes -> the word.
_CONTRACTIONS = {
    word[:i] + word[i + 1 :]: word for word in _CONTRACTED.split() for i in range(len(word)) if word[i] == "'"
}
_MARKS = ';/[]"{}()=+\\_-><@`,?!'


def gold_answer(answers: Sequence[str]) -> str:
    """The answer given most often; of several such, the one given first.

    Raises:
        ValueError: there is no answer.

    >>> gold_answer(["dog", "cat", "cat", "dog"])
    'dog'
    """
    if not answers:
        raise ValueError("answers must hold at least one answer, got none")
    return Counter(answers).most_common(1)[0][0]


def vqa_score(prediction: str, answers: Sequence[str]) -> float:
    """The VQA score of one question (Antol et al. 2015): how many annotators agree with the prediction.

    ``mean_i min(1, |{j != i: answers_j = prediction}| / 3)``: each annotator is left out in turn. Where annotators
    disagree with each other, prediction and answers are first compared without punctuation, articles and case, with
    numbers as digits and apostrophes put back.

    Args:
        answers: of all annotators, ten as a rule.

    Raises:
        ValueError: there is no answer.

    >>> round(vqa_score("A dog!", ["dog", "the dog", "cat"] + ["puppy"] * 7), 4)
    0.6
    """
    if not answers:
        raise ValueError("answers must hold at least one answer, got none")
    given = [_stripped(answer) for answer in answers]
    prediction = _stripped(prediction)
    if len(set(given)) > 1:
        given, prediction = [_normal(answer) for answer in given], _normal(prediction)
    matches = sum(answer == prediction for answer in given)
    return sum(min(1.0, (matches - (answer == prediction)) / 3) for answer in given) / len(given)


def exact_match(prediction: str, answers: Iterable[str | tuple[float, float]]) -> float:
    """1 if the prediction is one of the answers, else 0: the accuracy of Infoseek.

    Args:
        answers: a string must be equal in lower case without punctuation, articles and superfluous spaces; of a pair
            (lowest, highest), the first number in the prediction must lie between them, both included.

    >>> exact_match("The Alps.", ["alps"]), exact_match("about 1,250 m", [(1200, 1300)]), exact_match("none", [(0, 9)])
    (1.0, 1.0, 0.0)
    """
    number = re.search(r"-?\d+(?:,\d{3})*(?:\.\d+)?", prediction)
    value = None if number is None else float(number.group().replace(",", ""))
    for answer in answers:
        if isinstance(answer, str):
            if _plain(prediction) == _plain(answer):
                return 1.0
        elif value is not None and answer[0] <= value <= answer[1]:
            return 1.0
    return 0.0


def contained(prediction: str, answers: Iterable[str]) -> float:
    """1 if the prediction contains an answer, else 0: whole words, compared as `exact_match` compares strings.

    >>> contained("It is the Eiffel Tower.", ["eiffel tower"]), contained("about 120", ["12"])
    (1.0, 0.0)
    """
    words = f" {_plain(prediction)} "
    plain = [_plain(answer) for answer in answers]
    return float(any(answer != "" and f" {answer} " in words for answer in plain))


def _plain(text: str) -> str:
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(word for word in bare.split() if word not in _ARTICLES)


def _stripped(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _normal(text: str) -> str:
    """As the official evaluation does: a mark goes where a space is beside it or a number holds a comma, else it
    becomes a space."""
    grouped = re.search(r"\d,\d", text) is not None
    bare = text
    for mark in _MARKS:
        bare = bare.replace(mark, "" if grouped or f"{mark} " in text or f" {mark}" in text else " ")
    bare = re.sub(r"\.(?!\d)", "", bare)
    words = [_DIGITS.get(word, word) for word in bare.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
