// Runs the kernels of every instruction set of this machine on the same numbers, and prints a hash of the results of
// each case: "<instruction set> <case> <hash>". Without Python, so that it also runs where another architecture is
// emulated. What is whole numbers may differ nowhere; what is floats, only where products are not added alike.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "codes/int8.hpp"
#include "codes/residual.hpp"
#include "dense/maxsim.hpp"
#include "dense/pooling.hpp"
#include "platform/floats.hpp"
#include "platform/isa.hpp"
#include "train/problem.hpp"

using namespace lateint;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kWidths[] = {8, 16, 24, 40, 64, 96, 128, 136, 320};
constexpr int kDims[] = {1, 2, 3, 7, 8, 9, 31, 64, 128, 260};
constexpr Dtype kFloatTypes[] = {Dtype::float32, Dtype::float16, Dtype::bfloat16};
constexpr const char* kTypeNames[] = {"float32", "float16", "bfloat16", "int8"};

class Random {  // splitmix64
public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t bits() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
    int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
    float real() {  // about normal, of 24 bits, the same everywhere
        float sum = 0;
        for (int i = 0; i < 4; ++i) sum += static_cast<float>(bits() >> 40) * 0x1p-24f - 0.5f;
        return sum;
    }
    template <class T>
    std::vector<T> whole(int64_t n, int64_t least, int64_t most) {
        std::vector<T> numbers(n);
        for (T& x : numbers) x = static_cast<T>(least + below(most - least + 1));
        return numbers;
    }

private:
    uint64_t state_;
};

class Hash {  // FNV-1a
public:
    void bytes(const void* from, size_t n) {
        for (size_t i = 0; i < n; ++i) value_ = (value_ ^ static_cast<const uint8_t*>(from)[i]) * 0x100000001b3;
    }
    template <class T>
    void whole(const T* from, int64_t n) {
        bytes(from, n * sizeof(T));
    }
    // Every NaN counts as the same one: which one an operation gives is each architecture's own affair.
    void floats(const float* from, int64_t n) {
        for (int64_t i = 0; i < n; ++i) {
            const float x = from[i] == from[i] ? from[i] : std::numeric_limits<float>::quiet_NaN();
            bytes(&x, sizeof x);
        }
    }
    void numbers(const void* from, Dtype dtype, int64_t n) {
        if (dtype == Dtype::float32) return floats(static_cast<const float*>(from), n);
        const auto widen = dtype == Dtype::float16 ? float16_to_float : bfloat16_to_float;
        for (int64_t i = 0; i < n; ++i) {
            const float x = widen(static_cast<const uint16_t*>(from)[i]);
            floats(&x, 1);
        }
    }
    uint64_t value() const { return value_; }

private:
    uint64_t value_ = 0xcbf29ce484222325;
};

void print(const std::string& name, const Hash& hash) {
    std::printf("%s %s %016llx\n", isa_name(active_isa()), name.c_str(), static_cast<unsigned long long>(hash.value()));
}

// ---- whole numbers: products of codes, choices among scores ----

void int8_products(int64_t depth, int64_t n, int ntiles, bool extreme) {
    Random random(depth * 1000 + n * 10 + ntiles);
    const codes::Int8Kernels& kernels = codes::int8_kernels();
    std::vector<uint8_t> rows = random.whole<uint8_t>(n * depth, 0, 255);
    rows.resize(codes::round_up(n, codes::kRowStep) * depth);
    std::vector<int8_t> tiles = random.whole<int8_t>(ntiles * depth * kLanes, -128, 127);
    if (extreme) {
        for (auto& x : rows) x = x % 2 ? 255 : 0;
        for (auto& x : tiles) x = x % 2 ? -128 : 127;
    }
    const int64_t lanes = ntiles * kLanes;
    Hash hash;
    kernels.begin();
    std::vector<int32_t> out(n * lanes), best = random.whole<int32_t>(lanes, -1000, 1000);
    kernels.dot(rows.data(), n, depth, tiles.data(), ntiles, out.data());
    hash.whole(out.data(), n * lanes);
    for (int64_t r = n; r < codes::round_up(n, codes::kRowStep); ++r)
        std::copy_n(rows.data(), depth, rows.data() + r * depth);
    for (int64_t vectors = lanes; vectors > 0; vectors -= 7) {
        kernels.dot_max(rows.data(), n, depth, tiles.data(), static_cast<int>(vectors), best.data());
        hash.whole(best.data(), vectors);
    }
    const int m = static_cast<int>(1 + random.below(lanes));
    std::vector<const int8_t*> vectors(m);
    for (auto& v : vectors) {
        const int64_t lane = random.below(lanes);
        v = tiles.data() + lane / kLanes * depth * kLanes + lane % kLanes * 4;
    }
    const int64_t stride = codes::round_up(n, codes::kCrossRows);
    std::vector<int32_t> crossed(m * stride);
    kernels.cross(rows.data(), n, depth, vectors.data(), m, crossed.data(), stride);
    kernels.end();
    for (int j = 0; j < m; ++j) hash.whole(crossed.data() + j * stride, n);
    print("codes/products/" + std::to_string(depth) + "x" + std::to_string(n) + "x" + std::to_string(ntiles) +
              (extreme ? "/extreme" : ""),
          hash);
}

