#include "dense/distances.hpp"

namespace lateint::dense {
namespace {

typedef float Floats __attribute__((vector_size(64)));
typedef double Doubles __attribute__((vector_size(64)));

}  // namespace

const DistanceKernel* distance_kernel_avx512() { return &kDistanceKernel<Floats, Doubles>; }

}  // namespace lateint::dense
