"""Queries and documents through a tiny model: the same rows as one at a time, in order, and what is refused."""

import tracemalloc

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from PIL import Image  # noqa: E402

from lateint import Index  # noqa: E402
from preflmr import encode  # noqa: E402
from preflmr.data.images import BrokenImage, Images, MissingImage  # noqa: E402
from preflmr.encode import encode_documents, encode_queries  # noqa: E402


@pytest.fixture(scope="module")
def model(make_tiny):
    return make_tiny()


@pytest.fixture(scope="module")
def seeing(make_tiny):
    """A model that reads pictures with documents."""
    return make_tiny(context_concat_output_from_vision_encoder=True)


def texts(n):
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(["ab", "c", "def,", "g!"], rng.integers(1, 12))) for _ in range(n)]


def picture(number):
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))


def read(stream):
    """The documents of a stream, each on its own."""
    return [rows for tokens, lengths in stream for rows in np.split(tokens, np.cumsum(lengths)[:-1])]


def alone(model, kind, text, pictures=()):
    """One text through the model's own methods, padded as its tokenizer pads."""
    inputs = (model.query_tokenizer if kind == "query" else model.document_tokenizer)([text])
    if pictures:
        inputs["pixel_values"] = model.image_processor(pictures)[None]
    with torch.no_grad():
        output = (model.query if kind == "query" else model.doc)(**inputs)
    return output.late_interaction_output[0][output.mask[0]].numpy()


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for rows, others in zip(actual, expected, strict=True):
        np.testing.assert_allclose(rows, others, atol=2e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_documents_are_as_alone_and_in_order(model, batch_size):
    documents = texts(40)
    stream = encode_documents(model, documents, batch_size=batch_size, window=17, progress=False)
    assert_same(read(stream), [alone(model, "document", text) for text in documents])


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_queries_are_as_alone_and_in_order(model, batch_size):
    questions = [f"find: {text[:12]}" for text in texts(8)]
    shown = [[picture(n)] * (1 + n % 2) for n in range(8)]  # some have two
    actual = encode_queries(model, questions, shown, batch_size=batch_size, progress=False)
    assert all(rows.dtype == np.float32 for rows in actual)
    assert_same(actual, [alone(model, "query", *pair) for pair in zip(questions, shown, strict=True)])


def test_queries_without_images_have_text_rows_only(model):
    assert_same(encode_queries(model, ["is it?"], progress=False), [alone(model, "query", "is it?")])


def test_a_query_without_its_image_sees_a_black_one(model):
    (actual,) = encode_queries(model, ["is it?"], [None], progress=False)
    assert_same([actual], [alone(model, "query", "is it?", [Image.new("RGB", (336, 336))])])


def test_rows_of_queries_may_be_chosen(model):
    whole, words, vision = (
        encode_queries(model, ["a: b"], [picture(0)], progress=False, **chosen)[0]
        for chosen in ({}, {"vision_rows": False}, {"text_rows": False})
    )
    assert_same([np.concatenate([words, vision])], [whole])


def test_documents_with_images(seeing):
    documents, shown = texts(9), [None if n % 3 == 0 else picture(n) for n in range(9)]
    actual = read(encode_documents(seeing, documents, shown, batch_size=2, progress=False))
    expected = [
        alone(seeing, "document", text, [one] if one else []) for text, one in zip(documents, shown, strict=True)
    ]
    assert_same(actual, expected)


def test_documents_may_be_pictures_alone(seeing):
    (rows,) = read(encode_documents(seeing, [""], [picture(1)], progress=False))
    assert len(rows) == 4 + 3  # MLP rows, and [CLS], marker and [SEP]


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_reduced_precision(model, dtype):
    documents = texts(10)
    exact, reduced = (read(encode_documents(model, documents, dtype=kind, progress=False)) for kind in (None, dtype))
    for rows, others in zip(reduced, exact, strict=True):
        assert rows.dtype == np.float16 and others.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float32), axis=1), 1, atol=2e-3)
        assert (rows * others).sum(1).min() > 0.99
    (query,) = encode_queries(model, ["a"], dtype=dtype, progress=False)
    assert query.dtype == np.float32


def test_modules_keep_their_modes(make_tiny):
    model = make_tiny()
    model.train()
    model.query_vision_encoder.eval()
    before = [module.training for module in model.modules()]
    first, again = (read(encode_documents(model, texts(3), progress=False)) for _ in range(2))
    assert_same(first, again)  # without dropout
    assert [module.training for module in model.modules()] == before


def test_a_stream_goes_into_an_index_once(model, tmp_path):
    documents, given = texts(30), []

    def source():
        for text in documents:
            given.append(text)
            yield text

    stream = encode_documents(model, source(), window=8, progress=False)
    index = Index.build(stream, tmp_path / "index", nbits=8, progress=False)
    assert given == documents
    rows = alone(model, "document", documents[7])
    assert len(index) == 30 and documents[int(index.search(rows, 1).ids[0])] == documents[7]


def test_memory_does_not_grow_with_the_stream(model):
    drawn = 0

    def source(n):
        nonlocal drawn
        for drawn in range(1, n + 1):
            yield f"number {drawn} " * (drawn % 4 + 1)

    def peak(n):
        """The most memory that Python and numpy held, and the size of all rows."""
        tracemalloc.start()
        given = size = 0
        for tokens, lengths in encode_documents(model, source(n), batch_size=32, window=64, progress=False):
            assert drawn - given <= 2 * 64
            given, size = given + len(lengths), size + tokens.nbytes
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert given == n
        return most, size

    peak(64)
    (few, _), (many, size) = peak(256), peak(1536)
    assert size > 2e6 and many - few < size / 5


