#include "platform/threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

#include "platform/cores.hpp"
#include "platform/interrupt.hpp"

#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#include <signal.h>
#endif

namespace lateint {
namespace {

// Kernels are called in bursts: a worker looks for the next job this often before it goes to sleep (about 0.1 ms).
constexpr int kSpins = 5000;
// And so long, while it lets others have the core, if the burst before came so soon. To wake up takes longer than many
// a stage of a search.
constexpr std::chrono::milliseconds kSoon{2};

// Between two looks. Some kernels wake a worker on the core of its caller: now and then one has to let the other have
// it.
void pause(int spin) {
#if defined(__x86_64__) || defined(__i386__)
    if (spin % 128 != 127) return __builtin_ia32_pause();
#endif
    std::this_thread::yield();
}

// One parallel_for call. It lives on the caller's stack: the caller leaves only after every helper has left.
struct Job {
    const std::function<void(int64_t, int)>& body;
    const int64_t tasks;
    const int threads;
    std::atomic<int64_t> next{0};
    std::atomic<int> helpers{0};  // workers inside; changed under Pool::mutex
    int joined = 1;               // worker numbers given out, the caller's 0 included; under Pool::mutex
    std::atomic<bool> stopped{false};
    std::exception_ptr error;  // under error_mutex
    std::mutex error_mutex;

    void run(int worker);
    void fail() {  // with the exception at hand
        stopped.store(true, std::memory_order_relaxed);
        next.store(tasks, std::memory_order_relaxed);
        const std::lock_guard<std::mutex> lock(error_mutex);
        if (!error) error = std::current_exception();
    }
};

thread_local const Job* running = nullptr;  // whose task this thread is in

void Job::run(int worker) {
    running = this;
    try {
        for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
            Interruptible::poll();
            body(task, worker);
        }
    } catch (...) {
        fail();
    }
    running = nullptr;
}

class Pool {
public:
    void run(Job& job) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            grow(job.threads - 1);
            jobs_.push_back(&job);
            caller_ = this_core();
            calls_.fetch_add(1, std::memory_order_release);
        }
        for (int i = 1; i < job.threads; ++i) wake_.notify_one();
        job.run(0);
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            const auto queued = std::find(jobs_.begin(), jobs_.end(), &job);
            if (queued != jobs_.end()) jobs_.erase(queued);  // from here on nobody joins
        }
        const auto done = [&job] { return job.helpers.load(std::memory_order_acquire) == 0; };
        for (int spin = 0; spin < kSpins && !done(); ++spin) pause(spin);
        if (done()) return;
        std::unique_lock<std::mutex> lock(mutex_);
        while (!left_.wait_for(lock, Interruptible::kInterval, done)) {
            lock.unlock();
            try {
                Interruptible::poll();
            } catch (...) {
                job.fail();
            }
            lock.lock();
        }
    }

    // Has so many workers awake for a job that comes in a moment.
    void rouse(int workers) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            grow(workers);
            caller_ = this_core();
            calls_.fetch_add(1, std::memory_order_release);
        }
        for (int i = 0; i < workers; ++i) wake_.notify_one();
    }

