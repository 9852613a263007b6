// A small thread pool of our own: no OpenMP, safe under fork, concurrent callers and nesting.
#pragma once

#include <cstdint>
#include <functional>

namespace lateint {

// LATEINT_NUM_THREADS if set, else the number of CPUs in the affinity mask.
int default_threads();

// How many threads work when a caller asks for so many: default_threads() for 0 or less; never more than the machine
// has CPUs, or 64 if it has fewer, for more would only take memory.
int threads_for(int wanted);

// Runs body(task, worker) for every task in [0, tasks), on the caller and at most threads - 1 pool workers, threads
// being threads_for(threads). 0 <= worker < threads; a worker runs one task at a time, so scratch may be indexed by it.
// Called from inside a body it runs serially in place. The first exception is rethrown to the caller. Before each task
// a thread calls check_interrupt().
void parallel_for(int64_t tasks, int threads, const std::function<void(int64_t task, int worker)>& body);

// Wakes the threads that a parallel_for will want in a moment: they wake up while the caller prepares its tasks.
void rouse(int threads);

// For work that takes long between two tasks. Throws Interrupted if the call of this thread is to stop, or if the
// parallel_for whose task it runs has failed elsewhere.
void check_interrupt();

// As parallel_for, with tasks that are runs of at most `size` of [0, count): body(first, how many).
template <class Body>
void parallel_for_chunks(int64_t count, int64_t size, int threads, const Body& body) {
    parallel_for((count + size - 1) / size, threads, [&](int64_t task, int) {
        const int64_t first = task * size;
        body(first, count - first < size ? count - first : size);
    });
}

}  // namespace lateint
