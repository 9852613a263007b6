"""A build on a device writes the files of a build on the CPU, byte for byte, and refuses and warns the same."""

import warnings

import numpy as np
import pytest

from lateint import Index, Ragged
from lateint.indexing import builder, clustering
from lateint.indexing.documents import read
from lateint.indexing.encoding import Stream
from lateint_kernels.arrays import as_array, to_bfloat16

torch = pytest.importorskip("torch")

from copies import Counted, on_device  # noqa: E402
from device_builds import DEVICES, shrink  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # noqa: E402

from lateint_kernels.codes.device import building  # noqa: E402
from lateint_kernels.codes.torch import build  # noqa: E402
from lateint_kernels.codes.torch import search as codes  # noqa: E402


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check(tmp_path, device, documents, times=2, **settings):
    """Builds so many times on the device and once on the CPU, all of them alike."""
    settings = {"progress": False, "allow_empty": True, "threads": 1, **settings}
    folders = [tmp_path / name for name in ("cpu", "device", "again")[: times + 1]]
    for folder, where in zip(folders, ("cpu", device, device), strict=False):
        index = Index.build(documents, folder, device=where, **settings)
    expected, *found = map(files, folders)
    for other in found:
        assert other.keys() == expected.keys()
        assert [name for name in expected if other[name] != expected[name]] == []
    return index


@pytest.fixture(scope="module")
def ragged(clustered):
    lengths = [0, 3, 0, 0, 40, 1, 300, *np.random.default_rng(0).integers(0, 30, 120).tolist(), 0]
    return lambda dim: list(clustered(lengths, dim))


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
@pytest.mark.parametrize("dim", [7, 100, 128])
def test_files(tmp_path, device, ragged, nbits, dim):
    check(tmp_path, device, ragged(dim), nbits=nbits)


@pytest.mark.parametrize("ncentroids", [1, 2, 150])
def test_centroids(tmp_path, device, ragged, ncentroids):
    """One, no more cells than are searched, and so many of so few distinct tokens that clusters stay empty."""
    documents = ragged(16)
    documents = [documents[4]] * 20 + documents[:30]
    assert check(tmp_path, device, documents, ncentroids=ncentroids).stats()["centroids"] == ncentroids