def test_closing_a_stream_early(model):
    stream = encode_documents(model, texts(20), window=5, progress=False)
    next(stream)
    stream.close()
    assert list(stream) == []


def test_what_is_cut_is_warned_of_once_with_a_count(model):
    with pytest.warns(UserWarning, match=r"^2 of 3 documents were longer than the model reads and were cut$") as caught:
        read(encode_documents(model, ["x" * 90, "y", "z" * 80], window=1, progress=False))
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=r"^1 of 2 queries were longer"):
        encode_queries(model, ["x" * 50, "y"], progress=False)


def test_progress_counts_texts(model, capsys):
    read(encode_documents(model, texts(5), progress=True))
    encode_queries(model, ["a", "b", "c"], progress=True)
    shown = capsys.readouterr().err
    assert "5/5" in shown and "3/3" in shown


def test_empty_texts_are_refused(model):
    with pytest.raises(ValueError, match=r"^document 2 is empty$"):
        read(encode_documents(model, ["a", "b", " \n"], window=2, progress=False))
    with pytest.raises(ValueError, match=r"^query 1 has neither words nor a picture$"):
        encode_queries(model, ["a", ""], progress=False)
    with pytest.raises(ValueError, match=r"^query 0 has neither"):
        encode_queries(model, [""], [None], progress=False)
    assert len(encode_queries(model, [""], [picture(0)], progress=False)) == 1


def test_pictures_by_path(model, tmp_path):
    picture(3).save(tmp_path / "three.png")
    (tmp_path / "broken.png").write_text("no picture")
    source = Images(tmp_path)
    (actual,) = encode_queries(model, ["a"], ["three.png"], image_source=source, progress=False)
    (absolute,) = encode_queries(model, ["a"], [tmp_path / "three.png"], progress=False)
    (opened,) = encode_queries(model, ["a"], [picture(3)], progress=False)
    assert np.array_equal(actual, absolute) and np.array_equal(actual, opened)
    with pytest.raises(MissingImage, match=r"^query 1: image 'four.png' is missing"):
        encode_queries(model, ["a", "b"], ["three.png", "four.png"], image_source=source, progress=False)
    with pytest.raises(BrokenImage, match=r"^query 0: image 'broken.png' .* is broken"):
        encode_queries(model, ["a"], ["broken.png"], image_source=source, progress=False)


def test_the_same_picture_is_opened_and_encoded_once_in_a_batch(model, tmp_path, monkeypatch):
    for number in (1, 2):
        picture(number).save(tmp_path / f"{number}.png")
    opened, encoded, source = [], [], Images(tmp_path)
    monkeypatch.setattr(Images, "open", lambda self, path: (opened.append(path), picture(int(path[0])))[1])
    hook = model.query_vision_encoder.register_forward_hook(lambda _, given, __: encoded.append(len(given[0])))
    questions = [f"find: {text[:12]}" for text in texts(7)]
    shown = ["1.png", "2.png", "1.png", None, "2.png", "1.png", "2.png"]
    actual = encode_queries(model, questions, shown, image_source=source, batch_size=3, progress=False)
    hook.remove()
    assert opened == ["1.png", "2.png"] and encoded == [1, 1, 1]  # the blank one, too
    for rows, question, path in zip(actual, questions, shown, strict=True):
        pictures = [Image.new("RGB", (336, 336)) if path is None else picture(int(path[0]))]
        assert_same([rows], [alone(model, "query", question, pictures)])


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"texts": "abc"}, TypeError, "texts must be a list or another iterable of strings, got one string 'abc'"),
        ({"texts": ["a", 3]}, TypeError, "query 1 must be a string, got int"),
        ({"images": []}, ValueError, "images and texts must be equally many, but only one of them has query 0"),
        (
            {"images": [None, None]},
            ValueError,
            "images and texts must be equally many, but only one of them has query 1",
        ),
        ({"images": [3]}, TypeError, "query 0: a picture must be a PIL image or a path, got int"),
        ({"dtype": "int8"}, ValueError, "dtype must be float32, bfloat16 or float16, got 'int8'"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"processes": 0}, ValueError, "processes must be at least 1, got 0"),
    ],
)
def test_wrong_arguments(model, arguments, error, message):
    with pytest.raises(error) as caught:
        encode_queries(model, **{"texts": ["a"], "progress": False, **arguments})
    assert str(caught.value) == message


def test_wrong_models(make_tiny):
    with pytest.raises(ValueError, match=r"^images must be left out: this model reads no pictures"):
        blind = make_tiny(use_vision_encoder=False, use_transformer_mapping_network=False)
        encode_documents(blind, ["a"], [picture(0)])
    model = make_tiny()
    model.document_tokenizer = None
    with pytest.raises(ValueError, match=r"^model must have a document_tokenizer"):
        encode_documents(model, ["a"])


def test_batches_hold_no_more_documents_and_tokens_than_they_may():
    lengths, counts = np.array([3, 40, 9, 10, 5, 8]), np.zeros(6, np.int64)
    batches = [batch.tolist() for batch in encode._batches(lengths, counts, 3, 30)]
    assert batches == [[1], [3, 2, 5], [4, 0]]
    assert [len(batch) for batch in encode._batches(lengths, counts, 2, 1000)] == [2, 2, 2]
