"""The tables of ``docs/design.md`` and the sentences with figures under them, from ``benchmarks.design``'s JSON."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.tables import Row, machine_text, number, table

DEPTHS = (64, 128, 256, 512)
WORDS = {0: "all"}  # how a limit of zero reads


def one(rows: Iterable[Row], **wanted: Any) -> Row:
    """The row with these values."""
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def share(value: float | None) -> str:
    """A recall or an overlap."""
    return "-" if value is None else f"{value:.3f}"


def told_apart(make: Callable[[Row], str]) -> Callable[[Row], str]:
    """A table that says what it was measured on, if that was not with the others."""

    @functools.wraps(make)
    def told(result: Row) -> str:
        ran = result.get("apart", {}).get(make.__name__)
        if ran is None:
            return make(result)
        return f"{make(result)}\n\nMeasured later, with {ran['centroids']:,} centroids: {machine_text(ran['machine'])}"

    return told


def thousands(value: float) -> str:
    """A count, rounded."""
    return f"{value:,.0f}"


def ms(value: float | None) -> str:
    """Milliseconds."""
    return "-" if value is None else f"{value:.2f} ms"


def recall_cells(row: Row, depths: Sequence[int] = DEPTHS) -> tuple[str, ...]:
    """Recall at each depth."""
    return tuple(share(row[f"recall_at_{depth}"]) for depth in depths)


def recall_head(depths: Sequence[int] = DEPTHS) -> tuple[str, ...]:
    """What stands above them."""
    return tuple(f"R = {depth}" for depth in depths)


def setup(result: Row) -> str:
    """On what everything was measured."""
    data = result["data"]
    found = data["queries"] * 10
    error = (0.97 * 0.03 / found) ** 0.5
    return (
        f"{thousands(data['tokens'])} tokens of {thousands(data['documents'])} documents, whole and evenly spaced over "
        f"{', '.join(data['collections'])}; {data['dim']} dimensions; {data['queries']} queries of "
        f"{data['query_tokens']:.1f} tokens on average. By default that makes {thousands(data['centroids'])} centroids "
        f"in {data['cells']} cells. A recall near 0.97 over {thousands(found)} documents has a standard error of about "
        f"{error:.3f} or more: smaller differences mean nothing.\n\n{machine_text(result['machine'])} Other work ran "
        f"on the machine meanwhile (load {result['machine']['load_at_start']:.1f} at the start), so times compare the "
        "rows of one table and are not the engine's best; those are in [benchmarks.md](benchmarks.md). A latency is "
        "the median over the queries of the fastest of a few calls, on one thread."
    )


def codec(result: Row) -> str:
    """Ours, ours without its parts, ColBERT's."""
    rows = result["codec"]
    names = list(dict.fromkeys(row["codec"] for row in rows))
    bits = sorted({row["nbits"] for row in rows})
    found = {(row["codec"], row["nbits"]): row for row in rows}

    def cell(name: str, nbits: int) -> str:
        row = found.get((name, nbits))
        return f"{row['error']:.4f} / {share(row['overlap'])}" if row else "-"

    head = ("codec", *(f"{nbits} bit{'s' if nbits > 1 else ''}" for nbits in bits))
    labels = {"ours": "**ours**", "ColBERT": "ColBERT's, same clusters"}
    body = []
    for name in names:
        label = labels.get(name, f"ours, {name}")
        if name.startswith("ColBERT,"):
            count = next(row["centroids"] for row in rows if row["codec"] == name)
            label = f"ColBERT's, {thousands(count)} centroids as PLAID takes"
        body.append((label, *(cell(name, nbits) for nbits in bits)))
    ratios = ", ".join(f"{found['ColBERT', n]['error'] / found['ours', n]['error']:.1f} at {n}" for n in bits)
    return (
        f"{table(head, body)}\n\nEach cell: root mean square error of <q, x> over random pairs / share of the exact "
        f"float32 top 10 that an exhaustive search of the codes returns. ColBERT's error is ours times "
        f"{ratios} bits."
    )


def codec_parts(result: Row) -> str:
    """Floats, document bytes, query bytes."""
    rows = result["codec_parts"]
    head = ("bits", "floats everywhere", "documents decoded to bytes", "queries in bytes too", "bytes add")
    body = [
        (
            str(row["nbits"]),
            "-" if row["floats"] is None else f"{row['floats']:.4f}",
            f"{row['document_bytes']:.4f}",
            f"{row['query_bytes']:.4f}",
            "-" if row["floats"] is None else f"{row['query_bytes'] / row['floats'] - 1:.1%}",
        )
        for row in rows
    ]
    return table(head, body) + "\n\nRoot mean square error of <q, x>."


def query_bytes(result: Row) -> str:
    """Scores with the query in bytes."""
    head = ("bits", "mean relative error of a score", "largest", "same top 10")
    body = [
        (
            str(row["nbits"]),
            f"{row['mean_relative_error']:.3%}",
            f"{row['max_relative_error']:.2%}",
            share(row["same_top_10"]),
        )
        for row in result["query_bytes"]
    ]
    scores = thousands(result["query_bytes"][0]["scores"])
    return (
        f"{table(head, body)}\n\nOf {scores} scores, those of each query's exact top 100: the query in bytes against "
        "the same query in float32, on the same decoded documents."
    )


