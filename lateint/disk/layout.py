"""What an index consists of: every array with its dtype and shape, as docs/format.md lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lateint.disk.manifest import INT, Manifest, Segment
from lateint_kernels.codes.residual import depth_of

SHORT_IDS = 1 << 16  # with more centroids than that, their ids have a third byte
# What arrays belong to.
PARTS = ("codes", "scales", "centroid_ids", "lists", "documents", "codec", "texts", "metadata", "postings", "sparse")
# Arrays of each group that a segment may have: name, type, and how many more than documents; None: any number.
GROUPS: Mapping[str, tuple[tuple[str, str, int | None], ...]] = {
    "texts": (("text_offsets", "<i8", 1), ("text_bytes", "|u1", None)),
    "metadata": (
        ("metadata_offsets", "<i8", 1),
        ("metadata_bytes", "|u1", None),
        ("field_table", "|u1", None),
        ("field_data", "|u1", None),
    ),
    "postings": (
        ("text_lengths", "<u4", 0),
        ("term_bytes", "|u1", None),
        ("term_offsets", "<i8", None),
        ("posting_offsets", "<i8", None),
        ("posting_documents", "<u4", None),
        ("posting_counts", "|u1", None),
        ("large_postings", "<i8", None),
        ("large_counts", "<u4", None),
    ),
    "sparse": (
        ("sparse_term_bytes", "|u1", None),
        ("sparse_term_offsets", "<i8", None),
        ("sparse_posting_offsets", "<i8", None),
        ("sparse_posting_documents", "<u4", None),
        ("sparse_posting_weights", "<f2", None),
    ),
}


@dataclass(frozen=True)
class Kind:
    """What an array must be.

    Attributes:
        name: with the folder of its segment, without ``.npy``.
        dtype: as numpy writes it, byte order first.
        shape: -1 stands for any length.
        part: one of `PARTS`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    part: str

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join('n' if size < 0 else str(size) for size in self.shape)}]"

    def fits(self, dtype: str, shape: Sequence[int]) -> bool:
        """Whether an array of this dtype and shape will do."""
        return (
            dtype == self.dtype
            and len(shape) == len(self.shape)
            and all(
                [
                    type(got) is int and want in (got, -1) and got >= 0
                    for want, got in zip(self.shape, shape, strict=True)
                ]
            )
        )


def kinds(manifest: Manifest) -> dict[str, Kind]:
    """Every array that an index with this manifest has, by its name, that of the codec's folder included.

    Raises:
        ValueError: two of them have the same name, or a segment has a group that is not known.
    """
    kinds = {manifest.codec_array(kind.name): kind for kind in codec_kinds(manifest)}
    for segment in manifest.segments:
        for kind in segment_kinds(segment, manifest):
            if kind.name in kinds:
                raise ValueError(f"two arrays cannot both be {kind.name}")
            kinds[kind.name] = kind
    return kinds


def codec_kinds(manifest: Manifest) -> Iterator[Kind]:
    """Every array of the codec, without its folder."""
    dim, width, block, count, cells = (
        manifest.dim, manifest.width, manifest.block, manifest.centroids, manifest.cells
    )  # fmt: skip
    depth = depth_of(width)
    yield Kind("mean", "<f4", (dim,), "codec")
    yield Kind("rotation", "<f4", (width // block, block, block), "codec")
    yield Kind("permutation", "<i4", (width,), "codec")
    yield Kind("centroids", "|u1", (count, depth), "codec")
    yield Kind("cells", "|u1", (cells, depth), "codec")
    yield Kind("cell_offsets", "<i8", (cells + 1,), "codec")


def segment_kinds(segment: Segment, manifest: Manifest) -> Iterator[Kind]:
    """Every array of a segment."""
    name, documents, tokens = segment.name, segment.documents, segment.tokens
    yield Kind(f"{name}/offsets", "<i8", (documents + 1,), "documents")
    yield Kind(f"{name}/codes", "|u1", (tokens, manifest.width * manifest.nbits // 8), "codes")
    if manifest.nbits < 8:
        yield Kind(f"{name}/scales", "|u1", (tokens,), "scales")
    yield Kind(f"{name}/centroid_ids", "<u2", (tokens,), "centroid_ids")
    if manifest.centroids > SHORT_IDS:
        yield Kind(f"{name}/centroid_high", "|u1", (tokens,), "centroid_ids")
    lists = manifest.centroids if segment.lists is None else segment.lists
    if segment.lists is not None:
        yield Kind(f"{name}/list_centroids", "<u4", (lists,), "lists")
    yield Kind(f"{name}/list_offsets", "<i8", (lists + 1,), "lists")
    yield Kind(f"{name}/list_documents", "<u4", (-1,), "lists")
    if manifest.ids == INT:
        yield Kind(f"{name}/ids", "<i8", (documents,), "documents")
    else:
        yield Kind(f"{name}/id_bytes", "|u1", (-1,), "documents")
        yield Kind(f"{name}/id_offsets", "<i8", (documents + 1,), "documents")
    if segment.hashed:
        yield Kind(f"{name}/id_hash", "<u8", (documents,), "documents")
        yield Kind(f"{name}/id_row", "<u4", (documents,), "documents")
    for group in segment.groups:
        if group not in GROUPS:
            raise ValueError(f"segments cannot have {group!r}, which a newer lateint may know")
        for leaf, dtype, more in GROUPS[group]:
            yield Kind(f"{name}/{leaf}", dtype, (-1 if more is None else documents + more,), group)
    if (deleted := segment.deleted) is not None:
        if deleted.mask:
            yield Kind(deleted.array, "|u1", (-(-documents // 8),), "documents")
        else:
            many = -1 if deleted.documents is None else deleted.documents
            yield Kind(deleted.array, "<u4", (many,), "documents")
