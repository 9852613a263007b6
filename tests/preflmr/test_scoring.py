import os
import socket
import subprocess
import sys
import textwrap

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from preflmr.model.scoring import loss_of_batch, loss_of_own  # noqa: E402

EACH, RANKS = 3, 2
# A rank's part of the batch, whose rows are functions of one shared weight, and what it finds.
PROGRAM = """
import sys
import torch
import torch.distributed as dist
from preflmr.model.scoring import loss_of_batch

rank, folder, port = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
batch = torch.load(f"{folder}/batch{rank}.pt")
weight = torch.load(f"{folder}/weight.pt").requires_grad_()
q, d = batch["queries"] @ weight, batch["documents"] @ weight
loss, scores = loss_of_batch(q, batch["query_mask"], d, batch["mask"], 3, across_devices=True)
loss.backward()
torch.save((loss.detach(), scores.detach(), weight.grad), f"{folder}/found{rank}.pt")
dist.destroy_process_group()
"""


def batch(seed, queries=2):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(queries * EACH, 7, generator=generator) > 0.3
    mask[:, 0] = True
    return {
        "queries": torch.randn(queries, 5, 8, generator=generator, dtype=torch.float64),
        "query_mask": torch.rand(queries, 5, generator=generator) > 0.2,
        "documents": torch.randn(queries * EACH, 7, 8, generator=generator, dtype=torch.float64),
        "mask": mask,
    }


def plain(q, query_mask, d, mask):
    pairs = torch.einsum("aik,bjk->abij", q, d).masked_fill(~mask[None, :, None, :], -9999)
    return (pairs.amax(3) * query_mask[:, None]).sum(2)


def test_losses_of_one_process():
    one = batch(0)
    rows = (one["queries"], one["query_mask"], one["documents"], one["mask"])
    scores = plain(*rows)
    loss, own = loss_of_batch(*rows, EACH, across_devices=False)
    expected = torch.stack([scores[0, :3], scores[1, 3:]])
    torch.testing.assert_close(own, expected)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(scores, torch.tensor([0, 3])))
    loss, own = loss_of_own(*rows, EACH)
    torch.testing.assert_close(own, expected)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(expected, torch.tensor([0, 0])))
    alone = loss_of_batch(*rows, EACH, across_devices=True)  # no process group: one rank
    torch.testing.assert_close(alone[0], loss_of_batch(*rows, EACH, across_devices=False)[0])


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_ranks_find_the_loss_of_one(tmp_path):
    shares = [batch(rank, queries=2 + rank) for rank in range(RANKS)]
    weight = torch.randn(8, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    torch.save(weight, tmp_path / "weight.pt")
    for rank, share in enumerate(shares):
        torch.save(share, tmp_path / f"batch{rank}.pt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    running = [
        subprocess.Popen([*command, str(rank), str(tmp_path), str(port)], env=environment) for rank in range(RANKS)
    ]
    assert [process.wait(timeout=120) for process in running] == [0] * RANKS
    found = [torch.load(tmp_path / f"found{rank}.pt") for rank in range(RANKS)]

    weight.requires_grad_()
    whole = {name: torch.cat([share[name] for share in shares]) for name in shares[0]}
    rows = (whole["queries"] @ weight, whole["query_mask"], whole["documents"] @ weight, whole["mask"])
    loss, scores = loss_of_batch(*rows, EACH, across_devices=False)
    loss.backward()
    for own_loss, own_scores, _ in found:
        torch.testing.assert_close(own_loss, loss.detach())
        torch.testing.assert_close(own_scores, scores.detach())
    torch.testing.assert_close(sum(gradient for _, _, gradient in found), weight.grad)
