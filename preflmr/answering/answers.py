"""Answers the questions of a data set with what was found for them, as RA-VQA v2 does (Lin et al. 2023).

The generator reads each of the K best passages by itself. The answer is that of the passage with the largest
``log_softmax(retrieval scores)_k + sequence score_k``; a sequence score is the mean log-probability of its tokens.

Retrieval scores are sums over hundreds of a question's tokens. Those of neighbouring passages may differ by several
units, and then the first passage wins whatever the generator says. A temperature divides them first; 1 is RA-VQA's.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm

from lateint.arguments import positive, positive_or_none
from preflmr.answering.asking import Asked, Asking, Found
from preflmr.answering.equivalence import BEM
from preflmr.answering.measures import judge_answer, means, measure_of
from preflmr.data.images import ON_MISSING
from preflmr.data.m2kr import Dataset
from preflmr.evaluation.results import Results, versions


class Answers(Results):
    """What was answered and how good it is.

    ``questions`` has id -> ``{"answer", "passage_id", "candidates": [{"passage_id", "log_prior", "answer", "score"},
    ...], measure: value, ...}``. Without passages, a question has one candidate, of no passage. `write` writes
    ``TASK_RUN.answers.json`` and ``TASK_RUN.answers.summary.json``.
    """

    suffix = ".answers.json"


def answer(
    generator: Any,
    dataset: Dataset,
    found: Found | None = None,
    *,
    run: str = "run",
    k: int = 5,
    temperature: float = 1.0,
    batch_size: int = 20,
    on_missing: str = "error",
    limit: int | None = None,
    equivalence: Any = None,
    progress: bool = True,
) -> Answers:
    """Answers every question, and judges the answers of those whose right answers the data have.

    Prompts are made before the first answer, so that what is wrong with them is known at once.

    Args:
        generator: a `preflmr.answering.generator.Generator`, made for passages or for none as ``found`` is.
        found: ``questions`` of `preflmr.evaluation.retrieval.evaluate`, or from
            `preflmr.answering.asking.read_run`; None: no passages.
        run: what a report calls this; ``table7-preflmr``, ``table7-flmr`` and ``table7-without-retrieval`` are rows of
            the paper's Table 7.
        k: passages a question, the paper's is 5.
        temperature: of the retrieval scores; above 1 the generator has more of a say.
        batch_size: prompts generated from at once; a question has k.
        on_missing: what a missing or broken picture does: ``"error"``; ``"skip"`` leaves the question out, ``"blank"``
            shows a black picture. A question that has no picture shows a black one, as in `evaluate`.
        limit: only the first so many questions.
        equivalence: a `preflmr.answering.equivalence.Equivalence`, which measures ``BEM``; None: it is not measured.

    Raises:
        ValueError: an option is wrong, ``found`` lacks a question or has fewer than k passages for one, a passage is
            not among the data's, or a question does not fit into a prompt.
        MissingImage, BrokenImage: as ``on_missing`` says.

    Warns:
        UserWarning: passages were cut to the length that the generator reads; ``summary["cut"]`` counts them.
    """
    if on_missing not in ON_MISSING:
        raise ValueError(f"on_missing must be one of {', '.join(ON_MISSING)}, got {on_missing!r}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    if generator.passages != (found is not None):
        raise ValueError("generator must be made for passages if some were found, and for none if not")
    size, limit = positive(batch_size, "batch_size"), positive_or_none(limit, "limit")
    job = Asking(generator, dataset, found, positive(k, "k"), temperature, on_missing)
    job.prepare(dataset.examples[:limit])
    started = time.perf_counter()
    with tqdm(total=sum(map(len, job.prompts)), desc=dataset.task.name, unit="answer", disable=not progress) as bar:
        for some in job.batches(size):
            made = generator.generate([one.prompt for one in some], [one.pictures for one in some])
            for one, (text, score) in zip(some, made, strict=True):
                one.asked.candidates.append({**one.about, "answer": text, "score": score})
            bar.update(len(some))
    questions = {asked.name: _judged(dataset.task.name, asked) for asked in job.asked if asked.candidates}
    if not questions:
        raise ValueError(f"{dataset.task.name} {dataset.split}: no question is left of {len(job.asked):,}")
    if equivalence is not None:
        _add_equivalence(equivalence, [one for one in job.asked if one.candidates and one.example.answers], questions)
    summary = _summary(run, job, questions)
    if equivalence is not None and dataset.task.name == "EVQA":
        summary["measure"] = BEM
    summary["seconds"] = {"generate": round(time.perf_counter() - started, 3)}
    summary["settings"]["limit"] = limit
    if job.cut:
        warnings.warn(f"{job.cut:,} passages were longer than the generator reads and were cut", stacklevel=2)
    return Answers(questions, summary)


def choose(candidates: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The candidate with the largest ``log_prior + score``; of several the one found first."""
    return max(candidates, key=lambda one: one["log_prior"] + one["score"])


def _summary(run: str, job: Asking, questions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    dataset, generator = job.dataset, job.generator
    measure = measure_of(dataset.task.name)
    judged = [{key: row[key] for key in row if isinstance(row[key], float)} for row in questions.values()]
    judged = [row for row in judged if row]
    return {
        "run": run,
        "kind": "answers",
        "task": dataset.task.name,
        "split": dataset.split,
        "measure": measure,
        "measures": means(judged),
        "questions": len(questions),
        "passages": 0 if job.found is None else len(dataset.passages),
        "without right answers": len(questions) - len(judged),
        "left out": job.left_out,
        "missing images": job.missing,
        "cut": {"passages": job.cut},
        "data": dataset.dropped,
        "settings": {
            "k": None if job.found is None else job.k, "temperature": job.temperature, "prompt": generator.template,
            "beams": generator.beams, "max_new_tokens": generator.max_new_tokens, "max_length": generator.max_length,
            "on_missing": job.on_missing,
        },
        "versions": versions(),
    }  # fmt: skip


def _add_equivalence(equivalence: Any, asked: Sequence[Asked], questions: dict[str, dict[str, Any]]) -> None:
    rows = [(one.example.question, questions[one.name]["answer"], one.example.answers) for one in asked]
    for one, value in zip(asked, equivalence.judge(rows), strict=True):
        questions[one.name][BEM] = value


def _judged(task: str, asked: Asked) -> dict[str, Any]:
    chosen = choose(asked.candidates)
    answers = asked.example.answers
    judged = judge_answer(task, chosen["answer"], answers) if answers else {}
    return {"answer": chosen["answer"], "passage_id": chosen["passage_id"], "candidates": asked.candidates, **judged}
