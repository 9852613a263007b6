#include "train/kernel.hpp"

#include "platform/isa.hpp"

namespace lateint::train {

const ForwardKernel& forward_kernel(Dtype dtype) {
    const ForwardKernel* kernel = nullptr;
#if defined(__x86_64__) || defined(__i386__)
    using Offer = const ForwardKernel* (*)(Dtype);
    constexpr Offer kOffers[] = {forward_kernel_avx2, forward_kernel_avx512, forward_kernel_avx512bf16,
                                 forward_kernel_amx};
    for (int level = static_cast<int>(active_isa()); level > 0 && kernel == nullptr; --level) {
        kernel = kOffers[level - 1](dtype);
    }
#elif defined(__aarch64__)
    if (active_isa() >= Isa::neon) kernel = forward_kernel_neon(dtype);
#endif
    return *(kernel != nullptr ? kernel : forward_kernel_scalar(dtype));
}

const BackwardKernel& backward_kernel(Dtype dtype) {
#if defined(__x86_64__) || defined(__i386__)
    if (active_isa() >= Isa::avx512) return *backward_kernel_avx512(dtype);
    if (active_isa() >= Isa::avx2) return *backward_kernel_avx2(dtype);
#elif defined(__aarch64__)
    if (active_isa() >= Isa::neon) return *backward_kernel_neon(dtype);
#endif
    return *backward_kernel_scalar(dtype);
}

const LaneKernel& lane_kernel() {
#if defined(__x86_64__) || defined(__i386__)
    if (active_isa() >= Isa::avx512) return *lane_kernel_avx512();
    if (active_isa() >= Isa::avx2) return *lane_kernel_avx2();
#elif defined(__aarch64__)
    if (active_isa() >= Isa::neon) return *lane_kernel_neon();
#endif
    return *lane_kernel_scalar();
}

}  // namespace lateint::train
