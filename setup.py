"""Builds the one C++ extension and ships the CUDA sources; everything else is declared in pyproject.toml."""

import logging
import os
import platform
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

MACHINE = platform.machine().lower()
X86, ARM = MACHINE in {"x86_64", "amd64"}, MACHINE in {"aarch64", "arm64"}
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vbmi", "-mavx512vnni"]
# A source named *_<isa>.cpp is compiled for that instruction set; which one runs is chosen when the module is loaded.
X86_FLAGS = {
    "_avx2": AVX2,
    "_avx512": AVX512,
    "_avx512bf16": [*AVX512, "-mavx512bf16"],
    "_amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-int8", "-mamx-bf16"],
}
# Not from a later version than the intrinsics ask for: a compiler would use its other instructions, too.
ARM_FLAGS = {
    "_neon": [],
    "_dotprod": ["-march=armv8.2-a+dotprod"],
    "_i8mm": ["-march=armv8.2-a+dotprod+i8mm"],
}
ISA_FLAGS: dict[str, list[str]] = {**X86_FLAGS, **ARM_FLAGS}

LONGEST = ["csrc/bindings/module.cpp", "csrc/dense/screen_amx.cpp"]  # to compile: they begin first


CHECKS = os.environ.get("LATEINT_SANITIZE")  # of `make sanitize`: address,undefined or thread
SANITIZE = [f"-fsanitize={CHECKS}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"] if CHECKS else []
# Python's own flags make signed overflow wrap; a check wants to see it.
OPTIMIZE = ["-O1", "-g1", "-fno-wrapv", *SANITIZE] if CHECKS else ["-O3"]


def cpus() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def isa_of(source: str) -> str | None:
    return next((suffix for suffix in ISA_FLAGS if Path(source).stem.endswith(suffix)), None)


def flags_of(source: str) -> list[str]:
    """Flags of one source, after those of all."""
    if Path(source).parent.name == "bindings":  # mostly pybind11: not ours, long to compile, and no loops of ours
        return ["-O0", "-fno-sanitize=undefined"] if CHECKS else ["-O1"]
    return ISA_FLAGS.get(isa_of(source) or "", [])


class BuildExt(build_ext):
    """Compiles sources in parallel, each with the flags of its instruction set, and says which are done."""

    def build_extensions(self) -> None:
        compile_all, compile_one = self.compiler.compile, self.compiler._compile

        def with_flags(obj: str, src: str, ext: str, cc: Any, extra: list[str], pp: Any) -> None:
            compile_one(obj, src, ext, cc, [*extra, *flags_of(src)], pp)

        def parallel(sources: list[str], *args: Any, **kwargs: Any) -> list[str]:
            started, done = time.monotonic(), count(1)

            def run(source: str) -> list[str]:
                objects: list[str] = compile_all([source], *args, **kwargs)
                logging.info("%d of %d (%.0f s) %s", next(done), len(sources), time.monotonic() - started, source)
                return objects

            with ThreadPoolExecutor(cpus()) as pool:
                logging.info("compiling %d sources, %d at a time", len(sources), cpus())
                return [obj for objects in pool.map(run, sources) for obj in objects]

        if self.compiler.compiler_type == "unix":
            self.compiler._compile = with_flags
        self.compiler.compile = parallel
        super().build_extensions()


class BuildPy(build_py):
    """Puts the CUDA sources into the package, for they are compiled where they run; an editable install finds csrc."""

    def run(self) -> None:
        super().run()
        for source, target in self.cuda_sources() if not self.editable_mode else ():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self.cuda_sources())]

    def cuda_sources(self) -> list[tuple[Path, Path]]:
        folder = Path(self.build_lib, "lateint_kernels", "gpu", "src")
        return [(source, folder / source.name) for source in sorted(Path("csrc/cuda").glob("*.cu*"))]


def sources() -> list[str]:
    """All C++ sources but those of instruction sets that this architecture lacks; those first that take longest."""
    ours = {None, *(X86_FLAGS if X86 else ()), *(ARM_FLAGS if ARM else ())}
    files = sorted(str(path) for path in Path("csrc").glob("**/*.cpp"))
    files.sort(key=lambda source: LONGEST.index(source) if source in LONGEST else len(LONGEST))
    return [source for source in files if isa_of(source) in ours]


setup(
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
    ext_modules=[
        Pybind11Extension(
            "lateint_kernels._cpu",
            sources(),
            depends=sorted(str(path) for path in Path("csrc").glob("**/*.hpp")),
            include_dirs=["csrc"],
            cxx_std=17,
            # No contraction to FMA behind our back: the same source gives the same bits on every instruction set.
            extra_compile_args=[
                *OPTIMIZE,
                "-ffp-contract=off",
                "-fvisibility=hidden",
                "-pthread",
                "-Wno-uninitialized",
                "-Wno-maybe-uninitialized",
            ],
            extra_link_args=SANITIZE,
        )
    ],
)
