"""The loss of a batch: that of the paper, and what options make of it."""

import dataclasses
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from training import recipe, write_squares  # noqa: E402

from lateint_kernels import losses, maxsim  # noqa: E402
from preflmr.training.batches import Batches, load_mix  # noqa: E402
from preflmr.training.objective import Objective, distillation  # noqa: E402
from preflmr.training.recipe import Distillation, TrainConfig  # noqa: E402
from preflmr.training.recipe_file import build  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("squares") / "squares")


@pytest.fixture
def make(data, make_tiny):
    """``make(**changes of the recipe) -> (objective, batch)``, in evaluation mode."""

    def make(model=None, teacher=None, source=data, **changes):
        config = build(TrainConfig, recipe("out", source, batch_size=4, **changes))
        model = model or make_tiny()
        batches = Batches(config.data, load_mix(config.data), model, batch_size=4, seed=0)
        return Objective(model, config, batches, teacher).eval(), batches[0]

    return make


def plain(inputs):
    """The inputs of `PreFLMR.query` or `doc`."""
    kept = {name: value for name, value in inputs.items() if name != "pictures"}
    return kept


def scores_of(model, batch):
    queries, documents = model.query(**plain(batch.queries)), model.doc(**plain(batch.documents))
    q, d = queries.late_interaction_output, documents.late_interaction_output
    return maxsim(q, d, query_mask=queries.mask, document_mask=documents.mask)


@pytest.mark.parametrize("in_batch", [True, False])
def test_it_is_the_models_own_loss(make, in_batch):
    objective, batch = make(loss__in_batch=in_batch)
    own = objective.model(
        query_input_ids=batch.queries["input_ids"],
        query_attention_mask=batch.queries["attention_mask"],
        query_pixel_values=batch.queries["pixel_values"],
        context_input_ids=batch.documents["input_ids"],
        context_attention_mask=batch.documents["attention_mask"],
        num_negative_examples=2,
        use_in_batch_negatives=in_batch,
    )
    torch.testing.assert_close(objective(batch), own.loss, rtol=1e-6, atol=1e-6)


def test_temperature(make):
    objective, batch = make(loss__temperature=0.1)
    expected = losses.contrastive(scores_of(objective.model, batch), batch.positives, temperature=0.1)
    torch.testing.assert_close(objective(batch), expected)


