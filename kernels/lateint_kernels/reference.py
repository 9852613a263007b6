"""What every operator means, in float64 or integers and loops; all fast code is measured against this."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lateint_kernels.arrays import Array, to_float32


def maxsim(
    queries: Iterable[Array],
    documents: Iterable[Array],
    *,
    query_weights: Sequence[Sequence[float]] | None = None,
    document_masks: Sequence[Sequence[bool]] | None = None,
    normalize: bool = False,
    masking: str = "exclude",
) -> NDArray[np.float64]:
    """``S(q, d) = sum_i w_i max_j <q_i, d_j>`` of each ``[Lq, dim]`` with each ``[Ld, dim]``: ``[Nq, Nd]``.

    Weights and masks have one number for each token, a masked query token has weight 0. Tokens of weight 0 add nothing;
    masked document tokens are no candidates for the maximum, or with ``masking="multiply"`` their similarity is 0. A
    document without candidates scores minus infinity. With ``normalize`` tokens are divided by ``max(|x|, 1e-12)``.

    >>> maxsim([np.eye(2)], [np.array([[-1.0, 0.0]]), np.eye(2)])
    array([[-1.,  2.]])
    >>> maxsim([np.eye(2)], [np.eye(2)], query_weights=[[0.5, 2.0]], document_masks=[[False, True]], masking="multiply")
    array([[2.]])
    """
    right = [_numbers(document) for document in documents]
    scores: list[list[float]] = []
    for i, query in enumerate(queries):
        weights = [1.0] * len(query) if query_weights is None else query_weights[i]
        scores.append([])
        for j, document in enumerate(right):
            mask = None if document_masks is None else document_masks[j]
            found = maxima(_numbers(query), document, mask=mask, normalize=normalize, masking=masking)
            terms = [w * best for w, (best, _) in zip(weights, found, strict=True) if w != 0]
            scores[-1].append(sum(terms))
    return np.array(scores, dtype=np.float64)


def maxima(
    query: NDArray[np.float64],
    document: NDArray[np.float64],
    *,
    mask: Sequence[bool] | None = None,
    normalize: bool = False,
    masking: str = "exclude",
) -> list[tuple[float, int]]:
    """What each query token finds in a document and where: the first of equals; ``(-inf, -1)`` if there is nothing.

    >>> maxima(np.array([[1.0]]), np.array([[2.0], [3.0], [3.0]]))
    [(3.0, 1)]
    """
    if normalize:
        query, document = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (query, document))
    found = []
    for token in query:
        best, where = -np.inf, -1
        for j, other in enumerate(document):
            present = mask is None or bool(mask[j])
            if not present and masking == "exclude":
                continue
            similarity = float(token @ other) * (1.0 if present else 0.0)
            if where < 0 or similarity > best or (np.isnan(similarity) and not np.isnan(best)):
                best, where = similarity, j
        found.append((float(best), where))
    return found


def xtr(
    queries: Sequence[Array],
    documents: Sequence[Array],
    k: int,
    *,
    query_masks: Sequence[Sequence[bool]] | None = None,
    document_masks: Sequence[Sequence[bool]] | None = None,
    impute: bool = False,
) -> NDArray[np.float64]:
    """``S(q, d) = 1/Z sum_i r_i max_j <q_i, d_j>``: r_i is 1 if one of the k document tokens most similar to q_i is of
    d, else 0, and Z the sum of all r_i; 0 where that is 0. ``[Nq, Nd]``.

    With ``impute`` the k-th similarity stands for what was not found, and the sum is divided by the length of q. What
    masks leave out is not there.

    >>> xtr([np.array([[1.0], [2.0]])], [np.array([[3.0], [2.0]]), np.array([[1.0]]), np.array([[4.0]])], 2)
    array([[4.5, 0. , 6. ]])
    """
    scores = np.zeros((len(queries), len(documents)))
    kept = [_present(document, document_masks, j) for j, document in enumerate(documents)]
    for i, query in enumerate(queries):
        tokens = _present(query, query_masks, i)
        counts = np.zeros(len(documents))
        for token in tokens:
            every = sorted((float(token @ other) for document in kept for other in document), reverse=True)
            least = every[min(k, len(every)) - 1]
            for j, document in enumerate(kept):
                best = max(float(token @ other) for other in document)
                if best >= least:
                    scores[i, j] += best
                    counts[j] += 1
                elif impute:
                    scores[i, j] += least
        scores[i] /= len(tokens) if impute else np.maximum(counts, 1)
    return scores


def smooth_maxsim(
    queries: Sequence[Array],
    documents: Sequence[Array],
    temperature: float,
    *,
    query_masks: Sequence[Sequence[bool]] | None = None,
    document_masks: Sequence[Sequence[bool]] | None = None,
) -> NDArray[np.float64]:
    """``S(q, d) = sum_i T log sum_j exp(<q_i, d_j> / T)`` over the tokens that are there: ``[Nq, Nd]``.

    >>> smooth_maxsim([np.eye(2)], [np.eye(2)], 1.0).round(4)
    array([[2.6265]])
    """
    scores = np.zeros((len(queries), len(documents)))
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            others = _present(document, document_masks, j)
            for token in _present(query, query_masks, i):
                terms = [float(token @ other) / temperature for other in others]
                largest = max(terms)
                scores[i, j] += temperature * (largest + np.log(sum(np.exp(term - largest) for term in terms)))
    return scores


def clusters(tokens: Array, count: int) -> list[int]:
    """Which of ``count`` clusters each of the tokens ``[n, dim]`` is in: 0, 1, ... in the order of their first tokens.

    Ward's method: of all pairs of clusters A and B, those become one for which
    ``|A| |B| / (|A| + |B|) |mean(A) - mean(B)|^2`` is least, the first of equal ones (Ward 1963).

    >>> clusters(np.array([[0.0], [5.0], [1.0]]), 2)
    [0, 1, 0]
    """
    points = _numbers(tokens)
    members = [[i] for i in range(len(points))]
    while len(members) > count:
        least, pair = np.inf, (0, 1)
        means = [points[rows].mean(0) for rows in members]
        for i, a in enumerate(members):
            for j, b in enumerate(members[:i]):
                apart = means[i] - means[j]
                cost = len(a) * len(b) / (len(a) + len(b)) * float(apart @ apart)
                if (cost, j, i) < (least, *pair):
                    least, pair = cost, (j, i)
        members[pair[0]] += members.pop(pair[1])
    return [next(number for number, rows in enumerate(members) if i in rows) for i in range(len(points))]


def clusters_by_distance(distances: Array, count: int) -> list[int]:
    """As `clusters`, of points that are as far apart as ``distances [n, n]`` say, without means.

    The cost of merging A with B is half the square of their distance at first, and once A and B are one
    ``((|K| + |A|) cost(K, A) + (|K| + |B|) cost(K, B) - |K| cost(A, B)) / (|K| + |A| + |B|)`` of merging that with K
    (Lance and Williams 1967). For ``|a - b|`` that is Ward's cost.

    >>> clusters_by_distance(np.array([[0.0, 5.0, 1.0], [5.0, 0.0, 4.0], [1.0, 4.0, 0.0]]), 2)
    [0, 1, 0]
    """
    costs = np.asarray(distances, np.float64) ** 2 / 2
    members = {i: [i] for i in range(len(costs))}  # by their first points
    while len(members) > count:
        a, b = min(((a, b) for a in members for b in members if a < b), key=lambda pair: (costs[pair], pair))
        for k in members.keys() - {a, b}:
            na, nb, nk = len(members[a]), len(members[b]), len(members[k])
            total = (nk + na) * costs[k, a] + (nk + nb) * costs[k, b] - nk * costs[a, b]
            costs[k, a] = costs[a, k] = total / (nk + na + nb)
        members[a] += members.pop(b)
    return [next(number for number, rows in enumerate(members.values()) if i in rows) for i in range(len(costs))]


def _present(tokens: Array, masks: Sequence[Sequence[bool]] | None, number: int) -> NDArray[np.float64]:
    return _numbers(tokens) if masks is None else _numbers(tokens)[np.array(masks[number], bool)]


def rotate(
    tokens: Array,
    mean: NDArray[np.float32],
    rotation: NDArray[np.float32],
    permutation: NDArray[np.int32],
    step: float,
) -> NDArray[np.float64]:
    """``((x - mean) / step)``, components permuted and padded with zeros, each block a row vector times its matrix.

    >>> turn = np.array([[[0.0, 1.0], [-1.0, 0.0]]], np.float32)
    >>> rotate(np.array([[3.0, 5.0]]), np.array([1.0, 1.0], np.float32), turn, np.array([0, 1], np.int32), 2.0)
    array([[-2.,  1.]])
    """
    centred = (_numbers(tokens) - mean.astype(np.float64)) / step
    dim, block = centred.shape[1], rotation.shape[1]
    out = np.zeros((len(centred), len(permutation)))
    for i, token in enumerate(centred):
        for place, component in enumerate(permutation):
            if component < dim:
                b, k = divmod(place, block)
                out[i, b * block : (b + 1) * block] += token[component] * rotation[b, k].astype(np.float64)
    return out


def level(nbits: int, scale: int, code: int) -> int:
    """What a code of 1, 2 or 4 bits adds to the byte of its centroid.

    ``(2 code - (2^nbits - 1)) scale / (2 unit)``, rounded to the nearest integer, halves away from zero; unit is 16 for
    4 bits, else 4.

    >>> [level(2, 40, code) for code in range(4)]
    [-15, -5, 5, 15]
    """
    unit = 16 if nbits == 4 else 4
    twice = 2 * code - (2**nbits - 1)
    magnitude: int = (abs(twice) * scale + unit) // (2 * unit)
    return magnitude if twice > 0 else -magnitude


def decode(
    codes: NDArray[np.uint8],
    scales: Sequence[int] | NDArray[np.uint8],
    centroid_ids: Sequence[int] | NDArray[np.uint32],
    centroids: NDArray[np.uint8],
    nbits: int,
    width: int,
) -> NDArray[np.int64]:
    """The bytes ``[n, width]`` of tokens; a component is ``(byte - 128) * step``. With 8 bits the codes are the bytes.

    >>> centroids = np.full((1, 64), 128, np.uint8)
    >>> decode(np.array([[0b00011011, 0b11100100]], np.uint8), [40], [0], centroids, 2, 8)[0]
    array([143, 113, 133, 123, 123, 133, 113, 143])
    """
    out = np.zeros((len(codes), width), np.int64)
    code_bytes = width * nbits // 8
    for i in range(len(codes)):
        for k in range(width):
            plane, j = divmod(k, code_bytes)
            code = int(codes[i, j]) >> plane * nbits & 2**nbits - 1
            if nbits == 8:
                out[i, k] = code
            else:
                out[i, k] = int(centroids[int(centroid_ids[i]), k]) + level(nbits, int(scales[i]), code)
    return out


def encode(scaled: NDArray[np.float64], centroid: NDArray[np.integer], nbits: int) -> tuple[list[int], int]:
    """Codes of the components of a rotated token ``[width]`` next to its centroid, and their scale byte; nbits < 8.

    The distance of levels starts at what suits a normal distribution of the residual's size. Twice each component takes
    its nearest level, and the distance becomes that of least squares; then it is rounded to a scale byte, and each
    component takes its nearest level for good, or the nearest that keeps its byte within 0 to 255.

    >>> encode(np.array([-15.0, -5.0, 5.0, 15.0]), np.full(4, 128), 2)
    ([0, 1, 2, 3], 40)
    """
    top, unit = 2**nbits - 1, 16 if nbits == 4 else 4
    rest = np.clip(scaled, -128, 127) - (np.asarray(centroid, np.float64) - 128)

    def nearest(distance: float) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.clip(np.round(rest / distance + top / 2), 0, top)
        return found

    distance = {1: 1.596, 2: 0.996, 4: 0.335}[nbits] * float(np.sqrt(np.mean(rest**2)))
    for _ in range(2):
        if distance > 0:
            levels = nearest(distance) - top / 2
            distance = float(rest @ levels / (levels @ levels))
    scale = int(np.clip(np.round(distance * unit), 1, 255))
    codes = [int(code) for code in nearest(scale / unit)]
    for k, byte in enumerate(np.asarray(centroid).tolist()):
        while byte + level(nbits, scale, codes[k]) > 255 and codes[k] > 0:
            codes[k] -= 1
        while byte + level(nbits, scale, codes[k]) < 0 and codes[k] < top:
            codes[k] += 1
    return codes, scale


def coded(
    tokens: Array,
    mean: NDArray[np.float32],
    rotation: NDArray[np.float32],
    permutation: NDArray[np.int32],
    step: float,
    centroids: NDArray[np.uint8],
    nbits: int,
) -> NDArray[np.float64]:
    """Tokens ``[n, dim]`` as their codes give them back: rotated, coded, decoded and rotated back.

    >>> one = np.eye(8, dtype=np.float32)[None]
    >>> centroids = np.full((1, 64), 128, np.uint8)
    >>> x = np.array([[15.0, 5, -5, -15, 15, 5, -5, -14]])
    >>> coded(x, np.zeros(8, np.float32), one, np.arange(8, dtype=np.int32), 1.0, centroids, 2)[0].tolist()
    [15.0, 5.0, -5.0, -15.0, 15.0, 5.0, -5.0, -15.0]
    """
    scaled = rotate(tokens, mean, rotation, permutation, step)
    width = scaled.shape[1]
    rows = np.full((len(scaled), centroids.shape[1]), 128)
    rows[:, :width] = np.clip(np.round(scaled) + 128, 0, 255)
    ids = nearest_centroid(rows, centroids)
    if nbits < 8:
        for i, token in enumerate(scaled):
            centroid = centroids[ids[i], :width]
            codes, scale = encode(token, centroid, nbits)
            rows[i, :width] = [
                int(byte) + level(nbits, scale, code) for byte, code in zip(centroid, codes, strict=True)
            ]
    values = (rows[:, :width] - 128.0) * step
    block = rotation.shape[1]
    back = np.zeros_like(values)
    for b, matrix in enumerate(rotation.astype(np.float64)):
        part = slice(b * block, (b + 1) * block)
        back[:, permutation[part]] = values[:, part] @ matrix.T
    return back[:, : len(mean)] + mean.astype(np.float64)


def compressed_maxsim(
    query: NDArray[np.int8], scales: NDArray[np.float64], constant: float, document: NDArray[np.integer]
) -> float:
    """``constant + sum_i scale_i max_j sum_k q_ik (d_jk - 128)`` for a query in bytes and a decoded document.

    >>> compressed_maxsim(np.array([[1, 2]], np.int8), np.array([0.5]), 10.0, np.array([[128, 130], [127, 129]]))
    12.0
    """
    score = constant
    for token, scale in zip(query.tolist(), scales.tolist(), strict=True):
        score += scale * max(
            sum(q * (d - 128) for q, d in zip(token, other, strict=True)) for other in document.tolist()
        )
    return score


def nearest_centroid(tokens: NDArray[np.uint8], centroids: NDArray[np.uint8]) -> list[int]:
    """``argmin_c ((|c|^2 + 1) div 2 - <x, c>)`` of each token, on bytes less 128; the first among equals.

    That is the nearest centroid: half the squared distance less what all share, an odd ``|c|^2`` rounded up.

    >>> nearest_centroid(np.array([[130, 128]], np.uint8), np.array([[128, 128], [131, 128]], np.uint8))
    [1]
    """
    found = []
    for token in (tokens.astype(np.int64) - 128).tolist():
        costs = []
        for centroid in (centroids.astype(np.int64) - 128).tolist():
            square = sum(c * c for c in centroid)
            costs.append((square + 1) // 2 - sum(x * c for x, c in zip(token, centroid, strict=True)))
        found.append(costs.index(min(costs)))
    return found


def coarse_scores(
    products: NDArray[np.integer],
    scales: NDArray[np.float64],
    documents: Sequence[Iterable[int]],
    nprobe: int,
    lists: int = 0,
) -> list[float | None]:
    """What candidates are chosen by: a document's best probed centroid for each query token, or else what stands in.

    ``sum_i scale_i max(m_i, max { products[i, c] : c in d, c probed by i })`` where query token i probes the ``nprobe``
    centroids with the largest products (the lowest id among equals) and m_i is the product of the ``2 nprobe``-th, or
    of the last one where there are fewer (imputation: XTR, arXiv 2304.01982). None where no token has found a document.

    With ``lists``, only so many probed centroids a token count: of all tokens those c whose gain ``scale_i
    (products[i, c] - m_i)`` is largest, and all that gain as much as the last of them.

    >>> coarse_scores(np.array([[5, 3, 1]]), np.array([1.0]), [[0], [1, 2], [2]], 1)
    [5.0, None, None]
    >>> coarse_scores(np.array([[5, 3, 1], [9, 2, 1]]), np.array([1.0, 1.0]), [[0], [1]], 2, lists=1)
    [14.0, None]
    """
    rows = products.tolist()
    order = [sorted(range(len(row)), key=lambda c: (-row[c], c)) for row in rows]
    imputed = [row[best[min(2 * nprobe, len(row)) - 1]] for row, best in zip(rows, order, strict=True)]
    gains = [
        {c: float(scale) * (row[c] - missing) for c in best[:nprobe]}
        for row, best, scale, missing in zip(rows, order, scales, imputed, strict=True)
    ]
    falling = sorted((gain for of_token in gains for gain in of_token.values()), reverse=True)
    least = falling[min(lists * len(rows), len(falling)) - 1] if lists else 0.0
    scores: list[float | None] = []
    for document in documents:
        held, score, found = set(document), 0.0, False
        for i, row in enumerate(rows):
            seen = [row[c] for c, gain in gains[i].items() if c in held and gain >= least]
            found = found or bool(seen)
            score += float(scales[i]) * max(seen, default=imputed[i])
        scores.append(score if found else None)
    return scores


def bm25(
    query: Mapping[Hashable, float], documents: Sequence[Sequence[Hashable]], *, k1: float = 1.2, b: float = 0.75
) -> list[float]:
    """``sum_t n_t idf_t f / (f + k1 (1 - b + b |d| / mean length))`` over the terms t that query and document share.

    n_t and f are how often query and document have t, and ``idf_t = ln(1 + (N - df_t + 1/2) / (df_t + 1/2))``, df_t
    being how many documents have t. N and the mean length are of documents that have a term at least (Robertson and
    Zaragoza, The Probabilistic Relevance Framework, 2009; with the idf of Lucene, which is never negative).

    >>> scores = bm25({"red": 1}, [["red", "fox"], ["fox"], []])
    >>> [round(score, 4) for score in scores]
    [0.2773, 0.0, 0.0]
    """
    counts = [Counter(document) for document in documents]
    texts = [document for document in documents if len(document)]
    mean = sum(map(len, texts)) / max(1, len(texts))
    scores = [0.0] * len(documents)
    for term, wanted in query.items():
        frequency = sum(term in count for count in counts)
        idf = math.log(1 + (len(texts) - frequency + 0.5) / (frequency + 0.5))
        for d, count in enumerate(counts):
            if f := count[term]:
                scores[d] += wanted * idf * f / (f + k1 * (1 - b + b * len(documents[d]) / mean))
    return scores


def sparse_product(query: Mapping[Hashable, float], documents: Sequence[Mapping[Hashable, float]]) -> list[float]:
    """``sum_t q_t d_t`` over the terms t that query and document share (Formal et al., SPLADE, arXiv 2107.05720).

    >>> sparse_product({"red": 2.0, "fox": 1.0}, [{"red": 0.5, "hen": 9.0}, {}])
    [1.0, 0]
    """
    return [
        sum(weight * document[term] for term, weight in query.items() if term in document) for document in documents
    ]


def _numbers(tokens: Array) -> NDArray[np.float64]:
    return tokens if tokens.dtype == np.float64 else to_float32(tokens).astype(np.float64)
