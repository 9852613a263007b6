"""The kernels of 64-bit ARM, compiled for it and run on emulated processors: the bits of x86-64.

A program without Python (instruction_sets/bits.cpp) runs every kernel of every instruction set on the same numbers and
prints hashes; tests/golden/kernel-bits.json holds those of the scalar kernels and of AVX2. For ARM the test needs
g++-aarch64-linux-gnu and qemu-user; on an ARM machine the program is compiled and run as it is. Where kernels of floats
were changed, ``python tests/kernels/test_arm.py`` writes the file anew on an x86-64 with AVX2.
"""

import json
import os
import platform
import runpy
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "kernel-bits.json"
ARM = platform.machine().lower() in {"aarch64", "arm64"}
X86 = platform.machine().lower() in {"x86_64", "amd64"}
NATIVE = shutil.which("g++") or shutil.which("clang++")
CROSS = NATIVE if ARM else shutil.which("aarch64-linux-gnu-g++")
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
FOLDERS = ("platform/*", "dense/*", "train/*", "codes/int8*", "codes/residual*")
WHOLE = (
    "codes/",
    "dense/int8/",
    "dense/pool/",
)  # cases whose results are whole numbers, or floats in one order on every set
# Processors that qemu knows, with their instruction sets.
PROCESSORS = {
    "cortex-a72": ["scalar", "neon"],
    "neoverse-n1": ["scalar", "neon", "dotprod"],
    "max": ["scalar", "neon", "dotprod", "i8mm"],
}


def built(compiler, sets, folder):
    """The program, compiled with the flags that setup.py has for each file: ``sets`` names its table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("setuptools.setup", lambda **_: None)
        patch.chdir(ROOT)
        rules = runpy.run_path("setup.py")

    def compiled(source):
        target = folder / f"{source.relative_to(ROOT).as_posix().replace('/', '-')}.o"
        flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-pthread", "-w", f"-I{ROOT / 'csrc'}"]
        extra = rules[sets].get(rules["isa_of"](source.name), [])
        subprocess.run([compiler, *flags, *extra, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    sources = sorted(path for pattern in FOLDERS for path in (ROOT / "csrc").glob(f"{pattern}.cpp"))
    chosen = [source for source in sources if rules["isa_of"](source.name) in {None, *rules[sets]}]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        objects = list(pool.map(compiled, [Path(__file__).parent / "instruction_sets" / "bits.cpp", *chosen]))
    program = folder / "bits"
    static = [] if sys.platform == "darwin" else ["-static"]  # then the emulator needs no libraries of ARM
    subprocess.run([compiler, "-pthread", *static, *objects, "-o", str(program)], check=True)
    return program


def run(*command):
    """{instruction set: {case: hash}}."""
    environment = {name: value for name, value in os.environ.items() if name != "LATEINT_ISA"}
    done = subprocess.run([str(part) for part in command], env=environment, check=True, capture_output=True, text=True)
    found = {}
    for line in done.stdout.splitlines():
        isa, case, value = line.split()
        found.setdefault(isa, {})[case] = value
    return found


def differing(found, expected, whole):
    """Cases that differ, of those of whole numbers only, or of all."""
    assert found.keys() == expected.keys()
    return [case for case in expected if found[case] != expected[case] and (not whole or case.startswith(WHOLE))]


@pytest.fixture
def golden():
    pytest.importorskip("pybind11", reason="setup.py imports it")
    return json.loads(GOLDEN.read_text())


@pytest.mark.skipif(not CROSS, reason="there is no aarch64-linux-gnu-g++")
@pytest.mark.skipif(not (ARM or QEMU), reason="there is no qemu-aarch64")
def test_arm_has_the_bits_of_x86(golden, tmp_path):
    """The scalar kernels those of the scalar ones, all others those of AVX2."""
    program = built(CROSS, "ARM_FLAGS", tmp_path)
    found = {"here": run(program)} if ARM else {name: run(QEMU, "-cpu", name, program) for name in PROCESSORS}
    for processor, sets in found.items():
        assert list(sets) == PROCESSORS.get(processor, list(sets))
        assert differing(sets["scalar"], golden["scalar"], whole=False) == [], processor
        for isa in sets.keys() - {"scalar"}:
            assert differing(sets[isa], golden["avx2"], whole=False) == [], (processor, isa)


@pytest.mark.skipif(not X86 or not NATIVE, reason="this is no x86-64 with a compiler")
def test_every_set_of_x86_has_its_bits(golden, tmp_path):
    found = run(built(NATIVE, "X86_FLAGS", tmp_path))
    for isa, cases in found.items():
        expected = golden["scalar" if isa == "scalar" else "avx2"]
        assert differing(cases, expected, whole=isa not in golden) == [], isa


def test_the_golden_hashes_agree_where_they_must(golden):
    assert sum(case.startswith(WHOLE) for case in golden["scalar"]) > 100
    assert differing(golden["avx2"], golden["scalar"], whole=True) == []
    assert differing(golden["avx2"], golden["scalar"], whole=False) != []


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        bits = run(built(NATIVE, "X86_FLAGS", Path(made)))
    GOLDEN.write_text(json.dumps({isa: bits[isa] for isa in ("scalar", "avx2")}, indent=0) + "\n")
