"""The report as text."""

from typing import Any


def text(report: dict[str, Any]) -> str:
    """A table of milliseconds, times of CUDA graphs where there are some, and one of errors."""
    limits = report["ceilings"]
    lines = [f"{report['device']}: {limits['bytes_per_s'] / 1e12:.2f} TB/s, {limits['flop_per_s'] / 1e12:.0f} TFLOP/s"]
    head = f"{'case':20}{'system':26}{'forward':>10}{'floor %':>9}{'training':>10}{'backward':>10}{'MB':>8}  errors"
    lines += ["", head + " (scores, queries, documents)"]
    for name, case in report["cases"].items():
        for system, found in case["systems"].items():
            lines.append(f"{name:20}{system:26}" + (found.get("cannot") or found.get("wrong") or numbers(found)))
        goals = ", ".join(f"{key} {goal} ms" for key, goal in case["goals"].items())
        if goals:
            lines.append(f"{name:20}{'goal':26}{goals}")
    if "encoder" in report:
        lines += ["", "a training step of an encoder"]
        for name, found in report["encoder"]["steps"].items():
            lines.append(
                f"  {name:20}{found['ms']:10.2f} ms{(found['bytes'] or 0) / 1e9:8.2f} GB  loss {found['loss']:.4f}"
            )
    for name, found in report.get("pooling", {}).items():
        lines += ["", f"pooling, {name}: {found['documents']} documents of {found['Ld']} tokens"]
        lines += [f"  {by:20}{by_it['ms']:10.3f} ms" for by, by_it in found.items() if isinstance(by_it, dict)]
    for name, found in report.get("scores", {}).items():
        lines += ["", f"{name}: forward, and forward with backward"]
        lines += [f"  {by:20}{it['forward']['ms']:10.3f} ms{it['step']['ms']:10.3f} ms" for by, it in found.items()]
    for name, found in report.get("first_call", {}).items():
        for cache, seconds in found.items():
            lines.append(f"{name}, {cache}: " + ", ".join(f"{key} {value:.2f} s" for key, value in seconds.items()))
    for name, found in report.get("sweep", {}).items():
        lines += ["", f"sweep {name}", *(f"  {entry}" for entry in found[:5])]
    return "\n".join(lines)


def numbers(found: dict[str, Any]) -> str:
    """One line."""

    def ms(key: str) -> str:
        times = found.get(key)
        return f"{times.get('ms_graph', times['ms']):10.3f}" if times else f"{'':10}"

    size = found.get("step_bytes") or found.get("forward_bytes")
    memory = f"{size / 1e6:8.1f}" if size else f"{'':8}"
    errors = " ".join(f"{error:.1e}" for error in found["errors"].values())
    share = f"{100 * found['share_of_floor']:9.0f}"
    return ms("forward") + share + ms("training_forward") + ms("backward") + memory + "  " + errors