def test_text_rows_can_be_left_out(make):
    objective, batch = make(query_parts=["vision"])
    queries, mask = objective._query(batch.queries)
    assert queries.shape[1] == mask.shape[1] == 4 + 4  # rows of the MLP and of patches
    whole = objective.model.query(**plain(batch.queries)).late_interaction_output
    torch.testing.assert_close(queries, whole[:, -8:])
    objective, batch = make(query_parts=["text"], learning_rates={"text_encoder": 1e-4})
    assert objective._query(batch.queries)[0].shape[1] == 24


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_change_neither_loss_nor_gradients(make, make_tiny, chunk):
    found = []
    for changes in ({}, {"loss__chunk": chunk}):
        objective, batch = make(make_tiny(), **changes)
        loss = objective(batch)
        loss.backward()
        found.append((loss.detach(), [one.grad for one in objective.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_cached_documents_give_the_same_loss(make, make_tiny):
    changes = {"learning_rates": {"mapping": 1e-4}}
    whole, batch = make(make_tiny(), **changes)
    cached, texts = make(make_tiny(), data__cache_documents=True, **changes)
    calls = []
    encode = cached.model.doc
    cached.model.doc = lambda **inputs: calls.append(len(inputs["input_ids"])) or encode(**inputs)
    expected = whole(batch)
    expected.backward()
    for _ in range(2):
        cached.zero_grad()
        loss = cached(texts)
        loss.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    assert calls == [len(set(batch.document_ids.tolist()))]  # each passage once, and nothing the second time
    mapping = [f"query_vision_projection.model.{number}.weight" for number in (0, 2)]
    for name in mapping:
        gradients = [dict(one.model.named_parameters())[name].grad for one in (cached, whole)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_cached_pictures_give_the_same_loss(make, make_tiny, monkeypatch, tmp_path):
    """Of one picture a query, several, or none."""
    folder = write_squares(tmp_path / "several")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()][:4]
    rows[1]["img_path"], rows[2]["img_path"] = ["1.png", "2.png"], None
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for source, without in ((None, "blank"), (folder, "blank"), (folder, "none")):
        settings = {"data__without_image": without} | ({} if source is None else {"source": source})
        whole, batch = make(make_tiny(), **settings)
        cached, views = make(make_tiny(), data__cache_images=True, **settings)
        seen = []
        states = cached.model.image_states
        monkeypatch.setattr(
            cached.model, "image_states", lambda pixels, seen=seen, to=states: seen.append(len(pixels)) or to(pixels)
        )
        expected = whole(batch)
        expected.backward()
        for _ in range(2):
            cached.zero_grad()
            loss = cached(views)
            loss.backward()
            torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
        assert seen == [len({view for some in views.queries["views"] for view in some})]
        name = "transformer_mapping_input_linear.weight"
        gradients = [dict(one.model.named_parameters())[name].grad for one in (cached, whole)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_cached_pictures_have_some_views_that_stay(make, make_tiny):
    augment = [{"RandomResizedCrop": {"size": 32, "scale": [0.3, 0.6]}}]
    changes = {"data__cache_images": True, "data__augment": augment, "data__mix__squares": {"views": 3}}
    objective, _ = make(make_tiny(), **changes)
    batches = objective.batches
    drawn = [batches.draw(epoch, index)[0].images for epoch in range(30) for index in range(12)]
    views = sorted({view for some in drawn for view in some})
    assert len(views) == 36
    pixels = batches.pixels(views)
    torch.testing.assert_close(make(make_tiny(), **changes)[0].batches.pixels(views), pixels, rtol=0, atol=0)
    plain = batches.pixels([view for view in views if view.number == 0])
    assert all(torch.equal(pixels[3 * i], plain[i]) for i in range(12))
    assert len({tuple(one.flatten().tolist()) for one in pixels}) == 36


def test_other_positives_can_be_masked(make):
    objective, batch = make(loss__mask_positives=True)
    scores = scores_of(objective.model, batch)
    for row in range(4):
        for column in range(12):
            is_positive = batch.document_ids[column] in batch.known_positives[row]
            if is_positive and column != batch.positives[row]:
                scores[row, column] = float("-inf")
    assert torch.isinf(scores).any()
    torch.testing.assert_close(objective(batch), losses.contrastive(scores, batch.positives))


def test_documents_of_other_corpora_can_be_left_out(make, tmp_path):
    places = {name: {"source": str(write_squares(tmp_path / name)), "task": name} for name in ("one", "two")}
    objective, batch = make(data__mix=places, loss__same_corpus=True)
    assert set(batch.document_corpora.tolist()) == {0, 1}
    scores = scores_of(objective.model, batch)
    expected = losses.contrastive(scores, batch.positives, document_corpora=batch.document_corpora)
    torch.testing.assert_close(objective(batch), expected)
    assert not torch.isclose(objective(batch), losses.contrastive(scores, batch.positives))


def test_a_batch_of_different_numbers_of_pictures(make, make_tiny, tmp_path):
    folder = write_squares(tmp_path / "several")
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()][:4]
    rows[1]["img_path"], rows[2]["img_path"] = ["1.png", "2.png"], None
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    objective, batch = make(source=folder, data__without_image="none")
    tokens, mask = objective._query(batch.queries)
    for row, count in enumerate(batch.queries["pictures"].tolist()):
        pixels = {"pixel_values": batch.queries["pixel_values"][row : row + 1, :count]} if count else {}
        text = {name: batch.queries[name][row : row + 1] for name in ("input_ids", "attention_mask")}
        alone = objective.model.query(**text, **pixels)
        rows = alone.late_interaction_output[alone.mask]
        torch.testing.assert_close(tokens[row][mask[row]], rows, rtol=1e-5, atol=1e-6)
    objective(batch).backward()


def test_documents_with_pictures_are_trained(make, make_tiny, tmp_path):
    folder = write_squares(tmp_path / "pictured")
    rows = [json.loads(line) for line in (folder / "passages.jsonl").read_text().splitlines()]
    for row in rows[::2]:
        row["img_path"] = "0.png"
    (folder / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    objective, batch = make(make_tiny(context_concat_output_from_vision_encoder=True), source=folder)
    _, mask = objective._document(batch.documents)
    with_picture = batch.documents["pictures"] == 1
    assert with_picture.any() and not with_picture.all()
    lengths = batch.documents["attention_mask"].sum(1) + 4 * with_picture
    assert torch.all(mask.sum(1) <= lengths)
    objective(batch).backward()


def test_a_teacher(make, make_tiny):
    same, batch = make(make_tiny(), teacher=make_tiny(), loss__distillation={"teacher": "given", "weight": 1.0})
    assert same(batch).item() == pytest.approx(0, abs=1e-5)
    assert "_teacher" not in dict(same.named_modules())
    other = make_tiny(mapping_network_prefix_length=2).eval()
    mixed, batch = make(make_tiny(), teacher=other, loss__distillation={"teacher": "given", "weight": 0.25})
    scores = scores_of(mixed.model, batch)
    own = torch.stack([scores[row, 3 * row : 3 * row + 3] for row in range(4)])
    theirs = scores_of(other, batch)
    theirs = torch.stack([theirs[row, 3 * row : 3 * row + 3] for row in range(4)])
    expected = 0.75 * losses.contrastive(scores, batch.positives) + 0.25 * losses.kl_divergence(own, theirs)
    torch.testing.assert_close(mixed(batch), expected)


def test_scores_of_a_file_teach(make):
    settings = {"loss__distillation": {"loss": "margin_mse", "weight": 1.0}}
    objective, batch = make(**settings)
    with pytest.raises(ValueError, match="needs a teacher, or a file of negatives"):
        objective(batch)
    teacher = torch.tensor([[3.0, 1.0, float("-inf")], [1.0, 0.0, 2.0]] + [[float("-inf")] * 3] * 2)
    scores = scores_of(objective.model, batch)
    own = torch.stack([scores[row, 3 * row : 3 * row + 3] for row in range(2)])
    expected = losses.margin_mse(own, teacher[:2])
    torch.testing.assert_close(objective(dataclasses.replace(batch, teacher_scores=teacher)), expected)
    nothing = distillation(own, torch.full((2, 3), -np.inf), Distillation())
    assert nothing.item() == 0
