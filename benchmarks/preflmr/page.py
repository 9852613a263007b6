"""Writes the tables and figures of ``docs/preflmr.md`` from the JSON files in ``benchmarks/results``.

python -m benchmarks.preflmr.page            write them
python -m benchmarks.preflmr.page --check    fail if they are not what the JSON files say
"""

import argparse
import gzip
import sys
from statistics import mean, stdev
from typing import Any

from benchmarks.embeddings import read_json
from benchmarks.render import DOCS, RESULTS, ROOT
from benchmarks.tables import Row, number, table, with_tables

PAGE = DOCS / "preflmr.md"
FILES = ("demo", "full_size", "step", "passages", "studies")  # preflmr-*.json
SIZES, RADAR, ENTROPY = "preflmr-sizes.svg", "preflmr-radar.svg", "preflmr-ventropy.svg"
DATA = {"flags_kbvqa": "flags", "emoji_captions": "emoji"}
MATCHING = {"flags_kbvqa": {"val": 0.83, "test": 0.77}, "emoji_captions": {"val": 0.23, "test": 0.25}}  # data's README
COSTS = (("step_seconds", "s"), ("step_mib", "MiB"), ("scoring_seconds", "s"), ("scoring_mib", "MiB"))
PRECISIONS = {"no": "float32", "bf16": "bfloat16"}
BM25 = {"medquad": 0.608, "scifact": 0.665}  # data's README; scifact: Thakur et al. 2021


def full_size(results: Row) -> str:
    """Loading and encoding with ViT-B."""
    found = results["full_size"]
    encode, load, cpu = found["encode"], found["load"], found["machine"]["cpu"]
    queries, passages = found["shapes"]["queries"], found["shapes"]["passages"]
    return (
        f"{found['model']['name']} ({found['model']['parameters'] / 1e6:.1f} million parameters, a file of "
        f"{found['file_bytes'] / 1e9:.2f} GB) on {found['threads']} threads of {cpu}: it is mapped in "
        f"{load['seconds']} s; {queries[0]} queries with a picture take {encode['seconds_queries']} s, {passages[0]} "
        f"passages of {passages[1]} tokens {encode['seconds_passages']} s; the process takes at most "
        f"{encode['peak_rss_bytes'] / 1e9:.2f} GB."
    )


def demo(results: Row) -> str:
    """What the demo reaches, and how long its parts take."""
    run = results["demo"]["runs"]["all"]
    measured = run["measured"]
    body = []
    for data, name in DATA.items():
        for split in ("val", "test", "test_unseen"):
            found = measured[f"{data} {split}"]
            exact, default = (measured.get(f"{data} {split}, {how}", {}) for how in ("exact", "default search"))
            matched = MATCHING[data].get(split)
            body.append(
                (
                    f"{name}, {split}",
                    _share(found["Recall@1"]),
                    _share(found["Recall@5"]),
                    _share(exact.get("Recall@5")),
                    _share(default.get("Recall@5")),
                    _share(found["Pseudo Recall@5"]),
                    "-" if matched is None else f"{matched:.2f}",
                )
            )
    head = (
        "", "Recall@1", "Recall@5", "Recall@5, exact", "Recall@5, default search", "Pseudo Recall@5",
        "Recall@5 of picture matching",
    )  # fmt: skip
    parts = {name: value for name, value in run["seconds"].items() if name != "this run"}
    seconds = ", ".join(f"{name} {number(value)} s" for name, value in parts.items())
    seconds += f"; the whole command {number(run['wall_seconds'] / 60)} minutes"
    return "\n\n".join(
        [
            table(head, body),
            *_seeds(results["demo"]["runs"]),
            *_nearest(run),
            *_text_stage(results["demo"]["runs"]),
            f"Measured on {run['machine']['cpu']}, {run['machine']['cores']} cores: {seconds}.",
        ]
    )


def _seeds(runs: Row) -> list[str]:
    """Recall@5 of every seed, and what the mean of them is worth."""
    several = ["all", *filter(_is_seed, runs)]
    if len(several) == 1:
        return []
    splits = [(f"{data} {split}", f"{DATA[data]}, {split}") for data in DATA for split in ("val", "test")]
    splits.append(("emoji_captions test_unseen", "emoji, test_unseen"))
    columns = [[runs[one]["measured"][split]["Recall@5"] for one in several] for split, _ in splits]
    names = ["seed 0", *several[1:]]
    body = [(name, *map(_share, values)) for name, values in zip(names, zip(*columns, strict=True), strict=True)]
    body.append(("mean", *(_share(mean(values)) for values in columns)))
    body.append(("standard error", *(f"{stdev(values) / len(values) ** 0.5:.3f}" for values in columns)))
    return [table(("Recall@5", *(name for _, name in splits)), body)]


def _is_seed(name: str) -> bool:
    return name.startswith("seed ")


def _nearest(run: Row) -> list[str]:
    """What the image encoder finds without a text encoder."""
    found = run["nearest picture"]
    return [
        "The image encoder alone, by the most similar training pictures (five emoji, five countries): "
        f"{_share(found['emoji_captions test'])} of emoji, test, and {_share(found['flags_kbvqa test'])} of the "
        "countries of flags, test. It can neither answer a question nor name what it was never shown."
    ]


def _text_stage(runs: Row) -> list[str]:
    """A table of nDCG@10 after stage 0, if that was measured."""
    if "text" not in runs:
        return []
    found = runs["text"]["measured"]["text stage"]
    rows = [
        (data, *(_share(found[f"{data} {when}"]["nDCG@10"]) for when in ("untrained", "trained")), f"{BM25[data]:.3f}")
        for data in BM25
    ]
    return [table(("nDCG@10 after stage 0", "before training", "trained", "BM25"), rows)]


