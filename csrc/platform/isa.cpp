#include "platform/isa.hpp"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__) || defined(__i386__)
#define LATEINT_X86 1
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lateint {
namespace {

constexpr const char* kNames[kIsaCount] = {"scalar", "avx2", "avx512", "avx512bf16", "amx"};

struct Detected {
    Isa best = Isa::scalar;
    const char* missing = "";  // why the level above `best` cannot run here
};

#ifdef LATEINT_X86
uint64_t enabled_state() {  // XCR0: the register files that the operating system saves and restores
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t{high} << 32) | low;
}

// Linux gives a process the 8 KiB of tile state only after it asked once; threads and children inherit the answer.
bool may_use_tiles() {
#if defined(__linux__) && defined(__x86_64__)
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

Detected detect() {
    const auto has = [](uint32_t reg, int bit) { return (reg >> bit & 1) != 0; };
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return {Isa::scalar, "the CPU has no AVX2"};
    const bool fma = has(c, 12), osxsave = has(c, 27), avx = has(c, 28), f16c = has(c, 29);
    uint32_t b7 = 0, c7 = 0, d7 = 0, a71 = 0;
    if (__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) && a >= 1) __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    const uint64_t state = osxsave ? enabled_state() : 0;
    const auto saves = [state](uint64_t bits) { return (state & bits) == bits; };

    if (!(avx && fma && f16c && has(b7, 5))) return {Isa::scalar, "the CPU lacks AVX2, FMA or F16C"};
    if (!saves(0x6)) return {Isa::scalar, "the operating system does not save AVX registers"};
    const bool foundation = has(b7, 16) && has(b7, 17) && has(b7, 30) && has(b7, 31);  // F, DQ, BW, VL
    if (!(foundation && has(c7, 1) && has(c7, 11))) {
        return {Isa::avx2, "the CPU lacks AVX-512 F, BW, DQ, VL, VBMI or VNNI"};
    }
    if (!saves(0xe6)) return {Isa::avx2, "the operating system does not save AVX-512 registers"};
    if (!has(a71, 5)) return {Isa::avx512, "the CPU lacks AVX512_BF16"};
    if (!(has(d7, 22) && has(d7, 24) && has(d7, 25))) return {Isa::avx512bf16, "the CPU lacks AMX TILE, INT8 or BF16"};
    if (!saves(0x60000) || !may_use_tiles()) {
        return {Isa::avx512bf16, "the operating system does not permit AMX tiles"};
    }
    return {Isa::amx, ""};
}

bool is_intel() {
    uint32_t a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == 0x756e6547 && d == 0x49656e69 && c == 0x6c65746e;  // GenuineIntel
}
#else
Detected detect() { return {Isa::scalar, "the CPU is not x86"}; }
bool is_intel() { return false; }
#endif

const Detected& detected() {
    static const Detected result = detect();
    return result;
}

void refuse(Isa isa) {
    throw std::invalid_argument(std::string("instruction set ") + isa_name(isa) +
                                " cannot run here: " + detected().missing);
}

Isa initial_isa() {
    const char* wanted = std::getenv("LATEINT_ISA");
    if (wanted == nullptr || *wanted == '\0') {
        // Intel's vdpbf16ps does a quarter of the products that its float32 FMA does; AMD's does twice as many.
        return best_isa() == Isa::avx512bf16 && is_intel() ? Isa::avx512 : best_isa();
    }
    try {
        const Isa isa = isa_from_name(wanted);
        if (isa > best_isa()) refuse(isa);
        return isa;
    } catch (const std::invalid_argument& error) {
        throw std::invalid_argument(std::string("LATEINT_ISA: ") + error.what());
    }
}

std::atomic<Isa>& active() {
    static std::atomic<Isa> isa{initial_isa()};
    return isa;
}

}  // namespace

Isa best_isa() { return detected().best; }

Isa active_isa() { return active().load(std::memory_order_relaxed); }

void set_active_isa(Isa isa) {
    if (isa > best_isa()) refuse(isa);
    active().store(isa, std::memory_order_relaxed);
}

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa isa_from_name(const char* name) {
    for (int level = 0; level < kIsaCount; ++level) {
        if (std::string(name) == kNames[level]) return static_cast<Isa>(level);
    }
    throw std::invalid_argument(std::string("unknown instruction set '") + name +
                                "'; known are scalar, avx2, avx512, avx512bf16 and amx");
}

const char* isa_limit() { return detected().missing; }

}  // namespace lateint
