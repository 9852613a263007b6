import json
import shutil
from pathlib import Path

import pytest

from preflmr.data import m2kr
from preflmr.data.m2kr import MEASURED, TASKS, load, load_passages, task_of

DATA = Path(__file__).parents[2] / "examples" / "data"
PASSAGES = [{"passage_id": f"p{n}", "passage_content": f"text {n}"} for n in range(4)]
QUESTION = {
    "question_id": "q0",
    "question": "What?",
    "instruction": "Find: ",
    "img_path": "a.png",
    "pos_item_ids": ["p1"],
    "pos_item_contents": ["text 1"],
    "answers": ["one"],
}


def write(folder, passages=PASSAGES, **splits):
    for name, rows in {"passages": passages, **splits}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_nine_tasks_are_measured_as_in_the_paper():
    assert {name: TASKS[name].measure for name in MEASURED} == {
        "WIT": "Recall@10",
        "IGLUE": "Recall@1",
        "KVQA": "Recall@5",
        "MSMARCO": "Recall@5",
        "OVEN": "Recall@5",
        "LLaVA": "Recall@1",
        "Infoseek": "Pseudo Recall@5",
        "EVQA": "Pseudo Recall@5",
        "OKVQA": "Pseudo Recall@5",
    }
    assert TASKS["CC"].measure is None and task_of("cc3m") is TASKS["CC"] and task_of("E-VQA") is TASKS["EVQA"]
    assert task_of("llava") is TASKS["LLaVA"] and task_of("mine").measure == "Recall@5"


@pytest.mark.parametrize(
    ("name", "split", "questions", "passages"),
    [
        ("flags_kbvqa", "train", 4591, 2065),
        ("flags_kbvqa", "valid", 591, 2065),
        ("flags_kbvqa", "test_unseen", 670, 2065),
        ("emoji_captions", "test", 542, 1650),
    ],
)
def test_the_bundled_data(name, split, questions, passages):
    data = load(DATA / name, split=split)
    assert (len(data), len(data.passages), data.task.name, data.dropped) == (questions, passages, name, {})
    assert {example.corpus for example in data.examples} == {name}
    positions = [data.passages.position(one) for example in data.examples for one in example.positive_ids]
    assert data.passages.ids[positions[0]] == data.examples[0].positive_ids[0]
    assert all(one in data.images for example in data.examples for one in example.images)


def test_every_answer_of_flags_is_in_its_passage():
    data = load(DATA / "flags_kbvqa", split="test")
    for example in data.examples:
        text = data.passages.texts[data.passages.position(example.positive_ids[0])].lower()
        assert any(answer.strip().lower() in text for answer in example.answers)


def test_a_folder_in_beirs_layout():
    data = load(DATA / "medquad", split="val")
    assert (len(data), len(data.passages), data.images) == (809, 15767, None)
    example = data.examples[0]
    assert example.images == example.answers == () and example.instruction is None
    assert data.passages.texts[data.passages.position(example.positive_ids[0])].startswith("Adult Soft Tissue Sarcoma")
    assert len(load(DATA / "medquad", split="test", passages=data.passages, limit=5)) == 5
    assert load(DATA / "medquad", split="train", passages=data.passages).passages is data.passages


def test_columns_come_over(tmp_path):
    rows = [
        QUESTION,
        {"question_id": 7, "question": None, "pos_item_ids": ["p2", "p3"], "img_path": None, "gold_answer": "two"},
        {"question_id": "q2", "question": "", "answers": None, "pos_item_ids": ["p0"], "img_path": ["a.png", "b.png"]},
    ]
    data = load(write(tmp_path, val=rows), "mine", "validation")
    first, second, third = data.examples
    assert first == m2kr.Example("q0", "What?", "Find:", ("a.png",), ("p1",), ("one",), "mine")
    assert second == m2kr.Example("7", "", None, (), ("p2", "p3"), ("two",), "mine")
    assert third.images == ("a.png", "b.png") and third.answers == ()
    assert data.split == "valid" and data.passages.images is None


def test_pictures_and_passages_of_passages(tmp_path):
    passages = [{**row, "img_path": "p.png" if n == 2 else None} for n, row in enumerate(PASSAGES)]
    data = load(write(tmp_path, passages, test=[QUESTION]))
    assert data.passages.images == [None, None, "p.png", None]
    assert load_passages(tmp_path).ids == load_passages(tmp_path / "passages.jsonl").ids == ["p0", "p1", "p2", "p3"]
    pictured = load_passages(tmp_path)
    assert pictured.sha256 != load(write(tmp_path, test=[QUESTION])).passages.sha256 == load_passages(tmp_path).sha256
    with pytest.raises(ValueError, match=r"passages\.jsonl was changed after it had been opened: no line begins at"):
        pictured.texts[3]


