import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from lateint import Index, Ragged  # noqa: E402
from preflmr import encode  # noqa: E402
from preflmr.data.images import BrokenImage, Images, MissingImage  # noqa: E402
from preflmr.data.m2kr import Dataset, Example, Passages, load  # noqa: E402
from preflmr.data.tasks import Task  # noqa: E402
from preflmr.evaluation.config import EvalConfig  # noqa: E402
from preflmr.evaluation.passage_index import tokens_of  # noqa: E402
from preflmr.evaluation.retrieval import _exact, evaluate  # noqa: E402

DATA = Path(__file__).parents[2] / "examples" / "data"


@pytest.fixture
def flags():
    """20 questions of the bundled data, among 60 passages."""
    data = load(DATA / "flags_kbvqa", split="val", limit=20)
    needed = {id for example in data.examples for id in example.positive_ids}
    ids = sorted(needed) + [id for id in data.passages.ids if id not in needed][: 60 - len(needed)]
    texts = [data.passages.texts[data.passages.position(id)] for id in ids]
    return Dataset(data.task, data.split, data.examples, Passages(ids, texts), data.images)


@pytest.fixture
def tiny(make_tiny):
    return make_tiny(query_maxlen=200, doc_maxlen=128)


def measured(model, data, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*longer than the model reads", UserWarning)
        warnings.filterwarnings("ignore", ".*tokens have components", UserWarning)  # they are few here
        return evaluate(model, data, progress=False, **settings)


def test_a_perfect_encoder_finds_everything(monkeypatch, tiny, flags):
    """Each passage a direction of its own, and each question that of its passage: what is judged is known by hand."""
    directions = np.eye(60, dtype=np.float32)
    asked = []

    def queries(model, texts, images=None, **_):
        asked.extend(zip(texts, images, strict=True))
        gold = {(one.question, one.images): flags.passages.position(one.positive_ids[0]) for one in flags.examples}
        keys = [(text.split(":  ")[1].strip(), tuple(shown)) for text, shown in zip(texts, images, strict=True)]
        return [directions[[gold[key]]] for key in keys]

    monkeypatch.setattr(encode, "encode_queries", queries)
    monkeypatch.setattr(encode, "encode_documents", lambda *a, **b: iter([(directions, np.ones(60, np.int64))]))
    found = measured(tiny, flags, ks=(1, 3), method="both", nbits=8)
    assert found["Recall@1"] == found["Recall@5"] == found["Pseudo Recall@1"] == 1.0  # 5 is the task's
    assert found.summary["exact"]["Recall@1"] == 1.0
    row = found.questions[flags.examples[4].question_id]
    assert row["retrieved_passage"][0]["passage_id"] == flags.examples[4].positive_ids[0]
    assert len(row["retrieved_passage"]) == 5 and row["Pseudo Recall@3"] == 1.0
    text, images = asked[0]
    assert text == f"{flags.examples[0].instruction}  {flags.examples[0].question} "
    assert images == list(flags.examples[0].images)


def test_with_a_model_from_start_to_finish(tiny, flags, tmp_path):
    found = measured(tiny, flags, run="tiny", method="both", nbits=8, index=tmp_path / "index")
    again = measured(tiny, flags, run="tiny", method="index", nbits=8, index=tmp_path / "index")
    assert again.questions == found.questions  # from the index on disk
    exact = measured(tiny, flags, method="exact", limit=20)
    assert exact.summary["measures"] == found.summary["exact"]
    # All rows of a question take part: the first score is that of all of them against the decoded passage.
    question = encode.encode_queries(tiny, [f"{flags.examples[0].instruction}  {flags.examples[0].question} "],
                                     [flags.images.open(flags.examples[0].images[0])], progress=False)[0]  # fmt: skip
    hit = found.questions[flags.examples[0].question_id]["retrieved_passage"][0]
    index = Index.open(tmp_path / "index" / "index")
    rows = index.reconstruct(flags.passages.position(hit["passage_id"]))
    assert hit["score"] == pytest.approx(float((question @ rows.T).max(1).sum()), rel=2e-3)
    assert len(question) > 100 and len(hit) == 2
    summary = found.summary
    assert (summary["questions"], summary["passages"], summary["left out"], summary["missing images"]) == (20, 60, 0, 0)
    assert (
        summary["measure"] == "Recall@5" and summary["settings"]["nbits"] == 8 and summary["index"]["documents"] == 60
    )
    assert {"encode passages", "index", "encode questions", "search", "exact search"} <= set(summary["seconds"])
    assert {"lateint", "torch", "transformers"} <= set(summary["versions"])

    path = found.write(tmp_path / "out")
    assert path.name == "flags-kbvqa-valid_tiny.json"
    assert json.loads(path.read_text(encoding="utf-8")) == found.questions
    assert json.loads(path.with_suffix(".summary.json").read_text(encoding="utf-8")) == summary
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == [path.name, path.stem + ".summary.json"]


def test_several_searches_ask_with_the_same_queries(monkeypatch, tiny, flags):
    few = {"nprobe": 1, "candidates": 5}
    alone = [measured(tiny, flags, nbits=8, **given) for given in ({}, few)]
    real, asked, encoded = encode.encode_queries, [], []
    monkeypatch.setattr(encode, "encode_queries", lambda *a, **b: (asked.append(1), real(*a, **b))[1])
    documents = encode.encode_documents
    monkeypatch.setattr(encode, "encode_documents", lambda *a, **b: (encoded.append(1), documents(*a, **b))[1])
    with pytest.warns(UserWarning, match="documents were longer than the model reads"):
        tokens = tokens_of(tiny, flags, EvalConfig(), progress=False)
    search, limits = Index.search, []

    def searched(self, queries, k, *, threads, **given):
        limits.append(given)
        return search(self, queries, k, threads=threads, **given)

    monkeypatch.setattr(Index, "search", searched)
    found = measured(tiny, flags, nbits=8, method="both", searches={"few": few}, tokens=tokens)
    assert len(asked) == len(encoded) == 1
    assert found.questions == alone[0].questions and found.summary["measures"] == alone[0].summary["measures"]
    assert found.summary["searches"] == {"few": alone[1].summary["measures"]}
    assert limits == [{"nprobe": None, "candidates": None}, few]
    assert found.summary["settings"]["searches"] == {"few": few} and "search, few" in found.summary["seconds"]
    assert measured(tiny, flags, method="exact", tokens=tokens).summary["measures"] == found.summary["exact"]
    with pytest.raises(ValueError, match="tokens must be those of 60 passages, got 1"):
        measured(tiny, flags, tokens=Ragged.pack([tokens[0]]))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_exact_scores_are_the_same_as_tensors(dtype):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 9, 50)
    tokens = Ragged.from_lengths(rng.standard_normal((lengths.sum(), 16)).astype(dtype), lengths)
    queries = [rng.standard_normal((n, 16)).astype(np.float32) for n in (3, 7)]
    devices = (None, torch.device("cpu"))
    arrays, tensors = (_exact(queries, 5, tokens=tokens, device=one, threads=None) for one in devices)
    for (ids, scores), (other_ids, other_scores) in zip(arrays, tensors, strict=True):
        assert ids == other_ids and scores == pytest.approx(other_scores, rel=1e-5 if dtype == np.float32 else 2e-3)
    by_hand = [float((queries[0] @ matrix.astype(np.float32).T).max(1).sum()) for matrix in tokens]
    assert arrays[0][0] == np.argsort(by_hand)[::-1][:5].tolist()


