// Arrays may be files that are mapped into memory, and larger than it: reading them then waits for the disk.
#pragma once

#include <cstdint>

namespace lateint {

// A number that rises whenever this thread has something read from the disk; always 0 where the system does not tell.
int64_t disk_reads();

// Has the system read what lies in [first, first + bytes), and does not wait for it. What is in memory stays as it is.
void read_ahead(const void* first, int64_t bytes);

}  // namespace lateint
