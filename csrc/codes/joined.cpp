#include "codes/joined.hpp"

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

namespace lateint::codes {
namespace {

// Postings for each centroid, on average: with fewer, lists are joined with those of neighbours, until they have so
// many.
constexpr int64_t kFew = 32, kEnough = 128;
constexpr int64_t kCopied = 16;  // postings that are copied in the time that it takes to open a list

}  // namespace

JoinedLists::JoinedLists(const ListedRun* first, const ListedRun* end, int64_t count) : offsets_(count + 1) {
    for (const ListedRun* run = first; run < end; ++run) {
        if (run->joined)
            sources_.insert(sources_.end(), run->joined->sources_.begin(), run->joined->sources_.end());
        else
            sources_.push_back({run->documents, run->lists->documents()});
        run->lists->each([&](uint32_t centroid, Run list) { offsets_[centroid + 1] += list.size(); });
    }
    int64_t filled = 0;
    for (int64_t c = 0; c < count; ++c) {
        filled += offsets_[c + 1] > 0;
        offsets_[c + 1] += offsets_[c];
    }
    documents_.resize(offsets_[count]);
    std::vector<int64_t> next(offsets_.begin(), offsets_.end() - 1);
    for (const ListedRun* run = first; run < end; ++run) {
        const uint32_t* const documents = run->lists->documents();
        run->lists->each([&](uint32_t centroid, Run list) {
            int64_t last = -1;
            for (int64_t i = list.first; i < list.end; ++i) {
                const int64_t document = documents[i];
                if (document <= last || document >= run->documents) {
                    damaged("list_documents holds " + std::to_string(document) + " out of order, or beyond the " +
                            std::to_string(run->documents) + " documents of its segment");
                }
                documents_[next[centroid]++] = static_cast<uint32_t>(total_ + document);
                last = document;
            }
        });
        total_ += run->documents;
    }
    const bool sparse = filled < count / 4;
    if (sparse) {
        std::vector<int64_t> cuts{0};
        for (int64_t c = 0; c < count; ++c) {
            if (offsets_[c + 1] == offsets_[c]) continue;
            centroids_.push_back(static_cast<uint32_t>(c));
            cuts.push_back(offsets_[c + 1]);
        }
        offsets_ = std::move(cuts);
    }
    lists_ =
        std::make_unique<InvertedLists>(offsets_.data(), documents_.data(), static_cast<int64_t>(documents_.size()),
                                        sparse ? centroids_.data() : nullptr, sparse ? filled : count, count);
}

size_t JoinedLists::covers(const ListedRun* first, const ListedRun* end) const {
    if (sources_.size() > static_cast<size_t>(end - first)) return 0;
    const auto same = [](const Source& source, const ListedRun& run) {
        return source.place == run.lists->documents() && source.documents == run.documents;
    };
    return std::equal(sources_.begin(), sources_.end(), first, same) ? sources_.size() : 0;
}

ReadLists::ReadLists(std::vector<ListedRun> segments, int64_t count, const ReadLists* before) : count_(count) {
    std::vector<ListedRun> runs;
    const ListedRun* const end = segments.data() + segments.size();
    for (const ListedRun* segment = segments.data(); segment < end;) {
        size_t covered = 0;
        if (before) {
            for (const ListedRun& known : before->runs()) {
                if (!known.joined || !(covered = known.joined->covers(segment, end))) continue;
                runs.push_back(known);
                break;
            }
        }
        if (!covered) runs.push_back(*segment);
        segment += std::max<size_t>(covered, 1);
    }
    publish(std::move(runs));
    plan();
    if (before) spent_.store(before->spent_.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

void ReadLists::publish(std::vector<ListedRun> runs) {
    made_.push_back(std::make_unique<const std::vector<ListedRun>>(std::move(runs)));
    runs_.store(made_.back().get(), std::memory_order_release);
}

// Neighbours with short lists, until theirs together are long enough.
void ReadLists::plan() {
    Group group = {0, 0, 0};
    int64_t postings = 0, pieces = 0;
    const auto close = [&] {
        if (group.end - group.first > 1) {
            groups_.push_back(group);
            pieces += static_cast<int64_t>(group.end - group.first) - 1;
        }
    };
    const std::vector<ListedRun>& all = runs();
    for (size_t r = 0; r < all.size(); ++r) {
        const InvertedLists& lists = *all[r].lists;
        const bool is_long = lists.postings() >= kFew * count_;
        if (is_long || postings >= kEnough * count_) {
            close();
            group = {r, r, 0};
            postings = 0;
        }
        if (is_long) {
            group.first = group.end = r + 1;
            continue;
        }
        group.end = r + 1;
        group.cost += lists.filled() + lists.postings() / kCopied;
        postings += lists.postings();
    }
    close();
    pieces_.store(pieces, std::memory_order_relaxed);
    due_.store(groups_.empty() ? 0 : groups_.back().cost + 1, std::memory_order_relaxed);
}

// By whichever search makes it due, and for one group at a time, so that no search waits long.
void ReadLists::join_if_due(int64_t lists) {
    const int64_t spent = lists * pieces_.load(std::memory_order_relaxed);
    if (spent_.fetch_add(spent, std::memory_order_relaxed) + spent < due_.load(std::memory_order_relaxed)) return;
    if (busy_.exchange(true, std::memory_order_acquire)) return;  // nobody waits, so a fork in between does no harm
    if (!groups_.empty() && spent_.load(std::memory_order_relaxed) >= groups_.back().cost) {
        const Group group = groups_.back();
        groups_.pop_back();
        try {
            std::vector<ListedRun> all = runs();
            const auto first = all.begin() + group.first, end = all.begin() + group.end;
            const auto joined = std::make_shared<const JoinedLists>(&*first, &*first + (end - first), count_);
            *first = {joined->documents(), &joined->lists(), joined};
            all.erase(first + 1, end);
            publish(std::move(all));
        } catch (const std::exception&) {  // damaged, or no memory: a search that needs these lists says so
        }
        spent_.fetch_sub(group.cost, std::memory_order_relaxed);
        pieces_.fetch_sub(static_cast<int64_t>(group.end - group.first) - 1, std::memory_order_relaxed);
        due_.store(groups_.empty() ? 0 : groups_.back().cost + 1, std::memory_order_relaxed);
    }
    busy_.store(false, std::memory_order_release);
}

}  // namespace lateint::codes
