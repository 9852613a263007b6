"""How well codes keep tokens: ours, their parts, and ColBERT's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from benchmarks.design.sample import (
    PROBE_TOKENS,
    Coded,
    Row,
    Sample,
    code,
    engine_of,
    exhaustive,
    learned_rotation,
    overlap,
    ranked,
)
from benchmarks.embeddings import exact_top
from lateint.indexing import clustering
from lateint.indexing.codec import REACH
from lateint_kernels.codes import residual
from lateint_kernels.codes.building import HostOperators


def product_error(sample: Sample, decoded: np.ndarray) -> float:
    """Root mean square error of <q, x> with ``decoded`` [PROBE_TOKENS, dim] for the tokens ``sample.picks``."""
    wrong = decoded.astype(np.float32) - sample.tokens[sample.picks].astype(np.float32)
    return float(np.sqrt(np.mean((sample.query_tokens @ wrong.T) ** 2)))


def uniform_codes(rest: np.ndarray, nbits: int, distance: np.ndarray) -> np.ndarray:
    """Nearest of ``2**nbits`` uniform levels, as the multiple of ``distance`` that it stands for."""
    top = 2**nbits - 1
    return np.clip(np.round(rest / np.maximum(distance, 1e-30) + top / 2), 0, top) - top / 2


def in_floats(coded: Coded, picks: np.ndarray, nbits: int) -> np.ndarray:
    """Our codec with nothing cut to bytes: float means of the clusters, a float scale, float levels."""
    width = coded.scaled.shape[1]
    sums = np.zeros((len(coded.centroids), width))
    order = np.argsort(coded.ids, kind="stable")
    members = np.bincount(coded.ids, minlength=len(sums))
    for begin in range(0, len(order), 1 << 17):  # np.add.at on sorted runs, without a copy of all tokens
        part = order[begin : begin + (1 << 17)]
        heads = np.flatnonzero(np.r_[True, np.diff(coded.ids[part]) > 0])
        sums[coded.ids[part[heads]]] += np.add.reduceat(coded.scaled[part], heads, axis=0)
    means = (sums / np.maximum(members, 1)[:, None]).astype(np.float32)
    rest = coded.scaled[picks] - means[coded.ids[picks]]
    distance = {1: 1.596, 2: 0.996, 4: 0.335}[nbits] * np.sqrt(np.mean(rest**2, axis=1, keepdims=True))
    for _ in range(3):
        levels = uniform_codes(rest, nbits, distance)
        distance = (rest * levels).sum(1, keepdims=True) / (levels**2).sum(1, keepdims=True)
    return means[coded.ids[picks]] + uniform_codes(rest, nbits, distance) * distance


def one_scale_for_all(coded: Coded, nbits: int) -> np.ndarray:
    """Decoded bytes ``[N, width]`` with the same level distance for every token, the best for their squared error."""
    width = coded.scaled.shape[1]
    some = slice(None, None, max(1, len(coded.ids) // PROBE_TOKENS))
    rest = coded.scaled[some] - (coded.centroids.rows[coded.ids[some], :width].astype(np.float32) - 128)
    start = {1: 1.596, 2: 0.996, 4: 0.335}[nbits] * rest.std()
    distances = start * np.linspace(0.6, 1.8, 25)
    distance = distances[np.argmin([np.mean((uniform_codes(rest, nbits, d) * d - rest) ** 2) for d in distances])]
    rows = np.empty((len(coded.ids), width), np.uint8)
    for begin in range(0, len(rows), 1 << 16):
        part = slice(begin, begin + (1 << 16))
        centres = coded.centroids.rows[coded.ids[part], :width].astype(np.float32)
        levels = uniform_codes(coded.scaled[part] - (centres - 128), nbits, distance) * distance
        rows[part] = np.clip(np.round(centres + levels), 0, 255)
    return rows


class ColbertCodec:
    """ColBERTv2's codec: levels are quantiles of all residual components together, decoded tokens have unit norm.

    Centroids are the float32 means of the clusters that our k-means found, without ColBERT's normalisation of them,
    and a token takes the nearest: both make its residuals smaller than in the original.
    """

    def __init__(self, sample: Sample, coded: Coded) -> None:
        self.tokens = sample.tokens
        self.ids = clustering.assigner(coded.centroids, HostOperators(), 0)(coded.rows)
        count = len(coded.centroids)
        sums = np.zeros((count, sample.tokens.shape[1]))
        for begin in range(0, len(self.ids), 1 << 17):
            ids = self.ids[begin : begin + (1 << 17)]
            order = np.argsort(ids, kind="stable")
            heads = np.flatnonzero(np.r_[True, np.diff(ids[order]) > 0])
            part = self.tokens[begin : begin + (1 << 17)][order].astype(np.float32)
            sums[ids[order[heads]]] += np.add.reduceat(part, heads, axis=0)
        members = np.bincount(self.ids, minlength=count)
        self.centroids = (sums / np.maximum(members, 1)[:, None]).astype(np.float32)
        self.held_out = self.tokens[sample.picks].astype(np.float32) - self.centroids[self.ids[sample.picks]]

    def decode(self, nbits: int, rows: np.ndarray | slice) -> np.ndarray:
        """Tokens ``rows`` as they come back from codes of ``nbits``."""
        shares = np.arange(2**nbits) / 2**nbits
        cuts, weights = np.quantile(self.held_out, shares[1:]), np.quantile(self.held_out, shares + 0.5 / 2**nbits)
        centres = self.centroids[self.ids[rows]]
        rest = self.tokens[rows].astype(np.float32) - centres
        decoded = centres + weights.astype(np.float32)[np.searchsorted(cuts.astype(np.float32), rest)]
        return decoded / np.linalg.norm(decoded, axis=1, keepdims=True)

    def all(self, nbits: int) -> np.ndarray:
        """All tokens, decoded, in half precision as ColBERT scores them on a GPU."""
        out = np.empty(self.tokens.shape, np.float16)
        for begin in range(0, len(out), 1 << 16):
            part = slice(begin, begin + (1 << 16))
            out[part] = self.decode(nbits, part)
        return out


def codec(sample: Sample, coded: Coded) -> list[Row]:
    """Error of <q, x> and overlap of the top 10 with exact float32, ours, ColBERT's, and ours without its parts."""
    rows: list[Row] = []

    def add(name: str, nbits: int, error: float, found: Sequence[np.ndarray] | None, centroids: int) -> None:
        same = overlap(found, sample.truth) if found is not None else None
        rows.append({"codec": name, "nbits": nbits, "error": error, "overlap": same, "centroids": centroids})

    count = len(coded.centroids)
    plain = code(sample, learned_rotation(sample.tokens, identity=True), count)
    for nbits in residual.NBITS:
        for name, version in (("ours", coded), ("without rotation", plain)):
            engine = engine_of(version, nbits)
            decoded = np.concatenate([engine.decode(0, int(row), 1) for row in sample.picks])
            found = exhaustive(engine, sample.queries, 10)
            add(name, nbits, product_error(sample, version.rotation.invert(decoded)), found, count)
        if nbits == 8:
            continue
        decoded = one_scale_for_all(coded, nbits)
        found = exhaustive(engine_of(coded, 8, decoded), sample.queries, 10)
        error = product_error(sample, coded.rotation.invert(decoded[sample.picks]))
        add("one scale for all tokens", nbits, error, found, count)
    plaid_count = 2 ** int(np.log2(16 * len(sample.tokens) ** 0.5))
    for version in (coded, code(sample, coded.rotation, plaid_count, coded)):
        rival = ColbertCodec(sample, version)
        for nbits in residual.NBITS if version is coded else (2, 4):
            decoded = rival.all(nbits)
            found = list(exact_top(decoded, sample.offsets, sample.queries, 10)[0])
            name = "ColBERT" if version is coded else "ColBERT, PLAID's number of centroids"
            add(name, nbits, product_error(sample, decoded[sample.picks]), found, len(version.centroids))
    return rows


