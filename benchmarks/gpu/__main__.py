"""Measures MaxSim, forward and backward, of every case by every system, and writes one JSON.

    python -m benchmarks.gpu --out benchmarks/results/h200-train.json

The file is written after each case, so that a run that is cut short leaves what it has; ``--add`` keeps what an earlier
run measured and measures the rest. ``run.sh`` prepares the environment first and runs the tests too.
"""

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import encoder, other_scores, pooling, profiling, sweep, table
from benchmarks.gpu.cases import CASES, SMOKE, Case, Inputs, inputs
from benchmarks.gpu.exact import errors, sample_from, sample_of
from benchmarks.gpu.first_call import first_calls
from benchmarks.gpu.measure import Stopwatch, ceilings, extra_memory
from benchmarks.gpu.systems import Score, packs, systems, versions

REPEATS = 20  # of a step that must give the same bits
# Share of the largest number that a system may be off; gradients of torch are those of rounded similarities.
ALLOWED = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 1e-4}


def main() -> None:
    """Runs what the arguments say, not on the default stream, which no CUDA graph can record."""
    arguments = parse()
    if torch.cuda.is_available():
        with torch.cuda.stream(torch.cuda.Stream()):
            run(arguments, "cuda")
    else:
        run(arguments, "cpu")


def run(arguments: argparse.Namespace, device: str) -> None:
    """Cases first; then, unless some cases were chosen, what is no case."""
    watch = Stopwatch(device, arguments.seconds)
    report = load(arguments.out) if arguments.add else {}
    report |= {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "cpu",
        "versions": versions(),
        "ceilings": ceilings(watch),
    }
    cases = SMOKE if arguments.smoke else CASES
    chosen = arguments.only.split(",") if arguments.only else list(cases)
    results = report.setdefault("cases", {})
    failed = False
    for name in chosen:
        if name in results:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = measure(cases[name], device, watch, arguments.systems, report["ceilings"])
        failed |= any("wrong" in found for found in results[name]["systems"].values() if found["ours"])
        save(arguments.out, report)
    if not arguments.only:
        report["encoder"] = encoder.steps(device, watch)
        report["pooling"] = pooling.times(device, watch)
        report["scores"] = other_scores.times(device, watch)
        save(arguments.out, report)
        ours = [name for name in systems(device) if name.startswith("lateint")]
        report["first_call"] = {name: first_calls(name.removeprefix("lateint-")) for name in ours}
        save(arguments.out, report)
    if arguments.sweep:
        report["sweep"] = sweep.sweep(cases, device, watch)
        save(arguments.out, report)
    print(table.text(report))
    sys.exit("a result of lateint is wrong: see above" if failed else 0)


def parse() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write")
    parser.add_argument("--only", default="", help="cases, with commas between them")
    parser.add_argument("--systems", default="", help="systems, likewise")
    parser.add_argument("--seconds", type=float, default=0.2, help="of repetitions for each number")
    parser.add_argument("--smoke", action="store_true", help="tiny cases, to see that everything runs")
    parser.add_argument("--sweep", action="store_true", help="also try other sizes of tiles than those of the table")
    parser.add_argument("--add", action="store_true", help="keep the cases that are in the file")
    return parser.parse_args()


def measure(case: Case, device: str, watch: Stopwatch, chosen: str, limits: dict[str, float]) -> dict[str, Any]:
    """Every system on a case: errors first, and times of what is right."""
    given = inputs(case, device)
    exact = sample_of(given, torch.float64, case.train)
    found: dict[str, Any] = {}
    for name, build in systems(device).items():
        if chosen and name not in chosen.split(","):
            continue
        ours = name.startswith("lateint")
        score = build(case, given)
        if isinstance(score, str):
            found[name] = {"ours": ours, "cannot": score}
            continue
        try:
            found[name] = {"ours": ours, **system(name, score, case, given, exact, watch, limits)}
        except Exception as error:
            if ours:
                raise
            found[name] = {"ours": ours, "cannot": f"{type(error).__name__}: {error}"[:300]}
        if name == "torch-compile":
            torch._dynamo.reset()
    return {**asdict(case), "floor_ms": floor(case, limits), "systems": found}