def test_eight_bits_lose_next_to_nothing(tiny, flags):
    found = measured(tiny, flags, method="both", nbits=8)
    for k in (1, 5, 10, 20):
        assert found[f"Recall@{k}"] == pytest.approx(found.summary["exact"][f"Recall@{k}"], abs=0.051)


def test_cut_texts_are_counted_and_said_once(make_tiny, flags):
    model = make_tiny(query_maxlen=40, doc_maxlen=64)
    with pytest.warns(UserWarning, match="^20 questions and 60 passages were longer than the model reads") as said:
        found = evaluate(model, flags, ks=(1,), batch_size=4, progress=False)
    assert found.summary["cut"] == {"questions": 20, "passages": 60} and len(said) == 1


def test_instructions(monkeypatch, tiny, flags):
    seen = []
    real = encode.encode_queries
    monkeypatch.setattr(
        encode, "encode_queries", lambda model, texts, *a, **b: seen.extend(texts) or real(model, texts, *a, **b)
    )
    for instruction in (None, "", "Look here"):
        measured(tiny, flags, ks=(1,), limit=1, instruction=instruction)
    first = flags.examples[0]
    assert seen == [
        f"{first.instruction}  {first.question} ",
        f":  {first.question} ",
        f"Look here:  {first.question} ",
    ]


