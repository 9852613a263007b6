"""Data sets in the layouts of M-BEIR, ReT's M2KR and ViDoRe, as their documentation has them."""

import io
import json
import pickle

import pytest

pytest.importorskip("pyarrow")

from PIL import Image

from preflmr.data.images import MissingImage
from preflmr.data.m2kr import load


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def picture(path=None, colour="red"):
    drawn = Image.new("RGB", (8, 6), colour)
    if path is None:
        kept = io.BytesIO()
        drawn.save(kept, "png")
        return kept.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(path)
    return None


@pytest.fixture
def mbeir(tmp_path):
    queries = [
        {
            "qid": f"2:{n}",
            "query_txt": text,
            "query_img_path": image,
            "query_modality": "text",
            "query_src_content": None,
            "pos_cand_list": [f"2:{n}"],
            "neg_cand_list": [],
            "task_id": 1,
        }
        for n, (text, image) in enumerate([("which rose?", None), (None, "mbeir_images/q.png")])
    ]
    pool = [
        {"did": "2:0", "txt": None, "img_path": "mbeir_images/c.png", "modality": "image", "src_content": None},
        {"did": "2:1", "txt": "a leaf", "img_path": None, "modality": "image", "src_content": None},
    ]
    write(tmp_path / "query/test/mbeir_webqa_task1_test.jsonl", queries)
    write(tmp_path / "cand_pool/local/mbeir_webqa_task1_cand_pool.jsonl", pool)
    (tmp_path / "instructions").mkdir()
    lines = ["query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2"]
    lines += ["text\timage\tWebQA\t2\tFind a picture.\tShow one.", "text\ttext\tWebQA\t2\tFind words.\t"]
    (tmp_path / "instructions/query_instructions.tsv").write_text("\n".join(lines) + "\n")
    for name in ("q", "c"):
        picture(tmp_path / f"mbeir_images/{name}.png")
    return tmp_path


def test_mbeir(mbeir):
    data = load(mbeir, "webqa_task1", "test")
    assert [(one.question_id, one.question, one.images) for one in data.examples] == [
        ("2:0", "which rose?", ()),
        ("2:1", "", ("mbeir_images/q.png",)),
    ]
    assert {one.instruction for one in data.examples} == {"Find a picture."}
    assert [one.positive_ids for one in data.examples] == [("2:0",), ("2:1",)]
    assert list(data.passages.texts) == ["", "a leaf"]
    assert list(data.passages.images) == ["mbeir_images/c.png", None]
    assert data.images.open("mbeir_images/q.png").size == (8, 6)
    assert len(load(mbeir, "webqa_task1", "test", limit=1)) == 1
    with pytest.raises(FileNotFoundError, match=r"must hold mbeir_nights_task4_test\.jsonl, found webqa_task1_test"):
        load(mbeir, "nights_task4", "test")


def test_a_pool_of_all_tasks_and_candidates_as_objects(mbeir):
    local = mbeir / "cand_pool/local/mbeir_webqa_task1_cand_pool.jsonl"
    (mbeir / "cand_pool/global").mkdir()
    local.rename(mbeir / "cand_pool/global/mbeir_union_test_cand_pool.jsonl")
    path = mbeir / "query/test/mbeir_webqa_task1_test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write(path, [{**row, "pos_cand_list": [{"did": row["pos_cand_list"][0]}]} for row in rows])
    assert [one.positive_ids for one in load(mbeir, "webqa_task1", "test").examples] == [("2:0",), ("2:1",)]


def test_ret(tmp_path):
    rows = [
        {
            "data_id": "a",
            "question": "how tall?",
            "instruction": "Find it:",
            "image_path": "x/1.jpg",
            "passage_id": "p1",
            "answer": [{"wikidata": 11.5, "range": [11, 12]}, "twelve"],
        },
        {"data_id": "b", "question": None, "instruction": "See:", "image_path": None, "passage_id": ["p0", "p1"]},
    ]
    passages = [
        {"passage_id": "p0", "passage_text": "a tree", "passage_image_path": None},
        {"passage_id": "p1", "passage_text": None, "passage_image_path": "y/2.jpg"},
    ]
    write(tmp_path / "evqa_test_m2kr.jsonl", rows)
    write(tmp_path / "evqa_passages_test.jsonl", passages)
    picture(tmp_path / "pictures/x/1.jpg")
    data = load(tmp_path, "EVQA", "test", images=tmp_path / "pictures")
    first, second = data.examples
    assert (first.question_id, first.instruction, first.images) == ("a", "Find it:", ("x/1.jpg",))
    assert first.answers == ("11.5", "twelve") and first.positive_ids == ("p1",)
    assert second.question == "" and second.positive_ids == ("p0", "p1") and second.images == ()
    assert data.task.measure == "Pseudo Recall@5" and list(data.passages.images) == [None, "y/2.jpg"]
    with pytest.raises(FileNotFoundError, match=r"must hold evqa_train\.jsonl, found evqa_passages_test"):
        load(tmp_path, "EVQA", "train")
    write(tmp_path / "evqa_test_m2kr.jsonl", [{"question": "?"}])
    with pytest.raises(ValueError, match="line 1: must have the column passage_id, found question"):
        load(tmp_path, "EVQA", "test")


@pytest.fixture
def vidore(tmp_path):
    datasets = pytest.importorskip("datasets")
    tables = {
        "corpus": {
            "corpus-id": [7, 8],
            "image": [{"bytes": picture(colour=one), "path": None} for one in ("red", "blue")],
        },
        "queries": {"query-id": [0, 1, 2], "query": ["the red page", "the blue page", "not judged"]},
        "qrels": {"query-id": [0, 1, 1], "corpus-id": [7, 8, 7], "score": [1, 1, 0]},
    }
    for name, columns in tables.items():
        (tmp_path / name).mkdir()
        datasets.Dataset.from_dict(columns).to_parquet(str(tmp_path / name / "test-00000-of-00001.parquet"))
    return tmp_path


def test_vidore(vidore):
    data = load(vidore, "pages", "test")
    assert [(one.question_id, one.question, one.positive_ids) for one in data.examples] == [
        ("0", "the red page", ("7",)),
        ("1", "the blue page", ("8",)),
    ]
    assert list(data.passages.ids) == list(data.passages.images) == ["7", "8"] and set(data.passages.texts) == {""}
    for images in (data.images, pickle.loads(pickle.dumps(data.images))):
        assert images.open("8").getpixel((0, 0)) == (0, 0, 255) and "9" not in images
    with pytest.raises(MissingImage, match="image '9' is missing"):
        data.images.open("9")
    with pytest.raises(FileNotFoundError, match=r"qrels must hold train.parquet or train-\*.parquet, found none"):
        load(vidore, "pages", "train")