def norms(result: Row) -> str:
    """Norms that differ."""
    rows = result["norms"]
    bits = sorted({row["nbits"] for row in rows})
    head = ("each token times", "largest component", "tokens cut", *(f"{nbits} bits" for nbits in bits))
    body = []
    for sigma in sorted({row["sigma"] for row in rows}):
        for uncut in (False, True):
            chosen = [one(rows, sigma=sigma, uncut=uncut, nbits=nbits) for nbits in bits]
            body.append(
                (
                    "1" if sigma == 0 else f"a lognormal factor, sigma {sigma:g}",
                    ("that of the sample" if uncut else "at most 8 times the median token's")
                    + (" (default)" if chosen[0]["default"] else ""),
                    f"{chosen[0]['tokens_cut']:.2%}",
                    *(share(row["overlap"]) for row in chosen),
                )
            )
    return table(head, body) + "\n\nOverlap with the exact top 10 of the changed tokens."


def coarse(result: Row) -> str:
    """Ids-only lists against centroid interaction."""
    head = ("coarse stage", "nprobe", "documents", "looked at", *recall_head(), "time")
    body = []
    for row in result["coarse"]:
        unit = "postings" if row["method"] == "ids only" else "tokens"
        looked = f"{thousands(row['looked_at'])} {unit}"
        body.append(
            (
                row["method"],
                str(row["nprobe"]),
                thousands(row["documents"]),
                looked,
                *recall_cells(row),
                ms(row.get("p50_ms")),
            )
        )
    ours = one(result["coarse"], method="ids only", nprobe=16)
    plaid = one(result["coarse"], method="centroid interaction")
    return (
        f"{table(head, body)}\n\nRecall of the exhaustive top 10 on the 4-bit codes among the best R of the coarse "
        f"stage. At nprobe 16 ids-only lists look at {plaid['looked_at'] / ours['looked_at']:.0f} times fewer entries "
        f"than centroid interaction, and recall at 128 differs by "
        f"{plaid['recall_at_128'] - ours['recall_at_128']:.3f}."
    )


def imputation(result: Row) -> str:
    """What stands in for a similarity that no list gave."""
    rows = result["imputation"]
    head = ("nprobe", "stands in: the score of", *recall_head())
    body = []
    for row in rows:
        p, rank = row["nprobe"], row["rank"]
        if rank not in (0, p, p + 1, 2 * p, 4 * p):
            continue
        label = "nothing (0)" if rank == 0 else f"centroid {rank}"
        label += {p: " (the last probed)", p + 1: " (the first not probed)", 2 * p: " (ours)"}.get(rank, "")
        body.append((str(p), label, *recall_cells(row)))
    half, whole = one(rows, nprobe=8, rank=16), one(rows, nprobe=16, rank=17)
    return (
        f"{table(head, body)}\n\nWith nprobe 8 and the score of centroid 16 recall at 128 is "
        f"{share(half['recall_at_128'])}; with nprobe 16 and centroid 17 it is {share(whole['recall_at_128'])}."
    )


def cells(result: Row) -> str:
    """Probing through cells at the default number of centroids."""
    head = ("cells of each query token", *recall_head(), "time")
    body = [
        (WORDS.get(row["cells"], str(row["cells"])), *recall_cells(row), ms(row["p50_ms"])) for row in result["cells"]
    ]
    data = result["data"]
    return (
        f"{thousands(data['centroids'])} centroids in {data['cells']} cells, nprobe 16; time of the whole coarse stage:"
        f"\n\n{table(head, body)}"
    )


def crossover(result: Row) -> str:
    """From how many centroids cells pay."""
    rows = result["crossover"]
    head = ("centroids", "cells", "probes found", "R = 128", "R = 256", "probing", "probing, 32 query tokens")
    body = [
        (
            thousands(row["centroids"]),
            WORDS.get(row["cells"], str(row["cells"])),
            share(row["found"]),
            *recall_cells(row, (128, 256)),
            ms(row["p50_ms"]),
            ms(row["p50_ms_of_32_tokens"]),
        )
        for row in rows
        if row["cells"] != 4
    ]
    sentences = []
    for count in (1 << 14, 1 << 16, 1 << 17):
        flat = [row for row in rows if row["centroids"] == count and row["cells"] == 0]
        if flat:
            few = one(rows, centroids=count, cells=8)
            gained = flat[0]["p50_ms_of_32_tokens"] - few["p50_ms_of_32_tokens"]
            lost = flat[0]["recall_at_128"] - few["recall_at_128"]
            sentences.append(f"at {thousands(count)} centroids {gained:.2f} ms for {lost:.3f} of recall")
    return (
        f"{table(head, body)}\n\nRecall is of the exact float32 top 10, with lists of the real documents. With 32 "
        f"query tokens, 8 cells instead of all save {', '.join(sentences)} at 128."
    )


