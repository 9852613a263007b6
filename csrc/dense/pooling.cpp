#include "dense/pooling.hpp"

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "dense/distances.hpp"
#include "platform/isa.hpp"
#include "platform/threads.hpp"

namespace lateint::dense {
namespace {

constexpr int64_t kLongest = 2048;  // of longer documents so many tokens are clustered at a time: 16 MB of distances

const DistanceKernel& distance_kernel() {
#if defined(__x86_64__) || defined(__i386__)
    if (active_isa() >= Isa::avx512) return *distance_kernel_avx512();
    if (active_isa() >= Isa::avx2) return *distance_kernel_avx2();
#endif
    return *distance_kernel_scalar();
}

void fill_costs(const float* tokens, int64_t length, int64_t dim, bool cosine, double* costs) {
    if (cosine) {
        std::vector<float> tile(kDistanceTile * dim);
        return distance_kernel().cosine(tokens, length, dim, tile.data(), costs);
    }
    std::vector<double> wide(tokens, tokens + length * dim), tile(kDistanceTile * dim);
    distance_kernel().euclidean(wide.data(), length, dim, tile.data(), costs);
}

// Agglomerative clustering with Ward's criterion: what a merge adds to the sum of squared distances from the means,
// |A| |B| / (|A| + |B|) |mean A - mean B|^2, which is kept up to date by the formula of Lance and Williams.
class Ward {
public:
    Ward(const float* tokens, int64_t length, int64_t dim, bool cosine)
        : length_(length),
          costs_(new double[static_cast<size_t>(length * length)]),
          sizes_(length, 1),
          cluster_(length),
          nearest_(length),
          least_(length),
          left_(length) {
        fill_costs(tokens, length, dim, cosine, costs_.get());
        std::iota(cluster_.begin(), cluster_.end(), 0);
        std::iota(left_.begin(), left_.end(), 0);
        for (int64_t place = 0; place < length; ++place) look(place);
    }

    // Merges the two clusters that it costs least to merge; of equal ones the first. A cluster is named by its first
    // token.
    void merge() {
        int64_t place = cheapest();
        for (; nearest_[left_[place]] == kUnknown; place = cheapest()) look(place);
        const int64_t a = left_[place], b = nearest_[a];  // after a, see `look`
        left_.erase(std::find(left_.begin() + place, left_.end(), b));
        unite(a, b);
        look(place);
        for (int64_t i = 0; i < static_cast<int64_t>(left_.size()) && left_[i] < b; ++i) {
            const int64_t other = left_[i];
            if (other == a) continue;
            const double near = cost(a, other);
            if (other < a && (near < least_[other] || (near == least_[other] && a <= nearest_[other]))) {
                nearest_[other] = a;
                least_[other] = near;
            } else if (nearest_[other] == a || nearest_[other] == b) {
                nearest_[other] = kUnknown;
            }
        }
    }

    // The first token of the cluster that a token is in.
    int64_t cluster(int64_t token) const {
        while (cluster_[token] != token) token = cluster_[token];
        return token;
    }

private:
    static constexpr int64_t kUnknown = 0;  // which is before all others

    // The place in left_ of the cluster that it costs least to merge with its nearest; of equal ones the first.
    int64_t cheapest() const {
        int64_t place = 0;
        for (int64_t i = 1; i + 1 < static_cast<int64_t>(left_.size()); ++i) {
            if (least_[left_[i]] < least_[left_[place]]) place = i;
        }
        return place;
    }

    double& cost(int64_t i, int64_t j) { return costs_[i * length_ + j]; }

    // Cluster a takes b in, which is left no longer.
    void unite(int64_t a, int64_t b) {
        const double together = cost(a, b), na = sizes_[a], nb = sizes_[b];
        const double* const others = &cost(b, 0);
        double* const ours = &cost(a, 0);
        for (const int64_t k : left_) {
            if (k == a) continue;
            const double nk = sizes_[k];
            const double sum = (nk + na) * ours[k] + (nk + nb) * others[k] - nk * together;
            const double mean = sum / (nk + na + nb);
            ours[k] = cost(k, a) = mean < kFar ? mean : kFar;
        }
        sizes_[a] += nb;
        cluster_[b] = a;
    }

