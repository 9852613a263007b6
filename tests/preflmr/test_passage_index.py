import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from lateint import Index  # noqa: E402
from preflmr.data.m2kr import TASKS, Dataset, Passages  # noqa: E402
from preflmr.evaluation.config import EvalConfig  # noqa: E402
from preflmr.evaluation.passage_index import (  # noqa: E402
    passage_index,
    positions_of,
    tokens_of,
)
from preflmr.evaluation.results import write_json  # noqa: E402
from preflmr.searcher import Searcher  # noqa: E402

PLAIN = EvalConfig()


@pytest.fixture
def data():
    texts = [f"passage {n} tells of {word}." for n, word in enumerate(["cats", "dogs", "birds", "fish", "bees"])]
    return Dataset(TASKS["EVQA"], "test", [], Passages([f"p{n}" for n in range(5)], texts))


def test_an_index_is_built_once_and_used_again(make_tiny, data, tmp_path):
    model = make_tiny()
    built = passage_index(model, data, tmp_path / "i", PLAIN, progress=False)
    assert sorted(path.name for path in (tmp_path / "i").iterdir()) == [
        "index",
        "offsets.npy",
        "passages.jsonl",
        "preflmr.json",
    ]
    stamp = (tmp_path / "i" / "index" / "index.json").stat().st_mtime_ns
    again = passage_index(make_tiny(), data, tmp_path / "i", PLAIN, progress=False)
    assert (tmp_path / "i" / "index" / "index.json").stat().st_mtime_ns == stamp
    query = np.eye(16, dtype=np.float32)[:3]
    assert list(again.search(query, 5)) == list(built.search(query, 5))
    tokens = tokens_of(model, data, PLAIN, progress=False)
    in_memory = passage_index(model, data, None, PLAIN, progress=False, tokens=tokens)
    assert list(in_memory.search(query, 5)) == list(built.search(query, 5))


def test_a_stale_index_is_refused_with_what_differs(make_tiny, data, tmp_path):
    model = make_tiny()
    passage_index(model, data, tmp_path / "i", PLAIN, progress=False)
    with pytest.raises(ValueError, match="is stale: it was made from nbits 4 where 8 is asked for; choose another"):
        passage_index(model, data, tmp_path / "i", EvalConfig(nbits=8), progress=False)
    passages = Passages(data.passages.ids, [*data.passages.texts[:4], "passage 4 tells of wasps."])
    other = Dataset(data.task, "test", [], passages)
    with pytest.raises(ValueError, match=r"index .* is stale: it was made from other passages;"):
        passage_index(model, other, tmp_path / "i", PLAIN, progress=False)
    with torch.no_grad():
        model.context_text_encoder_linear.weight[0, 0] += 1
    with pytest.raises(ValueError, match="is stale: it was made from another model, other passages;"):
        passage_index(model, other, tmp_path / "i", PLAIN, progress=False)
    assert passage_index(model, other, tmp_path / "i", EvalConfig(nbits=8, overwrite=True), progress=False).nbits == 8
    assert passage_index(model, other, tmp_path / "i", EvalConfig(nbits=8), progress=False).nbits == 8


def test_a_folder_of_something_else_is_refused(make_tiny, data, tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "i" / "file").touch()
    with pytest.raises(FileExistsError, match="i exists and is no index of passages; choose a new folder"):
        passage_index(make_tiny(), data, tmp_path / "i", PLAIN, progress=False)
    passage_index(make_tiny(), data, tmp_path / "j", PLAIN, progress=False)
    (tmp_path / "j" / "preflmr.json").write_text("{")
    with pytest.raises(ValueError, match=r"preflmr\.json: not readable"):
        passage_index(make_tiny(), data, tmp_path / "j", PLAIN, progress=False)


def test_a_build_that_fails_leaves_no_index(make_tiny, data, tmp_path):
    model = make_tiny()
    data.passages.texts[3] = " "
    with pytest.raises(ValueError, match="document 3 is empty"):
        passage_index(model, data, tmp_path / "i", PLAIN, progress=False)
    assert list(tmp_path.iterdir()) == []
    data.passages.texts[3] = "filled"
    data.passages.__dict__.pop("sha256", None)
    assert len(passage_index(model, data, tmp_path / "i", PLAIN, progress=False)) == 5


def test_search_and_evaluation_use_one_folder(make_tiny, data, tmp_path):
    model = make_tiny(query_maxlen=128)
    passage_index(model, data, tmp_path / "i", PLAIN, progress=False)
    (found,) = Searcher.open(tmp_path / "i", model).search(["bees?"], k=2)
    assert {one.id for one in found} <= set(data.passages.ids) and found[0].text in data.passages.texts
    rows = [{"id": id, "text": text} for id, text in zip(data.passages.ids, data.passages.texts, strict=True)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Searcher.build(model, tmp_path / "p.jsonl", tmp_path / "j", progress=False)
    assert len(passage_index(model, data, tmp_path / "j", PLAIN, progress=False)) == 5


def test_ids_of_a_given_index(data):
    tokens = [np.eye(4, dtype=np.float32)[[n % 4]] for n in range(5)]
    by_position = Index.build(tokens, progress=False)
    by_id = Index.build(tokens, ids=["p4", "p3", "p2", "p1", "p0"], progress=False)
    assert positions_of(by_position, data.passages) is None
    assert positions_of(by_id, data.passages) == {f"p{n}": n for n in range(5)}
    for other in (Index.build(tokens[:4], progress=False), Index.build(tokens, ids=list("abcde"), progress=False)):
        with pytest.raises(ValueError, match="index must hold the 5 passages, by position or by id"):
            positions_of(other, data.passages)


def test_pictures_of_passages_are_read_where_the_model_reads_them(make_tiny, data, tmp_path):
    from PIL import Image

    from preflmr.data.images import Images

    Image.new("RGB", (40, 40), (200, 0, 0)).save(tmp_path / "red.png")
    passages = Passages(data.passages.ids, data.passages.texts, ["red.png", None, "gone.png", None, None])
    data = Dataset(data.task, "test", [], passages, Images(tmp_path))
    plain = make_tiny()
    seeing = make_tiny(context_concat_output_from_vision_encoder=True)

    def rows(model, on_missing):
        return tokens_of(model, data, EvalConfig(on_missing=on_missing), progress=False).lengths

    text = rows(plain, "error")
    assert (rows(seeing, "skip") - text).tolist() == [4, 0, 0, 0, 0]
    assert (rows(seeing, "blank") - text).tolist() == [4, 0, 4, 0, 0]
    with pytest.raises(FileNotFoundError, match=r"passage 'p2': image 'gone\.png' is missing"):
        rows(seeing, "error")


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "x.json", {"ä": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"ä": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
