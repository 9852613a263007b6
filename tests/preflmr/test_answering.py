"""Answers: how one is chosen and judged, with a generator whose words are known; then with tiny random models."""

import json
import math

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from PIL import Image  # noqa: E402

from preflmr.answering.answers import answer  # noqa: E402
from preflmr.answering.asking import log_prior, read_run  # noqa: E402
from preflmr.answering.measures import judge_answer  # noqa: E402
from preflmr.data.images import Images, MissingImage  # noqa: E402
from preflmr.data.m2kr import Dataset, Example, Passages  # noqa: E402
from preflmr.data.tasks import task_of  # noqa: E402
from preflmr.evaluation import report  # noqa: E402

QUESTIONS = ("what is this ?", "who made it ?")


class Known:
    """Says of each passage what ``says`` has for it."""

    template, beams, max_new_tokens, max_length = "", 1, 1, 1

    def __init__(self, says):
        self.says, self.passages, self.sizes = says, None not in says, []

    def prompt(self, question, passage=None, pictures=1):
        return passage, len(passage or "") > 10

    def generate(self, prompts, pictures):
        assert len(prompts) == len(pictures) and all(len(some) == 1 for some in pictures)
        self.sizes.append(len(prompts))
        return [self.says[prompt] for prompt in prompts]