private:
    void grow(int workers) {
        if (workers_ >= workers) return;
#if !defined(_WIN32)
        // Signals belong to the threads of the application; new threads inherit this mask.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
        try {
            for (; workers_ < workers; ++workers_) std::thread([this] { work(); }).detach();
        } catch (const std::system_error&) {
            // No more threads to be had: the caller and the workers there are do all the tasks.
        }
#if !defined(_WIN32)
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
#endif
    }

    void work() {
        bool soon = false;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            if (jobs_.empty()) {
                await_call(lock, soon);
                continue;
            }
            Job& job = *jobs_.front();
            const int worker = job.joined++;
            job.helpers.fetch_add(1, std::memory_order_relaxed);
            if (job.joined == job.threads) jobs_.pop_front();
            lock.unlock();
            leave(caller_);
            job.run(worker);
            lock.lock();
            if (job.helpers.fetch_sub(1, std::memory_order_release) == 1) left_.notify_all();
        }
    }

    // Returns after a call. `soon`: whether the last one that took longer than the spins came within kSoon.
    void await_call(std::unique_lock<std::mutex>& lock, bool& soon) {
        const int64_t seen = calls_.load(std::memory_order_acquire);
        const auto called = [&] { return calls_.load(std::memory_order_acquire) != seen; };
        lock.unlock();
        for (int spin = 0; spin < kSpins && !called(); ++spin) pause(spin);
        const bool late = !called();
        const auto began = std::chrono::steady_clock::now();
        const auto passed = [&] { return std::chrono::steady_clock::now() - began; };
        while (soon && !called() && passed() < kSoon) std::this_thread::yield();
        lock.lock();
        if (!called()) sleep(lock, called);
        if (late) soon = passed() < kSoon;
    }

    template <class Called>
    void sleep(std::unique_lock<std::mutex>& lock, const Called& called) {
        lock.unlock();
        {
            const Aside aside(caller_);
            lock.lock();
            wake_.wait(lock, called);
            lock.unlock();
        }
        lock.lock();
    }

    std::mutex mutex_;
    std::condition_variable wake_, left_;
    std::deque<Job*> jobs_;          // those that still take workers, oldest first
    std::atomic<int64_t> calls_{0};  // changed under mutex_
    std::atomic<int> caller_{-1};    // the core of the last one
    int workers_ = 0;
};

// Never destroyed: its sleeping workers end with the process, whatever the order of static destruction. A forked child
// has none of its parent's threads and perhaps a locked mutex, so it forgets the pool and makes its own.
std::atomic<Pool*> the_pool{nullptr};

#if !defined(_WIN32)
[[maybe_unused]] const int at_fork = pthread_atfork(nullptr, nullptr, [] { the_pool.store(nullptr); });
#endif

Pool& pool() {
    Pool* current = the_pool.load(std::memory_order_acquire);
    if (current == nullptr) {
        Pool* made = new Pool;
        if (the_pool.compare_exchange_strong(current, made)) return *made;
        delete made;  // another caller was first
    }
    return *current;
}

int threads_from_environment() {
    const char* text = std::getenv("LATEINT_NUM_THREADS");
    if (text == nullptr || *text == '\0') return 0;
    char* end;
    const long value = std::strtol(text, &end, 10);
    if (*end != '\0' || value < 1 || value > 4096) {
        throw std::invalid_argument(std::string("LATEINT_NUM_THREADS must be an integer from 1 to 4096, got '") + text +
                                    "'");
    }
    return static_cast<int>(value);
}

int available_cpus() {
#if defined(__linux__)
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) == 0) return std::max(1, CPU_COUNT(&mask));
#endif
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace

int default_threads() {
    static const int wanted = threads_from_environment();
    return wanted > 0 ? wanted : available_cpus();
}

int threads_for(int wanted) {
    static const int most = std::max(64, available_cpus());
    return std::min(wanted > 0 ? wanted : default_threads(), most);
}

void rouse(int threads) {
    const int workers = threads_for(threads) - 1;
    if (workers > 0 && running == nullptr) pool().rouse(workers);
}

void check_interrupt() {
    if (running != nullptr && running->stopped.load(std::memory_order_relaxed)) throw Interrupted();
    Interruptible::poll();
}

void parallel_for(int64_t tasks, int threads, const std::function<void(int64_t, int)>& body) {
    if (tasks <= 0) return;
    if (running != nullptr) {
        for (int64_t task = 0; task < tasks; ++task) {
            check_interrupt();
            body(task, 0);
        }
        return;
    }
    Job job{body, tasks, static_cast<int>(std::min<int64_t>(threads_for(threads), tasks))};
    if (job.threads == 1) {
        job.run(0);
    } else {
        pool().run(job);
    }
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace lateint
