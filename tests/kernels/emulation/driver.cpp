// A CUDA driver that writes down what it is told: shows that calls arrive as meant, on a machine without a GPU.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

namespace {

void* handle(intptr_t number) { return reinterpret_cast<void*>(number); }

}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }

int cuDriverGetVersion(int* version) {
    *version = 13000;
    return 0;
}

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
    std::printf("push %zd\n", reinterpret_cast<intptr_t>(context));
    return 0;
}

int cuCtxPopCurrent_v2(void**) {
    std::printf("pop\n");
    return 0;
}

int cuLibraryLoadData(void** library, const void* code, void*, void*, unsigned, void*, void*, unsigned) {
    std::printf("library of %.4s\n", static_cast<const char*>(code));
    *library = handle(2000);
    return 0;
}

int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
    std::printf("kernel %s of %zd\n", name, reinterpret_cast<intptr_t>(library));
    *kernel = handle(3000);
    return 0;
}

int cuKernelSetAttribute(int attribute, int value, void* kernel, int device) {
    std::printf("attribute %d of %zd on %d: %d\n", attribute, reinterpret_cast<intptr_t>(kernel), device, value);
    return 0;
}

int cuLaunchKernel(void* kernel, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned,
                   unsigned shared, void* stream, void** arguments, void**) {
    long long first;
    std::memcpy(&first, arguments[0], sizeof first);
    std::printf("launch %zd: %u %u %u of %u, shared %u, stream %zd, argument %lld\n",
                reinterpret_cast<intptr_t>(kernel), x, y, z, threads, shared, reinterpret_cast<intptr_t>(stream),
                first);
    return shared > 232448 ? 1 : 0;
}

int cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* address, const uint64_t* sizes,
                           const uint64_t* strides, const uint32_t* box, const uint32_t* steps, int interleave,
                           int swizzle, int promotion, int fill) {
    if (reinterpret_cast<uintptr_t>(map) % 64) return 1;
    std::memset(map, 'm', 128);
    std::printf("map type %d rank %u sizes %llu %llu stride %llu box %u %u steps %u %u: %d %d %d %d\n", type, rank,
                static_cast<unsigned long long>(sizes[0]), static_cast<unsigned long long>(sizes[1]),
                static_cast<unsigned long long>(strides[0]), box[0], box[1], steps[0], steps[1], interleave, swizzle,
                promotion, fill);
    return address ? 0 : 1;
}

int cuGetProcAddress_v2(const char* name, void** function, int, uint64_t, int* status) {
    void* const self = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
    char versioned[200];
    std::snprintf(versioned, sizeof versioned, "%s_v2", name);
    *function = dlsym(self, versioned);
    if (!*function) *function = dlsym(self, name);
    if (status) *status = *function ? 0 : 1;
    return *function ? 0 : 500;
}

int cuGetProcAddress(const char* name, void** function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}
}
