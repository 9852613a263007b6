"""What the Triton kernels are compiled to for three generations of GPUs, none of which need be there."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from lateint_kernels import __file__ as package

pytest.importorskip("torch")
pytest.importorskip("triton")
if find_spec("triton.backends.nvidia") is None:
    pytest.skip("this Triton cannot compile for NVIDIA", allow_module_level=True)

pytestmark = pytest.mark.long

SHARED = {80: 163, 90: 227, 100: 227}  # KB that a program can have

BUILD = {"nearest", "nearest_in_cell", "all_in_cell", "encode"}
SMOOTH = {"soft_forward", "soft_query_gradients", "soft_document_gradients"}
RETRIEVE = {"retrieve", "retrieve_members"}
XTR = {*RETRIEVE, "choose_groups", "last_product"}
POOLED = {"fill_costs", "merge"}
SEARCH = {"rotate", "group_maxima", "cell_maxima", "group_products", "best_products", "weighted_sums"}


@pytest.fixture(scope="module")
def kernels():
    """One dict for each kernel and problem."""

    def run(capability):
        script = Path(__file__).with_name("compile_triton.py")
        command = [sys.executable, "-W", "ignore", str(script), str(capability)]
        path = str(Path(package).parents[1])
        done = subprocess.run(command, capture_output=True, text=True, env={**environment(), "PYTHONPATH": path})
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(line) for line in done.stdout.splitlines()]

    with ThreadPoolExecutor(2) as pool:  # as many as CI has processors
        return [kernel for found in pool.map(run, SHARED) for kernel in found]


def environment():
    import os

    return {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}


def test_all_are_there(kernels):
    names = {kernel["kernel"] for kernel in kernels}
    assert names == {
        "forward",
        "query_gradients",
        "sort_winners",
        "document_gradients",
        *SMOOTH,
        *XTR,
        *POOLED,
        *SEARCH,
        *BUILD,
    }
    assert {kernel["capability"] for kernel in kernels} == set(SHARED)


def test_tokens_fit_into_shared_memory(kernels):
    for kernel in kernels:
        assert kernel["shared"] <= SHARED[kernel["capability"]] << 10, kernel


def test_registers_suffice(kernels):
    """Bytes spilled: none on 90. What there is elsewhere lies outside of the loops over tokens.

    On 80, one number a document is kept in memory for a seventh program on a multiprocessor; on 100 a kernel with every
    option wants more registers than the 255 that a thread can have. So do those of the smooth maximum with 320
    components.
    """
    for kernel in kernels:
        wide = kernel["kernel"] in SMOOTH and kernel["problem"] == "wide"
        assert kernel["spilled"] <= (80 if wide else {80: 8, 90: 0, 100: 64}[kernel["capability"]]), kernel


def test_products_use_the_matrix_units(kernels):
    for kernel in kernels:
        multiplying = {"forward", "document_gradients", *SMOOTH, *RETRIEVE}
        multiplies = kernel["kernel"] in multiplying and kernel["problem"] != "float32"
        small = kernel["problem"] in ("reranking", "pairs") and kernel["kernel"] == "forward"  # 32 rows: too few
        if multiplies and kernel["capability"] == 90 and not small:
            assert kernel["wgmma"] and not kernel["mma"], kernel
        elif multiplies:
            assert kernel["mma"], kernel


def test_products_of_bytes_use_the_matrix_units(kernels):
    for kernel in kernels:
        if kernel["kernel"] in ("group_maxima", "cell_maxima", "best_products"):
            many = {  # rows: 64 at least
                "group_maxima": ("search-batch", "search-long", "search-longest"),
                "cell_maxima": ("search-batch",),  # of a single query few tokens look into a cell
                "best_products": ("search-long", "search-longest"),
            }[kernel["kernel"]]
            assert kernel["wgmma" if kernel["capability"] == 90 and kernel["problem"] in many else "mma"], kernel


def test_a_build_finds_centroids_in_registers(kernels):
    """128 tokens meet 128 centroids: no spills, int8 products on the matrix units, and room for two programs."""
    for kernel in kernels:
        if kernel["kernel"] == "encode":
            assert not kernel["spilled"], kernel
        elif kernel["kernel"] in BUILD:
            assert kernel["wgmma" if kernel["capability"] == 90 else "mma"] and not kernel["spilled"], kernel
            if kernel["kernel"] != "all_in_cell":  # which has no loop to load ahead in
                assert kernel["ahead"] >= 1, kernel
            if kernel["problem"] == "build" and kernel["capability"] == 90:
                assert kernel["registers"] <= 128, kernel
                assert (kernel["shared"] + 1024) * 2 <= (SHARED[90] + 1) << 10, kernel


def test_sums_round_products_first(kernels):
    for kernel in kernels:
        if kernel["kernel"] in {"weighted_sums", "rotate", "encode", *POOLED}:
            assert not kernel["fused"], kernel


def test_tokens_are_loaded_ahead(kernels):
    for kernel in kernels:
        if kernel["kernel"] in {"forward", "document_gradients", *RETRIEVE}:
            assert kernel["ahead"] >= 1, kernel


def test_two_programs_share_a_multiprocessor(kernels):
    """The common case waits for the matrix units and for its maxima in turn: another program must fill the gaps."""
    for kernel in kernels:
        if kernel["problem"] == "training" and kernel["kernel"] in {"forward", "document_gradients", *RETRIEVE}:
            threads = 256 if kernel["kernel"] == "document_gradients" or kernel["capability"] == 100 else 128
            assert kernel["registers"] * threads * 2 <= 65536, kernel
            assert (kernel["shared"] + 1024) * 2 <= (SHARED[kernel["capability"]] + 1) << 10, kernel


def test_nan_wins_every_maximum(kernels):
    for kernel in kernels:
        assert bool(kernel["nan_max"]) == (kernel["kernel"] in ("forward", "soft_forward", "retrieve")), kernel


def test_no_atomics(kernels):
    for kernel in kernels:
        assert kernel["atomics"] == 0, kernel
