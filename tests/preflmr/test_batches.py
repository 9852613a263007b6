"""Batches: what is drawn, that it can be drawn again, and how it becomes tensors."""

import json
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training import recipe, write_squares  # noqa: E402

from preflmr.data.images import Images, blank  # noqa: E402
from preflmr.training.batches import Batches, augmentation, load_mix  # noqa: E402
from preflmr.training.recipe import TrainConfig  # noqa: E402
from preflmr.training.recipe_file import build  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("squares") / "squares")


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny()


@pytest.fixture
def make(data, model):
    """``make(rank=..., devices=..., **changes of the recipe) -> Batches``."""

    def make(rank=0, devices=1, model=model, source=data, **changes):
        config = build(TrainConfig, recipe("out", source, **changes))
        mix = load_mix(config.data, config.seed)
        return Batches(
            config.data, mix, model, batch_size=config.batch_size, seed=config.seed, rank=rank, devices=devices
        )

    return make


def assert_same(one, other):
    for name in ("queries", "documents"):
        for key, value in getattr(one, name).items():
            assert torch.equal(value, getattr(other, name)[key]), key
    assert torch.equal(one.document_ids, other.document_ids)


def test_a_batch_is_the_same_whenever_it_is_asked_for(make):
    ahead = make()
    assert_same(ahead[7], make()[7])
    assert_same(ahead[2], make()[2])
    assert not torch.equal(make(seed=1)[2].document_ids, ahead[2].document_ids)


def test_devices_share_what_one_would_draw(make):
    whole = make(batch_size=4)[3]
    halves = [make(rank, 2, batch_size=2)[3] for rank in (0, 1)]
    assert torch.equal(torch.cat([half.document_ids for half in halves]), whole.document_ids)
    assert torch.equal(torch.cat([half.queries["pixel_values"] for half in halves]), whole.queries["pixel_values"])


def test_workers_give_the_same_batches(make):
    batches = make(data__workers=1)
    for number, batch in enumerate(batches.loader(3, 6), 3):
        assert_same(batch, batches[number])


def test_shapes_and_the_order_of_documents(make, model):
    batch = make(batch_size=3, queries_per_step=3)[0]
    assert batch.queries["input_ids"].shape == batch.queries["attention_mask"].shape == (3, 24)
    assert batch.queries["pixel_values"].shape == (3, 1, 3, 32, 32)
    assert batch.queries["pictures"].tolist() == [1, 1, 1]
    assert len(batch.documents["input_ids"]) == len(batch.document_ids) == len(batch.document_corpora) == 9
    assert batch.positives.tolist() == [0, 3, 6]
    assert batch.documents["input_ids"].shape[1] == batch.documents["attention_mask"].sum(1).max()
    for row, positive in zip(batch.known_positives, batch.positives, strict=True):
        assert batch.document_ids[positive] in row
        assert not set(batch.document_ids[positive + 1 : positive + 3].tolist()) & set(row.tolist())


def test_an_epoch_has_every_question_once_and_the_next_one_another_order(make):
    batches = make()
    assert batches.epoch_size == 12
    first, second = batches.order(0), batches.order(1)
    assert sorted(first[:, 1]) == sorted(second[:, 1]) == list(range(12))
    assert first.tolist() != second.tolist()


def test_sizes_of_the_mix(make):
    mix = {"few": {"size": 5}, "many": {"size": 30}, "all": {}}
    batches = make(data__mix=mix)
    counts = Counter(map(tuple, batches.order(0).tolist()))
    few, many, every = ({row: n for (source, row), n in counts.items() if source == i} for i in range(3))
    assert len(few) == 5 and set(few.values()) == {1}
    assert len(many) == 12 and Counter(many.values()) == {2: 6, 3: 6}
    assert len(every) == 12 and set(every.values()) == {1}
    assert {row for source, row in batches.order(1).tolist() if source == 0} != set(few)
    runs = np.count_nonzero(np.diff(batches.order(0)[:, 0]))
    assert runs > 10  # shuffled together


