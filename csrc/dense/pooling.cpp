#include "dense/pooling.hpp"

#include <vector>

#include "platform/threads.hpp"

namespace lateint::dense {
namespace {

constexpr int64_t kLongest = 2048;  // of longer documents so many tokens are clustered at a time: 16 MB of distances

// The sum of term(a[k], b[k]) over all k, in numbers of type Sum.
template <class Sum, class Term>
Sum summed(const float* a, const float* b, int64_t dim, Term term) {
    constexpr int kSums = 64 / sizeof(Sum);  // independent of each other, so that they are added side by side
    Sum sums[kSums] = {};
    int64_t k = 0;
    for (; k + kSums <= dim; k += kSums)
        for (int s = 0; s < kSums; ++s) sums[s] += term(Sum(a[k + s]), Sum(b[k + s]));
    Sum sum = 0;
    for (; k < dim; ++k) sum += term(Sum(a[k]), Sum(b[k]));
    for (const Sum one : sums) sum += one;
    return sum;
}

double squared_distance(const float* a, const float* b, int64_t dim) {
    return summed<double>(a, b, dim, [](double x, double y) { return (x - y) * (x - y); });
}

// In float32, as the libraries have it whose distance this is for.
double product(const float* a, const float* b, int64_t dim) {
    return summed<float>(a, b, dim, [](float x, float y) { return x * y; });
}

// Agglomerative clustering with Ward's criterion: what a merge adds to the sum of squared distances from the means,
// |A| |B| / (|A| + |B|) |mean A - mean B|^2, which is kept up to date by the formula of Lance and Williams.
class Ward {
public:
    Ward(const float* tokens, int64_t length, int64_t dim, bool cosine)
        : length_(length), costs_(length * length), sizes_(length, 1), cluster_(length), nearest_(length) {
        for (int64_t i = 0; i < length; ++i) {
            cluster_[i] = i;
            for (int64_t j = 0; j < i; ++j) {
                const float *a = tokens + i * dim, *b = tokens + j * dim;
                const double apart = cosine ? 1 - product(a, b, dim) : 0;
                cost(i, j) = cost(j, i) = 0.5 * (cosine ? apart * apart : squared_distance(a, b, dim));
            }
        }
        for (int64_t i = 0; i < length; ++i) look(i);
    }

    // Merges the two clusters that it costs least to merge; of equal ones the first. A cluster is named by its first
    // token.
    void merge() {
        int64_t a = -1;
        for (int64_t i = 0; i < length_; ++i)
            if (sizes_[i] && nearest_[i] >= 0 && (a < 0 || cost(i, nearest_[i]) < cost(a, nearest_[a]))) a = i;
        const int64_t b = nearest_[a];  // after a, see `look`
        const double together = cost(a, b), na = sizes_[a], nb = sizes_[b];
        for (int64_t k = 0; k < length_; ++k) {
            if (!sizes_[k] || k == a || k == b) continue;
            const double nk = sizes_[k];
            cost(a, k) = cost(k, a) =
                ((nk + na) * cost(a, k) + (nk + nb) * cost(b, k) - nk * together) / (nk + na + nb);
        }
        sizes_[a] += sizes_[b];
        sizes_[b] = 0;
        cluster_[b] = a;
        look(a);
        for (int64_t i = 0; i < b; ++i) {
            if (!sizes_[i] || i == a) continue;
            if (nearest_[i] == a || nearest_[i] == b) {
                look(i);
            } else if (i < a &&
                       (cost(i, a) < cost(i, nearest_[i]) || (cost(i, a) == cost(i, nearest_[i]) && a < nearest_[i]))) {
                nearest_[i] = a;
            }
        }
    }

    // The first token of the cluster that a token is in.
    int64_t cluster(int64_t token) const {
        while (cluster_[token] != token) token = cluster_[token];
        return token;
    }

private:
    double& cost(int64_t i, int64_t j) { return costs_[i * length_ + j]; }

    // The nearest of the clusters after cluster i.
    void look(int64_t i) {
        nearest_[i] = -1;
        for (int64_t j = i + 1; j < length_; ++j)
            if (sizes_[j] && (nearest_[i] < 0 || cost(i, j) < cost(i, nearest_[i]))) nearest_[i] = j;
    }

    int64_t length_;
    std::vector<double> costs_;
    std::vector<int64_t> sizes_, cluster_, nearest_;
};

void pool_run(const float* tokens, int64_t length, int64_t dim, int64_t clusters, float* pooled) {
    Ward ward(tokens, length, dim, false);
    for (int64_t left = length; left > clusters; --left) ward.merge();
    std::vector<double> sums(length * dim, 0.0);
    std::vector<int64_t> sizes(length, 0);
    for (int64_t i = 0; i < length; ++i) {
        const int64_t c = ward.cluster(i);
        ++sizes[c];
        for (int64_t k = 0; k < dim; ++k) sums[c * dim + k] += tokens[i * dim + k];
    }
    for (int64_t c = 0; c < length; ++c) {
        if (!sizes[c]) continue;
        for (int64_t k = 0; k < dim; ++k) pooled[k] = static_cast<float>(sums[c * dim + k] / double(sizes[c]));
        pooled += dim;
    }
}

}  // namespace

void pool(const float* tokens, const int64_t* offsets, int64_t documents, int64_t dim, int64_t factor, float* pooled,
          int threads) {
    const int64_t run = kLongest / factor * factor;
    std::vector<int64_t> begins(documents + 1, 0);
    for (int64_t d = 0; d < documents; ++d)
        begins[d + 1] = begins[d] + pooled_length(offsets[d + 1] - offsets[d], factor);
    parallel_for(documents, threads, [&](int64_t d, int) {
        float* out = pooled + begins[d] * dim;
        for (int64_t first = offsets[d]; first < offsets[d + 1]; first += run) {
            const int64_t length = offsets[d + 1] - first < run ? offsets[d + 1] - first : run;
            const int64_t clusters = pooled_length(length, factor);
            pool_run(tokens + first * dim, length, dim, clusters, out);
            out += clusters * dim;
        }
    });
}

void cluster(const float* tokens, const int64_t* offsets, int64_t runs, int64_t dim, const int64_t* counts, bool cosine,
             int64_t* clusters, int threads) {
    parallel_for(runs, threads, [&](int64_t run, int) {
        const int64_t first = offsets[run], length = offsets[run + 1] - first;
        Ward ward(tokens + first * dim, length, dim, cosine);
        for (int64_t left = length; left > counts[run]; --left) ward.merge();
        int64_t known = 0;
        for (int64_t i = 0; i < length; ++i) {
            const int64_t head = ward.cluster(i);  // i itself, or before it
            clusters[first + i] = head == i ? known++ : clusters[first + head];
        }
    });
}

}  // namespace lateint::dense