// Products by vector, of rows that lie as tiles do where the set multiplies those, for each number of lanes: those of
// the scalar set's `cross`.
void int8_crossed(int64_t depth, int64_t n, bool extreme) {
    Random random(depth * 1000 + n);
    const codes::Int8Kernels& kernels = codes::int8_kernels();
    std::vector<uint8_t> rows = random.whole<uint8_t>(n * depth, 0, 255), turned(codes::round_up(n, kLanes) * depth);
    std::vector<int8_t> tiles = random.whole<int8_t>(2 * kLanes * depth, -128, 127);
    if (extreme) {
        for (auto& x : rows) x = x % 2 ? 255 : 0;
        for (auto& x : tiles) x = x % 2 ? -128 : 127;
    }
    for (int64_t r = 0; r < n; r += kLanes)
        codes::pack_tile(reinterpret_cast<const int8_t*>(rows.data() + r * depth),
                         static_cast<int>(std::min<int64_t>(kLanes, n - r)), depth, depth,
                         reinterpret_cast<int8_t*>(turned.data() + r * depth));
    Hash hash;
    kernels.begin();
    for (int m = 1; m <= kLanes; ++m) {
        std::vector<const int8_t*> vectors(m);
        for (auto& v : vectors) {
            const int64_t lane = random.below(2 * kLanes);
            v = tiles.data() + lane / kLanes * depth * kLanes + lane % kLanes * 4;
        }
        const bool by_tiles = m <= kernels.most_turned;
        const int64_t stride = codes::round_up(n, by_tiles ? kLanes : codes::kCrossRows);
        std::vector<int32_t> out(m * stride + kLanes);  // nothing is written behind the last lane
        (by_tiles ? kernels.cross_turned : kernels.cross)(by_tiles ? turned.data() : rows.data(), n, depth,
                                                          vectors.data(), m, out.data(), stride);
        for (int j = 0; j < m; ++j) hash.whole(out.data() + j * stride, n);
        hash.whole(out.data() + m * stride, kLanes);
    }
    kernels.end();
    print("codes/crossed/" + std::to_string(depth) + "x" + std::to_string(n) + (extreme ? "/extreme" : ""), hash);
}

void int8_choices(int64_t n, int64_t spread) {  // a small spread: many ties
    Random random(n * 100 + spread);
    const codes::Int8Kernels& kernels = codes::int8_kernels();
    std::vector<int32_t> scores = random.whole<int32_t>(n, -spread, spread), kept(n + 16);
    std::vector<uint32_t> rows(n + 16);
    Hash hash;
    const int64_t count =
        kernels.above(scores.data(), n, static_cast<int32_t>(random.below(spread)) - 1, 7, kept.data(), rows.data());
    hash.whole(kept.data(), count);
    hash.whole(rows.data(), count);
    if (count > 1) {
        const int64_t best = 1 + random.below(count - 1);
        const int32_t last = kernels.keep_best(kept.data(), rows.data(), count, best);
        hash.whole(&last, 1);
        hash.whole(kept.data(), best);
        hash.whole(rows.data(), best);
    }
    for (int lanes = 16; lanes <= 48; lanes += 16) {
        std::vector<int32_t> products = random.whole<int32_t>(n * lanes, -spread, spread);
        std::vector<int32_t> bias = random.whole<int32_t>(lanes, -1, 1), best(n, -spread / 2), index(n, -1);
        kernels.nearest(products.data(), n, lanes, bias.data(), 100, best.data(), index.data());
        hash.whole(best.data(), n);
        hash.whole(index.data(), n);
    }
    std::vector<uint32_t> entries(n);
    for (uint32_t& entry : entries) entry = static_cast<uint32_t>(random.below(4)) << 30 >> random.below(3) * 12;
    for (uint32_t bound : {uint32_t{1}, uint32_t{1} << 18, uint32_t{1} << 30, uint32_t{1} << 31, ~uint32_t{0}}) {
        const int64_t found = kernels.reaching(entries.data(), n, bound, rows.data());
        hash.whole(&found, 1);
        hash.whole(rows.data(), found);
    }
    print("codes/choices/" + std::to_string(n) + "/" + std::to_string(spread), hash);
}

