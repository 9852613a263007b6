#include "platform/paging.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace lateint {
namespace {

constexpr size_t kLine = 64, kHugePage = size_t{1} << 21;
constexpr size_t kWorthOne = kHugePage / 4;

size_t page_of(size_t bytes) { return bytes < kWorthOne ? kLine : kHugePage; }

}  // namespace

void* allocate(size_t bytes) {
    const size_t page = page_of(bytes), size = (bytes + page - 1) / page * page;
    void* const memory = ::operator new(size, std::align_val_t{page});
#if defined(__linux__)
    if (page == kHugePage) madvise(memory, size, MADV_HUGEPAGE);  // advice, as below
#endif
    return memory;
}

void release(void* memory, size_t bytes) noexcept { ::operator delete(memory, std::align_val_t{page_of(bytes)}); }

#if defined(__linux__)

int64_t disk_reads() {
    rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) != 0) return 0;
    return usage.ru_majflt + usage.ru_inblock;  // it had to wait for a page; it asked for one
}

void read_ahead(const void* first, int64_t bytes) {
    static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    if (bytes <= 0) return;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(first) / page * page;
    const uintptr_t end = reinterpret_cast<uintptr_t>(first) + static_cast<uintptr_t>(bytes);
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);  // advice: whether it is taken does not matter
}

#else

int64_t disk_reads() { return 0; }
void read_ahead(const void*, int64_t) {}

#endif

}  // namespace lateint
