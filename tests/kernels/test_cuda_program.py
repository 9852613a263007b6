"""CUDA sources: compiled for every architecture, kept on disk, refused with a reason. No GPU is needed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compile_cuda import compiled

pytest.importorskip("torch")

from lateint_kernels import backends
from lateint_kernels.codes.cuda import products, scoreboard
from lateint_kernels.dense.cuda import backward, forward, support
from lateint_kernels.gpu import program
from lateint_kernels.gpu import support as gpu_support

TOOLS = importlib.util.find_spec("triton")
CUOBJDUMP = Path(TOOLS.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump" if TOOLS and TOOLS.origin else None
ARCHITECTURES = ["sm_80", "sm_90a", "sm_100"]
REGISTERS = 65536  # of a multiprocessor, for all threads of its blocks


@pytest.fixture
def nvrtc():
    if reason := gpu_support._missing():
        pytest.skip(reason)


def disassembled(name, defines, arch, folder):
    """Registers of a kernel, bytes of stack (what did not fit into registers), and its instructions."""
    source = program.source_of(f"{name}.cu")
    return read_back(program.compile_source(source, name, tuple(defines.items()), arch), folder)


def read_back(code, folder):
    """Likewise of a cubin."""
    if CUOBJDUMP is None or not CUOBJDUMP.exists():
        pytest.skip("no cuobjdump: it comes with triton")
    path = folder / "kernel.cubin"
    path.write_bytes(code)
    told = subprocess.run([CUOBJDUMP, "-res-usage", "-sass", path], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"REG:(\d+)", told)[1]), int(re.search(r"STACK:(\d+)", told)[1]), told


def gradient(token, lanes=None, blocks=None):
    if lanes is None:
        return "document_gradient", {"TOKEN": token}
    return "query_gradient", {"TOKEN": token, "LANES": str(lanes), "BLOCKS": str(blocks)}


def blocks_that_fit(registers, threads):
    """On a multiprocessor; a thread gets a multiple of 8 registers."""
    return REGISTERS // (-(-registers // 8) * 8 * threads)


@pytest.mark.long
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    ("kernel", "threads", "blocks"),
    [
        (gradient("bf16"), backward.DOCUMENT_THREADS, backward.BLOCKS_PER_MULTIPROCESSOR),
        (gradient("fp32"), backward.DOCUMENT_THREADS, backward.BLOCKS_PER_MULTIPROCESSOR),
        (gradient("bf16", 16, 1), backward.QUERY_THREADS, 4),  # half of the warps that there can be
        (gradient("fp16", 32, 16), backward.QUERY_THREADS, 1),  # a warp holds 4096 sums
    ],
)
def test_gradients_fit_into_registers(nvrtc, tmp_path, arch, kernel, threads, blocks):
    used, stack, _ = disassembled(*kernel, arch, tmp_path)
    assert blocks_that_fit(used, threads) >= blocks and stack == 0


def forward_defines(token, dim, columns, stages, factors, argmax, **more):
    sizes = {"DIM": dim, "COLUMNS": columns, "STAGES": stages, "FACTORS": factors, "ARGMAX": argmax, **more}
    return {"TOKEN": token, **{name: str(size) for name, size in sizes.items()}}


@pytest.mark.parametrize(
    ("arch", "rows", "columns", "dim"),
    [("sm_80", 128, 128, 128), ("sm_90a", 32, 128, 128), ("sm_100", 128, 64, 64), ("sm_80", 32, 128, 96)],
)
def test_scores_are_formed_on_tensor_cores(nvrtc, tmp_path, arch, rows, columns, dim):
    defines = forward_defines("fp16" if dim == 96 else "bf16", dim, columns, 2, 1, 1, ROWS=rows)
    used, stack, instructions = disassembled("forward", defines, arch, tmp_path)
    # A block has a multiprocessor to itself, as its launch bounds say. So how many registers a compiler takes (NVRTC
    # 13.0 up to 214, 13.5 up to 181) matters only where they no longer fit.
    assert "__launch_bounds__(lateint::THREADS, 1) forward(" in program.source_of("forward.cu")
    assert blocks_that_fit(used, forward.Tile("forward", dim, rows, columns, 2).threads) >= 1 and stack == 0
    products = instructions.count("HMMA.16816.F32")
    assert products > 0 and products % (dim // 16 * 4) == 0


HOPPER_VARIANTS = [("bf16", 128, 128, 0, 0), ("bf16", 128, 112, 1, 1), ("fp16", 64, 104, 1, 1)]


@pytest.mark.long
@pytest.mark.parametrize("sizes", HOPPER_VARIANTS)
def test_hopper_scores_keep_the_matrix_units_busy(nvrtc, tmp_path, sizes):
    token, dim, columns, factors, argmax = sizes
    defines = forward_defines(token, dim, columns, 4, factors, argmax)
    code, remarks = compiled(program.source_of("forward_hopper.cu"), "forward_hopper", defines.items(), "sm_90a")
    # From C7500 on: products that are waited for one by one.
    assert "(C75" not in remarks
    _, stack, instructions = read_back(code, tmp_path)
    assert stack == 0
    assert len(re.findall(rf"HGMMA.64x{columns}x16.F32", instructions)) == 2 * dim // 16
    # Two groups of products under way, each waited for once: had the compiler feared for a register, it would have
    # waited after every product.
    assert instructions.count("WARPGROUP.ARRIVE") == instructions.count("WARPGROUP.DEPBAR") == 2
    assert instructions.count("UTMALDG.2D") == dim // 64 and "USETMAXREG" in instructions
    # Between the two waits, while the lower half's products are formed, the upper half's maxima are taken: in a form
    # for whole tiles and in one for the last tile of a document.
    between = instructions.split("WARPGROUP.DEPBAR")[1]
    assert between.count("FMNMX") >= columns, "the maxima are taken when nothing is multiplied"


def test_products_waited_for_one_by_one_would_be_remarked_on(nvrtc):
    source = program.source_of("forward_hopper.cu").replace("        wait_products<1>(upper);\n", "")
    defines = forward_defines("fp16", 64, 64, 4, 0, 0)
    assert "(C75" in compiled(source, "forward_hopper", defines.items(), "sm_90a")[1]


@pytest.mark.parametrize(("arch", "nbits", "tiles"), [("sm_90a", 2, 2), ("sm_90a", 4, 20), ("sm_80", 1, 2)])
def test_codes_are_decoded_four_to_a_register(nvrtc, tmp_path, arch, nbits, tiles):
    """A lane decodes 32 words for 32 tokens of 128 components: two permutations of bytes each, of 4 bits three."""
    defines = {"NBITS": str(nbits), "WIDTH": "128", "HIGH": "1", "TILES": str(tiles)}
    used, stack, instructions = disassembled("best_products", defines, arch, tmp_path)
    assert blocks_that_fit(used, products.THREADS) >= 3 and stack <= 8
    assert instructions.count("IMMA.16832.S8.U8") == tiles * 4 * 4
    assert instructions.count("PRMT") <= 32 * (3 if nbits == 4 else 2) + 8 * tiles + 40


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_scoreboard_stays_in_registers_and_shared_memory(nvrtc, tmp_path, arch):
    used, stack, instructions = disassembled("scoreboard", {}, arch, tmp_path)
    assert blocks_that_fit(used, scoreboard.THREADS) >= scoreboard.BLOCKS_PER_MULTIPROCESSOR and stack == 0
    assert all(f"ATOMS.{name}" in instructions for name in ("ADD", "CAS", "MAX"))
    bounds = program.source_of("scoreboard.cu")
    assert f"__launch_bounds__({scoreboard.THREADS}, {scoreboard.BLOCKS_PER_MULTIPROCESSOR})" in bounds
    assert "BINS = 1 << DIGIT" in bounds and f"DIGIT = {scoreboard.BINS.bit_length() - 1}," in bounds
    assert "KEY_BITS = 63;" in bounds and scoreboard.PASSES == -(-63 // 11)


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """A cache of its own, and a compiler that counts."""
    made = []
    monkeypatch.setenv("LATEINT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(program, "nvrtc_version", lambda: (13, 0))
    monkeypatch.setattr(program, "compile_source", lambda *what: made.append(what) or b"code " + what[3].encode())
    program._warn_unkept.cache_clear()
    return made


def test_compiled_once(counted, tmp_path):
    assert program.cubin("query_gradient", (), "sm_80") == program.cubin("query_gradient", (), "sm_80") == b"code sm_80"
    assert len(counted) == 1
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".cubin"]


@pytest.mark.parametrize("changed", ["source", "architecture", "definitions", "NVRTC"])
def test_compiled_again_when_made_of_something_else(counted, monkeypatch, changed):
    program.cubin("query_gradient", (), "sm_80")
    if changed == "source":
        monkeypatch.setattr(program, "source_of", lambda file: "other")
    if changed == "NVRTC":
        monkeypatch.setattr(program, "nvrtc_version", lambda: (13, 1))
    defines = (("TOKEN", "bf16"),) if changed == "definitions" else ()
    program.cubin("query_gradient", defines, "sm_90a" if changed == "architecture" else "sm_80")
    assert len(counted) == 2


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:40] + b"?" + data[41:]]
)
def test_damaged_file_is_made_again(counted, tmp_path, damage):
    program.cubin("query_gradient", (), "sm_90a")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert program.cubin("query_gradient", (), "sm_90a") == b"code sm_90a"
    assert program.cubin("query_gradient", (), "sm_90a") == b"code sm_90a"
    assert len(counted) == 2


def test_folder_that_cannot_be_written_is_told_of_once(counted, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be kept in .*cache .*; set LATEINT_CACHE_DIR"):
        assert program.cubin("query_gradient", (), "sm_80") == b"code sm_80"
    assert program.cubin("query_gradient", (), "sm_80") == b"code sm_80"
    assert len(counted) == 2


def test_cache_folder(monkeypatch):
    monkeypatch.delenv("LATEINT_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert program.cache_folder() == Path("/xdg/lateint")
    monkeypatch.setenv("LATEINT_CACHE_DIR", "/chosen")
    assert program.cache_folder() == Path("/chosen")


TOLD = """
import ctypes, sys, types
import torch
from lateint_kernels.gpu import program
from lateint_kernels.gpu import support as gpu_support