def test_a_limit_and_a_seed(tmp_path):
    rows = [{**QUESTION, "question_id": f"q{n}"} for n in range(10)]
    write(tmp_path, test=rows)
    assert [example.question_id for example in load(tmp_path, limit=2).examples] == ["q0", "q1"]
    assert len(load(tmp_path, limit=4, seed=0)) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_id": None}, "line 2: 'question_id' must hold strings or integers, got None"),
        ({"question": 3}, "line 2: 'question' must hold strings, got 3"),
        ({"pos_item_ids": "p1"}, "line 2: 'pos_item_ids' must be a list, got 'p1'"),
        ({"pos_item_ids": [1.5]}, "line 2: 'pos_item_ids' must hold strings or integers, got 1.5"),
        ({"answers": [1]}, r"line 2: 'answers' must hold strings, got \[1\]"),
        ({"img_path": 1}, "line 2: 'img_path' must hold strings, got 1"),
        ({"question_id": "q0"}, "line 2: question 'q0' comes twice"),
        ({"pos_item_ids": ["p1", "p9"]}, "line 2: positive 'p9' of question 'q1' is not among the 4 passages"),
        ({"pos_item_ids": [], "answers": []}, "line 2: question 'q1' has no positives or answers"),
    ],
)
def test_what_is_wrong_with_a_question_is_said_with_its_line(tmp_path, change, message):
    write(tmp_path, test=[QUESTION, {**QUESTION, "question_id": "q1", **change}])
    with pytest.raises(ValueError, match=rf"test\.jsonl, {message}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"passage_id": "p0", "passage_content": "x"}, "line 5: passage 'p0' comes twice"),
        ({"passage_id": "p9", "passage_content": " \n"}, "line 5: passage 'p9' is empty"),
        ({"passage_id": "p9", "passage_content": None}, "line 5: 'passage_content' must be a string, got None"),
        (
            {"id": "p9", "text": "x"},
            "line 5: must have the columns passage_id, passage_content; missing passage_id, passage_content, "
            "found id, text",
        ),
    ],
)
def test_what_is_wrong_with_a_passage_is_said_with_its_line(tmp_path, row, message):
    with pytest.raises(ValueError, match=rf"passages\.jsonl, {message}"):
        load(write(tmp_path, [*PASSAGES, row], test=[QUESTION]))


def test_missing_columns_of_questions(tmp_path):
    write(tmp_path, test=[{"id": 1, "query": "x"}])
    with pytest.raises(ValueError, match=r"test\.jsonl, line 1: must have the columns question_id, question; missing "
                       "question_id, question, found id, query"):  # fmt: skip
        load(tmp_path)
    write(tmp_path, test=[{"question_id": 1, "question": "x"}])
    with pytest.raises(ValueError, match="must have the columns pos_item_ids or answers, found question_id, question"):
        load(tmp_path)


def test_lenient_reading_counts_what_it_lets_pass(tmp_path):
    passages = [*PASSAGES, {"passage_id": "p1", "passage_content": "again"}, {"passage_id": "e", "passage_content": ""}]
    rows = [QUESTION, {**QUESTION, "pos_item_ids": ["p1", "p9", "e"]}, {**QUESTION, "pos_item_ids": [], "answers": []}]
    data = load(write(tmp_path, passages, test=rows), strict=False)
    assert data.passages.texts == ["text 0", "text 1", "text 2", "text 3"]
    assert data.examples[1].positive_ids == ("p1",)
    assert data.dropped == {
        "passages with an id that came before": 1,
        "empty passages": 1,
        "questions with an id that came before": 2,
        "positives that are no passage": 2,
        "questions without answer": 1,
    }


