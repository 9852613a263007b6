"""Counts instructions of the machine code of our hottest loops, and what they would take at the rates of an H200.

    python -m benchmarks.gpu.sass --out benchmarks/results/sass.json

Needs no GPU: NVRTC and Triton compile for sm_90, cuobjdump (Triton brings it) disassembles. A loop's instructions go to
pipes, each of which starts so many warp instructions per clock on a multiprocessor; the fullest pipe, or the four
schedulers, bound the clocks. That is a lower bound: nothing waits, and memory is as fast as it can be. *Before* is
what a kernel did before this was counted: Triton's scan, and maxima that are masked in every tile.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # Triton is to compile
os.environ["CUDA_VISIBLE_DEVICES"] = ""

TESTS = Path(__file__).parents[2] / "tests" / "kernels"
CLOCK, MULTIPROCESSORS = 1.755e9, 132  # an H200's
HBM, L2 = 4.3e12, 5.5e12  # bytes a second, that of HBM as measured for copies
SCHEDULERS = 4.0
PIPES = {  # warp instructions a clock
    "integer": (
        2.0,
        [
            "LOP3",
            "PRMT",
            "SHF",
            "IADD3",
            "LEA",
            "VIMNMX",
            "VIMNMX3",
            "VIADD",
            "ISETP",
            "SEL",
            "PLOP3",
            "IABS",
            "FMNMX",
            "FSEL",
            "FSETP",
            "LOP",
            "I2I",
            "BMSK",
            "SGXT",
        ],
    ),
    "multiply": (2.0, ["IMAD", "FFMA", "FMUL", "FADD"]),
    "convert": (0.5, ["I2F", "F2I", "I2FP", "F2F", "MUFU", "POPC", "FLO"]),
    "memory": (1.0, ["LDG", "LDS", "STS", "STG", "LDSM", "SHFL", "LDC", "ATOMS", "LDGSTS"]),
    "matrix": (0.5, ["IMMA", "HMMA"]),  # m16n8k32 of bytes: half of what wgmma reaches
}
TOKENS = 1e8  # of a scan; the goals are those of one query and so many tokens
GOALS = {(2, 32): 1.9, (4, 32): 2.4, (2, 320): 16.0}  # milliseconds, by bits and query tokens
CODES = {1: 20, 2: 36, 4: 68}  # bytes of a token with its scale and centroid


def disassembled(code: bytes) -> list[tuple[int, str]]:
    """Address and text of each instruction."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        told = subprocess.run([tool, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", told)
    return [(int(address, 16), text) for address, text in found]


def loops(code: list[tuple[int, str]]) -> list[list[str]]:
    """Bodies of backward branches, the shortest first."""
    places = {address: n for n, (address, _) in enumerate(code)}
    found = []
    for n, (_, text) in enumerate(code):
        target = re.search(r"\bBRA\S*\s.*?0x([0-9a-f]+)", text)
        first = places.get(int(target[1], 16)) if target else None
        if first is not None and first < n:
            found.append([text for _, text in code[first : n + 1]])
    return sorted(found, key=len)


def name(text: str) -> str:
    """Of an instruction, without its predicate and modifiers."""
    return re.sub(r"^@!?U?P\w+\s+", "", text).split()[0].split(".")[0]


def clocks(counts: Counter[str]) -> dict[str, float]:
    """Of each pipe, and of the schedulers, for one warp."""
    found = {pipe: sum(counts[x] for x in names) / rate for pipe, (rate, names) in PIPES.items()}
    return {**found, "schedulers": counts.total() / SCHEDULERS}


def scan(code: bytes, Lq: int, warps: int, tokens: int) -> dict[str, Any]:
    """Of a loop whose warps together take so many tokens: instructions and clocks a token and multiprocessor."""
    multiplying = [body for body in loops(disassembled(code)) if any(re.search("[IQ]G?MMA", x) for x in body)]
    counts = Counter(map(name, multiplying[0]))
    each = {pipe: round(value * warps / tokens, 2) for pipe, value in clocks(counts).items()}
    if counts["IGMMA"]:  # of four warps together, at the rate of wgmma: 4096 products of bytes a clock
        each["matrix"] = round(Lq * 128 / 4096, 2)
    return {"instructions": round(counts.total() * warps / tokens, 1), "clocks": each, "bound": max(each.values())}


def milliseconds(found: dict[str, Any]) -> float:
    """Of a scan of `TOKENS`, if the fullest pipe is never idle."""
    return float(found["bound"]) * TOKENS / (CLOCK * MULTIPROCESSORS) * 1000