def test_homogeneous_batches_come_from_one_data_set_each_on_all_devices(make):
    mix = {"few": {"size": 7}, "many": {"size": 30}, "all": {}}
    batches = make(data__mix=mix, data__homogeneous_batches=True, batch_size=2, devices=2, queries_per_step=4)
    assert batches.epoch_size == 4 + 28 + 12  # whole batches of both devices
    for epoch in range(3):
        order = batches.order(epoch).reshape(-1, 4, 2)
        assert all(len(set(batch[:, 0])) == 1 for batch in order)
        assert Counter(order[:, 0, 0].tolist()) == {0: 1, 1: 7, 2: 3}
        assert sorted(order[order[:, 0, 0] == 2][..., 1].flat) == list(range(12))
    assert batches.order(0).tolist() != batches.order(1).tolist()
    left_over = {tuple(sorted(order[order[:, 0] == 0, 1])) for order in map(batches.order, range(8))}
    assert len(left_over) > 1  # others in each epoch
    drawn = [batches.draw(0, index)[0].example for index in range(batches.epoch_size)]
    assert all(one == batches.datasets[i].examples[row] for one, (i, row) in zip(drawn, batches.order(0), strict=True))


def test_a_data_set_too_small_for_a_homogeneous_batch_is_refused(make):
    with pytest.raises(ValueError, match=r"few: data.homogeneous_batches must find a batch of 4 queries in it, got 3"):
        make(data__mix={"few": {"size": 3}, "all": {}}, data__homogeneous_batches=True, batch_size=4)


def test_passages_of_one_place_are_held_once(data):
    config = build(TrainConfig, recipe("out", data, data__mix={"a": {}, "b": {"size": 3}}))
    mix = load_mix(config.data)
    assert mix["a"].passages is mix["b"].passages


def test_questions_limits_a_source_for_good(data):
    config = build(TrainConfig, recipe("out", data, data__mix={"a": {"questions": 4}}))
    first, second = (load_mix(config.data, seed)["a"] for seed in (3, 3))
    assert [one.question_id for one in first.examples] == [one.question_id for one in second.examples]
    assert len(first) == 4


def test_positives_are_drawn_evenly_and_negatives_from_all_passages(make):
    batches = make()
    drawn = [batches.draw(epoch, index)[0] for epoch in range(40) for index in range(12)]
    positives = Counter(one.positive for one in drawn)
    assert set(positives) == set(range(8))
    assert min(positives.values()) > 35  # of 60 on average
    negatives = Counter(position for one in drawn for position in one.negatives)
    assert set(negatives) == set(range(20))  # the last passage, too
    for one in drawn:
        ids = [one.dataset.passages.ids[position] for position in one.negatives]
        assert len(set(ids)) == 2 and not set(ids) & set(one.example.positive_ids)


def test_instructions(make):
    assert make().draw(0, 0)[0].text == "find it:  which colour? "
    assert make(data__mix__squares={"instructions": "none"}).draw(0, 0)[0].text == ":  which colour? "
    assert make(data__use_instructions=False).draw(0, 0)[0].text == ":  which colour? "
    drawn = make(data__mix__squares={"instructions": "LLaVA"})
    assert len({drawn.draw(epoch, 0)[0].text for epoch in range(12)}) == 2


