// A CUDA driver that writes down what it is told: shows that calls arrive as meant, on a machine without a GPU.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define say(...) (std::getenv("QUIET_DRIVER") ? 0 : std::printf(__VA_ARGS__))

namespace {

intptr_t current = 0;

void* handle(intptr_t number) { return reinterpret_cast<void*>(number); }

}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }

int cuDeviceGet(int* device, int ordinal) {
    *device = 40 + ordinal;
    return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
    // Compute capability 9.0, multiprocessors, shared memory of a multiprocessor and of a block that asks for more.
    const int known[][2] = {{75, 9}, {76, 0}, {16, 132}, {81, 233472}, {97, 232448}};
    for (const auto& pair : known) {
        if (pair[0] == attribute) *value = pair[1];
    }
    return 0;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
    *context = handle(1000 + device);
    return 0;
}

int cuCtxPushCurrent_v2(void* context) {
    current = reinterpret_cast<intptr_t>(context);
    say("push %zd\n", current);
    return 0;
}

int cuCtxPopCurrent_v2(void**) {
    current = 0;
    say("pop\n");
    return 0;
}

int cuLibraryLoadData(void** library, const void* code, void*, void*, unsigned, void*, void*, unsigned) {
    say("library of %.4s\n", static_cast<const char*>(code));
    if (std::getenv("OLD_DRIVER")) return 222;
    *library = handle(2000);
    return 0;
}

int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
    say("kernel %s of %zd\n", name, reinterpret_cast<intptr_t>(library));
    *kernel = handle(3000);
    return 0;
}

int cuKernelSetAttribute(int attribute, int value, void* kernel, int device) {
    say("attribute %d of %zd on %d: %d\n", attribute, reinterpret_cast<intptr_t>(kernel), device, value);
    return 0;
}

int cuLaunchKernel(void* kernel, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                   unsigned shared, void* stream, void** arguments, void**) {
    long long first;
    std::memcpy(&first, arguments[0], sizeof first);
    say("launch %zd: %u %u %u of %u, shared %u, stream %zd, argument %lld\n", reinterpret_cast<intptr_t>(kernel), x, y,
        z, threads, shared, reinterpret_cast<intptr_t>(stream), first);
    return shared > 232448 ? 1 : 0;
}

int cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* address, const uint64_t* sizes,
                           const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave,
                           int swizzle, int promotion, int fill) {
    if (reinterpret_cast<uintptr_t>(map) % 64) return 1;
    say("in context %zd\n", current);
    std::memset(map, 'm', 128);
    say("map type %d rank %u sizes %llu %llu stride %llu box %u %u steps %u %u: %d %d %d %d\n", type, rank,
        static_cast<unsigned long long>(sizes[0]), static_cast<unsigned long long>(sizes[1]),
        static_cast<unsigned long long>(strides[0]), box[0], box[1], steps[0], steps[1], interleave, swizzle, promotion,
        fill);
    return address ? 0 : 1;
}

int cuGetErrorName(int error, const char** text) {
    *text = error == 1 ? "CUDA_ERROR_INVALID_VALUE" : "CUDA_ERROR_UNSUPPORTED_PTX_VERSION";
    return 0;
}

int cuGetErrorString(int error, const char** text) {
    *text = error == 1 ? "invalid argument" : "the provided PTX was compiled with an unsupported toolchain.";
    return 0;
}
}
