#include "dense/bytes_neon.hpp"

namespace lateint::dense {
namespace {

struct Dot {
    static int32x4_t dot(int32x4_t sum, int8x16_t token, int8x16_t query) { return vdotq_s32(sum, token, query); }
};

constexpr Kernel kInt8 = lanes_kernel<Bytes<Dot>>(Bytes<Dot>::pack);

}  // namespace

const Kernel* kernel_dotprod(QueryKind queries, Dtype) { return queries == QueryKind::int8 ? &kInt8 : nullptr; }

}  // namespace lateint::dense
