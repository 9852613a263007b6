import numpy as np
import pytest

from lateint import Index, Ragged
from lateint.indexing.documents import cut, read
from lateint_kernels import BFLOAT16, to_bfloat16, to_float32
from lateint_kernels.codes.building import HostOperators

LENGTHS = [3, 1, 7, 2, 5]


@pytest.fixture
def documents(clustered):
    return clustered(LENGTHS, 12)


class Again:
    """Starts afresh whenever it is iterated; gives the same memory each time, as a reader with a buffer does."""

    def __init__(self, items):
        self.items = items
        self.buffer = np.zeros((100, 12), np.float32)

    def __iter__(self):
        for item in self.items:
            self.buffer[: len(item)] = item
            yield self.buffer[: len(item)]


class DLPack:
    """Nothing but the protocol."""

    def __init__(self, array):
        self.array = array.copy()

    def __dlpack__(self, **settings):
        return self.array.__dlpack__(**settings)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def memmap(documents, folder):
    np.save(folder / "tokens.npy", documents.tokens)
    return np.load(folder / "tokens.npy", mmap_mode="r")


def padded(documents):
    array = np.full((5, 7, 12), np.nan, np.float32)
    for i, document in enumerate(documents):
        array[i, : len(document)] = document
    return array


def pieces(documents):
    return [(documents.tokens[:4], [3, 1]), (documents.tokens[4:], np.array([7, 2, 5]))]


def packed(documents):
    items = list(documents)
    return [Ragged.pack(items[:2]), Ragged.pack(items[2:])]


# The same documents in every form: doc_embs and lengths.
FORMS = {
    "list": lambda documents, _: (list(documents), None),
    "tuple": lambda documents, _: (tuple(documents), None),
    "lists of lists": lambda documents, _: ([document.tolist() for document in documents], None),
    "float64": lambda documents, _: ([document.astype(np.float64) for document in documents], None),
    "flat": lambda documents, _: (documents.tokens, LENGTHS),
    "flat, lengths an array": lambda documents, _: (documents.tokens, np.array(LENGTHS, np.int32)),
    "memmap": lambda documents, folder: (memmap(documents, folder), LENGTHS),
    "padded": lambda documents, _: (padded(documents), LENGTHS),
    "ragged": lambda documents, _: (documents, None),
    "iterable": lambda documents, _: (Again(documents), None),
    "generator": lambda documents, _: ((document for document in documents), None),
    "generator with one buffer": lambda documents, _: (iter(Again(documents)), None),
    "generator of chunks": lambda documents, _: (iter(pieces(documents)), None),
    "list of chunks": lambda documents, _: (pieces(documents), None),
    "generator of Ragged": lambda documents, _: (iter(packed(documents)), None),
    "list of Ragged": lambda documents, _: (packed(documents), None),
    "mixed": lambda documents, _: (iter([pieces(documents)[0], documents[2], Ragged.pack(list(documents)[3:])]), None),
    "DLPack": lambda documents, _: ([DLPack(document) for document in documents], None),
    "flat DLPack": lambda documents, _: (DLPack(documents.tokens), LENGTHS),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("spooled", [False, True])
def test_every_form_is_the_same_tokens(documents, tmp_path, form, spooled):
    source, lengths = FORMS[form](documents, tmp_path)
    found = read(source, lengths, allow_empty=False, spool=tmp_path / "spool" if spooled else None)
    assert found.dim == 12 and found.lengths.tolist() == LENGTHS
    for most in (1, 2, 4, 18, 100):
        for _ in range(2):
            chunks = [chunk.copy() for chunk in found.chunks(most)]
            assert all(0 < len(chunk) <= most for chunk in chunks)
            assert len(chunks) == 1 or most <= 2 * sum(LENGTHS)
            assert all(chunk.flags.c_contiguous for chunk in found.chunks(most))
            np.testing.assert_array_equal(np.concatenate(chunks), documents.tokens)
    for most in (1, 5, 18, 1000):
        pilot = found.pilot(most)
        assert 1 <= len(pilot) <= max(most, 5) and pilot.dtype == np.float32
        assert {token.tobytes() for token in pilot} <= {token.tobytes() for token in documents.tokens}


def test_small_arrays_are_joined_and_large_ones_are_not_copied():
    items = [np.full((n, 3), i, np.float32) for i, n in enumerate([2, 4, 1, 2, 10, 3, 25])]
    found = list(cut(iter(items), 10, HostOperators()))
    assert [len(chunk) for chunk in found] == [9, 10, 3, 8, 8, 9]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(items))
    shared = [any(np.shares_memory(chunk, item) for item in items) for chunk in found]
    assert shared == [False, True, False, True, True, True]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_builds(documents, tmp_path, form):
    source, lengths = FORMS[form](documents, tmp_path)
    index = Index.build(source, tmp_path / "index", lengths=lengths, nbits=8, progress=False)
    assert [len(index.reconstruct(i)) for i in range(5)] == LENGTHS
    for i, document in enumerate(documents):
        np.testing.assert_allclose(index.reconstruct(i), document, atol=0.03)
    assert {path.name for path in tmp_path.iterdir()} <= {"index", "tokens.npy"}
    assert not (tmp_path / "index" / "spool.bin").exists()