class Argument(ctypes.Structure):
    _fields_ = (("number", ctypes.c_longlong),)

torch.cuda.current_stream = lambda index: types.SimpleNamespace(cuda_stream=70 + index)
program.cubin = lambda name, defines, arch: b"code of " + arch.encode()
print(program.gpu(1), flush=True)
print(program.why_not_loadable(0), flush=True)
kernel = program.load("query_gradient", (), 1)
for shared in (70000, 0, 70000):
    kernel.launch((3, 4, 5), 96, shared, Argument(1234567890123))
matrix = torch.zeros(10, 128, dtype=torch.bfloat16)
for _ in range(3):
    assert program._tensor_map(1, matrix.data_ptr(), 10, 128, 96) == b"m" * 128
try:
    kernel.launch((1, 1, 1), 32, 240000, Argument(0))
except RuntimeError as error:
    print(error)
"""


OLD = """
from lateint_kernels.gpu import program

program.cubin = lambda name, defines, arch: b"code of " + arch.encode()
print(program.why_not_loadable(0), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the driver is libcuda.so.1 on Linux only")
def test_driver_is_told_what_is_meant(nvrtc, tmp_path):
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source, library = Path(__file__).with_name("driver.cpp"), tmp_path / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}

    def told(script, **more):
        done = subprocess.run([sys.executable, "-c", script], env=environment | more, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert told(OLD, OLD_DRIVER="1")[-1] == (
        "compiled kernels cannot be loaded: the CUDA driver says CUDA_ERROR_UNSUPPORTED_PTX_VERSION: "
        "the provided PTX was compiled with an unsupported toolchain."
    )
    launched = "launch 3000: 3 4 5 of 96, shared {}, stream 71, argument 1234567890123"
    assert sorted(told(TOLD)) == sorted(
        [
            "Gpu(arch='sm_90a', multiprocessors=132, shared_per_block=232448, shared_per_multiprocessor=233472)",
            "None",
            *["library of code"] * 2,
            "kernel loadable of 2000",
            "attribute 8 of 3000 on 40: 232448",
            *["push 1040", "pop"],
            "kernel query_gradient of 2000",
            "attribute 8 of 3000 on 41: 232448",
            *["push 1041", "pop"] * 6,
            "in context 1041",
            *[launched.format(shared) for shared in (70000, 0, 70000)],
            "map type 1 rank 2 sizes 128 10 stride 256 box 64 96 steps 1 1: 0 3 3 0",
            "launch 3000: 1 1 1 of 32, shared 240000, stream 71, argument 0",
            "the CUDA driver says CUDA_ERROR_INVALID_VALUE: invalid argument",
        ]
    )


def test_source_has_each_header_once():
    text = program.source_of("query_gradient.cu")
    assert "#include" not in text and "#pragma once" not in text
    assert text.count("struct Backward {") == text.count("struct bf16 {") == 1


def test_compiler_error_names_the_line(nvrtc):
    with pytest.raises(Exception, match=r"query_gradient.cu\(1\)"):
        program.compile_source("nonsense", "query_gradient", (), "sm_80")


def test_refusals(monkeypatch):
    why_not = support.why_not
    assert why_not("maxsim", "cpu") == "runs on cuda only"
    monkeypatch.setattr(gpu_support, "_missing", lambda: None)
    for module in (support, gpu_support):
        monkeypatch.setattr(module, "_unfit", lambda *what: None)
    assert why_not("maxsim", "cuda:1", "torch.bfloat16", 128) is None
    assert gpu_support.why_not("best_keys", "cuda") is None
    assert why_not("maxsim_backward", "cuda", "torch.float32", 2048) is None
    assert why_not("maxsim", "cuda", "torch.float32") == "maxsim takes bfloat16 and float16, not float32"
    assert why_not("maxsim", "cuda", "torch.float16", 40) == (
        "maxsim takes a dim up to 256 that is a multiple of 16, not 40"
    )
    assert why_not("maxsim_backward", "cuda", "torch.bfloat16", 100) == (
        "maxsim_backward takes a dim up to 4096 that is a multiple of 8, not 100"
    )
    monkeypatch.setattr(gpu_support, "_missing", lambda: "cuda-core is not installed")
    assert why_not("maxsim_backward", "cuda") == "cuda-core is not installed"
    monkeypatch.setenv("LATEINT_CUDA", "off")
    assert why_not("maxsim_backward", "cuda") == "LATEINT_CUDA is off"


def test_a_driver_that_does_not_load_what_is_compiled(monkeypatch):
    """Such as one that is older than NVRTC: found out before the first search, which torch then does."""
    import torch

    reason = "compiled kernels cannot be loaded: the CUDA driver says CUDA_ERROR_UNSUPPORTED_PTX_VERSION"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 0))
    monkeypatch.setattr(gpu_support, "gpu_of", lambda index: program.Gpu("sm_80", 108, 1, 1))
    monkeypatch.setattr(gpu_support, "_missing", lambda: None)
    monkeypatch.setattr(program, "known_architectures", lambda: frozenset({80}))
    monkeypatch.setattr(program, "why_not_loadable", lambda index: reason)
    monkeypatch.setattr(gpu_support, "_unfit", gpu_support._unfit.__wrapped__)
    assert gpu_support.why_not("best_keys", "cuda:0") == reason
    chosen = backends.resolve.__wrapped__("best_keys", torch.device("cuda:0"))
    assert chosen.__module__ == "lateint_kernels.codes.torch.scoreboard"


