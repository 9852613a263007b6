#include "dense/distances.hpp"

namespace lateint::dense {
namespace {

typedef float Floats __attribute__((vector_size(32)));
typedef double Doubles __attribute__((vector_size(32)));

}  // namespace

const DistanceKernel* distance_kernel_avx2() { return &kDistanceKernel<Floats, Doubles>; }

}  // namespace lateint::dense