def test_divided_cells(tmp_path, device, ragged, monkeypatch):
    """Cells that are large enough: a token looks into parts of them, which gives other codes."""
    whole = check(tmp_path / "whole", device, ragged(16), ncentroids=400)
    monkeypatch.setattr(clustering, "DIVIDED", 10)
    divided = check(tmp_path / "divided", device, ragged(16), ncentroids=400)
    assert divided.stats()["codec"] != whole.stats()["codec"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(tmp_path, device, ragged, dtype):
    narrow = to_bfloat16 if dtype == "bfloat16" else lambda tokens: tokens.astype(dtype)
    check(tmp_path, device, [narrow(tokens) for tokens in ragged(24)])


def test_segments_and_chunks(tmp_path, device, ragged, monkeypatch):
    """Work is cut into many pieces, differently on the CPU and on the device; a mapped file cannot be written to."""
    monkeypatch.setattr(builder, "CHUNK", 100)
    monkeypatch.setattr(building, "COMPONENTS", 3 * 32)
    shrink(
        monkeypatch, device, (codes.NUMBERS, 400), (building.ASSIGNED, 70), (build.ENCODED, 320), (build.ENTRIES, 50)
    )
    documents = ragged(32)
    np.save(tmp_path / "tokens.npy", np.concatenate(documents))
    tokens = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    before = builder.plan

    def plan(*arguments, **settings):
        planned = before(*arguments, **settings)
        planned.segment_tokens = 350
        return planned

    monkeypatch.setattr(builder, "plan", plan)
    index = check(tmp_path, device, tokens, lengths=[len(document) for document in documents], ncentroids=40)
    assert index.stats()["segments"] > 4


def test_streams(tmp_path, device, ragged):
    """An iterable of chunks that are torch tensors."""
    documents = ragged(16)
    pieces = [(torch.from_numpy(np.concatenate(part)), list(map(len, part))) for part in (documents[:9], documents[9:])]
    check(tmp_path, device, pieces)


class Again:
    """Starts afresh whenever it is iterated, and gives the same memory each time."""

    def __init__(self, items):
        self.items = items

    def __iter__(self):
        buffer = torch.empty_like(torch.cat(self.items))
        for item in self.items:
            yield buffer[: len(item)].copy_(item)


def padded(documents):
    """With numbers behind the end of a document that no build would accept."""
    shape = len(documents), max(map(len, documents)), documents[0].shape[1]
    found = documents[0].new_full(shape, float("nan"))
    for target, document in zip(found, documents, strict=True):
        target[: len(document)] = document
    return found


def lengths_of(documents):
    return torch.tensor(list(map(len, documents)))


def pieces(documents):
    parts = documents[:1], documents[1:9], documents[9:]
    return [(torch.cat(part), lengths_of(part)) for part in parts]


def mixed(documents):
    """On the host and on the device, and of several types."""
    host = [document.cpu() for document in documents]
    kinds = host[2].double(), documents[3].half(), as_array(host[4].half(), "document")
    return [documents[0], host[1], *kinds, *documents[5:]]


# The same tensors in every form: doc_embs and lengths.
FORMS = {
    "flat": lambda documents: (torch.cat(documents), lengths_of(documents)),
    "flat, by columns": lambda documents: (torch.cat(documents).T.contiguous().T, lengths_of(documents)),
    "flat, lengths there": lambda documents: (torch.cat(documents), lengths_of(documents).to(documents[0].device)),
    "padded": lambda documents: (padded(documents), lengths_of(documents)),
    "padded, cut": lambda documents: (padded(documents)[:, :, 3:], lengths_of(documents)),
    "all of one length": lambda documents: (torch.cat(documents)[:600].reshape(60, 10, -1)[:, 1:], None),
    "list": lambda documents: (documents, None),
    "tuple": lambda documents: (tuple(documents), None),
    "requiring grad": lambda documents: ([document.clone().requires_grad_() * 1 for document in documents], None),
    "iterable": lambda documents: (Again(documents), None),
    "chunks": lambda documents: (pieces(documents), None),
    "chunks of numpy": lambda documents: ([Ragged.pack(part) for part in (documents[:9], documents[9:])], None),
    "mixed": lambda documents: (mixed(documents), None),
}


def given(form, device, documents, dtype=torch.float32):
    """Documents that have tokens as tensors on the device."""
    there = [torch.from_numpy(tokens).to(device.removeprefix("torch:"), dtype) for tokens in documents if len(tokens)]
    return FORMS[form](there)


@pytest.mark.parametrize("form", FORMS)
def test_tensors_on_the_device(tmp_path, device, ragged, monkeypatch, form):
    """Those of one or many chunks; nothing of the caller's is written to."""
    monkeypatch.setattr(builder, "CHUNK", 100)
    monkeypatch.setattr(building, "COMPONENTS", 3 * 24)
    tensors, lengths = given(form, device, ragged(24))
    callers = [tensor for tensor in getattr(tensors, "items", tensors) if isinstance(tensor, torch.Tensor)]
    before = [tensor.clone() for tensor in callers]
    check(tmp_path, device, tensors, times=1, lengths=lengths)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(callers, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("form", ["flat", "padded", "list", "iterable"])
def test_types_of_tensors_on_the_device(tmp_path, device, ragged, form, dtype):
    tensors, lengths = given(form, device, ragged(16), dtype)
    check(tmp_path, device, tensors, times=1, lengths=lengths)


def test_an_iterator_on_the_device(tmp_path, device, ragged):
    """It can be run only once, so the host keeps what it gives, in a file or in memory."""
    source, _ = given("iterable", device, ragged(24))
    folders = [tmp_path / name for name in ("cpu", "device", "memory")]
    for folder, where in zip(folders, ("cpu", device, device), strict=True):
        index = Index.build(iter(source), None if folder.name == "memory" else folder, device=where, progress=False)
    assert files(folders[0]) == files(folders[1])
    for folder in (tmp_path / "streamed", folders[2]):
        if folder == folders[2]:
            index.save(folder)
        else:
            Index.build(source, folder, progress=False)
    assert files(tmp_path / "streamed") == files(folders[2])


def test_tokens_without_a_document_of_the_sample(tmp_path, device):
    """Of very many documents the sample looks at every so many: of those that have tokens."""
    tokens = torch.randn(70_000, 8, generator=torch.Generator().manual_seed(0))
    nothing = tokens[:0]
    documents = [part for token in tokens.split(1) for part in (nothing, token)]
    for source in (documents, dict(enumerate(documents)).values()):
        pilot = read(source, None, allow_empty=True, spool=None).pilot(1000)
        assert 500 <= len(pilot) <= 1000


LEAVING = ["cpu", "numpy", "tolist", "item", "__array__", "__dlpack__"]  # to the host, or out of torch


@pytest.fixture
def left(monkeypatch):
    """How many numbers left, by the way that they took, in tensors that could be tokens: floats, or rows of bytes."""
    found = dict.fromkeys(LEAVING, 0)

    def watched(name):
        before = getattr(torch.Tensor, name)

        def leave(self, *arguments, **named):
            found[name] += self.numel() * (self.dtype.is_floating_point or self.dtype == torch.int8)
            return before(self, *arguments, **named)

        return leave

    for name in LEAVING:
        monkeypatch.setattr(torch.Tensor, name, watched(name))
    return found


@pytest.mark.parametrize("path", ["disk", None])
@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("mixed", "chunks of numpy")])
def test_tokens_do_not_pass_through_the_host(tmp_path, device, clustered, monkeypatch, left, form, path):
    """The pilot does, a part of the sample, and what is written; rotations and centroids come from there."""
    monkeypatch.setattr(builder, "PILOT", 256)
    monkeypatch.setattr(builder, "MEASURED", 16)
    tensors, lengths = given(form, device, list(clustered([10] * 2000, 16)))
    if form == "all of one length":
        tensors = tensors.expand(10, -1, -1, -1).flatten(0, 1)
    left |= dict.fromkeys(left, 0)
    index = Index.build(
        tensors, path and tmp_path / path, lengths=lengths, device=device, ncentroids=10, progress=False
    )
    pilot, measured, centroids, rotations = 256 * 16, 16 * 64, 2 * (10 + 10) * 64, 2 * (16 + 1) * 16
    assert pilot + measured + centroids + rotations < index.tokens * 16 // 8
    assert 0 < max(left.values()) <= pilot + measured + centroids + rotations


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="this torch is built without CUDA")
@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("mixed", "chunks of numpy")])
def test_tokens_stay_on_a_gpu(clustered, form):
    """Without one, and without numbers: as far as they are read and put, which is where the host could come in."""
    operators = building.DeviceOperators("cpu")
    operators.device = torch.device("cuda")  # as `cuda` is, which is not equal to the `cuda:0` of a tensor
    operators.bad_rows = lambda tokens: (None, None)
    documents = list(clustered([10] * 60, 16))
    with FakeTensorMode():
        tensors, lengths = FORMS[form]([on_device(torch.from_numpy(tokens)) for tokens in documents])
        if isinstance(lengths, torch.Tensor):
            lengths = [10] * 60  # what has no numbers cannot say them
        elif form == "chunks":
            tensors = [(tokens, [10] * (len(tokens) // 10)) for tokens, _ in tensors]
        with Counted() as counted:
            found = read(tensors, lengths, allow_empty=False, spool=None, operators=operators)
            stream = Stream(found.lengths, found.chunks(70), operators)
            for size in (60, 10, 3):
                tokens = stream.take(size)
                assert isinstance(tokens, FakeTensor) and tokens.device == torch.device("cuda:0")
                assert tokens.shape == (size, found.dim) and tokens.is_contiguous()
            picked = operators.put(next(found.chunks(70))[np.array([1, 5])])
            assert isinstance(picked, FakeTensor) and picked.device == tokens.device
            assert counted.to_host == 0
            assert as_array(found.pilot(50), "doc_embs").shape <= (60, found.dim)
            assert counted.to_host == 1


def test_another_type_of_device_is_the_hosts_business(clustered):
    """Tensors of a CPU are arrays to a GPU's operators, until a chunk is put."""
    operators = building.DeviceOperators("cpu")
    tokens = torch.zeros(2, 3, requires_grad=True)
    assert operators.tokens(tokens, "doc_embs").data_ptr() == tokens.data_ptr()
    operators.device = torch.device("cuda")
    assert isinstance(operators.tokens(tokens, "doc_embs"), np.ndarray)


class Fickle:
    """Gives something else from the second or third pass on; it is asked for an iterator once more at first."""

    def __init__(self, *passes):
        self.passes, self.count = [passes[0], *passes], 0

    def __iter__(self):
        self.count += 1
        return iter(self.passes[min(self.count, len(self.passes)) - 1])


def ones(*lengths, dim=8):
    return [torch.ones(length, dim) for length in lengths]


def broken(value, row=(5,)):
    tokens = torch.ones(40, 8)
    tokens[(17, *row) if value else 17] = value
    return tokens


# What is refused, for CPU tensors: doc_embs, lengths, what is raised and what it says.
REFUSED = {
    "NaN": (lambda: broken(np.nan), [16, 24], ValueError, "token 1 of document 1 holds a NaN or an infinity"),
    "infinity": (lambda: broken(-np.inf), [16, 24], ValueError, "token 1 of document 1 holds a NaN or an infinity"),
    "zero": (lambda: broken(0), [16, 24], ValueError, "token 1 of document 1 is all zero, as padding is"),
    "minus zero": (lambda: -broken(0), [16, 24], ValueError, "token 1 of document 1 is all zero, as padding is"),
    "half": (lambda: broken(np.nan).half(), [16, 24], ValueError, "token 1 of document 1 holds a NaN or an infinity"),
    "bfloat16": (lambda: broken(0).bfloat16(), [16, 24], ValueError, "token 1 of document 1 is all zero"),
    "bad list": (lambda: [*broken(np.nan).split(10)], None, ValueError, "token 7 of document 1 holds a NaN"),
    "integers": (lambda: torch.ones(2, 8, dtype=torch.int64), [2], TypeError, "doc_embs must be .* got torch.int64"),
    "int8": (lambda: torch.ones(2, 8, dtype=torch.int8), [2], TypeError, "doc_embs must be float32, .* got int8"),
    "complex": (lambda: torch.ones(2, 8, dtype=torch.complex64), [2], TypeError, "must be .* got torch.complex64"),
    "sparse": (lambda: torch.eye(8).to_sparse(), [8], TypeError, "doc_embs must be a dense tensor"),
    "one of integers": (lambda: [*ones(2), torch.ones(2, 8).int()], None, TypeError, "document 1 must be float32"),
    "no lengths": (lambda: torch.ones(2, 8), None, ValueError, r"doc_embs is one \[T, dim\] array"),
    "too long": (lambda: torch.ones(2, 8), [3], ValueError, "lengths must add up to the number of tokens 2, got 3"),
    "negative": (lambda: torch.ones(2, 8), [3, -1], ValueError, "lengths must not be negative, got -1 at 1"),
    "no integers": (lambda: torch.ones(2, 8), [2.0], TypeError, "lengths must be a list of integers, got float64"),
    "padded": (lambda: torch.ones(1, 2, 8), [3], ValueError, "lengths must be 1 numbers from 0 to 2"),
    "one vector": (lambda: torch.ones(8), [1], ValueError, r"doc_embs must be \[T, dim\] .*, got \(8,\)"),
    "a vector": (lambda: [*ones(2), torch.ones(8)], None, ValueError, r"document 1 must be \[Ld, dim\], got \(8,\)"),
    "dims": (lambda: ones(2) + ones(2, dim=7), None, ValueError, "document 1 has dim 7, those before it 8"),
    "no dim": (lambda: torch.ones(2, 0), [2], ValueError, "doc_embs must have a dim from 1 to 4096, got 0"),
    "empty": (lambda: ones(2, 0, 3), None, ValueError, "document 1 has no tokens; pass allow_empty=True"),
    "empty, flat": (lambda: torch.ones(2, 8), [2, 0], ValueError, "document 1 has no tokens"),
    "empty, padded": (lambda: torch.ones(2, 3, 8), [2, 0], ValueError, "document 1 has no tokens"),
    "nothing": (lambda: torch.ones(0, 8), [], ValueError, "doc_embs must hold at least one token"),
    "changed": (lambda: Fickle(ones(2, 1, 2), ones(2, 1, 2), ones(2, 2, 1)), None, ValueError, "document 1 changed"),
    "shorter": (lambda: Fickle(ones(2, 1, 2), ones(2, 1)), None, ValueError, "gave 3 documents at first and 2 the"),
    "longer": (lambda: Fickle(ones(2, 1), ones(2, 1, 2)), None, ValueError, "document 2 changed"),
    "wider": (lambda: Fickle(ones(2), ones(2, dim=9)), None, ValueError, "document 0 has dim 9, those before it 8"),
    "worse": (
        lambda: Fickle([torch.ones(40, 8)], [torch.ones(40, 8)], [broken(np.nan)]),
        None,
        ValueError,
        "token 17 of document 0 holds a NaN",
    ),
}


def moved(source, place):
    """Tensors of a source on the device."""
    if isinstance(source, torch.Tensor):
        return source.to(place)
    if isinstance(source, Fickle):
        return Fickle(*([item.to(place) for item in items] for items in source.passes[1:]))
    return [item.to(place) for item in source]


@pytest.mark.parametrize("name", REFUSED)
def test_tensors_are_refused_alike(tmp_path, device, name):
    source, lengths, error, message = REFUSED[name]
    said = []
    for where in ("cpu", device):
        with pytest.raises(error, match=message) as raised:
            tensors = moved(source(), device.removeprefix("torch:"))
            Index.build(tensors, tmp_path / "index", lengths=lengths, device=where, progress=False)
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_bad_rows(device, kind):
    """The first of each, however many there are; the smallest numbers are not zero."""
    operators = building.DeviceOperators(device.removeprefix("torch:"))
    tokens = torch.full((20, 5), torch.finfo(kind).smallest_normal / 4, dtype=kind, device=operators.device)
    assert operators.bad_rows(tokens) == (None, None)
    tokens[[9, 4, 11]] = torch.tensor([0, 0, -0.0], dtype=kind, device=operators.device)[:, None]
    tokens[[13, 7, 8], 3] = torch.tensor([np.inf, -np.inf, np.nan], dtype=kind, device=operators.device)
    assert operators.bad_rows(tokens) == (7, 4)
    assert operators.bad_rows(tokens[8:]) == (0, 1)
    assert operators.bad_rows(tokens[14:]) == (None, None)
    too_large = torch.full((3, 5), 1e300, dtype=torch.float64, device=operators.device)
    assert operators.bad_rows(operators.put(too_large)) == (0, None)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_bad_tokens_are_refused_alike(device, clustered, value):
    documents = list(clustered([30] * 40))
    documents[17] = documents[17].copy()
    documents[17][5] = value
    messages = []
    for where in ("cpu", device):
        with pytest.raises(ValueError, match="token 5 of document 17") as raised:
            Index.build(documents, device=where, progress=False)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


def test_the_same_warning(device, clustered):
    tokens = clustered([50] * 20).tokens.copy()
    tokens[[3, 500]] *= 1000
    found = []
    for where in ("cpu", device):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Index.build(tokens, lengths=[50] * 20, device=where, progress=False)
        found.append([(str(warning.message), warning.filename) for warning in caught])
    assert found[0] == found[1]
    assert len(found[0]) == 1 and "2 of 1,000 tokens" in found[0][0][0] and found[0][0][1] == __file__
