#include "codes/group.hpp"

#include <algorithm>
#include <utility>

namespace lateint::codes {

Group pack(const uint8_t* rows, int64_t depth, std::vector<uint32_t> ids) {
    const auto size = static_cast<int64_t>(ids.size()), ntiles = tiles_for(size);
    Group group{std::move(ids), std::vector<int8_t>(ntiles * depth * kLanes),
                std::vector<int32_t>(ntiles * kLanes, kNever)};
    std::vector<int8_t> block(kLanes * depth);
    for (int64_t t = 0; t < ntiles; ++t) {
        const int lanes = static_cast<int>(std::min<int64_t>(kLanes, size - t * kLanes));
        for (int j = 0; j < lanes; ++j) {
            const uint8_t* const row = rows + int64_t{group.ids[t * kLanes + j]} * depth;
            int32_t sum = 0, squares = 0;
            for (int64_t k = 0; k < depth; ++k) {
                const int c = row[k] - 128;
                block[j * depth + k] = static_cast<int8_t>(c);
                sum += c;
                squares += c * c;
            }
            group.bias[t * kLanes + j] = 128 * sum + (squares + 1) / 2;
        }
        pack_tile(block.data(), lanes, depth, depth, group.tiles.data() + t * depth * kLanes);
    }
    return group;
}

}  // namespace lateint::codes