@pytest.fixture
def holey(flags, tmp_path):
    """The same, with one picture gone and one broken."""
    folder = tmp_path / "pictures"
    for example in flags.examples:
        target = folder / example.images[0]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(flags.images.read(example.images[0]))
    first, second = [path for example in flags.examples for path in example.images][:2]
    (folder / first).unlink()
    (folder / second).write_bytes(b"no picture")
    return Dataset(flags.task, flags.split, flags.examples, flags.passages, Images(folder))


def test_missing_and_broken_pictures(tiny, holey, tmp_path):
    first, second = holey.examples[:2]
    with pytest.raises(
        MissingImage, match=f"question '{first.question_id}': image '{first.images[0]}' is missing: not in"
    ):
        measured(tiny, holey)
    (tmp_path / "pictures" / first.images[0]).parent.mkdir(exist_ok=True)
    skipped = measured(tiny, holey, on_missing="skip")
    uses = sum(example.images[0] in (first.images[0], second.images[0]) for example in holey.examples)
    assert (skipped.summary["left out"], skipped.summary["missing images"]) == (uses, uses)
    assert len(skipped.questions) == 20 - uses and first.question_id not in skipped.questions
    blank = measured(tiny, holey, on_missing="blank")
    assert (blank.summary["left out"], blank.summary["missing images"], len(blank.questions)) == (0, uses, 20)
    shutil.copy(tmp_path / "pictures" / holey.examples[5].images[0], tmp_path / "pictures" / first.images[0])
    with pytest.raises(BrokenImage, match=f"image '{second.images[0]}' in .*pictures is broken: it is not a picture"):
        measured(tiny, holey)
    nowhere = Dataset(holey.task, holey.split, holey.examples, holey.passages, None)
    with pytest.raises(MissingImage, match="no folder or archive of images was given"):
        measured(tiny, nowhere)


def test_pictures_are_checked_before_a_passage_is_encoded(monkeypatch, tiny, holey, tmp_path):
    monkeypatch.setattr(encode, "encode_documents", lambda *a, **b: pytest.fail("passages were encoded"))
    last = holey.examples[-1]
    for name in {one.images[0] for one in holey.examples[:2]}:
        (tmp_path / "pictures" / name).write_bytes(holey.images.read(last.images[0]))
    (tmp_path / "pictures" / last.images[0]).write_bytes(b"no picture")
    for method in ("index", "exact"):
        with pytest.raises(BrokenImage, match=rf"image '{last.images[0]}' in .*pictures is broken"):
            measured(tiny, holey, method=method)
    (tmp_path / "pictures" / last.images[0]).unlink()
    with pytest.raises(MissingImage, match=r"image .* is missing: not in"):
        measured(tiny, holey)
    with pytest.raises(ValueError, match="limit must be at least 1, got -3"):
        measured(tiny, holey, limit=-3)