@pytest.fixture
def data(tmp_path):
    """Two questions and four passages."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    Image.new("RGB", (30, 40), "blue").save(tmp_path / "b.png")
    right = ("two", "two", "2", "a dog")
    examples = [
        Example(f"q{n}", text, None, (f"{'ab'[n]}.png",), (), right, "OKVQA") for n, text in enumerate(QUESTIONS)
    ]
    passages = Passages(["p0", "p1", "p2", "p3"], ["zero", "one", "two", "a very long three"])
    return Dataset(task_of("OKVQA"), "test", examples, passages, Images(tmp_path))


def retrieved(*scores, ids=("q0", "q1"), names=("p0", "p1", "p2", "p3")):
    rows = [{"passage_id": name, "score": score} for name, score in zip(names, scores, strict=False)]
    return {id: {"retrieved_passage": rows} for id in ids}


SAYS = {"zero": ("zero", -1.0), "one": ("Two!", -0.4), "two": ("dog", -0.1), "a very long three": ("x", -9.0)}


@pytest.mark.parametrize(
    ("temperature", "said"),
    [
        (0.1, "zero"),  # -1.0 beside -0.4 - 0.5 / 0.1
        (1.0, "Two!"),  # -0.4 - 0.5 beside -1.0 and -0.1 - 4
        (40.0, "dog"),  # -0.1 - 4 / 40 beside -0.4 - 0.5 / 40
    ],
)
def test_the_answer_is_that_of_the_likeliest_passage(data, temperature, said):
    found = answer(Known(SAYS), data, retrieved(3.0, 2.5, -1.0, -5.0), k=3, temperature=temperature, progress=False)
    row = found.questions["q1"]
    assert row["answer"] == said
    assert [one["passage_id"] for one in row["candidates"]] == ["p0", "p1", "p2"]
    assert row["passage_id"] == {"zero": "p0", "Two!": "p1", "dog": "p2"}[said]
    priors = [one["log_prior"] for one in row["candidates"]]
    assert sum(map(math.exp, priors)) == pytest.approx(1.0)
    assert priors[0] - priors[2] == pytest.approx(4.0 / temperature)
    assert [one["score"] for one in row["candidates"]] == [-1.0, -0.4, -0.1]


def test_a_tie_goes_to_the_passage_found_first(data):
    same = {text: (text, -1.0) for text in SAYS}
    assert answer(Known(same), data, retrieved(1.0, 1.0), k=2, progress=False).questions["q0"]["answer"] == "zero"


def test_priors_of_large_scores_stay_finite():
    assert log_prior([300.0, 299.0]).tolist() == pytest.approx([-math.log1p(math.exp(-1)), -math.log1p(math.e)])
    assert log_prior([1e5, 0.0]).tolist() == [0.0, -1e5]


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 6), (4, [4, 2]), (6, [6]), (9, [6])])
def test_batches_reach_across_questions(data, size, sizes):
    generator = Known(SAYS)
    found = answer(generator, data, retrieved(3.0, 2.5, -1.0), k=3, batch_size=size, progress=False)
    assert generator.sizes == sizes
    assert [row["answer"] for row in found.questions.values()] == ["Two!", "Two!"]


def test_answers_are_judged_and_summed_up(data):
    found = answer(Known(SAYS), data, retrieved(3.0, 2.5, -1.0), run="r", k=3, limit=1, progress=False)
    # Annotators said two, two, 2 and dog: three are "2", of which leaving one out leaves two.
    assert found["VQA score"] == found.questions["q0"]["VQA score"] == pytest.approx((3 * 2 / 3 + 1) / 4)
    assert (found["Exact match"], found["Contained answer"]) == (1.0, 1.0)
    summary = found.summary
    assert (summary["measure"], summary["questions"], summary["passages"]) == ("VQA score", 1, 4)
    assert summary["settings"]["limit"] == 1 and summary["settings"]["k"] == 3
    assert list(found.questions) == ["q0"]


def test_the_measures_of_each_task():
    assert judge_answer("EVQA", "The dog.", ["dog"]) == {"Exact match": 1.0, "Contained answer": 1.0}
    assert judge_answer("EVQA", "a brown dog", ["dog"]) == {"Exact match": 0.0, "Contained answer": 1.0}
    assert judge_answer("EVQA", "dogma", ["dog", "the"]) == {"Exact match": 0.0, "Contained answer": 0.0}
    for span in ("[11.5, 12.5]", "{'wikidata': 12.0, 'range': [11.5, 12.5]}"):
        assert judge_answer("Infoseek", "12 m", [span])["Accuracy"] == 1.0
        assert judge_answer("Infoseek", "13 m", [span])["Accuracy"] == 0.0
    assert judge_answer("Infoseek", "[draft", ["[draft"])["Accuracy"] == 1.0  # no range but a string
    assert judge_answer("Infoseek", "2", ["[1, 2, 3]", "(1, 'b')", "{1: 2}"])["Accuracy"] == 0.0
    with pytest.raises(ValueError, match="answers must hold at least one answer"):
        judge_answer("OKVQA", "dog", [])


def test_the_report_takes_answers_into_table_7(data, tmp_path):
    found = retrieved(3.0, 2.5, -1.0)
    for task in ("OKVQA", "Infoseek", "EVQA"):
        some = Dataset(task_of(task), "test", data.examples, data.passages, data.images)
        path = answer(Known(SAYS), some, found, run="table7-preflmr", k=3, progress=False).write(tmp_path)
        assert path.name == f"{task}_table7-preflmr.answers.json"
        assert json.loads(path.read_text(encoding="utf-8"))["q0"]["answer"] == "Two!"
    alone = answer(Known({None: ("dog", -1.0)}), data, run="table7-without-retrieval", progress=False)
    assert alone.questions["q0"]["passage_id"] is None and len(alone.questions["q0"]["candidates"]) == 1
    alone.write(tmp_path)
    # What was found under the same name stands beside what was answered.
    searched = {"run": "table7-preflmr", "task": "OKVQA", "split": "test", "measures": {"Recall@5": 0.5}}
    (tmp_path / "OKVQA_table7-preflmr.summary.json").write_text(json.dumps(searched))
    table = next(one for one in report.tables() if one["table"] == "7")
    filled = report.fill(table, report.read(tmp_path))
    measured = {name: [cell.measured for cell in row] for name, row in filled.rows.items()}
    assert measured["RA-VQAv2 with PreFLMR"] == [pytest.approx(75.0), 100.0, None]  # BEM is not computed
    assert measured["RA-VQAv2 without retrieval"] == [pytest.approx(25.0), None, None]  # one of four said "a dog"
    assert not any(measured["RA-VQAv2 with FLMR"]) and any("BEM" in note for note in filled.notes)


def test_cut_passages_are_counted_and_said_once(data):
    with pytest.warns(UserWarning, match="^2 passages were longer than the generator reads and were cut$") as said:
        found = answer(Known(SAYS), data, retrieved(3.0, 2.5, -1.0, -5.0), k=4, batch_size=2, progress=False)
    assert len(said) == 1 and found.summary["cut"] == {"passages": 2}


def test_questions_whose_answer_is_not_known_are_answered_but_not_judged(data):
    data.examples[1] = Example("q1", "?", None, ("b.png",), (), (), "OKVQA")
    found = answer(Known(SAYS), data, retrieved(3.0, 2.5, -1.0), k=3, progress=False)
    assert found.questions["q1"] == {**found.questions["q1"], "answer": "Two!"} and len(found.questions["q1"]) == 3
    assert found.summary["without right answers"] == 1 and found["VQA score"] == pytest.approx(0.75)


@pytest.mark.parametrize("broken", [False, True])
def test_missing_pictures(data, tmp_path, broken):
    (tmp_path / "a.png").unlink()
    if broken:
        (tmp_path / "a.png").write_bytes(b"no picture")
    else:
        with pytest.raises(MissingImage, match=r"question 'q0': image 'a\.png' is missing: not in"):
            answer(Known(SAYS), data, retrieved(1.0, 0.0), k=2, progress=False)
    # The search may have left the question out, too, or not.
    for ids in (("q0", "q1"), ("q1",)):
        found = answer(Known(SAYS), data, retrieved(1.0, 0.0, ids=ids), k=2, on_missing="skip", progress=False)
        assert list(found.questions) == ["q1"]
        assert (found.summary["left out"], found.summary["missing images"]) == (1, 1)
    found = answer(Known(SAYS), data, retrieved(1.0, 0.0), k=2, on_missing="blank", progress=False)
    assert list(found.questions) == ["q0", "q1"]
    assert (found.summary["left out"], found.summary["missing images"]) == (0, 1)
    with pytest.raises(ValueError, match="question 'q1': nothing was retrieved for it"):  # its picture is there
        answer(Known(SAYS), data, retrieved(1.0, 0.0, ids=("q0",)), k=2, on_missing="skip", progress=False)


@pytest.mark.parametrize(
    ("found", "options", "message"),
    [
        (retrieved(1.0, ids=("x", "y")), {"k": 1}, "question 'q0': nothing was retrieved for it, for 2 others"),
        (retrieved(1.0, ids=("q0",)), {"k": 1}, "question 'q1': nothing was retrieved for it, for 1 others"),
        (retrieved(1.0, names=("x",)), {"k": 1}, "retrieved passage 'x' is not among the 4 of the data"),
        (retrieved(1.0, 0.5), {"k": 3}, "question 'q0': k must be at most the 2 passages that were retrieved, got 3"),
        (retrieved(1.0), {"k": 0}, "k must be at least 1, got 0"),
        (retrieved(1.0), {"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        (retrieved(1.0), {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (retrieved(1.0), {"on_missing": "drop"}, "on_missing must be one of error, skip, blank, got 'drop'"),
        (None, {}, "generator must be made for passages if some were found, and for none if not"),
    ],
)
def test_what_does_not_fit_is_said(data, found, options, message):
    generator = Known(SAYS)
    with pytest.raises(ValueError, match=message):
        answer(generator, data, found, progress=False, **options)
    assert generator.sizes == []  # before anything was generated


def test_files_that_are_no_run_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json: there is no such file of retrieved passages"):
        read_run(tmp_path / "none.json")
    for content in ("[]", "no json", '{"q": {"answer": "x"}}', '{"q": {"retrieved_passage": [{"score": 1}]}}'):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(ValueError, match=r"x\.json must be what preflmr eval wrote"):
            read_run(tmp_path / "x.json")