@pytest.mark.parametrize("cast", [lambda x: x.astype(np.float16), to_bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(
    "form", ["list", "tuple", "flat", "memmap", "ragged", "iterable", "generator", "list of chunks"]
)
def test_halves(documents, tmp_path, form, cast):
    class Halves(Again):
        def __iter__(self):
            return (cast(item) for item in self.items)

    halves = Ragged(cast(documents.tokens), documents.offsets)
    if form == "iterable":
        source, lengths = Halves(list(documents)), None
    else:
        source, lengths = FORMS[form](halves, tmp_path)
    for spool in (None, tmp_path / "spool"):
        if form == "generator":
            source, lengths = FORMS[form](halves, tmp_path)
        found = read(source, lengths, allow_empty=False, spool=spool)
        tokens = np.concatenate([to_float32(chunk) for chunk in found.chunks(4)])
        np.testing.assert_array_equal(tokens, to_float32(halves.tokens))
        assert next(iter(found.chunks(4))).dtype == halves.tokens.dtype
    assert halves.tokens.dtype in (np.float16, BFLOAT16)


def test_element_types_may_differ_between_documents(documents):
    items = [document.astype(np.float16) if i % 2 else document for i, document in enumerate(documents)]
    for source in (items, dict(enumerate(items)).values()):
        tokens = np.concatenate(
            [to_float32(chunk) for chunk in read(source, None, allow_empty=False, spool=None).chunks(4)]
        )
        np.testing.assert_allclose(tokens, documents.tokens, atol=1e-3)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_torch(documents, tmp_path, kind):
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(document, requires_grad=True).to(getattr(torch, kind)) for document in documents]
    flat = torch.cat(tensors)
    expected = flat.detach().float().numpy()
    for source, lengths in ((tensors, None), (tuple(tensors), None), (flat, LENGTHS), (flat, torch.tensor(LENGTHS))):
        found = read(source, lengths, allow_empty=False, spool=None)
        assert found.lengths.tolist() == LENGTHS
        np.testing.assert_array_equal(np.concatenate([to_float32(chunk) for chunk in found.chunks(4)]), expected)
    index = Index.build(iter(tensors), tmp_path / "index", nbits=8, progress=False)
    np.testing.assert_allclose(index.reconstruct(2), documents[2], atol=0.03)


def test_a_padded_batch_without_lengths(documents):
    found = read(np.ones((3, 4, 8), np.float32), None, allow_empty=False, spool=None)
    assert found.lengths.tolist() == [4, 4, 4]


@pytest.mark.parametrize(("items", "length", "least"), [(1, 100_000, 65_536), (2, 100_000, 65_536), (3, 50_000, 49_152),
                         (64, 5_000, 65_536), (64, 100, 6_400), (65, 5_000, 4_160)])  # fmt: skip
def test_the_pilot_of_few_large_items(items, length, least):
    """A stream of one chunk used to learn its step from 64 tokens."""

    class Source:
        def __iter__(self):
            return (np.arange(length * i, length * (i + 1), dtype=np.float32)[:, None] + 1 for i in range(items))

    pilot = read(Source(), None, allow_empty=False, spool=None).pilot(1 << 16)[:, 0]
    assert len(pilot) == least and (np.diff(pilot) > 0).all()
    assert pilot[0] == 1 and pilot[-1] == items * length
    share, _ = np.histogram(pilot, items, (0, items * length))
    assert share.max() - share.min() <= 2


def test_the_pilot_is_spread_over_all_documents():
    """Of very many documents, none of the first or the last is preferred."""
    tokens = np.arange(10_000, dtype=np.float32)[:, None] + np.ones((1, 8), np.float32)

    class Many:
        def __iter__(self):
            return iter(tokens[:, None])

    for source, lengths in ((list(tokens[:, None]), None), (tokens, [1] * 10_000), (Many(), None)):
        pilot = read(source, lengths, allow_empty=False, spool=None).pilot(500)[:, 0]
        assert 250 <= len(pilot) <= 500
        share, _ = np.histogram(pilot, 10, (0, 10_000))
        assert share.min() > 0.7 * share.mean() and share.max() < 1.4 * share.mean()


# ------------------------------------------------------------------------- empty documents


EMPTY = {
    "list": lambda items: (items, None),
    "flat": lambda items: (np.concatenate(items), [len(item) for item in items]),
    "padded": lambda items: (np.ones((4, 3, 8), np.float32), [2, 0, 3, 0]),
    "ragged": lambda items: (Ragged.pack(items, allow_empty=True), None),
    "iterable": lambda items: (dict(enumerate(items)).values(), None),
    "generator": lambda items: (iter(items), None),
    "chunks": lambda items: (iter([(np.concatenate(items), [len(item) for item in items])]), None),
}


@pytest.mark.parametrize("form", EMPTY)
@pytest.mark.parametrize("spooled", [False, True])
def test_empty_documents_are_refused_or_allowed(form, spooled, tmp_path):
    items = [np.ones((n, 8), np.float32) for n in (2, 0, 3, 0)]
    spool = tmp_path / "spool" if spooled else None
    with pytest.raises(ValueError, match="document 1 has no tokens; pass allow_empty=True to keep such documents"):
        read(*EMPTY[form](items), allow_empty=False, spool=spool)
    found = read(*EMPTY[form](items), allow_empty=True, spool=spool)
    assert found.lengths.tolist() == [2, 0, 3, 0] and found.pilot(100).shape[1] == 8
    assert sum(len(chunk) for chunk in found.chunks(2)) == 5


@pytest.mark.parametrize(
    ("source", "lengths"),
    [
        ([], None),
        (iter([]), None),
        (np.zeros((0, 8), np.float32), []),
        ([np.zeros((0, 8), np.float32)], None),
        (iter([np.zeros((0, 8), np.float32)]), None),
        (np.zeros((3, 0, 8), np.float32), None),
    ],
)
def test_nothing_at_all(source, lengths, tmp_path):
    with pytest.raises(ValueError, match=r"doc_embs must hold at least one token, got [013] documents without any"):
        Index.build(source, tmp_path / "index", lengths=lengths, allow_empty=True, progress=False)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------- bad documents


ONE = np.ones((2, 8), np.float32)


def broken(value, document=2, token=1):
    tokens = [ONE * (i + 1) for i in range(4)]
    tokens[document] = tokens[document].copy()
    tokens[document][token, 5 if value else slice(None)] = value
    return tokens


@pytest.mark.parametrize(
    ("source", "lengths", "error", "message"),
    [
        ([ONE, ONE[:, :7]], None, ValueError, "document 1 has dim 7, those before it 8"),
        (iter([ONE, ONE[:, :7]]), None, ValueError, "document 1 has dim 7, those before it 8"),
        ([ONE, ONE[0]], None, ValueError, r"document 1 must be \[Ld, dim\], got \(8,\)"),
        (iter([ONE, ONE[0]]), None, ValueError, r"document 1 must be \[Ld, dim\], got \(8,\)"),
        (
            [ONE, ONE.astype(int)],
            None,
            TypeError,
            "document 1 must be float32, float16, bfloat16 or float64, got int64",
        ),
        ([ONE, "text"], None, TypeError, "document 1 must be an array, got str"),
        ([ONE, None], None, TypeError, "document 1 must be an array, got NoneType"),
        ("text", None, TypeError, "doc_embs must be arrays, a list or an iterable of arrays, got str"),
        ({"a": ONE}, None, TypeError, "doc_embs must be arrays, a list or an iterable of arrays, got dict"),
        (7, None, TypeError, "doc_embs must be arrays, a list or an iterable of arrays, got int"),
        (None, None, TypeError, "doc_embs must be given, or texts with an encoder"),
        (ONE.astype(np.int8), [2], TypeError, "doc_embs must be float32, .* got int8"),
        (Ragged.from_lengths(ONE.astype(np.int8), [2]), None, TypeError, "doc_embs must be float32, .* got int8"),
        (ONE, None, ValueError, r"doc_embs is one \[T, dim\] array: say with lengths= where its documents end"),
        (ONE, [1, 2], ValueError, "lengths must add up to the number of tokens 2, got 3"),
        (ONE, [-1, 3], ValueError, "lengths must not be negative, got -1 at 0"),
        (ONE, [0.5, 1.5], TypeError, "lengths must be a list of integers, got float64"),
        (ONE[0], [1], ValueError, r"doc_embs must be \[T, dim\] with lengths, or \[n, L, dim\], got \(8,\)"),
        (ONE[None], [3], ValueError, "lengths must be 1 numbers from 0 to 2"),
        ([ONE], [2], ValueError, "lengths goes with a single array of tokens"),
        (Ragged.pack([ONE]), [2], ValueError, "lengths goes with a single array of tokens"),
        ([np.ones((2, 0), np.float32)], None, ValueError, "doc_embs must have a dim from 1 to 4096, got 0"),
        ([np.ones((1, 4097), np.float32)], None, ValueError, "doc_embs must have a dim from 1 to 4096, got 4097"),
        (iter([(ONE, [1, 2])]), None, ValueError, "lengths must add up to the number of tokens 2, got 3"),
        (broken(np.nan), None, ValueError, "token 1 of document 2 holds a NaN or an infinity"),
        (broken(-np.inf), None, ValueError, "token 1 of document 2 holds a NaN or an infinity"),
        (broken(0), None, ValueError, "token 1 of document 2 is all zero, as padding is"),
        (iter(broken(np.nan, 3, 0)), None, ValueError, "token 0 of document 3 holds a NaN or an infinity"),
        (np.concatenate(broken(0, 0)), [2] * 4, ValueError, "token 1 of document 0 is all zero, as padding is"),
    ],
)
def test_bad_documents(source, lengths, error, message, tmp_path):
    """Nothing is left behind."""
    with pytest.raises(error, match=message):
        Index.build(source, tmp_path / "index", lengths=lengths, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_bad_token_that_no_sample_holds_is_found(clustered, value):
    """The pilot looks at some tokens only; the rest are looked at when they are encoded."""
    documents = clustered([100] * 1500, 8)
    tokens = documents.tokens.copy()
    tokens[123_456] = value
    with pytest.raises(ValueError, match="token 56 of document 1234"):
        Index.build(tokens, lengths=[100] * 1500, progress=False)


# ------------------------------------------------------------------------- sources that misbehave


class Fickle:
    """Gives something else from the second or third pass on."""

    def __init__(self, *passes):
        self.passes, self.count = passes, 0

    def __iter__(self):
        self.count += 1
        return iter(self.passes[min(self.count, len(self.passes)) - 1])


FOUR = [ONE, ONE[:1], ONE, ONE[:1]]


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ((FOUR, FOUR, FOUR[:2]), "doc_embs gave 4 documents at first and 2 the next time"),
        ((FOUR, FOUR, [*FOUR, ONE]), "doc_embs must give the same documents each time, but document 4 changed"),
        ((FOUR, FOUR, [ONE, ONE]), "doc_embs must give the same documents each time, but document 1 changed"),
        ((FOUR, FOUR, []), "doc_embs gave 4 documents at first and 0 the next time"),
        ((FOUR, FOUR, [ONE[:, :4]] * 4), "document 0 has dim 4, those before it 8"),
        ((broken(1, 0), broken(1, 0), broken(np.nan, 0)), "token 1 of document 0 holds a NaN"),
    ],
)
def test_input_that_changes_between_passes(passes, message, tmp_path):
    source = Fickle(passes[0], *passes)  # iter() is called once more, to see whether it is an iterator
    with pytest.raises(ValueError, match=message):
        Index.build(source, tmp_path / "index", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_shrinks(tmp_path):
    items = [ONE * (i + 1) for i in range(40)]

    class Shrinking(list):
        reads = 0

        def __iter__(self):
            Shrinking.reads += 1
            return super().__iter__() if Shrinking.reads < 3 else iter(items[:20])

    with pytest.raises(ValueError, match="doc_embs gave fewer tokens the last time than the first"):
        Index.build(Shrinking(items), tmp_path / "index", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError, StopIteration])