void int8_bounds(int64_t n, int64_t spread) {
    Random random(n * 100 + spread);
    const codes::Int8Kernels& kernels = codes::int8_kernels();
    Hash hash;
    for (int count : {1, 4, 16}) {
        std::vector<int32_t> scores = random.whole<int32_t>(n, -spread, spread);
        const std::vector<int32_t> bias = random.whole<int32_t>(n, -1, 1);
        const int32_t reached = kernels.less_bias(scores.data(), bias.data(), n, count);
        hash.whole(&reached, 1);
        hash.whole(scores.data(), n);
    }
    print("codes/bounds/" + std::to_string(n) + "/" + std::to_string(spread), hash);
}

void int8_lanes(int64_t spread) {
    Random random(spread);
    Hash hash;
    for (int i = 0; i < 20; ++i) {
        const std::vector<int32_t> scores = random.whole<int32_t>(256, -spread, spread);
        const std::vector<int32_t> bias = random.whole<int32_t>(16, -1, 1), counts = random.whole<int32_t>(16, 0, 16);
        uint32_t rows[16];
        codes::int8_kernels().best_lanes(scores.data(), bias.data(), counts.data(), rows);
        hash.whole(rows, 16);
    }
    print("codes/lanes/" + std::to_string(spread), hash);
}

// ---- residual codes: floats, but in one order everywhere ----

void residual(int nbits, int64_t width, bool many_centroids, bool strange) {
    Random random(nbits * 1000 + width);
    constexpr int64_t kCentroids = 300, kTokens = 37;
    const codes::ResidualKernels& kernels = codes::residual_kernels();
    const int64_t depth = codes::round_up(width, codes::kDepthStep);
    std::vector<uint8_t> centroids = random.whole<uint8_t>(kCentroids * depth, 60, 200);
    const codes::Codec codec(nbits, width, depth, centroids.data());
    std::vector<uint8_t> packed(kTokens * codec.code_bytes()), scales(kTokens), high(kTokens, 0);
    std::vector<uint16_t> ids(kTokens);
    std::vector<float> scaled(kTokens * width), rotated(kTokens * width);
    const float strangers[] = {0, -0.0f, 1e30f, -1e30f, 1e-40f, kInfinity, -kInfinity, 127.5f, -128.5f};
    for (int64_t i = 0; i < kTokens; ++i) {
        ids[i] = static_cast<uint16_t>(random.below(kCentroids));
        for (int64_t k = 0; k < width; ++k) {
            float& x = scaled[i * width + k];
            x = random.real() * 40 + static_cast<float>(centroids[ids[i] * depth + k]) - 128;
            if (strange && random.below(5) == 0) x = strangers[random.below(9)];
        }
        scales[i] = kernels.encode(codec, scaled.data() + i * width, centroids.data() + ids[i] * depth,
                                   packed.data() + i * codec.code_bytes());
    }
    Hash hash;
    hash.whole(packed.data(), static_cast<int64_t>(packed.size()));
    hash.whole(scales.data(), kTokens);
    const codes::CodedTokens tokens = {kTokens, packed.data(), nbits == 8 ? nullptr : scales.data(), ids.data(),
                                       many_centroids ? high.data() : nullptr};
    std::vector<uint8_t> rows(kTokens * depth, 128);
    kernels.decode(codec, tokens, 2, kTokens - 2, rows.data());
    hash.whole(rows.data(), kTokens * depth);
    kernels.to_bytes(scaled.data(), kTokens * width, rows.data());
    hash.whole(rows.data(), kTokens * width);
    const int64_t block = width % 64 == 0 ? 64 : width;
    std::vector<float> rotation(width * block);
    for (float& x : rotation) x = random.real();
    std::vector<int32_t> permutation(width);
    std::iota(permutation.begin(), permutation.end(), 0);
    kernels.rotate(scaled.data(), kTokens, width, block, rotation.data(), permutation.data(), rotated.data());
    hash.floats(rotated.data(), kTokens * width);
    print("codes/residual/" + std::to_string(nbits) + "/" + std::to_string(width) + (strange ? "/strange" : ""), hash);
}

