"""The interpreter of PTX by itself: what it computes, and what it refuses."""

import numpy as np
import pytest

pytest.importorskip("torch")

from ptx.block import Block
from ptx.instructions.copies import Matrix
from ptx.memory import Fault, Memory
from ptx.program import parse
from ptx.scheduler import Run

HEADER = """
.version 8.8
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 tile[];
.visible .entry kernel(.param .u64 kernel_in, .param .u64 kernel_out, .param .align 64 .b8 kernel_map[128])
{
    .reg .pred %p<9>;
    .reg .b16 %h<9>;
    .reg .b32 %r<99>;
    .reg .f32 %f<99>;
    .reg .b64 %rd<20>;
    ld.param.u64 %rd1, [kernel_in];
    ld.param.u64 %rd2, [kernel_out];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    mov.u32 %r90, tile;
"""


def execute(body, given, count, threads=32, *, late=True, seed=0, shared=2048, matrix=None):
    """What a kernel writes: ``[count]`` words. Its input is in %rd1, this thread's word of it in %rd4, and so on."""
    memory = Memory()
    places = memory.put(given), memory.put(np.full(count, 0xDDDDDDDD, np.uint32))
    key = b"m" * 128
    parameters = np.array(places, np.uint64).tobytes().ljust(64, b"\0") + key
    maps = {} if matrix is None else {key: Matrix(places[0], *matrix)}
    program = parse(HEADER + body + "\nret;\n}")
    block = Block(program, memory, (1, 1, 1), threads, parameters, shared, late=late, tensor_maps=maps)
    block.start((0, 0, 0), seed)
    Run(block).finish()
    return memory.get(places[1], 4 * count).view(np.uint32)


@pytest.fixture
def words():
    return np.random.default_rng(0).integers(0, 2**32, 64, dtype=np.uint32)


EXPRESSIONS = {
    "prmt.b32 %r3, %r2, 0x33221100, 0xBA98;": lambda x: sum(
        (0xFF if x >> (8 * byte + 7) & 1 else 0) << 8 * byte for byte in range(4)
    ),
    "lop3.b32 %r3, %r2, 0x0f0f0f0f, 0x00ff00ff, 0xCA;": lambda x: (x & 0x0F0F0F0F) | (~x & 0x00FF00FF),
    "shf.l.wrap.b32 %r3, %r2, 0x12345678, 40;": lambda x: (0x12345678 << 8 | x >> 24) & 0xFFFFFFFF,
    "shr.s32 %r3, %r2, 99;": lambda x: 0xFFFFFFFF if x >> 31 else 0,
    "shr.u32 %r3, %r2, 99;": lambda x: 0,
    "bfe.u32 %r3, %r2, 5, 9;": lambda x: x >> 5 & 511,
    "mul.hi.u32 %r3, %r2, 0xDEADBEEF;": lambda x: x * 0xDEADBEEF >> 32,
    "mad.lo.s32 %r3, %r2, 7, 5;": lambda x: (x * 7 + 5) & 0xFFFFFFFF,
    "dp4a.u32.u32 %r3, %r2, 0x01020304, 9;": lambda x: sum((x >> 8 * byte & 255) * (4 - byte) for byte in range(4)) + 9,
    "popc.b32 %r3, %r2;": lambda x: x.bit_count(),
    "clz.b32 %r3, %r2;": lambda x: 32 - x.bit_length(),
}


@pytest.mark.parametrize("statement", EXPRESSIONS)
def test_integers(words, statement):
    found = execute(f"ld.global.u32 %r2, [%rd4];\n{statement}\nst.global.u32 [%rd5], %r3;", words, 32)
    assert found.tolist() == [EXPRESSIONS[statement](int(word)) for word in words[:32]]


def test_floats_are_rounded_as_they_should_be():
    body = """
        ld.global.f32 %f1, [%rd4];
        cvt.rn.bf16.f32 %h1, %f1;
        cvt.u32.u16 %r2, %h1;
        fma.rn.f32 %f2, %f1, %f1, 0fBF800000;
        mov.b32 %r3, %f2;
        max.NaN.f32 %f3, %f1, 0f7FC00000;
        mov.b32 %r4, %f3;
        st.global.u32 [%rd5], %r2;
        st.global.u32 [%rd5+128], %r3;
        st.global.u32 [%rd5+256], %r4;
    """
    numbers = np.float32([1.00390625, 1.01171875, 1 + 2**-23, -3.5]).repeat(8)
    narrow, fused, nan = execute(body, numbers, 96).reshape(3, 32)
    assert narrow[::8].tolist() == [0x3F80, 0x3F82, 0x3F80, 0xC060]  # ties to even
    assert fused.view(np.float32)[16] == np.float32(2**-22 + 2**-46) and np.isnan(nan.view(np.float32)).all()


