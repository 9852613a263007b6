#include "dense/distances.hpp"

namespace lateint::dense {
namespace {

typedef float Floats __attribute__((vector_size(16)));
typedef double Doubles __attribute__((vector_size(16)));

}  // namespace

const DistanceKernel* distance_kernel_scalar() { return &kDistanceKernel<Floats, Doubles>; }

}  // namespace lateint::dense