void widening(Dtype dtype) {
    std::vector<uint16_t> all(65536 + 3);  // every number of 16 bits, and some more: an odd end
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
    std::vector<float> out(all.size());
    const auto n = static_cast<int64_t>(dtype == Dtype::float32 ? all.size() / 2 : all.size());
    codes::residual_kernels().widen(all.data(), dtype, n, out.data());
    Hash hash;
    hash.floats(out.data(), n);
    print(std::string("codes/widen/") + kTypeNames[static_cast<int>(dtype)], hash);
}

// ---- MaxSim ----

struct Tokens {
    std::vector<int64_t> offsets;
    std::vector<uint8_t> data;
    Dtype dtype;

    Tokens(Random& random, const std::vector<int64_t>& lengths, int64_t dim, Dtype dtype, int strange) : dtype(dtype) {
        offsets.push_back(0);
        for (const int64_t length : lengths) offsets.push_back(offsets.back() + length);
        const int64_t n = offsets.back() * dim;
        data.resize(n * itemsize(dtype));
        for (int64_t i = 0; i < n; ++i) {
            float x = random.real();
            if (strange && random.below(400) == 0) x = random.below(2) ? kInfinity : kInfinity - kInfinity;
            uint32_t bits;
            std::memcpy(&bits, &x, 4);
            uint8_t* const to = data.data() + i * itemsize(dtype);
            const auto half = static_cast<uint16_t>(
                dtype == Dtype::bfloat16 ? bits >> 16
                                         : (random.bits() & 0x83ff) | (strange && x - x != 0 ? 0x7c00 : 0x3400));
            const auto byte = static_cast<uint8_t>(random.bits());
            std::memcpy(to,
                        itemsize(dtype) == 4   ? static_cast<const void*>(&bits)
                        : itemsize(dtype) == 2 ? static_cast<const void*>(&half)
                                               : static_cast<const void*>(&byte),
                        itemsize(dtype));
        }
    }
    dense::Matrices matrices() const {
        return {data.data(), dtype, offsets.data(), static_cast<int64_t>(offsets.size()) - 1};
    }
    // All similarities of queries in one corner with documents in the opposite one are negative.
    void make_signs(bool negative) {
        const int64_t item = itemsize(dtype);
        for (size_t i = item - 1; i < data.size(); i += item) {
            if (dtype == Dtype::int8) {
                const int x = static_cast<int8_t>(data[i]);
                data[i] = static_cast<uint8_t>(negative ? -(x < 0 ? -x : x) : (x == -128 ? 127 : x < 0 ? -x : x));
            } else {
                data[i] = static_cast<uint8_t>(negative ? data[i] | 0x80 : data[i] & 0x7f);
            }
        }
    }
};

const std::vector<int64_t> kQueryLengths = {1, 5, 16, 17, 33, 3}, kDocumentLengths = {1, 2, 3, 4, 6, 7, 13, 64, 33, 5};

void maxsim(Dtype queries, Dtype documents, int64_t dim, const char* kind) {
    Random random(dim * 10 + static_cast<int>(documents));
    const bool strange = std::strcmp(kind, "strange") == 0;
    Tokens q(random, kQueryLengths, dim, queries, false), d(random, kDocumentLengths, dim, documents, strange);
    if (std::strcmp(kind, "negative") == 0) q.make_signs(false), d.make_signs(true);
    const int64_t n = q.matrices().count * d.matrices().count;
    std::vector<float> out(n);
    dense::maxsim(q.matrices(), d.matrices(), dim, 1, out.data());
    Hash hash;
    hash.floats(out.data(), n);
    print(std::string("dense/") + kTypeNames[static_cast<int>(queries)] + "/" +
              kTypeNames[static_cast<int>(documents)] + "/" + std::to_string(dim) + "/" + kind,
          hash);
}

