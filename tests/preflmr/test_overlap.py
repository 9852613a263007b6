"""What splits share, subsets of unseen questions, and data sets made from others."""

import json

import pytest

pytest.importorskip("numpy")

from preflmr.data.construct import construct
from preflmr.data.m2kr import load
from preflmr.data.overlap import SEEN, UNSEEN_ENTITY, UNSEEN_QUESTION, Known, statistics, subset_means


def row(n, question, image, positive, answers=("two",)):
    return {
        "question_id": f"q{n}",
        "question": question,
        "img_path": image,
        "pos_item_ids": [positive],
        "answers": list(answers),
    }


@pytest.fixture
def data(tmp_path):
    passages = [{"passage_id": f"p{n}", "passage_content": f"one two {'three ' * n}"} for n in range(4)]
    train = [
        row(0, "How many?", "a.png", "p0"),
        row(1, "how many? ", "b.png", "p0"),
        row(2, "Who?", "c.png", "p1", ["nobody"]),
    ]
    test = [
        row(3, "how many?", "d.png", "p0"),
        row(4, "Where?", "a.png", "p1"),
        row(5, "Who?", "e.png", "p3"),
        row(6, "Who?", "f.png", "p3"),
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    for name, rows in (("passages", passages), ("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folder


def test_overlap_and_kinds(data):
    train, test = load(data, split="train"), load(data, split="test")
    known = Known(train.examples)
    shared = known.overlap(test.examples)
    assert (shared.questions, shared.ids, shared.pictures, shared.pairs, shared.passages) == (4, 0, 1, 0, 2)
    assert [known.kind(one) for one in test.examples] == [SEEN, UNSEEN_QUESTION, UNSEEN_ENTITY, UNSEEN_ENTITY]
    found = {f"q{n}": {"Accuracy": value, "candidates": []} for n, value in enumerate((1.0, 0.5, 0.0, 0.5), 3)}
    means = subset_means(test, known, found)
    assert means[SEEN] == {"questions": 1.0, "Accuracy": 1.0} and means[UNSEEN_ENTITY]["Accuracy"] == 0.25
    assert means["overall"]["Accuracy"] == pytest.approx(2 * 0.5 * 0.25 / 0.75)


def test_statistics(data):
    found = statistics(load(data, split="train"))
    assert found["questions"] == found["with pictures"] == 3 and found["passages"] == 4
    assert found["words a question"] == pytest.approx(5 / 3) and found["words a passage"] == 3.5


def test_construct(data, tmp_path):
    told = construct(
        data, tmp_path / "made", "things", splits=("train", "test"), unique=True, answered=True, sizes={"test": 2}
    )
    assert told["train"] == {"questions": 3, "asked before": 1, "without answer in a positive": 1, "kept": 1}
    assert told["test"] == {
        "questions": 4, "asked before": 1, "without answer in a positive": 0, "not drawn": 1, "kept": 2,
    }  # fmt: skip
    made = load(tmp_path / "made", "things", "train")
    assert [one.question_id for one in made.examples] == ["q0"] and len(made.passages) == 4
    assert load(tmp_path / "made", "things", "test").examples[0].images
    with pytest.raises(FileExistsError, match="is not empty"):
        construct(data, tmp_path / "made", splits=("train", "test"))


def test_leaks(data, tmp_path):
    lines = (data / "test.jsonl").read_text()
    (data / "test.jsonl").write_text(lines + json.dumps(row(7, "HOW many?", "a.png", "p0")) + "\n")
    with pytest.raises(ValueError, match="test shares 1 pairs of picture and question with train"):
        construct(data, tmp_path / "made", splits=("train", "test"))
    assert not (tmp_path / "made").exists()
    told = construct(data, tmp_path / "made", splits=("train", "test"), leaks="drop")
    assert told["train"] == {"questions": 3, "in test": 1, "kept": 2} and told["test"]["kept"] == 5


def test_commands(data, tmp_path, capsys):
    pytest.importorskip("torch")
    from preflmr.cli import main

    main(["statistics", str(data), "--splits", "train", "test"])
    out = capsys.readouterr().out
    assert "data train:" in out and "pictures that train has 1" in out
    main(["construct", str(data), str(tmp_path / "made"), "--splits", "train", "test", "--size", "train=2"])
    assert "train: 3 questions, 1 not drawn, 2 kept" in capsys.readouterr().out
    with pytest.raises(ValueError, match="--size must be SPLIT=N, got 'train'"):
        main(["construct", str(data), str(tmp_path / "other"), "--size", "train"])
