#include "codes/subcells.hpp"

#include <algorithm>
#include <numeric>

#include "codes/group.hpp"
#include "platform/threads.hpp"

namespace lateint::codes {
namespace {

constexpr int kIterations = 4;

// One cell, whose centroids are `rows` [size, depth].
class Cell {
public:
    Cell(const uint8_t* rows, int64_t size, int64_t depth)
        : rows_(rows), size_(size), depth_(depth), count_(std::min<int64_t>(kSubcells, size)), owner_(size) {
        centres_.resize(count_ * depth);
        for (int64_t j = 0; j < count_; ++j)
            std::copy_n(rows + j * size / count_ * depth, depth, centres_.begin() + j * depth);
        assign();
        for (int i = 0; i < kIterations; ++i) move(), assign();
    }

    // Appends the subcells that have members; the first centroid of the cell is number `first`.
    void append_to(Subcells& all, uint32_t first) const {
        for (uint32_t j = 0; j < count_; ++j) {
            const size_t before = all.members.size();
            for (int64_t i = 0; i < size_; ++i)
                if (owner_[i] == j) all.members.push_back(first + static_cast<uint32_t>(i));
            if (all.members.size() == before) continue;
            all.offsets.push_back(static_cast<int64_t>(all.members.size()));
            all.centres.insert(all.centres.end(), centres_.begin() + j * depth_, centres_.begin() + (j + 1) * depth_);
        }
    }

private:
    void assign() {
        std::vector<uint32_t> ids(count_);
        std::iota(ids.begin(), ids.end(), 0u);
        const Session session(int8_kernels());
        GroupScratch scratch;
        nearest_in(pack(centres_.data(), depth_, ids), session.kernels, rows_, size_, depth_, scratch,
                   [&](int64_t i, int32_t, uint32_t id) { owner_[i] = id; });
    }

    // To the means, rounded half up; a centre without members stays.
    void move() {
        std::vector<int64_t> sums(count_ * depth_), members(count_);
        for (int64_t i = 0; i < size_; ++i) {
            ++members[owner_[i]];
            for (int64_t k = 0; k < depth_; ++k) sums[owner_[i] * depth_ + k] += rows_[i * depth_ + k];
        }
        for (int64_t j = 0; j < count_; ++j)
            for (int64_t k = 0; k < depth_ && members[j]; ++k)
                centres_[j * depth_ + k] =
                    static_cast<uint8_t>((2 * sums[j * depth_ + k] + members[j]) / (2 * members[j]));
    }

    const uint8_t* rows_;
    int64_t size_, depth_, count_;
    std::vector<uint32_t> owner_;
    std::vector<uint8_t> centres_;
};

}  // namespace

Subcells subdivide(const Centroids& centroids, int threads) {
    std::vector<Subcells> parts(centroids.cell_count);
    parallel_for(centroids.cell_count, threads, [&](int64_t c, int) {
        const int64_t first = centroids.cell_offsets[c], size = centroids.cell_offsets[c + 1] - first;
        if (size)
            Cell(centroids.rows + first * centroids.depth, size, centroids.depth)
                .append_to(parts[c], static_cast<uint32_t>(first));
    });
    Subcells all;
    all.first.push_back(0);
    all.offsets.push_back(0);
    for (const Subcells& part : parts) {
        const auto before = static_cast<int64_t>(all.members.size());
        for (int64_t end : part.offsets) all.offsets.push_back(before + end);
        all.members.insert(all.members.end(), part.members.begin(), part.members.end());
        all.centres.insert(all.centres.end(), part.centres.begin(), part.centres.end());
        all.first.push_back(static_cast<int64_t>(all.offsets.size()) - 1);
    }
    return all;
}

}  // namespace lateint::codes