void smooth(const train::Problem& problem, const std::string& name, bool gradients) {
    Random random(problem.dim);
    const int64_t n = problem.query_rows() * problem.document_count;
    std::vector<float> found(n), given(n);
    train::smooth_forward(problem, 0.3f, found.data(), 1);
    Hash hash;
    hash.floats(found.data(), n);
    print("train/smooth/forward/" + name, hash);
    if (!gradients) return;
    for (float& x : given) x = random.real();
    const int64_t item = itemsize(problem.dtype), dim = problem.dim;
    std::vector<uint8_t> of_queries(problem.query_rows() * dim * item),
        of_documents(problem.document_rows() * dim * item);
    train::smooth_backward(problem, 0.3f, found.data(), given.data(), of_queries.data(), of_documents.data(), 1);
    Hash backward;
    backward.numbers(of_queries.data(), problem.dtype, problem.query_rows() * dim);
    backward.numbers(of_documents.data(), problem.dtype, problem.document_rows() * dim);
    print("train/smooth/backward/" + name, backward);
}

void retrieval(const train::Problem& problem, int64_t k, const std::string& name) {
    const int64_t rows = problem.query_rows(), n = rows * problem.document_count;
    std::vector<float> best(n), least(rows);
    std::vector<int32_t> positions(n);
    train::retrieve(problem, k, best.data(), {positions.data(), 4}, least.data(), 1);
    Hash hash;
    hash.floats(best.data(), n);
    hash.floats(least.data(), rows);
    hash.whole(positions.data(), n);
    print("train/retrieve/" + std::to_string(k) + "/" + name, hash);
}

void pooling(int64_t length, int64_t dim, bool cosine) {
    Random random(length + dim);
    std::vector<float> tokens(length * dim), means((length + 2) / 3 * dim);
    for (float& x : tokens) x = random.real();
    const int64_t offsets[] = {0, length}, count = (length + 2) / 3;
    std::vector<int64_t> clusters(length);
    dense::cluster(tokens.data(), offsets, 1, dim, &count, cosine, clusters.data(), means.data(), 1);
    Hash hash;
    hash.whole(clusters.data(), length);
    hash.floats(means.data(), count * dim);
    print("dense/pool/" + std::to_string(length) + "/" + std::to_string(dim) + (cosine ? "/cosine" : "/euclidean"),
          hash);
}

void training(Dtype dtype, int64_t dim, const char* kind) {
    Random random(dim * 10 + static_cast<int>(dtype));
    const bool strange = std::strcmp(kind, "strange") == 0, scaled = std::strcmp(kind, "scaled") == 0;
    const Tokens q(random, kQueryLengths, dim, dtype, false), d(random, kDocumentLengths, dim, dtype, strange);
    const int64_t q_rows = q.offsets.back(), d_rows = d.offsets.back();
    std::vector<float> weights(q_rows), q_norms(q_rows), d_norms(d_rows), factors(d_rows);
    std::vector<uint8_t> mask(d_rows);
    for (float& x : weights) x = random.below(5) ? random.real() : 0;
    for (float& x : q_norms) x = 1 + random.real() / 4;
    for (float& x : d_norms) x = 1 + random.real() / 4;
    for (float& x : factors) x = random.real();
    for (uint8_t& x : mask) x = random.below(4) != 0;
    for (const int64_t first : d.offsets)
        if (first < d_rows) mask[first] = 1;  // every document has a token
    train::Problem problem = {};
    problem.queries = q.data.data();
    problem.query_offsets = q.offsets.data();
    problem.query_count = static_cast<int64_t>(kQueryLengths.size());
    problem.documents = d.data.data();
    problem.document_offsets = d.offsets.data();
    problem.document_count = static_cast<int64_t>(kDocumentLengths.size());
    problem.dtype = dtype;
    problem.dim = dim;
    problem.max_query_length = 33;
    if (scaled) {
        problem.query_weights = weights.data();
        problem.query_inverse_norms = q_norms.data();
        problem.document_inverse_norms = d_norms.data();
        problem.document_scales = factors.data();
        problem.document_mask = mask.data();
    }
    const int64_t n = problem.query_count * problem.document_count;
    std::vector<float> scores(n), score_gradients(n), weight_gradients(q_rows);
    std::vector<int32_t> positions(problem.document_count * q_rows);
    train::forward(problem, scores.data(), {positions.data(), 4}, 1);
    Hash hash;
    hash.floats(scores.data(), n);
    hash.whole(positions.data(), static_cast<int64_t>(positions.size()));
    const std::string name = std::string(kTypeNames[static_cast<int>(dtype)]) + "/" + std::to_string(dim) + "/" + kind;
    print("train/forward/" + name, hash);
    smooth(problem, name, !strange);
    retrieval(problem, 3, name);
    retrieval(problem, 60, name);
    if (strange) return;
    for (float& x : score_gradients) x = random.real();
    std::vector<uint8_t> q_gradients(q.data.size()), d_gradients(d.data.size());
    train::backward(problem, score_gradients.data(), {positions.data(), 4}, q_gradients.data(), d_gradients.data(),
                    scaled ? weight_gradients.data() : nullptr, 1);
    Hash gradients;
    gradients.numbers(q_gradients.data(), dtype, q_rows * dim);
    gradients.numbers(d_gradients.data(), dtype, d_rows * dim);
    gradients.floats(weight_gradients.data(), q_rows);
    print("train/backward/" + name, gradients);
}

