#include "train/tokens.hpp"

#include <algorithm>
#include <cmath>

#include "platform/floats.hpp"
#include "platform/threads.hpp"

namespace lateint::train {
namespace {

float number(const void* tokens, Dtype dtype, int64_t i) {
    if (dtype == Dtype::float32) return static_cast<const float*>(tokens)[i];
    const uint16_t bits = static_cast<const uint16_t*>(tokens)[i];
    return dtype == Dtype::float16 ? float16_to_float(bits) : bfloat16_to_float(bits);
}

}  // namespace

QueryPanels::QueryPanels(const Problem& problem, const ForwardKernel& kernel, int64_t most, int threads)
    : most_(most), tile_bytes_(kernel.tile_bytes(problem.dim)) {
    for (int64_t s = 0; s < problem.query_rows(); ++s) {
        if (problem.query_present(s)) rows_.push_back(s);
    }
    const int64_t count = static_cast<int64_t>(rows_.size());
    char* const to = tiles_.get(tiles_for(count) * tile_bytes_);
    parallel_for(tiles_for(count), threads, [&](int64_t tile, int) {
        const int lanes = static_cast<int>(count - tile * kLanes < kLanes ? count - tile * kLanes : kLanes);
        kernel.pack_queries(problem.queries, &rows_[tile * kLanes], lanes, problem.dim, to + tile * tile_bytes_);
    });
}

bool DocumentTokens::open(const Problem& problem, const ForwardKernel& kernel, int64_t document) {
    const int64_t start = problem.document_offsets[document];
    const int64_t length = problem.document_offsets[document + 1] - start;
    problem_ = &problem;
    kernel_ = &kernel;
    tokens_ = static_cast<const char*>(problem.documents) + start * problem.dim * itemsize(problem.dtype);
    present_.clear();
    for (int64_t t = 0; problem.document_mask != nullptr && t < length; ++t) {
        if (problem.document_mask[start + t] != 0) present_.push_back(static_cast<int32_t>(t));
    }
    whole_ = problem.document_mask == nullptr || static_cast<int64_t>(present_.size()) == length;
    size_ = whole_ ? length : static_cast<int64_t>(present_.size());
    scaled_ = problem.document_scales != nullptr || problem.document_inverse_norms != nullptr;
    scales_data_ = scaled_ ? scales_.floats(size_) : nullptr;
    for (int64_t i = 0; scaled_ && i < size_; ++i) scales_data_[i] = problem.document_factor(start + position(i));
    return size_ > 0;
}

const void* DocumentTokens::rows(int64_t first, int64_t count) {
    const int64_t dim = problem_->dim;
    const char* const from = tokens_ + (whole_ ? first * dim * itemsize(problem_->dtype) : 0);
    if (whole_ && kernel_->direct(dim)) return from;
    char* const copy = rows_.get(count * kernel_->row_bytes(dim) + 64);
    kernel_->pack_documents(from, whole_ ? nullptr : &present_[first], count, dim, copy);
    return copy;
}

void ExactProducts::open(const Problem& problem, int64_t row) {
    problem_ = &problem;
    float* const query = query_.floats(sum_stride(problem.dim));
    std::fill_n(query, sum_stride(problem.dim), 0.0f);
    for (int64_t k = 0; k < problem.dim; ++k) query[k] = number(problem.queries, problem.dtype, row * problem.dim + k);
}

float ExactProducts::with(int64_t token) const {
    const int64_t dim = problem_->dim;
    const void* const row = static_cast<const char*>(problem_->documents) + token * dim * itemsize(problem_->dtype);
    const float* const query = reinterpret_cast<const float*>(query_.data());
    return backward_kernel(problem_->dtype).dot(query, row, dim) * problem_->document_factor(token);
}

void ExactProducts::largest(int64_t document, float& best, float& position) const {
    const int64_t start = problem_->document_offsets[document];
    bool any = false;
    for (int64_t t = start; t < problem_->document_offsets[document + 1]; ++t) {
        if (!problem_->document_present(t)) continue;
        const float product = with(t);
        if (any && !(product > best) && !std::isnan(product)) continue;
        any = true;
        best = product;
        position = static_cast<float>(t - start);
        if (std::isnan(product)) return;
    }
}

bool repair(const Problem& problem, int64_t document, const DocumentTokens& tokens, int64_t first, int64_t count,
            const int64_t* rows, int64_t lanes, int64_t stride, float* products) {
    ExactProducts exact;
    bool any = false;
    for (int64_t lane = 0; lane < lanes; ++lane) {
        bool open = false;
        for (int64_t i = 0; i < count; ++i) {
            float& product = products[i * stride + lane];
            if (std::isfinite(product)) continue;
            if (!open) exact.open(problem, rows[lane]);
            open = any = true;
            product = exact.with(problem.document_offsets[document] + tokens.position(first + i));
        }
    }
    return any;
}

}  // namespace lateint::train