def ablations(results: Row) -> str:
    """Recall@5 without one part of the recipe each."""
    runs = results["demo"]["runs"]
    rows = {name: run for name, run in runs.items() if name not in ("all", "before", "text") and not _is_seed(name)}
    if not rows:
        return "Not measured yet; `python -m benchmarks.preflmr.demo` runs them."
    whole = runs.get("before", runs["all"])
    body = []
    for name, run in {"all": whole, **rows}.items():
        cells = [_share(run["measured"][f"{data} {split}"]["Recall@5"]) for data in DATA for split in ("val", "test")]
        body.append((name.replace("-", " "), *cells))
    head = ("Recall@5", *(f"{name}, {split}" for name in DATA.values() for split in ("val", "test")))
    errors = []
    for data, name in DATA.items():
        asked = _questions(data)
        share = whole["measured"][f"{data} test"]["Recall@5"]
        errors.append(f"{(share * (1 - share) / asked) ** 0.5:.3f} for {name} ({asked:,} questions)")
    older = ""
    if "before" in runs:
        dates = sorted({run["machine"]["date"] for run in rows.values()})
        older = (
            "These are runs of an older recipe, with longer stages, through an index of which 1,024 passages were "
            "scored. The first is of "
            f"{whole['machine']['date']}, the others of {' and '.join(dates)}. "
        )
    return (
        f"{table(head, body)}\n\n{older}One run each, with one seed. By the number of test questions alone, the "
        f"standard error of a recall is {' and '.join(errors)}: smaller differences mean nothing."
    )


def _questions(data: str) -> int:
    """Of the test split."""
    (path,) = (ROOT / "examples" / "data" / data).glob("test.jsonl*")
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return sum(1 for _ in file)


def step(results: Row) -> str:
    """A training step with our scoring and with torch's."""
    found = results["step"]
    body = []
    for row in found["rows"]:
        base = next(
            other for other in found["rows"]
            if (other["shape"], other["precision"], other["scores"]) == (row["shape"], row["precision"], "einsum")
        )  # fmt: skip
        cells = [_ratio(row, base, key, unit) for key, unit in COSTS]
        body.append((f"`{row['shape']}`", PRECISIONS[row["precision"]], row["scores"], *cells))
    head = ("shape", "", "scores by", "step", "its memory", "scoring alone", "its memory")
    return f"{found['machine']['cpu']}, {found['machine']['cores']} cores.\n\n{table(head, body)}"


def passages(results: Row) -> str:
    """What opening many passages takes."""
    found = results["passages"]
    body = [
        (
            f"{row['passages'] / 1e6:.0f} million",
            {"first": "the first time", "later": "later"}[row["open"]],
            f"{number(row['own_mb'])} MB",
            f"{number(row['mapped_mb'])} MB",
            f"{number(row['seconds'])} s",
        )
        for row in found["runs"]
    ]
    head = ("passages", "opened", "a process's own memory, at most", "mapped files, at most", "time")
    return f"{table(head, body)}\n\nGenerated passages of {found['characters']} characters, in files of a million."


def studies(results: Row) -> str:
    """The studies at small scale that were measured; the figures are drawn by `figures`."""
    from preflmr.studies import scaling, ventropy

    parts = []
    if found := results["studies"].get("ventropy"):
        ran = f"{found['steps']} steps of fine-tuning each, one seed; {number(found['cpu_minutes'])} minutes of a CPU."
        figure = f"![Information over steps of intermediate training](images/{ENTROPY})"
        parts += [ventropy.table(found).strip(), ran, figure]
    if found := results["studies"].get("scaling"):
        ran = f"{found['steps']} steps each, one seed; {number(found['cpu_minutes'])} minutes of a CPU."
        parts += [scaling.table(found).strip(), f"Recall in percent; A.R. is the average rank. {ran}"]
        parts.append(f"![Each task over the number of parameters](images/{SIZES})")
        parts.append(f"![All models on all tasks](images/{RADAR})")
    else:
        parts.append("The scaling study was not run to its end here.")
    return "\n\n".join(parts)


def figures(results: Row) -> dict[str, str]:
    """Files of ``docs/images`` and what they hold."""
    from preflmr.studies import scaling, ventropy

    drawn: dict[str, str] = {}
    if found := results["studies"].get("ventropy"):
        drawn[ENTROPY] = ventropy.figure(found)
    if found := results["studies"].get("scaling"):
        drawn |= {SIZES: str(scaling.sizes(found)), RADAR: str(scaling.radar(found))}
    return drawn


def _ratio(row: Row, base: Row, key: str, unit: str) -> str:
    """A cost, and how many times less that is than torch's."""
    cost = f"{number(row[key])} {unit}"
    return cost if row is base or not row[key] else f"{cost} ({number(base[key] / row[key])}x less)"


def _share(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    """Renders everything, or checks that it is rendered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    args = parser.parse_args()
    results = {name: read_json(RESULTS / f"preflmr-{name.replace('_', '-')}.json") for name in FILES}
    wanted = {PAGE: with_tables(PAGE.read_text(), results, (full_size, demo, ablations, step, passages, studies))}
    wanted |= {DOCS / "images" / name: drawn for name, drawn in figures(results).items()}
    for path, content in wanted.items():
        if args.check and (not path.exists() or path.read_text() != content):
            sys.exit(f"{path.name} is not what benchmarks/results say; run python -m benchmarks.preflmr.page")
        if not args.check:
            path.write_text(content)


if __name__ == "__main__":
    main()