def test_answers_alone_are_enough(tmp_path):
    data = load(write(tmp_path, test=[{"question_id": 1, "question": "x", "answers": ["y"]}]))
    assert data.examples[0].positive_ids == ()


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="flags_kbvqa has no split 'dev2', found test, test_unseen, train, val"):
        load(DATA / "flags_kbvqa", split="dev2")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load(tmp_path / "nothing" / "here")
    with pytest.raises(ValueError, match=r"task must be one of WIT, .* for a data set on the hub, got 'data'"):
        load("somebody/data")
    with pytest.raises(FileNotFoundError, match=r"EVQA has no split 'extra', found train, valid, test"):
        load("somebody/data", "EVQA", "extra")
    with pytest.raises(FileNotFoundError, match=r"Infoseek has no split 'valid' \(.*\), found train, test"):
        load("somebody/data", "Infoseek", "valid")
    write(tmp_path, test=[QUESTION])
    (tmp_path / "passages.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold passages.jsonl, passages.jsonl.gz or passages.parquet"):
        load(tmp_path)
    write(tmp_path, [], test=[QUESTION])
    with pytest.raises(ValueError, match="must hold at least one passage, found none"):
        load(tmp_path)
    write(tmp_path, test=[])
    with pytest.raises(ValueError, match="must hold at least one question, found none"):
        load(tmp_path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A small copy of the hub's layout: configurations as parquet, with the card that names them."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "m2kr"
    rows = {"question_id": ["q0", "q1"], "question": ["What?", "Who?"], "instruction": ["Find:", "Find:"],
            "img_id": ["a", None], "img_path": ["a.png", None], "pos_item_ids": [["p1"], ["p2", "p3"]],
            "pos_item_contents": [["text 1"], ["text 2", "text 3"]], "answers": [["one"], ["two"]]}  # fmt: skip
    passages = {"language": ["en"] * 4, **{key: [row[key] for row in PASSAGES] for key in PASSAGES[0]}}
    captions = {**{k: v for k, v in rows.items() if k != "answers"}, "question": [None, None]}
    parts = {
        "EVQA_data": {"train": rows, "valid": rows, "test": rows},
        "EVQA_passages": {f"{split}_passages": passages for split in ("train", "valid", "test")},
        "CC_data": {"train": captions},
        "CC_passages": {"train_passages": passages},
        "MSMARCO_data": {"valid": rows},
        "MSMARCO_passages": {"train_passages": passages, "test_passages": passages},
    }
    card = ["---", "configs:"]
    for config, splits in parts.items():
        card += [f"- config_name: {config}", "  data_files:"]
        for split, columns in splits.items():
            datasets.Dataset.from_dict(columns).to_parquet(folder / config / f"{split}-00000-of-00001.parquet")
            card += [f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder


def test_a_copy_of_the_hub_on_disk(hub):
    data = load(hub, "E-VQA", "val")
    assert [example.positive_ids for example in data.examples] == [("p1",), ("p2", "p3")]
    assert data.examples[1].images == () and data.examples[0].answers == ("one",) and data.task is TASKS["EVQA"]
    captions = load(hub, "CC", "train")  # its questions are of the type null
    assert [example.question for example in captions.examples] == ["", ""] and len(captions.passages) == 4
    assert len(load(hub, "MSMARCO", "valid").passages) == 4  # of the test: it has none of its own
    with pytest.raises(FileNotFoundError, match=r"CC has no split 'test' .*found train"):
        load(hub, "CC", "test")


def test_the_hub_itself(hub, monkeypatch):
    """The same tables through `datasets.load_dataset`, which is told to look into a folder for a name of the hub."""
    datasets = pytest.importorskip("datasets")
    real = datasets.load_dataset, datasets.get_dataset_split_names
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *rest, **more: real[0](str(hub), *rest, **more))
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, config: real[1](str(hub), config))
    data = load(m2kr.HUB, "EVQA", "test")
    assert [example.question for example in data.examples] == ["What?", "Who?"] and data.images is None
    assert [example.instruction for example in load(m2kr.HUB, "CC", "train").examples] == ["Find:", "Find:"]
    assert load(m2kr.HUB, "MSMARCO", "valid", limit=1).passages.ids == data.passages.ids


def test_a_folder_saved_by_datasets(hub, tmp_path):
    datasets = pytest.importorskip("datasets")
    for config in ("EVQA_data", "EVQA_passages"):
        loaded = datasets.load_dataset(str(hub), config)
        loaded.save_to_disk(tmp_path / "saved" / config)
    assert load(tmp_path / "saved", "EVQA", "test").examples == load(hub, "EVQA", "test").examples


def test_images_and_passages_may_lie_elsewhere(tmp_path):
    folder = tmp_path / "questions"
    folder.mkdir()
    write(folder, test=[QUESTION])
    shutil.move(folder / "passages.jsonl", tmp_path / "other.jsonl")
    data = load(folder, passages=tmp_path / "other.jsonl", images=DATA / "flags_kbvqa" / "images.zip")
    assert len(data.passages) == 4 and "flat/fr.png" in data.images