def scans() -> dict[str, Any]:
    """Triton's scan and ours, for bits and lengths of queries."""
    from lateint_kernels.codes.cuda import products
    from lateint_kernels.codes.triton import search
    from lateint_kernels.gpu import launch, program

    sys.path.insert(0, str(TESTS))
    import compile_triton

    found: dict[str, Any] = {}
    for nbits in (1, 2, 4):
        for Lq in (32, 320):
            index, queries = compile_triton.index(nbits, 128), compile_triton.queries(1, Lq, 128)
            positions = compile_triton.empty(1, 1 << 20, dtype=compile_triton.torch.int64)
            best = compile_triton.empty(1, 1 << 20, Lq, dtype=compile_triton.torch.int32)
            planned = search.scoring_launch(index, queries, positions, best, launch.ARCHITECTURES[90])
            kernel = compile_triton.compiled(planned, 90)
            block_m, block_n, _ = search.scoring_tiles(Lq, 128, 128)
            pieces = -(-Lq // block_m)
            before = scan(kernel.asm["cubin"], block_m, planned.warps, block_n)
            before = {"pieces": pieces, **before, "bound": round(before["bound"] * pieces, 2)}
            tiles, pieces = products.tiles_for(Lq)
            defines = {"NBITS": nbits, "WIDTH": 128, "HIGH": 1, "TILES": tiles}
            source = program.source_of("best_products.cu")
            sizes = tuple((key, str(value)) for key, value in defines.items())
            after = scan(program.compile_source(source, "best_products", sizes, "sm_90a"), Lq, 1, 32)
            row = {
                "before": before | {"ms": round(milliseconds(before), 2)},
                "after": after | {"ms": round(milliseconds(after), 2)},
                "ms of HBM": round(CODES[nbits] * TOKENS / HBM * 1000, 2),
                "ms of L2, if no centroid is in L1": round(128 * TOKENS / L2 * 1000, 2),
                "goal ms": GOALS.get((nbits, Lq)),
            }
            found[f"{nbits} bits, Lq {Lq}"] = row
            print(json.dumps({f"{nbits} bits, Lq {Lq}": row}), flush=True)
    return found


POSITIONS = {"B 1024, Lq 32, Ld 180": (1024, 32, 180, 3.3), "B 256, Lq 32, Ld 300": (256, 32, 300, 0.34)}


def positions() -> dict[str, Any]:
    """Of Triton's forward that remembers where maxima are: ways to find out, and what a batch of B queries and as many
    documents of d 128 takes at least."""
    from benchmarks.gpu import forms
    from lateint_kernels.dense.triton import forward, maxsim
    from lateint_kernels.gpu import launch

    sys.path.insert(0, str(TESTS))
    import compile_triton

    found: dict[str, Any] = {}
    now = forward.largest_and_first
    for case, (B, Lq, Ld, goal) in POSITIONS.items():
        row: dict[str, Any] = {"goal ms": goal}
        problem = compile_triton.problem(Nq=B, Nd=B, Lq=Lq, Ld=Ld)
        none, some = list(maxsim.all_launches(problem, launch.ARCHITECTURES[90]))[:2]
        ways = {"none": (none, now), "before": (some, forms.compared), "packed": (some, forms.packed)}
        for label, (planned, way) in {**ways, "after": (some, now)}.items():
            forward.largest_and_first = way
            planned.kernel.hash = None
            planned.kernel.used_global_vals.clear()
            kernel = compile_triton.compiled(planned, 90)
            block_m, block_n = (planned.constants[key] for key in ("BLOCK_M", "BLOCK_N"))
            body = next(x for x in loops(disassembled(kernel.asm["cubin"])) if any("HGMMA" in text for text in x))
            counts = Counter(map(name, body))
            each = {pipe: round(value * planned.warps) for pipe, value in clocks(counts).items()}
            each["matrix"] = 2 * block_m * block_n * 128 // 4096  # at the rate of wgmma
            tiles = -(-B * Lq // block_m) * B * -(-Ld // block_n)
            row[label] = {
                "instructions": counts.total(),
                "registers": compile_triton.report(kernel)["registers"],
                "clocks of a tile": each,
                "ms": round(max(each.values()) * tiles / (CLOCK * MULTIPROCESSORS) * 1000, 2),
            }
        found[case] = row
        print(json.dumps({case: row}), flush=True)
    return found


# How maxima were taken before: the question whether a tile is whole was asked inside the loop.
BEFORE = (
    ("template <bool WHOLE>\n", ""),
    ("!WHOLE &&", "limit < COLUMNS &&"),
    ("take_columns<true>(", "take_columns("),
    ("take_columns<false>(", "take_columns("),
    ("if (at.length - at.token >= COLUMNS) {", "if (true) {"),
)


def dense() -> dict[str, Any]:
    """Instructions of forward_hopper between its two waits, where they cost nothing, and after the second."""
    from lateint_kernels.gpu import program

    found: dict[str, Any] = {}
    for dim, columns, factors, argmax in ((128, 128, 0, 0), (128, 128, 0, 1), (128, 112, 1, 1), (64, 128, 0, 0)):
        sizes = {"DIM": dim, "COLUMNS": columns, "STAGES": 4, "FACTORS": factors, "ARGMAX": argmax}
        defines = (("TOKEN", "bf16"), *((key, str(value)) for key, value in sizes.items()))
        row: dict[str, Any] = {}
        for form in ("before", "after"):
            source = program.source_of("forward_hopper.cu")
            for now, then in BEFORE if form == "before" else ():
                assert now in source
                source = source.replace(now, then)
            texts = [
                text for _, text in disassembled(program.compile_source(source, "forward_hopper", defines, "sm_90a"))
            ]
            waits = [n for n, text in enumerate(texts) if "WARPGROUP.DEPBAR" in text]
            freed = next(n for n in range(waits[-1], len(texts)) if "SYNCS.ARRIVE" in texts[n])
            halves = [texts[waits[0] : waits[-1]], texts[waits[-1] : freed]]
            forms = 2 if form == "after" else 1  # a half has a form for whole tiles, and one for the last
            maxima = [sum("FMNMX" in text for text in half) / forms for half in halves]
            row[form] = {
                "maxima taken while multiplying": maxima[0],
                "afterwards": maxima[1],
                "of each half": columns / 2,
            }
        # Of two groups: products of a tile at the rate of wgmma, and what is left uncovered in each form.
        row["clocks of a tile's products"] = 2 * 128 * columns * dim * 2 / 4096
        found[f"d {dim}, {columns} columns, factors {factors}, positions {argmax}"] = row
        print(json.dumps(row), flush=True)
    return found


PARTS = {"scan of 1e8 tokens, d 128": scans, "forward_hopper": dense, "positions, Triton": positions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON to write; other parts in it stay")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    report = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    report |= {part: PARTS[part]() for part in arguments.only}
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