def codec_parts(sample: Sample, coded: Coded) -> list[Row]:
    """What bytes add to the error of <q, x>: floats everywhere, documents in bytes, queries in bytes too."""
    exact = sample.query_tokens @ sample.tokens[sample.picks].astype(np.float32).T
    rows = []
    for nbits in residual.NBITS:
        engine = engine_of(coded, nbits)
        decoded = np.concatenate([engine.decode(0, int(row), 1) for row in sample.picks])
        integers, scales, _ = engine.prepare(sample.query_tokens)
        constants = sample.query_tokens @ coded.rotation.mean
        products = integers[:, : decoded.shape[1]].astype(np.float32) @ (decoded.astype(np.float32) - 128).T
        wrong = products * scales[:, None] + constants[:, None] - exact
        floats = None
        if nbits < 8:
            floats = product_error(sample, coded.rotation.turn_back(in_floats(coded, sample.picks, nbits)))
        rows.append(
            {
                "nbits": nbits,
                "floats": floats,
                "document_bytes": product_error(sample, coded.rotation.invert(decoded)),
                "query_bytes": float(np.sqrt(np.mean(wrong**2))),
            }
        )
    return rows


def norms(sample: Sample) -> list[Row]:
    """One step for all tokens where their norms differ (each token times a lognormal factor)."""
    rows = []
    for sigma in (0.0, 0.5, 0.6, 0.7, 1.0):
        factors = np.exp(np.random.default_rng(2).normal(0, sigma, len(sample.tokens))).astype(np.float32)
        tokens = (sample.tokens.astype(np.float32) * factors[:, None]).astype(np.float16)
        changed = dataclasses.replace(sample, tokens=tokens)
        truth = sample.truth if sigma == 0 else exact_top(tokens, sample.offsets, sample.queries, 10)[0]
        default = learned_rotation(tokens).step
        for uncut in (False, True):
            rotation = learned_rotation(tokens, reach=np.inf if uncut else REACH)
            coded = code(changed, rotation)
            cut = float(np.mean(np.abs(coded.scaled).max(1) > 127.5))
            for nbits in (2, 4, 8):
                found = exhaustive(engine_of(coded, nbits), sample.queries, 10)
                row = {"sigma": sigma, "uncut": uncut, "tokens_cut": cut, "nbits": nbits}
                row["default"] = bool(np.isclose(rotation.step, default))
                rows.append({**row, "overlap": overlap(found, truth)})
    return rows


def query_bytes(sample: Sample, coded: Coded) -> list[Row]:
    """Scores with the query in bytes against scores with the query in floats, on the same decoded documents."""
    rows = []
    for nbits in (2, 4, 8):
        engine = engine_of(coded, nbits)
        errors, same = [], []
        for query, truth in zip(sample.queries, sample.truth, strict=True):
            ours = engine.score(query, truth)
            starts, lengths = sample.offsets[truth], sample.offsets[truth + 1] - sample.offsets[truth]
            parts = [engine.decode(0, int(s), int(n)) for s, n in zip(starts, lengths, strict=True)]
            products = query @ coded.rotation.invert(np.concatenate(parts)).T
            first = np.cumsum(lengths) - lengths
            floats = np.maximum.reduceat(products, first, axis=1).sum(0, dtype=np.float64)
            errors.append(np.abs(ours - floats) / np.abs(floats))
            same.append(overlap([ranked(truth, ours)[:10]], [ranked(truth, floats)]))
        rows.append(
            {
                "nbits": nbits,
                "mean_relative_error": float(np.mean(errors)),
                "max_relative_error": float(np.max(errors)),
                "same_top_10": float(np.mean(same)),
                "scores": int(sum(len(e) for e in errors)),
            }
        )
    return rows
