"""n ranks must find the loss and gradients of one process; the ranks themselves are ranks.py."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.distributed.is_available():
    pytest.skip("torch was built without distributed", allow_module_level=True)

from filelock import FileLock  # noqa: E402  # which torch brings

from lateint_kernels import RaggedTensor, losses, maxsim  # noqa: E402
from lateint_kernels.distributed import gather_documents, gather_rows, global_mean  # noqa: E402

WORLD = 4
PROGRAM = Path(__file__).with_name("ranks.py")
SPEC = importlib.util.spec_from_file_location("ranks", PROGRAM)
ranks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ranks)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each rank found; started once for all processes of the suite, for importing torch takes longest."""
    folder = tmp_path_factory.mktemp("ranks")
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = tmp_path_factory.getbasetemp().parent / "ranks"
        folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GLOO_SOCKET_IFNAME": "lo"}
    with FileLock(folder / "lock"):
        if not (folder / "done").exists():
            subprocess.run([sys.executable, PROGRAM, str(WORLD), folder], env=environment, check=True, timeout=120)
            (folder / "done").touch()
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def single_process(n, symmetric):
    """The same batch in one process: all ranks' queries, padded documents, ids and corpora, by rank."""
    shares = [ranks.share(rank) for rank in range(n)]
    longest = max(documents.shape[1] for _, documents, _ in shares)
    queries = torch.cat([queries for queries, _, _ in shares])
    padded, masks, positives = [], [], []
    for own_queries, documents, mask in shares:
        missing = longest - documents.shape[1]
        mask = torch.ones(documents.shape[:2], dtype=torch.bool) if mask is None else mask
        positives += [sum(map(len, padded)) + i for i in range(len(own_queries))]
        padded.append(torch.nn.functional.pad(documents, (0, 0, 0, missing)))
        masks.append(torch.nn.functional.pad(mask, (0, missing)))
    ids, corpora = (torch.cat(x) for x in zip(*map(ranks.ids_and_corpora, range(n)), strict=True))
    encoder = ranks.Encoder()
    queries, documents = encoder(queries, torch.cat(padded))
    loss = losses.contrastive(
        maxsim(queries, documents, document_mask=torch.cat(masks)),
        torch.tensor(positives),
        temperature=0.5,
        document_ids=ids,
        document_corpora=corpora,
        symmetric=symmetric,
    )
    loss.backward()
    return loss.detach(), ranks.gradients(encoder)


def assert_same_step(own, loss, gradients, symmetric):
    assert gradients.abs().max() > 1e-3
    torch.testing.assert_close(torch.stack([one for one, _ in own]).mean(), loss, rtol=1e-12, atol=0)
    if symmetric:  # every rank computes the whole loss
        torch.testing.assert_close(own[-1][0], loss, rtol=1e-12, atol=0)
    for _, averaged in own:
        torch.testing.assert_close(averaged, gradients, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("wrapper", "symmetric", "packed"), ranks.WAYS)
@pytest.mark.parametrize("n", range(2, WORLD + 1))
def test_ranks_find_what_one_process_finds(found, n, wrapper, symmetric, packed):
    own = [found[rank][n, wrapper, symmetric, packed] for rank in range(n)]
    assert_same_step(own, *single_process(n, symmetric), symmetric)


@pytest.mark.parametrize("symmetric", [False, True], ids=["rows", "symmetric"])
@pytest.mark.parametrize("wrapper", ["ddp", "fsdp"])
@pytest.mark.parametrize("n", range(2, WORLD + 1))
def test_cached_chunks_on_ranks(found, n, wrapper, symmetric):
    encoder = ranks.Encoder()
    shares = [ranks.even_share(rank) for rank in range(n)]
    queries = torch.cat([queries for queries, _ in shares])
    documents = [encoder(documents)[0] for _, documents in shares]
    scores = maxsim(encoder(queries)[0], [tokens for batch in documents for tokens in batch])
    positives = (torch.arange(n)[:, None] * 5 + torch.arange(3)).flatten()
    loss = losses.contrastive(scores, positives, temperature=0.5, symmetric=symmetric)
    loss.backward()
    own = [found[rank][n, wrapper, symmetric, "cached"] for rank in range(n)]
    assert_same_step(own, loss.detach(), ranks.gradients(encoder), symmetric)


@pytest.mark.parametrize("n", range(2, WORLD + 1))
def test_gradients_are_summed_in_float32(found, n):
    """1 + 2^-9 + 2^-9 is 1 in bfloat16 if rounded after each addition, and with three of them 1.0078125 if once."""
    exact = torch.tensor(1.0 + (n - 1) * 2.0**-9).bfloat16()
    assert found[0][n, "rounding"].item() == exact.item()
    assert all(found[rank][n, "rounding"].item() == 0 for rank in range(1, n))


@pytest.mark.parametrize("n", range(2, WORLD + 1))
def test_a_rank_without_queries(found, n):
    whole = torch.cat([torch.arange(rank + 1.0) for rank in range(n - 1)])
    means, gradients = zip(*(found[rank][n, "mean"] for rank in range(n)), strict=True)
    assert sum(means).item() / n == pytest.approx(whole.square().mean().item())
    torch.testing.assert_close(torch.cat(gradients) / n, 2 * whole / len(whole))


def test_ranks_that_differ_are_told(found):
    for rank in range(2):
        assert found[rank][2, "errors"] == [
            "documents must share dim over ranks, got 3 on rank 0 and 4 on rank 1",
            "values must have rows of one shape over ranks, got (2,) on rank 0 and (3,) on rank 1",
            "losses must not be empty on every rank",
        ]


def test_one_process_sends_nothing():
    documents, mask = torch.randn(3, 4, 5), torch.ones(3, 4)
    everyone = gather_documents(documents, mask)
    assert everyone.documents.data_ptr() == documents.data_ptr()
    assert everyone.mask.dtype == torch.bool and everyone.mask.all() and everyone.start == 0
    assert gather_documents(documents).mask is None
    assert gather_rows(documents) is documents
    packed = gather_documents(RaggedTensor.pack(list(documents)))
    assert packed.documents.tokens.shape == (12, 5) and packed.mask is None
    assert global_mean(torch.tensor([1.0, 2.0])).item() == 1.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gather_documents(torch.zeros(2, 3)), r"documents must be \[Nd, Ld, dim\] or packed, got \(2, 3\)"),
        (lambda: gather_documents(torch.zeros(2, 3, 4), torch.ones(2, 4)), r"mask must be \[2, 3\], got \(2, 4\)"),
        (lambda: gather_rows(torch.tensor(1.0)), "values must have rows, got a scalar"),
        (lambda: global_mean(torch.tensor(1.0)), r"losses must be \[Nq\], got \(\)"),
        (lambda: global_mean(torch.zeros(0)), "losses must not be empty on every rank"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