def test_an_iterator_that_raises_midway(tmp_path, error):
    class Failing:
        def __init__(self, good):
            self.good, self.count = good, 0

        def __iter__(self):
            return self

        def __next__(self):
            self.count += 1
            if self.count > self.good:
                raise error("no more of this")
            return ONE

    if error is StopIteration:  # which is the end of it
        assert len(Index.build(Failing(5), tmp_path / "index", progress=False)) == 5
        return
    with pytest.raises(error, match="no more of this"):
        Index.build(Failing(5), tmp_path / "index", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_an_iterable_that_raises_in_a_later_pass(tmp_path):
    class Failing:
        count = 0

        def __iter__(self):
            Failing.count += 1
            yield from [ONE] * 5
            if Failing.count > 2:
                raise RuntimeError("the third time")

    with pytest.raises(RuntimeError, match="the third time"):
        Index.build(Failing(), tmp_path / "index", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_spooled_stream_keeps_one_element_type(tmp_path):
    with pytest.raises(TypeError, match="document 1 has float16, those before it float32"):
        Index.build(iter([ONE, ONE.astype(np.float16)]), tmp_path / "index", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_masked_arrays_are_refused():
    """They used to lose their mask without a word."""
    masked = np.ma.array(np.ones((2, 3, 8), np.float32), mask=np.eye(3, 8, dtype=bool)[None].repeat(2, 0))
    for source in (masked, list(masked), iter([masked[0]])):
        with pytest.raises(TypeError, match="must not be masked"):
            Index.build(source, progress=False)
    with pytest.raises(TypeError, match="must not be masked"):
        Index.build(np.ones((2, 3, 8), np.float32), progress=False).search(masked[0])