def test_hard_negatives_come_from_the_file(make, tmp_path):
    path = tmp_path / "mined.jsonl"
    rows = [
        {
            "question_id": f"q{i}",
            "positives": {f"p{i % 4}": 9.0},
            "negatives": {"p19": 5.0, "p18": 4.0, f"p{i % 4}": 8.0},
        }
        for i in range(11)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    batches = make(data__mix__squares={"negatives": str(path), "hard_negatives": 1})
    seen = Counter()
    for index in range(12):
        one, _ = batches.draw(0, index)
        if one.example.question_id == "q11":  # not in the file
            assert one.scores == [float("-inf")] * 3
            continue
        assert one.negatives[0] in (18, 19)
        assert one.scores[1:] == [{18: 4.0, 19: 5.0}[one.negatives[0]], float("-inf")]
        assert one.scores[0] == (9.0 if one.positive < 4 else float("-inf"))
        seen[one.negatives[0]] += 1
    assert len(seen) == 2
    assert batches[0].teacher_scores.shape == (2, 3)


def test_text_alone(make, make_tiny, tmp_path):
    """From a folder in BEIR's layout; with the blank picture, or none."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    documents = [{"_id": f"d{i}", "title": "t", "text": f"text {i}"} for i in range(6)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "what?"}\n')
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq\td0\t1\n")
    batch = make(source=folder)[0]
    assert torch.equal(batch.queries["pixel_values"][0], make_tiny().image_processor([blank()]))
    assert "pixel_values" not in make(source=folder, data__without_image="none")[0].queries


def test_queries_with_several_pictures_or_none(make, data, tmp_path):
    folder = write_squares(tmp_path / "several")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    rows[1]["img_path"], rows[2]["img_path"] = ["1.png", "2.png"], None
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:3]))
    batch = make(source=folder, batch_size=3, queries_per_step=3, data__without_image="none")[0]
    assert sorted(batch.queries["pictures"].tolist()) == [0, 1, 2]
    assert batch.queries["pixel_values"].shape == (3, 2, 3, 32, 32)
    for pixels, count in zip(batch.queries["pixel_values"], batch.queries["pictures"], strict=True):
        assert not pixels[count:].any() and all(one.any() for one in pixels[:count])


def test_documents_with_pictures(make, make_tiny, tmp_path):
    folder = write_squares(tmp_path / "pictured")
    rows = [json.loads(line) for line in (folder / "passages.jsonl").read_text().splitlines()]
    for row in rows[::2]:
        row["img_path"] = "0.png"
    (folder / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seeing = make_tiny(context_concat_output_from_vision_encoder=True)
    batch = make(source=folder, model=seeing)[0]
    assert set(batch.documents["pictures"].tolist()) == {0, 1}
    assert "pixel_values" not in make(source=folder)[0].documents  # this model does not see them


def test_missing_pictures(make, tmp_path):
    folder = write_squares(tmp_path / "missing")
    for i in range(4):
        (folder / "images" / f"{i}.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image '\d.png' is missing"):
        [make(source=folder)[number] for number in range(6)]
    skipping = make(source=folder, data__on_missing="skip")
    drawn = [skipping[number] for number in range(6)]
    assert sum(batch.skipped for batch in drawn) >= 4
    assert_same(drawn[3], make(source=folder, data__on_missing="skip")[3])
    filled = make(source=folder, data__on_missing="blank")
    assert all(filled[number].skipped == 0 for number in range(6))
    for i in range(4, 12):
        (folder / "images" / f"{i}.png").unlink()
    with pytest.raises(ValueError, match="squares: 100 rows in a row have no readable picture"):
        make(source=folder, data__on_missing="skip")[0]


def test_pictures_can_be_kept(make, monkeypatch):
    kept, plain = make(data__keep_images=True), make()
    reads = []
    read = Images.read
    monkeypatch.setattr(Images, "read", lambda self, path: reads.append(path) or read(self, path))
    for number in range(12):
        assert_same(kept[number], plain[number])
    assert len(reads) == 12 + 24


def test_augmentation_is_drawn_with_the_query(make):
    augment = [{"RandomResizedCrop": {"size": 32, "scale": [0.3, 0.6]}}, {"RandomHorizontalFlip": None}]
    augmented, plain = make(data__augment=augment), make()
    assert torch.equal(augmented[1].queries["pixel_values"], make(data__augment=augment)[1].queries["pixel_values"])
    assert not torch.equal(augmented[1].queries["pixel_values"], plain[1].queries["pixel_values"])
    with pytest.raises(ValueError, match=r"transforms of torchvision.transforms.v2, got 'Sharpen'"):
        augmentation([{"Sharpen": {}}])
    with pytest.raises(ValueError, match="RandomCrop refuses its arguments"):
        augmentation([{"RandomCrop": {"width": 3}}])
    assert augmentation([]) is None


def test_cached_documents_stay_text(make):
    changes = {"learning_rates": {"mapping": 1e-4}, "data__cache_documents": True}
    batch = make(**changes)[0]
    assert list(batch.documents) == ["texts"] and len(batch.documents["texts"]) == 6


def test_data_that_cannot_be_trained_on_is_refused(make, tmp_path):
    with pytest.raises(ValueError, match=r"squares: data.negatives must leave passages .* got 20 passages"):
        make(data__negatives=19)
    folder = write_squares(tmp_path / "answers")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    rows[2]["pos_item_ids"] = []
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="question 'q2' has no pos_item_ids"):
        make(source=folder)