def test_threads_part_and_meet(words):
    body = """
        and.b32 %r2, %r1, 1;
        setp.eq.u32 %p1, %r2, 0;
        @%p1 bra even;
        mov.u32 %r3, 7;
        bra.uni meet;
        even: mov.u32 %r3, 5;
        meet: bar.warp.sync 0xffffffff;
        shfl.sync.bfly.b32 %r4|%p2, %r3, 1, 31, 0xffffffff;
        st.global.u32 [%rd5], %r4;
    """
    assert execute(body, words, 32).tolist() == [7, 5] * 16


def test_atomics_of_one_address(words):
    body = "ld.global.u32 %r2, [%rd4]; and.b32 %r2, %r2, 255; mov.u32 %r3, 0; atom.global.add.u32 %r4, [%rd2], %r2;"
    found = execute(body, words, 1, 64)
    assert found[0] == (0xDDDDDDDD + int((words & 255).sum())) & 0xFFFFFFFF


COPY = """
    cp.async.ca.shared.global [%r5], [%rd4], 4;
    cp.async.commit_group;
    {}
    ld.shared.u32 %r2, [%r5];
    st.global.u32 [%rd5], %r2;
"""
PLACE = "shl.b32 %r5, %r1, 2; add.u32 %r5, %r5, %r90;"


def test_copies_are_late_unless_they_are_waited_for(words):
    assert execute(PLACE + COPY.format("cp.async.wait_group 0;"), words, 32).tolist() == words[:32].tolist()
    assert execute(PLACE + COPY.format("cp.async.wait_group 1;"), words, 32).tolist() == [0xABABABAB] * 32
    assert execute(PLACE + COPY.format(""), words, 32, late=False).tolist() == words[:32].tolist()


REFUSED = {
    r"global\).*outside": "ld.global.u32 %r2, [%rd4+256];",
    r"shared\).*outside": "ld.shared.u32 %r2, [%r90+2048];",
    "misaligned": "ld.global.u32 %r2, [%rd4+2];",
    "misaligned vector": "ld.global.v2.u32 {%r2, %r3}, [%rd4+4];",
    "deadlock": "setp.eq.u32 %p1, %r1, 0; @%p1 bra past; bar.sync 1, 64; past: mov.u32 %r2, 0;",
    "a lane that takes no part": (
        "setp.ge.u32 %p1, %r1, 16; @%p1 bra past; shfl.sync.idx.b32 %r2, %r1, 20, 31, 0x0000ffff; past: mov.u32 %r2, 0;"
    ),
    "no mbarrier": "mbarrier.arrive.shared::cta.b64 _, [%r90];",
    "more arrivals": (
        "mbarrier.init.shared::cta.b64 [%r90], 1; mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r90], 64;"
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(words, message):
    with pytest.raises(Fault, match=message.replace(" vector", "")):
        execute(REFUSED[message], words, 32)


def test_unknown_instructions_are_named(words):
    with pytest.raises(NotImplementedError, match=r"tcgen05.mma"):
        execute("tcgen05.mma.cta_group::1.kind::f16 [%r1], %rd1, %rd1, %r1, %p1;", words, 32)


BOX = """
    setp.ne.u32 %p1, %r1, 0;
    add.u32 %r91, %r90, 1024;
    @%p1 bra wait;
    mbarrier.init.shared::cta.b64 [%r91], 1;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r91], {bytes};
    mov.b64 %rd8, kernel_map;
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r90], [%rd8, {{0, 3}}], [%r91];
    wait: bar.warp.sync 0xffffffff;
    again: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r91], {parity};
    @!%p2 bra again;
    shl.b32 %r5, %r1, 2;
    add.u32 %r5, %r5, %r90;
    ld.shared.u32 %r2, [%r5+128];
    st.global.u32 [%rd5], %r2;
"""


def test_a_box_is_swizzled_and_zero_outside():
    """Row 1 of the box is row 4 of the matrix, its 16-byte pieces permuted in pairs."""
    matrix = np.arange(5 * 64, dtype=np.uint16)
    found = execute(BOX.format(bytes=512, parity=0), matrix, 32, matrix=(5, 64, 4)).view(np.uint16)
    pieces = matrix.reshape(5, 8, 8)[4]
    assert found.reshape(8, 8).tolist() == pieces[[1, 0, 3, 2, 5, 4, 7, 6]].tolist()


@pytest.mark.parametrize(("bytes_expected", "parity"), [(256, 0), (1024, 0)])
def test_a_wrong_byte_count_is_noticed(bytes_expected, parity):
    """Too few: the barrier opens too early, or never again; too many: it never opens."""
    matrix = np.arange(5 * 64, dtype=np.uint16)
    with pytest.raises(Fault):
        execute(BOX.format(bytes=bytes_expected, parity=parity), matrix, 32, matrix=(5, 64, 4))


def test_a_wrong_parity_does_not_wait():
    matrix = np.arange(1, 5 * 64 + 1, dtype=np.uint16)
    with pytest.raises(Fault, match="copies under way"):
        for seed in range(8):
            execute(BOX.format(bytes=512, parity=1), matrix, 32, matrix=(5, 64, 4), seed=seed)