def centroid_counts(result: Row) -> str:
    """How many centroids."""
    rows = result["centroid_counts"]
    head = ("K", "residual norm", "overlap, 2 / 4 bits", "training", "bytes/token", "nprobe", "postings")
    body = []
    for row in rows:
        first = row["nprobe"] == rows[0]["nprobe"]
        about = (
            f"N/{row['tokens_per_centroid']} = {thousands(row['centroids'])}",
            f"{row['residual_norm']:.3f}",
            f"{share(row['overlap_2_bits'])} / {share(row['overlap_4_bits'])}",
            f"{row['train_seconds']:.2f} s",
            f"{row['bytes_per_token']:.2f}",
        )
        body.append(
            (
                *(about if first else ("",) * len(about)),
                str(row["nprobe"]),
                thousands(row["postings"]),
                *recall_cells(row, (64, 128, 256)),
                ms(row["p50_ms"]),
            )
        )
    return (
        table((*head, *recall_head((64, 128, 256)), "time"), body)
        + "\n\nRecall is of the exact float32 top 10. Bytes are those of lists and centroids, not of codes."
    )


def training(result: Row) -> str:
    """How k-means is run."""
    head = ("cells searched", "iterations", "sample per centroid", "seconds", "residual norm", *recall_head((128, 256)))
    body = [
        (
            WORDS.get(row["cells"], str(row["cells"])),
            str(row["iterations"]),
            f"{row['per_centroid']}{' (default)' if row['default'] else ''}",
            f"{row['seconds']:.2f}",
            f"{row['residual_norm']:.4f}",
            *recall_cells(row, (128, 256)),
        )
        for row in result["training"]
    ]
    default = one(result["training"], default=True)
    flat = one(result["training"], cells=0)
    return (
        f"{table(head, body)}\n\nThrough 3 cells instead of all, training takes "
        f"{default['seconds'] / flat['seconds']:.0%} of the time and residuals grow by "
        f"{default['residual_norm'] / flat['residual_norm'] - 1:.2%}."
    )


def assignment(result: Row) -> str:
    """How a token finds its centroid."""
    head = ("cells searched", "same as among all", "residual norm", "seconds")
    body = [
        (
            WORDS.get(row["cells"], str(row["cells"])),
            f"{row['same']:.1%}",
            f"{row['residual_norm']:.4f}",
            f"{row['seconds']:.2f}",
        )
        for row in result["assignment"]
    ]
    return table(head, body)


def divided(result: Row) -> str:
    """The same with many centroids."""
    head = ("centroids", "a token looks into", "same as among all", "squared distance", "time a token")
    words = {"whole": "{} cells", "divided": "parts of {} cells"}
    body = [
        (
            f"{row['centroids']:,}",
            words[row["cells"]].format(row["searched"]),
            f"{row['same']:.1%}",
            f"+{row['farther']:.1%}",
            f"{number(row['nanoseconds'] / 1e3)} us",
        )
        for row in result["divided"]["rows"]
    ]
    return table(head, body)


def stopping(result: Row) -> str:
    """When scoring stops."""
    rows = result["stopping"]
    rules = {
        "fixed": "always {}",
        "patience": "patience {}",
        "alpha of the score": "{} of the k-th coarse score",
        "alpha of the excess": "{} of its excess over no hit",
    }
    head = ("k", "rule", "documents scored", "recall", "p50", "p95")
    body = [
        (
            str(row["k"]),
            rules[row["rule"]].format(f"{row['value']:g}"),
            thousands(row["scored"]),
            share(row["recall"]),
            ms(row.get("p50_ms")),
            ms(row.get("p95_ms")),
        )
        for row in rows
        if row["value"] not in (64 if row["rule"] == "fixed" else None, 192, 0.95, 0.8)
    ]
    fixed, patient = one(rows, k=10, rule="fixed", value=256), one(rows, k=10, rule="patience", value=96)
    return (
        f"{table(head, body)}\n\nRecall of the exhaustive top k on the 4-bit codes. For k = 10, patience 96 scores "
        f"{patient['scored'] / fixed['scored']:.0%} of the documents of a fixed 256 and finds "
        f"{share(patient['recall'])} instead of {share(fixed['recall'])}."
    )


def tiers(result: Row) -> str:
    """What each instruction set costs."""
    head = ("instruction set", "1 bit", "2 bits", "4 bits", "8 bits", "assignment", "same bits as scalar")
    body = [
        (
            row["isa"],
            *(number(row[f"score_{nbits}_bits_ns"]) for nbits in (1, 2, 4, 8)),
            number(row["assign_ns"]),
            "yes" if row["same_bits"] else "no",
        )
        for row in result["tiers"]
    ]
    return (
        f"{table(head, body)}\n\nNanoseconds a document token on one core: decoding it and its MaxSim with 32 query "
        "tokens, documents in cache, and finding its centroid through 3 cells."
    )


TABLES: tuple[Callable[[Row], str], ...] = tuple(
    told_apart(make)
    for make in (
        setup,
        codec,
        codec_parts,
        query_bytes,
        norms,
        coarse,
        imputation,
        cells,
        crossover,
        centroid_counts,
        training,
        assignment,
        divided,
        stopping,
        tiers,
    )
)
