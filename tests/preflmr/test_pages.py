"""ColPali, ColQwen2 and ColModernVBERT: against their own forward pass, trained, indexed, searched and evaluated."""

import json
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_pages  # noqa: E402
from PIL import Image  # noqa: E402
from training import COLOURS, recipe  # noqa: E402

from preflmr import retrievers  # noqa: E402
from preflmr.cli import main  # noqa: E402
from preflmr.encode import encode_documents, encode_queries  # noqa: E402
from preflmr.training.recipe import TrainConfig  # noqa: E402
from preflmr.training.recipe_file import build  # noqa: E402
from preflmr.training.train import run  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
TEXTS = ["a rose", "the sky is blue"]
KINDS = tiny_pages.KINDS


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return tiny_pages.save(kind, tmp_path_factory.mktemp(kind) / "model")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A data set of pages without words: a page a colour, and questions that name it."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "images").mkdir()
    passages, asked = [], []
    for name, colour in COLOURS.items():
        Image.new("RGB", (40, 28), colour).save(folder / "images" / f"{name}.png")
        passages.append({"passage_id": name, "passage_content": "", "img_path": f"{name}.png"})
        asked.append({"question_id": f"q-{name}", "question": f"the {name} page", "pos_item_ids": [name]})
    for stem, rows in (("passages", passages), ("train", asked), ("valid", asked), ("test", asked)):
        (folder / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_rows_are_those_of_the_model(kind, folder):
    retriever = retrievers.load(folder)
    assert retrievers.kind_of(folder) == kind and retriever.name == str(folder)
    model, processor = retriever.model.eval(), retriever.processor
    shown = [Image.new("RGB", (60, 40), "red"), Image.new("RGB", (30, 90), "blue")]
    documents = encode_documents(model=retriever, texts=["", ""], images=shown, progress=False)
    tokens, lengths = next(iter(documents))
    found = {
        "query": encode_queries(retriever, TEXTS, progress=False),
        "document": np.split(tokens, np.cumsum(lengths)[:-1]),
    }
    for side, own in (
        ("query", processor.process_queries(text=TEXTS, return_tensors="pt")),
        ("document", processor.process_images(images=shown, return_tensors="pt")),
    ):
        own.pop("labels", None)
        with torch.inference_mode():
            expected = model(**own).embeddings
        for rows, theirs, mask in zip(found[side], expected, own["attention_mask"].bool(), strict=True):
            np.testing.assert_allclose(rows, theirs[mask].numpy(), atol=2e-5)


def test_pages_and_words_in_one_batch(folder):
    retriever = retrievers.load(folder)
    retriever.model.eval()
    pictures = [[], [Image.new("RGB", (60, 40), "red")], []]
    together = retriever.inputs("document", ["a leaf", "", "snow, white"], pictures)
    with torch.inference_mode():
        rows, mask = retriever.rows("document", together)
        for number, (text, picture) in enumerate(zip(["a leaf", "", "snow, white"], pictures, strict=True)):
            alone, own = retriever.rows("document", retriever.inputs("document", [text], [picture]))
            torch.testing.assert_close(rows[number][mask[number]], alone[0][own[0]], atol=2e-5, rtol=1e-4)


def test_what_it_cannot_read_is_refused(folder):
    retriever, picture = retrievers.load(folder), Image.new("RGB", (60, 40))
    with pytest.raises(ValueError, match="queries must have no pictures"):
        retriever.inputs("query", ["a"], [[picture]])
    with pytest.raises(ValueError, match="a document must have one picture, its page, got 2"):
        retriever.inputs("document", ["a"], [[picture, picture]])
    with pytest.raises(ValueError, match="all rows must take part"):
        retriever.rows("query", retriever.inputs("query", ["a"]), text=False)


def test_every_parameter_is_in_one_part(folder):
    retriever = retrievers.load(folder)
    parts = [id(one) for modules in retriever.parts().values() for module in modules for one in module.parameters()]
    assert sorted(parts) == sorted(map(id, retriever.model.parameters()))


def test_it_is_trained_indexed_searched_and_evaluated(kind, folder, pages, tmp_path, capsys):
    rates = {"mapping": 1e-3, "text_encoder": 1e-3, "vision_encoder": 1e-3}
    settings = recipe(tmp_path / "run", pages, model={"start": str(folder), "kind": kind}, steps=40, batch_size=4)
    settings |= {"learning_rates": rates, "log_every": 1}
    settings["data"] |= {"negatives": 0}
    settings["validation"] = {"every": 40, "tasks": {"pages": {"source": str(pages), "measure": "Recall@1"}}}
    config = tmp_path / "recipe.yaml"
    config.write_text(json.dumps(settings))
    main(["train", "--config", str(config)])
    losses = [json.loads(line).get("loss") for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    losses = [loss for loss in losses if loss is not None]
    assert losses[-1] < 0.8 * losses[0]
    best, index = str(tmp_path / "run/best"), str(tmp_path / "index")
    assert retrievers.kind_of(best) == kind
    images = str(pages / "images")
    main(["index", best, index, "--passages", str(pages / "passages.jsonl"), "--images", images, "--nbits", "8"])
    main(["eval", best, str(pages), "--task", "pages", "--out", str(tmp_path / "runs"), "--exact"])
    capsys.readouterr()
    main(["search", best, index, "--question", "the red page", "-k", "4", "--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[0])
    assert len(json.dumps(found)) and "red" in json.dumps(found)
    summary = json.loads((tmp_path / "runs/pages_best.summary.json").read_text())
    assert summary["measures"]["Recall@1"] >= 0.5  # chance is 0.25
    with pytest.raises(ValueError, match="was indexed with another model"):
        main(["search", str(folder), index, "--question", "the red page"])


def test_a_run_goes_on_to_the_same_parameters(kind, folder, pages, tmp_path):
    outputs = {}
    for name, stops in (("straight", [4]), ("twice", [2, 4])):
        for steps in stops:
            settings = recipe(tmp_path / name, pages, model={"start": str(folder)}, steps=4, batch_size=2)
            settings |= {"queries_per_step": 2, "save_every": 2, "keep_checkpoints": 2}
            settings["data"] |= {"negatives": 1}
            if steps == 2:
                run(build(TrainConfig, settings), cpu=True, progress=False)
                (tmp_path / name / "summary.json").unlink()
                for path in (tmp_path / name / "checkpoints").glob("step-*4"):
                    shutil.rmtree(path)
            else:
                run(build(TrainConfig, settings), resume=name == "twice", cpu=True, progress=False)
        outputs[name] = retrievers.load(tmp_path / name / "best").model.state_dict()
    assert outputs["straight"].keys() == outputs["twice"].keys()
    assert all(torch.equal(value, outputs["twice"][key]) for key, value in outputs["straight"].items())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"query_parts": ["text"]}, "query_parts"),
        ({"model": {"query_length": 8}}, "model.query_length"),
    ],
)
def test_settings_of_preflmr_are_refused(folder, pages, tmp_path, change, named):
    settings = recipe(tmp_path / "run", pages, model={"start": str(folder)})
    for name, value in change.items():
        settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=f"^{named} is for PreFLMR and FLMR, got it for "):
        run(build(TrainConfig, settings), cpu=True, progress=False)
