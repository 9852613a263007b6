// Pages of memory. Arrays may be files that are mapped into it, and larger than it: reading them then waits for the
// disk. Scratch space is allocated in pages of the size that suits it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace lateint {

// A number that rises whenever this thread has something read from the disk; always 0 where the system does not tell.
int64_t disk_reads();

// Has the system read what lies in [first, first + bytes), and does not wait for it. What is in memory stays as it is.
void read_ahead(const void* first, int64_t bytes);

// Memory for what is read here and there: huge pages where the system has them and the size is worth one, for finding
// so many small ones takes time. Throws std::bad_alloc.
void* allocate(size_t bytes);
void release(void* memory, size_t bytes) noexcept;

// The same for a std::vector.
template <class T>
struct Paged {
    using value_type = T;
    Paged() = default;
    template <class U>
    Paged(const Paged<U>&) {}
    T* allocate(size_t n) { return static_cast<T*>(lateint::allocate(n * sizeof(T))); }
    void deallocate(T* memory, size_t n) noexcept { lateint::release(memory, n * sizeof(T)); }
    friend bool operator==(const Paged&, const Paged&) { return true; }
    friend bool operator!=(const Paged&, const Paged&) { return false; }
};

}  // namespace lateint
