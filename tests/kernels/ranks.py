"""The ranks of test_distributed.py: each computes on its share of a batch and saves what it found.

``python ranks.py WORLD FOLDER``; each group of the first 2, 3, ... WORLD ranks trains one step in every way.
"""

import importlib
import multiprocessing
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn import functional

from lateint_kernels import RaggedTensor, losses, maxsim
from lateint_kernels.distributed import gather_documents, gather_rows, global_mean
from lateint_kernels.gradcache import cached_contrastive

# Of each rank: queries, documents, tokens of its longest document, and whether it has a mask. Nothing is equal.
SHARES = [(3, 5, 4, True), (1, 2, 7, False), (2, 3, 1, False), (0, 1, 5, True)]
WAYS = [("ddp", False, False), ("ddp", True, True), ("fsdp", False, True), ("fsdp", True, False)]
FEATURES, DIM, QUERY_LENGTH = 6, 5, 3


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 8), torch.nn.Tanh(), torch.nn.Linear(8, DIM)
        ).double()

    def forward(self, *inputs):
        return [functional.normalize(self.layers(x), dim=-1) for x in inputs]


def share(rank):
    """Queries, documents and mask of a rank."""
    n_queries, n_documents, length, masked = SHARES[rank]
    generator = torch.Generator().manual_seed(rank)
    queries = torch.randn(n_queries, QUERY_LENGTH, FEATURES, generator=generator, dtype=torch.float64)
    documents = torch.randn(n_documents, length, FEATURES, generator=generator, dtype=torch.float64)
    if not masked:
        return queries, documents, None
    lengths = torch.randint(1, length + 1, (n_documents,), generator=generator)
    return queries, documents, torch.arange(length) < lengths[:, None]


def ids_and_corpora(rank):
    """Of each document: some are the same, on different ranks too."""
    numbers = torch.arange(SHARES[rank][1])
    return numbers * 3 % 4 + 2 * (numbers > 1), numbers % 2


def step(encoder, rank, group, symmetric, packed):
    """The loss of a rank, as lateint_kernels.distributed says it is to be computed."""
    queries, documents, mask = share(rank)
    queries, documents = encoder(queries, documents)
    if packed:
        mask = torch.ones(documents.shape[:2]) if mask is None else mask
        documents, mask = RaggedTensor.from_padded(documents, mask), None
    everyone = gather_documents(documents, mask, group=group)
    scores = maxsim(queries, everyone.documents, document_mask=everyone.mask)
    ids, corpora = (gather_rows(x, group=group) for x in ids_and_corpora(rank))
    positives = everyone.start + torch.arange(len(queries))
    options = dict(temperature=0.5, document_ids=ids, document_corpora=corpora)
    if symmetric:
        positives = gather_rows(positives, group=group)
        return losses.contrastive(gather_rows(scores, group=group), positives, symmetric=True, **options)
    return global_mean(losses.contrastive(scores, positives, reduction="none", **options), group=group)


def even_share(rank):
    """Equally many queries and documents on every rank, as chunks of some wrappers must be; lengths still differ."""
    generator = torch.Generator().manual_seed(100 + rank)
    queries = torch.randn(3, QUERY_LENGTH, FEATURES, generator=generator, dtype=torch.float64)
    return queries, torch.randn(5, 2 + rank, FEATURES, generator=generator, dtype=torch.float64)


def cached_step(encoder, rank, group, symmetric):
    queries, documents = even_share(rank)

    def encode(x):
        return encoder(x)[0]

    return cached_contrastive(
        encode, queries, encode, documents, chunk_size=2, temperature=0.5, symmetric=symmetric, group=group
    )


def gradients(module):
    found = (p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in module.parameters())
    return torch.cat([gradient.flatten() for gradient in found])


def wrapped(wrapper, group, n):
    encoder = Encoder()
    if wrapper == "ddp":
        return torch.nn.parallel.DistributedDataParallel(encoder, process_group=group)
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    mesh = DeviceMesh.from_group(group, "cpu", torch.arange(n))
    for layer in encoder.layers:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(encoder, mesh=mesh)


def main(rank, world, folder):
    torch.set_num_threads(1)
    rendezvous = (folder / "rendezvous").as_uri()
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world)
    found = {}
    for n in range(2, world + 1):
        group = dist.new_group(list(range(n)))
        if rank >= n:
            continue
        for wrapper, symmetric, packed in WAYS:
            encoder = wrapped(wrapper, group, n)
            loss = step(encoder, rank, group, symmetric, packed)
            loss.backward()
            found[n, wrapper, symmetric, packed] = loss.detach(), gradients(encoder)
        for wrapper in ("ddp", "fsdp"):
            for symmetric in (False, True):
                encoder = wrapped(wrapper, group, n)
                loss = cached_step(encoder, rank, group, symmetric)
                loss.backward()
                found[n, wrapper, symmetric, "cached"] = loss.detach(), gradients(encoder)
        found[n, "rounding"] = rounding(rank, group)
        found[n, "mean"] = uneven_mean(rank, group, n)
        found[n, "errors"] = errors(rank, group)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def rounding(rank, group):
    """The gradient of a row that every rank uses once, its weight 1 on rank 0 and 2^-9 elsewhere."""
    row = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    everyone = gather_rows(row, group=group)
    (everyone[0] * (1.0 if rank == 0 else 2.0**-9)).sum().backward()
    return row.grad


def uneven_mean(rank, group, n):
    """The last rank has no query; the others one more than their number."""
    own = torch.arange(0.0 if rank == n - 1 else rank + 1.0, requires_grad=True)
    loss = global_mean(own * own, group=group)
    loss.backward()
    return loss.detach(), own.grad


def errors(rank, group):
    """What a rank that differs from the others is told."""
    calls = [
        lambda: gather_documents(torch.zeros(1, 2, 3 + rank), group=group),
        lambda: gather_rows(torch.zeros(1, 2 + rank), group=group),
        lambda: global_mean(torch.zeros(0), group=group),
    ]
    messages = []
    for call in calls:
        try:
            call()
        except ValueError as error:
            messages.append(str(error))
    return messages


if __name__ == "__main__":
    # Forked, so that torch is imported once; nothing has been computed yet, so there is no thread to lose.
    for module in ("torch._dynamo", "torch.distributed.fsdp"):  # which each rank would import by itself
        importlib.import_module(module)
    world, folder = int(sys.argv[1]), Path(sys.argv[2])
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=main, args=(rank, world, folder), daemon=True) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode for process in processes))