// Named arrays: GCC 12 for ARM was seen to leave out those of loops over braces.
constexpr int64_t kDepths[] = {64, 128, 448}, kRowCounts[] = {1, 2, 3, 5, 16, 17, 65};
constexpr int64_t kCrossedDepths[] = {64, 192, 4096}, kCrossedCounts[] = {1, 15, 16, 17, 32, 50, 77};
constexpr int64_t kScoreCounts[] = {1, 3, 15, 16, 17, 100, 1000}, kSpreads[] = {1, 3, 1000000};
constexpr int kBits[] = {1, 2, 4, 8};
constexpr Dtype kNarrowTypes[] = {Dtype::float16, Dtype::bfloat16, Dtype::int8};
constexpr const char* kKinds[] = {"plain", "negative", "strange"};
constexpr const char* kTrainingKinds[] = {"plain", "scaled", "strange"};

void all() {
    for (const int64_t depth : kDepths)
        for (const int64_t n : kRowCounts)
            for (int ntiles = 1; ntiles <= 3; ++ntiles) int8_products(depth, n, ntiles, n == 17);
    for (const int64_t depth : kCrossedDepths)
        for (const int64_t n : kCrossedCounts) int8_crossed(depth, n, false), int8_crossed(depth, n, true);
    for (const int64_t n : kScoreCounts)
        for (const int64_t spread : kSpreads) int8_choices(n, spread);
    for (int64_t n : {16, 48, 160})
        for (const int64_t spread : kSpreads) int8_bounds(n, spread);
    for (const int64_t spread : kSpreads) int8_lanes(spread);
    for (const int nbits : kBits)
        for (const int64_t width : kWidths)
            for (int strange = 0; strange < 2; ++strange) residual(nbits, width, width % 16 == 0, strange != 0);
    for (const Dtype dtype : kNarrowTypes) widening(dtype);
    for (const int64_t dim : kDims) {
        maxsim(Dtype::int8, Dtype::int8, dim, "plain");
        maxsim(Dtype::int8, Dtype::int8, dim, "negative");
        for (const char* kind : kKinds)
            for (const Dtype dtype : kFloatTypes) maxsim(Dtype::float32, dtype, dim, kind);
        maxsim(Dtype::float16, Dtype::int8, dim, "plain");
        for (const char* kind : kTrainingKinds)
            for (const Dtype dtype : kFloatTypes) training(dtype, dim, kind);
        for (const int64_t length : kRowCounts) pooling(length, dim, false), pooling(length, dim, true);
    }
}

}  // namespace

int main() {
    for (int level = 0; level < isa_count(); ++level) {
        const auto isa = static_cast<Isa>(level);
        if (isa > best_isa()) break;
        set_active_isa(isa);
        all();
    }
}
