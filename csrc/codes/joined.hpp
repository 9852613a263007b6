// Inverted lists of neighbouring small segments, joined: where a search would read a list in many pieces of a few
// documents, each about as dear as a long one, it reads it at once. What it finds is the same.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "codes/lists.hpp"

namespace lateint::codes {

// Neighbouring documents and their lists, in which the first of them is 0.
struct ListedRun {
    int64_t documents;
    const InvertedLists* lists;
    std::shared_ptr<const class JoinedLists> joined;  // whose lists they are; null: a segment's
};

// A copy of the lists of several runs, as if they had been one.
class JoinedLists {
public:
    // Throws std::runtime_error where a list is damaged. Centroids are less than `count`.
    JoinedLists(const ListedRun* first, const ListedRun* end, int64_t count);
    JoinedLists(const JoinedLists&) = delete;
    JoinedLists& operator=(const JoinedLists&) = delete;

    const InvertedLists& lists() const { return *lists_; }
    int64_t documents() const { return total_; }
    // How many segments these are the lists of, if it is [first, ...) of them; else 0.
    size_t covers(const ListedRun* first, const ListedRun* end) const;

private:
    struct Source {  // a segment, which whoever keeps this keeps, too
        int64_t documents;
        const uint32_t* place;
    };
    std::vector<Source> sources_;
    int64_t total_ = 0;
    std::vector<int64_t> offsets_;
    std::vector<uint32_t> documents_, centroids_;
    std::unique_ptr<const InvertedLists> lists_;
};

// What the searches of an engine read lists from. Any number of threads may use it at once.
//
// Joining takes as long as some searches save by it. So it waits until searches have opened as many pieces too many as
// there are to copy: whatever comes, no more than twice the least possible is spent. The next engine takes what is
// joined of its segments, so that after a refresh new ones stay beside it until they have cost as much themselves.
class ReadLists {
public:
    // segments: those of the engine; `before`: what an engine with some of these segments reads, or null.
    ReadLists(std::vector<ListedRun> segments, int64_t count, const ReadLists* before);

    const std::vector<ListedRun>& runs() const { return *runs_.load(std::memory_order_acquire); }
    // A search has opened so many lists in each run.
    void opened(int64_t lists) {
        if (due_.load(std::memory_order_relaxed) > 0) join_if_due(lists);
    }

private:
    struct Group {  // runs [first, end) that are to be joined
        size_t first, end;
        int64_t cost;
    };
    void plan();
    void publish(std::vector<ListedRun>);
    void join_if_due(int64_t lists);

    const int64_t count_;
    std::vector<std::unique_ptr<const std::vector<ListedRun>>> made_;  // of which a search may hold any
    std::atomic<const std::vector<ListedRun>*> runs_{nullptr};         // the last of them
    std::vector<Group> groups_;                                        // the last one is the next to be joined
    std::atomic<int64_t> spent_{0};                                    // lists that were opened in pieces too many
    std::atomic<int64_t> due_{0}, pieces_{0};  // when the next group is joined, 0: there is none; and pieces too many
    std::atomic<bool> busy_{false};
};

}  // namespace lateint::codes
