"""The engines that are compared, their indexes, and the settings that each is searched with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Setting = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One index of a system: its name in tables, what its builder is given, and settings after the default one."""

    name: str
    options: dict[str, Any]
    settings: tuple[Setting, ...] = ()
    default: Setting | None = None  # where the library's own has to be spelled out


@dataclass(frozen=True)
class System:
    """One engine: the module of its adapter, the environment that install.sh made for it, and its indexes."""

    name: str
    module: str
    environment: str | None  # None: that of the driver
    variants: tuple[Variant, ...]
    most_tokens: int | None = None  # of a collection that it is asked

    @property
    def own(self) -> bool:
        """Whether this is lateint, which changes from run to run."""
        return self.environment is None


EXHAUSTIVE: Setting = {"exhaustive": True}


def pruned(nprobe: int, candidates: int) -> Setting:
    """A setting of lateint."""
    return {"nprobe": nprobe, "candidates": candidates}


def plaid(full: int, probe: int) -> Setting:
    """A setting of fast-plaid."""
    return {"n_full_scores": full, "n_ivf_probe": probe}


def tachiom(centroids: int, documents: int, **others: float) -> Setting:
    """A setting of TACHIOM."""
    return {"k_centroids": centroids, "k_docs_to_score": documents, **others}


LATEINT = tuple(pruned(*pair) for pair in ((4, 24), (8, 32), (8, 64), (16, 64), (32, 128), (64, 256), (128, 1024)))
TACHIOM = (
    tachiom(10, 200),
    tachiom(10, 200, beta=10),  # stops after ten documents that are not among the best
    tachiom(20, 500, beta=30),
    tachiom(40, 500),
    tachiom(40, 1000),
    tachiom(80, 2000, alpha=0.9),  # prunes fewer by their coarse scores
)

SYSTEMS = (
    System(
        "lateint",
        "lateint",
        None,
        (
            Variant("4 bits", {"nbits": 4}, (*LATEINT, EXHAUSTIVE)),
            Variant("2 bits", {"nbits": 2}, (*LATEINT, EXHAUSTIVE)),
        ),
    ),
    System(
        "fast-plaid",
        "fast_plaid",
        "torch",
        (Variant("4 bits", {"nbits": 4}, (plaid(256, 4), plaid(1024, 8)), plaid(4096, 8)),),
    ),
    System(
        "xtr-warp-rs",
        "xtr_warp",
        "torch",
        (
            Variant(
                "4 bits",
                {"nbits": 4},
                ({"nprobe": 32}, {"nprobe": 64}, {"nprobe": 128}, {"nprobe": 128, "t_prime": 400_000}),
            ),
        ),
    ),
    System(
        "TACHIOM",
        "tachiom",
        "tachiom",
        (
            Variant("32 B of codes", {}, TACHIOM),  # its default
            Variant("64 B of codes", {"pq_subspaces": 64}, TACHIOM),  # as many as 4 bits a dimension
        ),
    ),
    System(
        "colsearch",
        "colsearch",
        "colsearch",
        (
            Variant("1.58 bits", {}, ({"k_candidates": 500},)),  # its default
            Variant("float16", {"compression": "fp16"}),
        ),
    ),
    System(
        "LanceDB",
        "lancedb",
        "lancedb",
        (Variant("IVF_PQ", {}, ({"refine_factor": 10}, {"nprobes": 50, "refine_factor": 20})),),
    ),
    System("Qdrant local mode", "qdrant", "qdrant", (Variant("float32", {}),), most_tokens=600_000),
    System("torch exact", "torch_exact", "torch", (Variant("float32", {}),)),
)
