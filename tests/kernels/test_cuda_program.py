"""CUDA sources: compiled for every architecture, kept on disk, refused with a reason. No GPU is needed."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from lateint_kernels._cuda import program, support

TOOLS = importlib.util.find_spec("triton")
CUOBJDUMP = Path(TOOLS.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump" if TOOLS and TOOLS.origin else None
ARCHITECTURES = ["sm_80", "sm_90a", "sm_100"]


@pytest.fixture
def nvrtc():
    if reason := support._missing():
        pytest.skip(reason)


def resources(code, path):
    """Registers, and bytes of stack: what did not fit into registers."""
    if CUOBJDUMP is None or not CUOBJDUMP.exists():
        pytest.skip("no cuobjdump: it comes with triton")
    path.write_bytes(code)
    told = subprocess.run([CUOBJDUMP, "-res-usage", path], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"REG:(\d+)", told)[1]), int(re.search(r"STACK:(\d+)", told)[1])


BACKWARD = [("document_gradient", {"TOKEN": token}, 64) for token in ("bf16", "fp16", "fp32")] + [
    ("query_gradient", {"TOKEN": "bf16", "LANES": "16", "BLOCKS": "1"}, 64),
    ("query_gradient", {"TOKEN": "fp32", "LANES": "32", "BLOCKS": "1"}, 64),
    ("query_gradient", {"TOKEN": "fp16", "LANES": "1", "BLOCKS": "1"}, 64),
    ("query_gradient", {"TOKEN": "bf16", "LANES": "32", "BLOCKS": "2"}, 96),
    ("query_gradient", {"TOKEN": "fp16", "LANES": "32", "BLOCKS": "16"}, 255),
    ("query_gradient", {"TOKEN": "fp32", "LANES": "32", "BLOCKS": "16"}, 255),
]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "defines", "registers"), BACKWARD, ids=lambda x: "-".join(x.values()) if isinstance(x, dict) else str(x)
)
def test_kernels_fit_into_registers(nvrtc, tmp_path, arch, name, defines, registers):
    code = program.compile_source(program.source_of(f"{name}.cu"), name, tuple(defines.items()), arch)
    used, stack = resources(code, tmp_path / "kernel.cubin")
    assert used <= registers and stack == 0


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


def test_source_has_each_header_once():
    text = program.source_of("query_gradient.cu")
    assert "#include" not in text and "#pragma once" not in text
    assert text.count("struct Backward {") == text.count("struct bf16 {") == 1


def test_compiler_error_names_the_line(nvrtc):
    with pytest.raises(Exception, match=r"query_gradient.cu\(1\)"):
        program.compile_source("nonsense", "query_gradient", (), "sm_80")


def test_refusals(monkeypatch):
    why_not = support.why_not
    assert why_not("maxsim_backward", "cpu") == "runs on cuda only"
    monkeypatch.setattr(support, "_missing", lambda: None)
    monkeypatch.setattr(support, "_unfit", lambda index: None)
    assert why_not("maxsim_backward", "cuda:1", "torch.bfloat16", 128) is None
    assert why_not("maxsim_backward", "cuda", "torch.bfloat16", 100) == (
        "takes a dim that is a multiple of 8, at most 4096 for bfloat16, not 100"
    )
    assert why_not("maxsim_backward", "cuda", "torch.float64") == "takes float16, bfloat16, float32, not float64"
    monkeypatch.setattr(support, "_missing", lambda: "cuda-core is not installed")
    assert why_not("maxsim_backward", "cuda") == "cuda-core is not installed"
    monkeypatch.setenv("LATEINT_CUDA", "off")
    assert why_not("maxsim_backward", "cuda") == "LATEINT_CUDA is off"
