// Centroids, grouped by cell.
#pragma once

#include <cstdint>

namespace lateint::codes {

// K centroids as unsigned bytes (value = (byte - 128) * step), row length `depth`, grouped by cell: those of cell c are
// rows [cell_offsets[c], cell_offsets[c + 1]). `cells` holds the cells' own centres.
struct Centroids {
    const uint8_t* rows;
    int64_t count;
    int64_t depth;
    const uint8_t* cells;
    const int64_t* cell_offsets;
    int64_t cell_count;
};

}  // namespace lateint::codes