def test_questions_without_picture_are_shown_a_blank_or_nothing(monkeypatch, tiny, flags):
    rows = []
    real = encode.encode_queries

    def spied(*given, **settings):
        found = real(*given, **settings)
        rows.extend(map(len, found))
        return found

    monkeypatch.setattr(encode, "encode_queries", spied)
    mixed = [Example("a", "what?", "find", (), ("p0",), (), "c"), flags.examples[0]]
    data = Dataset(
        Task("mine"), "test", mixed, Passages(["p0", *flags.examples[0].positive_ids], ["one", "two"]), flags.images
    )
    measured(tiny, data, ks=(1,), without_image="blank")
    measured(tiny, data, ks=(1,), without_image="text")
    with_blank, _, text, picture = rows
    assert with_blank - text == 4 + 4  # rows of the mapping and of the patches
    assert picture > 8
    text_model_rows = len(rows)
    monkeypatch.setattr(tiny.config, "query_concat_output_from_vision_encoder", False)
    measured(tiny, Dataset(data.task, "test", mixed, data.passages, None), ks=(1,))  # pictures are not even looked for
    assert rows[text_model_rows] == text


def test_an_index_of_other_passages_is_refused(tiny, flags, tmp_path):
    index = Index.build(np.eye(16, dtype=np.float32)[:, None], progress=False)
    with pytest.raises(ValueError, match="index must hold the 60 passages"):
        measured(tiny, flags, index=index)
    measured(tiny, flags, ks=(1,), limit=1, index=tmp_path)
    passages = Passages(flags.passages.ids[:50], flags.passages.texts[:50])
    fewer = Dataset(flags.task, flags.split, flags.examples, passages, flags.images)
    with pytest.raises(ValueError, match="is stale: it was made from other passages"):
        measured(tiny, fewer, ks=(1,), index=tmp_path)
    by_id = Index.build(
        [np.eye(16, dtype=np.float32)[[n % 16]] for n in range(60)], ids=flags.passages.ids, progress=False
    )
    assert len(measured(tiny, flags, ks=(3,), limit=2, index=by_id).questions) == 2


def test_options_are_checked(tiny, flags, tmp_path):
    for option, message in (
        ({"method": "plaid"}, "method must be one of index, exact, both, got 'plaid'"),
        ({"without_image": "none"}, "without_image must be one of blank, text, got 'none'"),
        ({"ks": (0, 5)}, r"ks must be positive, got \[0, 5\]"),
        ({"on_missing": "drop"}, "on_missing must be one of error, skip, blank, got 'drop'"),
        ({"nprobe": -1}, "nprobe must be at least 1, got -1"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"searches": {"few": {"candidates": 0}}}, r"searches\['few'\]\['candidates'\] must be at least 1, got 0"),
        ({"searches": {"few": {"k": 3}}}, r"searches\['few'\] must give nprobe and candidates, got 'k'"),
        ({"searches": {"exact": {}}}, "searches must have names of their own, got 'exact'"),
        ({"searches": {"few": {}}, "method": "exact"}, "searches must be left out with method exact"),
    ):
        with pytest.raises(ValueError, match=message):
            measured(tiny, flags, index=tmp_path / "index", **option)
    with pytest.raises(TypeError, match=r"searches\['few'\] must be a mapping, got int"):
        measured(tiny, flags, searches={"few": 5})
    assert not (tmp_path / "index").exists()  # no passage was encoded in vain


def test_text_alone_in_beirs_layout(make_tiny):
    data = load(DATA / "scifact", limit=3)
    some = Passages(data.passages.ids[:40], data.passages.texts[:40])
    examples = [Example(e.question_id, e.question, None, (), tuple(some.ids[:2]), (), "scifact") for e in data.examples]
    model = make_tiny(query_maxlen=64, doc_maxlen=64)
    found = measured(model, Dataset(data.task, "test", examples, some), ks=(10, 50), without_image="text")
    assert set(found.summary["measures"]) == {"Recall@5", "Recall@10", "Recall@50", "MRR@10", "nDCG@10", "Share@50"}
    assert found["Share@50"] == 1.0
