"""`lateint_kernels.codes.building.Operators` on a device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lateint_kernels import backends
from lateint_kernels.arrays import BFLOAT16, Array, as_array
from lateint_kernels.codes.centroids import Subcells
from lateint_kernels.codes.index_tensors import CentreTensors, RotationTensors
from lateint_kernels.codes.residual import depth_of
from lateint_kernels.codes.torch import build
from lateint_kernels.codes.torch.search import kind
from lateint_kernels.ragged_tensor import FLOATS

ASSIGNED = {"cpu": 1 << 16, "cuda": 1 << 20}  # tokens that look for a centroid at a time
WORKSPACE = 4 << 30  # bytes on a GPU that do not grow with the input
COMPONENTS = 1 << 10  # of a token on each of so many chunks are encoded at a time: 2^25 of 2^15 tokens, as float32


class DeviceOperators:
    """Rows are int8 tensors, bytes less 128; ids are int32.

    Args:
        device: such as ``"cuda"`` or ``"cuda:1"``, or ``"cpu"``, which is for tests.
        backend: what rotates, finds centroids and encodes, ``"triton"`` or ``"torch"``; None: Triton on a GPU if it is
            there.

    Raises:
        BackendError: there is no such backend, or it cannot run there.
    """

    def __init__(self, device: str, backend: str | None = None) -> None:
        self.device = torch.device(device)
        self._kernels = backends.resolve("build", self.device, backend=backend)

    def chunks(self, dim: int) -> int:
        """See `lateint_kernels.codes.building.Operators`."""
        return max(1, min(32, COMPONENTS // dim))

    def check(self, **sizes: int) -> None:
        """Asks a GPU for what `device_bytes` says."""
        if self.device.type == "cuda":
            needed, free = device_bytes(**sizes), torch.cuda.mem_get_info(self.device)[0]
            if needed > free:
                raise MemoryError(f"the build takes {needed:,} bytes on {self.device}, of which only {free:,} are free")

    def release(self) -> None:
        """Torch keeps freed memory to itself, and the index is to be copied there next."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def tokens(self, x: Any, name: str) -> Array | Tensor:
        """Tensors on any device of the same type stay where they are; `put` fetches what is asked for from another."""
        stays = isinstance(x, Tensor) and x.device.type == self.device.type
        if stays and x.dtype in FLOATS and x.layout == torch.strided:
            return x.detach().resolve_neg()
        return as_array(x, name)  # to the host, or it says what is wrong

    def room(self, n: int, like: Array | Tensor) -> Array | Tensor:
        shape = n, like.shape[1]
        return like.new_empty(shape) if isinstance(like, Tensor) else np.empty(shape, like.dtype)

    def to_float32(self, tokens: Array | Tensor) -> Tensor:
        return self.put(tokens).float()

    def put(self, tokens: Array | Tensor) -> Tensor:
        there = tokens.to(self.device) if isinstance(tokens, Tensor) else self._put(tokens)
        return (there.float() if there.dtype == torch.float64 else there).contiguous()

    def bad_rows(self, tokens: Tensor) -> tuple[int | None, int | None]:
        """Waits for the device once."""
        peaks = tokens.abs().amax(1)  # NaN where there is one
        bad = torch.stack([~peaks.isfinite(), peaks == 0])
        n = len(peaks)
        nonfinite, zero = torch.where(bad, torch.arange(n, device=bad.device), n).amin(1).tolist()
        return nonfinite if nonfinite < n else None, zero if zero < n else None

    def empty(self, n: int, width: int) -> Tensor:
        return torch.empty((n, depth_of(width)), dtype=torch.int8, device=self.device)

    def rotation(
        self, mean: NDArray[np.float32], blocks: NDArray[np.float32], permutation: NDArray[np.int32], step: float
    ) -> Callable[[Tensor], Tensor]:
        centre = self._put(mean)
        turned = RotationTensors(self._put(blocks), self._put(permutation))
        inverse = float(np.float32(1) / np.float32(step))

        def rotate(tokens: Tensor) -> Tensor:
            found: Tensor = self._kernels.rotate((tokens.float() - centre).mul_(inverse), turned)
            return found

        return rotate

    def to_bytes(self, scaled: Tensor) -> Tensor:
        return build.to_bytes(scaled, depth_of(scaled.shape[1]))

    def peaks(self, rows: Tensor, scaled: Tensor, least: float) -> NDArray[np.float32]:
        found = scaled.abs().amax(1)
        peaks: NDArray[np.float32] = found[found > least].cpu().numpy()
        return peaks

    def assigner(
        self, rows: Tensor, cells: Tensor, cell_offsets: NDArray[np.int64], subcells: Subcells | None
    ) -> Callable[[Tensor, int], Tensor]:
        table, centres = CentreTensors.of(rows), CentreTensors.of(cells)
        offsets = self._put(cell_offsets)
        divided = None if subcells is None else self._subcells(rows, subcells)

        def nearest(tokens: Tensor, searched: int) -> Tensor:
            if searched <= 0 or searched >= len(cells):
                return build.id_of(self._kernels.best(tokens, table, 1)[:, 0], len(rows))
            routed = build.id_of(self._kernels.best(tokens, centres, searched), len(cells))
            if divided is not None:
                return self._nearest_of_subcells(tokens, routed, divided)
            keys = self._kernels.best_of_cells(tokens, routed, table, offsets)
            return build.id_of(keys.amax(1), len(rows))

        def nearest_of_all(tokens: Tensor, searched: int) -> Tensor:
            return torch.cat([nearest(part, searched) for part in tokens.split(ASSIGNED[kind(tokens)])])

        return nearest_of_all

    def _subcells(self, rows: Tensor, found: Subcells) -> "_Subcells":
        members = self._put(found.members.astype(np.int64))
        centres = CentreTensors.of(self.rows(found.centres))
        return _Subcells(
            centres, self._put(found.first), CentreTensors.of(rows[members]), self._put(found.offsets), members
        )

    def _nearest_of_subcells(self, tokens: Tensor, cells: Tensor, of: "_Subcells") -> Tensor:
        """Of tokens next to their cells ``[n, m]``, the nearest one first: m subcells of it, m - 1 of the next, ..."""
        keys = self._kernels.all_of_cells(tokens, cells, of.centres, of.first)
        looked_into = []
        for rank in range(cells.shape[1]):
            best = keys[:, rank].topk(cells.shape[1] - rank, dim=1).values  # the best one first, which is there
            looked_into.append(build.id_of(torch.where(best == build.ABSENT, best[:, :1], best), len(of.centres.rows)))
        keys = self._kernels.best_of_cells(tokens, torch.cat(looked_into, 1), of.centroids, of.offsets)
        count = len(of.members)
        ids = of.members[build.id_of(keys, count).to(torch.int64)]  # of places, whose order is not that of ids
        return build.id_of(((keys >> 24 << 24) + (count - 1 - ids)).amax(1), count)

    def take(self, rows: Tensor, index: NDArray[np.int64]) -> Tensor:
        return rows[self._put(index)]

    def sort(self, rows: Tensor, ids: Tensor, count: int) -> tuple[Tensor, NDArray[np.int64]]:
        members: NDArray[np.int64] = torch.bincount(ids, minlength=count).cpu().numpy()
        return rows[ids.argsort(stable=True)], members

    def means(self, rows: Tensor, ids: Tensor, count: int, others: Callable[[int], NDArray[np.int64]]) -> Tensor:
        means, members = build.means(rows, ids, count)
        empty = (members == 0).nonzero()[:, 0]
        if len(empty):
            means[empty] = self.take(rows, others(len(empty)))
        return means

    def encode(self, scaled: Tensor, ids: Tensor, rows: Tensor, nbits: int) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self._kernels.encode(scaled, ids, rows, nbits)
        return found

    def invert(
        self, ids: NDArray[np.uint32], offsets: NDArray[np.int64], count: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        list_offsets, documents = build.invert(self._put(ids.view(np.int32)), self._put(offsets), count)
        return list_offsets.cpu().numpy(), documents.cpu().numpy().view(np.uint32)

    def rows(self, array: NDArray[np.uint8]) -> Tensor:
        return self._put((array ^ np.uint8(128)).view(np.int8))

    def host(self, array: Tensor) -> NDArray[Any]:
        found: NDArray[Any] = array.cpu().numpy()
        if array.dtype == torch.int8:
            found = found.view(np.uint8) ^ np.uint8(128)
        return found.view(np.uint32) if array.dtype == torch.int32 else found

    def _put(self, array: NDArray[Any]) -> Tensor:
        """Copies to the device, through pinned memory on the way to a GPU, for an array may be a mapped file."""
        bits = array.view(np.int16) if array.dtype == BFLOAT16 else array
        dtype = torch.from_numpy(np.empty(0, bits.dtype)).dtype
        staged = torch.empty(bits.shape, dtype=dtype, pin_memory=self.device.type == "cuda")
        np.copyto(staged.numpy(), bits)
        there = staged.to(self.device, non_blocking=True)
        return there.view(torch.bfloat16) if array.dtype == BFLOAT16 else there


class _Subcells(NamedTuple):
    """`lateint_kernels.codes.centroids.Subcells`, with the centroids in the order of their subcells."""

    centres: CentreTensors
    first: Tensor
    centroids: CentreTensors
    offsets: Tensor
    members: Tensor


def device_bytes(*, dim: int, centroids: int, sample: int, segment_tokens: int, segment_documents: int) -> int:
    """Of memory on a GPU that a build takes at most: see docs/scale.md."""
    depth = depth_of(dim)
    learning = sample * (depth + 8) + 8 * centroids * (depth + 8)
    lists = 12 * segment_tokens + 8 * segment_documents + centroids * (2 * depth + 48)
    return max(learning, lists) + WORKSPACE
