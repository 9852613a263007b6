#include "platform/isa.hpp"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__) || defined(__i386__)
#define LATEINT_X86 1
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__)
#define LATEINT_ARM 1
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#endif

namespace lateint {
namespace {

#if defined(LATEINT_X86)
constexpr const char* kNames[] = {"scalar", "avx2", "avx512", "avx512bf16", "amx"};
#elif defined(LATEINT_ARM)
constexpr const char* kNames[] = {"scalar", "neon", "dotprod", "i8mm"};
#else
constexpr const char* kNames[] = {"scalar"};
#endif
constexpr int kIsaCount = sizeof kNames / sizeof *kNames;

struct Detected {
    Isa best = Isa::scalar;
    const char* missing = "";  // why the level above `best` cannot run here
};

#if defined(LATEINT_X86)
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

// Intel's vdpbf16ps does a quarter of the products that its float32 FMA does; AMD's does twice as many.
Isa fastest(Isa best) { return best == Isa::avx512bf16 && is_intel() ? Isa::avx512 : best; }

#elif defined(LATEINT_ARM)
// The bits of Linux are given by number: older headers have no names for them.
#if defined(__linux__)
bool has_dotprod() { return (getauxval(AT_HWCAP) >> 20 & 1) != 0; }  // HWCAP_ASIMDDP
bool has_i8mm() { return (getauxval(AT_HWCAP2) >> 13 & 1) != 0; }    // HWCAP2_I8MM
#elif defined(__APPLE__)
bool has(const char* feature) {
    int there = 0;
    size_t size = sizeof there;
    return sysctlbyname(feature, &there, &size, nullptr, 0) == 0 && there != 0;
}
bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has("hw.optional.arm.FEAT_I8MM"); }
#else
bool has_dotprod() { return false; }
bool has_i8mm() { return false; }
#endif

Detected detect() {
    if (!has_dotprod()) return {Isa::neon, "the CPU lacks DotProd"};
    if (!has_i8mm()) return {Isa::dotprod, "the CPU lacks I8MM"};
    return {Isa::i8mm, ""};
}
Isa fastest(Isa best) { return best; }

#else
Detected detect() { return {Isa::scalar, ""}; }
Isa fastest(Isa best) { return best; }
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
    if (wanted == nullptr || *wanted == '\0') return fastest(best_isa());
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

int isa_count() { return kIsaCount; }

const char* isa_name(Isa isa) { return kNames[static_cast<int>(isa)]; }

Isa isa_from_name(const char* name) {
    for (int level = 0; level < kIsaCount; ++level) {
        if (std::string(name) == kNames[level]) return static_cast<Isa>(level);
    }
    std::string known;
    for (int level = 0; level < kIsaCount; ++level) known += std::string(level == 0 ? "" : ", ") + kNames[level];
    throw std::invalid_argument(std::string("unknown instruction set '") + name + "'; known here: " + known);
}

const char* isa_limit() { return detected().missing; }

}  // namespace lateint