    // The nearest of the clusters after the one at a place of left_; there is none after the last.
    void look(int64_t place) {
        const int64_t i = left_[place], count = static_cast<int64_t>(left_.size());
        if (place + 1 == count) return;
        const double* const costs = &cost(i, 0);
        int64_t nearest = left_[place + 1];
        double least = costs[nearest];
        for (int64_t other = place + 2; other < count; ++other) {
            const int64_t j = left_[other];
            if (!(costs[j] < least)) continue;
            nearest = j;
            least = costs[j];
        }
        nearest_[i] = nearest;
        least_[i] = least;
    }

    int64_t length_;
    std::unique_ptr<double[]> costs_;
    std::vector<double> sizes_;
    std::vector<int64_t> cluster_, nearest_;
    std::vector<double> least_;  // the cost of merging with the nearest; while that is unknown, it may be more
    std::vector<int64_t> left_;  // clusters
};

// Which of `count` clusters each token is in, in the order of their first tokens.
void label(const float* tokens, int64_t length, int64_t dim, int64_t count, bool cosine, int64_t* clusters) {
    Ward ward(tokens, length, dim, cosine);
    for (int64_t left = length; left > count; --left) ward.merge();
    int64_t known = 0;
    for (int64_t i = 0; i < length; ++i) {
        const int64_t head = ward.cluster(i);  // i itself, or before it
        clusters[i] = head == i ? known++ : clusters[head];
    }
}

// [count, dim], summed in the order of the tokens.
void take_means(const float* tokens, int64_t length, int64_t dim, const int64_t* clusters, int64_t count,
                float* means) {
    std::vector<double> sums(count * dim, 0.0), sizes(count, 0.0);
    for (int64_t i = 0; i < length; ++i) {
        double* const sum = &sums[clusters[i] * dim];
        sizes[clusters[i]] += 1;
        for (int64_t k = 0; k < dim; ++k) sum[k] += tokens[i * dim + k];
    }
    for (int64_t c = 0; c < count; ++c) {
        for (int64_t k = 0; k < dim; ++k) means[c * dim + k] = static_cast<float>(sums[c * dim + k] / sizes[c]);
    }
}

}  // namespace

void pool(const float* tokens, const int64_t* offsets, int64_t documents, int64_t dim, int64_t factor, float* pooled,
          int threads) {
    const int64_t run = kLongest / factor * factor;
    std::vector<int64_t> bounds(1, 0), counts;
    for (int64_t d = 0; d < documents; ++d) {
        for (int64_t first = offsets[d]; first < offsets[d + 1]; first += run) {
            bounds.push_back(std::min(first + run, offsets[d + 1]));
            counts.push_back(pooled_length(bounds.back() - first, factor));
        }
    }
    std::vector<int64_t> clusters(bounds.back());
    cluster(tokens, bounds.data(), static_cast<int64_t>(counts.size()), dim, counts.data(), false, clusters.data(),
            pooled, threads);
}

void cluster(const float* tokens, const int64_t* offsets, int64_t runs, int64_t dim, const int64_t* counts, bool cosine,
             int64_t* clusters, float* means, int threads) {
    std::vector<int64_t> begins(runs + 1, 0);
    std::partial_sum(counts, counts + runs, begins.begin() + 1);
    parallel_for(runs, threads, [&](int64_t run, int) {
        const int64_t first = offsets[run], length = offsets[run + 1] - first;
        label(tokens + first * dim, length, dim, counts[run], cosine, clusters + first);
        if (means == nullptr) return;
        take_means(tokens + first * dim, length, dim, clusters + first, counts[run], means + begins[run] * dim);
    });
}

}  // namespace lateint::dense