@pytest.mark.parametrize(
    ("arch", "dim", "reason"),
    [
        ("sm_80", 256, None),
        ("sm_86", 128, None),
        ("sm_86", 256, "maxsim with a dim of 256 needs more shared memory than sm_86 has"),
        ("sm_90a", 64, None),
        ("sm_90a", 96, "maxsim takes a dim of 64 or 128 on sm_90a, not 96"),
        ("sm_100", 128, "maxsim has no kernel for the matrix units of sm_100"),
        ("sm_120", 128, None),
    ],
)
def test_devices_are_refused_with_a_reason(arch, dim, reason):
    shared = {"sm_80": 163, "sm_90a": 227, "sm_100": 227}.get(arch, 99) * 1024
    assert support._unfit_for_maxsim(program.Gpu(arch, 100, shared, shared + 1024), dim) == reason


def test_architectures_known(nvrtc):
    assert {80, 90, 100} <= program.known_architectures()


@pytest.mark.parametrize("shared", [227, 163, 99])
@pytest.mark.parametrize("dim", [16, 64, 96, 128, 256])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_tiles_fit_into_shared_memory(arch, dim, shared):
    gpu = program.Gpu(arch, 132, shared * 1024, (shared + 1) * 1024)
    for rows in (1, 33, 100, 5000):
        for length in (1, 180, 8192):
            for pairs in (False, True):
                tile = forward.tile_for(gpu, rows, length, dim, pairs)
                assert tile.shared <= gpu.shared_per_block if tile else (shared, dim) == (99, 256)
    for length in (1, 180, 8192):
        for size in (dim, 16 * dim):
            size = backward._slice(gpu, 64, length, size * 4) * size * 4
            assert size + backward.DOCUMENT_THREADS * backward.BYTES_PER_THREAD <= gpu.shared_per_block
