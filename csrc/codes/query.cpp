#include "codes/query.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "codes/int8.hpp"
#include "codes/residual.hpp"
#include "platform/floats.hpp"

namespace lateint::codes {
namespace {

struct Rounded {
    float scale;
    int32_t sum;  // of the bytes
};

Rounded round_to_bytes(const float* token, int64_t width, int8_t* bytes) {
    const float largest = largest_magnitude(token, width);
    if (!std::isfinite(largest)) throw std::runtime_error("a query token is not finite when rotated");
    const float scale = largest > 1e-30f ? largest / 127.0f : 1.0f;  // what is smaller counts as zero
    int32_t sum = 0;
    for (int64_t k = 0; k < width; ++k) {
        const int value = static_cast<int>(std::nearbyint(token[k] / scale));
        bytes[k] = static_cast<int8_t>(value);
        sum += value;
    }
    return {scale, sum};
}

}  // namespace

Query prepare(const Rotation& rotation, float step, int64_t depth, const float* tokens, int64_t length) {
    const int64_t dim = rotation.dim, width = rotation.width;
    Query query;
    query.length = length;
    query.ntiles = static_cast<int>(tiles_for(length));
    query.tiles.resize(query.ntiles * kLanes * depth);
    query.scales.resize(length);
    query.offsets.resize(length);
    std::vector<float> rows(length * width), rotated(length * width);
    for (int64_t i = 0; i < length; ++i) {
        const float* const token = tokens + i * dim;
        std::copy_n(token, dim, rows.begin() + i * width);
        for (int64_t k = 0; k < dim; ++k) query.constant += double(token[k]) * double(rotation.mean[k]);
    }
    residual_kernels().rotate(rows.data(), length, width, rotation.block, rotation.rotation, rotation.permutation,
                              rotated.data());
    std::vector<int8_t> bytes(kLanes * depth, 0);
    for (int64_t t = 0; t < query.ntiles; ++t) {
        const int count = static_cast<int>(std::min<int64_t>(kLanes, length - t * kLanes));
        for (int j = 0; j < count; ++j) {
            const int64_t i = t * kLanes + j;
            const Rounded rounded = round_to_bytes(rotated.data() + i * width, width, bytes.data() + j * depth);
            query.scales[i] = double(rounded.scale) * double(step);
            query.offsets[i] = 128 * rounded.sum;
        }
        pack_tile(bytes.data(), count, depth, depth, query.tiles.data() + t * depth * kLanes);
    }
    return query;
}

std::vector<int64_t> evenly_spread(int64_t length, int64_t count) {
    std::vector<int64_t> numbers(count);
    for (int64_t j = 0; j < count; ++j) numbers[j] = j * length / count;
    return numbers;
}

std::vector<int64_t> others(int64_t length, const std::vector<int64_t>& numbers) {
    std::vector<int64_t> found;
    size_t next = 0;
    for (int64_t i = 0; i < length; ++i) {
        if (next < numbers.size() && numbers[next] == i)
            ++next;
        else
            found.push_back(i);
    }
    return found;
}

Query part_of(const Query& query, int64_t depth, const std::vector<int64_t>& tokens) {
    Query part;
    part.length = static_cast<int64_t>(tokens.size());
    part.ntiles = static_cast<int>(tiles_for(part.length));
    part.tiles.resize(part.ntiles * kLanes * depth);
    part.constant = query.constant;
    for (int64_t j = 0; j < part.length; ++j) {
        const int64_t i = tokens[j];
        const int8_t* const from = query.tiles.data() + i / kLanes * depth * kLanes + i % kLanes * 4;
        int8_t* const to = part.tiles.data() + j / kLanes * depth * kLanes + j % kLanes * 4;
        for (int64_t k = 0; k < depth; k += 4) std::memcpy(to + k * kLanes, from + k * kLanes, 4);
        part.scales.push_back(query.scales[i]);
        part.offsets.push_back(query.offsets[i]);
    }
    return part;
}

float total(const Query& query, const int32_t* best) {
    if (best[0] == kNoMaximum) return -std::numeric_limits<float>::infinity();
    double score = query.constant;
    for (int64_t i = 0; i < query.length; ++i) score += query.scales[i] * (best[i] - query.offsets[i]);
    return static_cast<float>(score);
}

void unpack(const Query& query, int64_t depth, int8_t* bytes) {
    for (int64_t i = 0; i < query.length; ++i) {
        const int8_t* const tile = query.tiles.data() + i / kLanes * depth * kLanes;
        for (int64_t k = 0; k < depth; ++k) bytes[i * depth + k] = tile[k / 4 * 64 + i % kLanes * 4 + k % 4];
    }
}

}  // namespace lateint::codes
