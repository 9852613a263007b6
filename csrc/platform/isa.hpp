// Which instruction set the kernels use: detected once, selectable for tests.
#pragma once

namespace lateint {

// Each level includes the ones before it. A kernel family may leave a level out; the next lower one then serves.
enum class Isa : int {
    scalar = 0,
#if defined(__x86_64__) || defined(__i386__)
    avx2 = 1,        // AVX2 + FMA + F16C
    avx512 = 2,      // AVX-512 F, BW, DQ, VL, VBMI and VNNI
    avx512bf16 = 3,  // + AVX512_BF16
    amx = 4,         // + AMX TILE, INT8, BF16, with the operating system's permission
#elif defined(__aarch64__)
    neon = 1,     // what every 64-bit ARM has
    dotprod = 2,  // + products of int8, four at a time
    i8mm = 3,     // + products of int8 matrices
#endif
};

Isa best_isa();            // the highest level of this CPU and operating system
const char* isa_limit();   // why the level above best_isa() cannot run here; "" at the top
Isa active_isa();          // best_isa() unless LATEINT_ISA or set_active_isa() said otherwise
void set_active_isa(Isa);  // throws std::invalid_argument above best_isa()
int isa_count();           // levels of this architecture
const char* isa_name(Isa);
Isa isa_from_name(const char* name);  // throws std::invalid_argument

}  // namespace lateint