def system(
    name: str, score: Score, case: Case, given: Inputs, exact: Any, watch: Stopwatch, limits: dict[str, float]
) -> dict[str, Any]:
    """Errors, times and memory of one system."""
    packed = packs(name, given)
    documents = given.documents[given.mask] if packed else given.documents
    queries = given.queries
    if not case.train:
        with torch.no_grad():
            result = errors_of(name, sample_from(score(queries, documents), None, given, packed), exact, case)
            return result if "wrong" in result else result | forward(score, queries, documents, case, watch, limits)

    leaves = queries.clone().requires_grad_(), documents.clone().requires_grad_()

    def step() -> tuple[Any, ...]:
        scores = score(*leaves)
        return (scores.detach(), *torch.autograd.grad(scores, leaves, given.grad_scores.to(scores.dtype)))

    scores, *gradients = step()
    result = errors_of(name, sample_from(scores, (gradients[0], gradients[1]), given, packed), exact, case)
    if name.startswith("lateint"):
        repeated = all(
            torch.equal(x, y)
            for _ in range(REPEATS if watch.device == "cuda" else 1)
            for x, y in zip(step(), (scores, *gradients), strict=True)
        )
        if not repeated:
            result["wrong"] = "not the same bits every time"
    if "wrong" in result:
        return result
    with torch.no_grad():
        result |= forward(score, queries, documents, case, watch, limits)
    graph = score(*leaves)
    grad = given.grad_scores.to(graph.dtype)
    result["training_forward"] = watch.time(lambda: score(*leaves))
    result["backward"] = watch.time(lambda: torch.autograd.grad(graph, leaves, grad, retain_graph=True))
    result["step_bytes"] = extra_memory(step, watch.device)
    if name.startswith("lateint") and missed(result, case):
        result["profile"] = profiling.kernels(step, watch.device)
    return result


def forward(
    score: Score, queries: Any, documents: Any, case: Case, watch: Stopwatch, limits: dict[str, float]
) -> dict[str, Any]:
    """Time of scores alone, its share of the floor, and memory."""
    times = watch.time(lambda: score(queries, documents))
    result = {
        "forward": times,
        "share_of_floor": floor(case, limits)["forward"] / times.get("ms_graph", times["ms"]),
        "forward_bytes": extra_memory(lambda: score(queries, documents), watch.device),
    }
    if missed(result, case):
        result["forward_profile"] = profiling.kernels(lambda: score(queries, documents), watch.device)
    return result


def errors_of(name: str, found: Any, exact: Any, case: Case) -> dict[str, Any]:
    """Errors, and what is wrong if one is too large."""
    result: dict[str, Any] = {"errors": errors(found, exact)}
    checked = {key: error for key, error in result["errors"].items() if key == "scores" or not name.startswith("torch")}
    if not all(error <= ALLOWED[case.dtype] for error in checked.values()):
        result["wrong"] = f"off by {checked}"
    return result


def missed(result: dict[str, Any], case: Case) -> bool:
    """Whether a goal was."""
    reached = {key: times.get("ms_graph", times["ms"]) for key, times in result.items() if key in case.goals}
    return any(reached[key] > goal for key, goal in case.goals.items() if key in reached)


def floor(case: Case, limits: dict[str, float]) -> dict[str, float]:
    """Milliseconds that no version can be faster than, with the ceilings that were measured.

    A backward gathers a row for each query token and document, twice, from the L2 cache at 5.5 TB/s at best.
    """
    itemsize = getattr(torch, case.dtype).itemsize
    arithmetic, memory = case.flop / limits["flop_per_s"], case.forward_bytes / limits["bytes_per_s"]
    return {"forward": 1e3 * max(arithmetic, memory), "backward": 1e3 * 2 * case.pairs * case.dim * itemsize / 5.5e12}


def load(path: Path) -> dict[str, Any]:
    """What is there."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def save(path: Path, report: dict[str, Any]) -> None:
    """In one go: no half of a file."""
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(report, indent=1) + "\n")
    draft.replace(path)


if __name__ == "__main__":
    main()
