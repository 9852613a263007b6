// When a search has scored enough candidates.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace lateint::codes {

// Candidates come by an estimate c of their scores, best first, and get a score s. A line through what was scored, s ~
// a + b c with residuals of deviation sigma, foretells the next ones; a search has enough when the next candidate would
// need to be more than so many deviations above the line to be among the best k.
//
// Sums are exact integers, so that everybody who computes them in whatever order stops at the same candidate: estimates
// have at most 23 bits here, and scores are on the same scale, as a difference to the first one.
class Line {
public:
    static constexpr int64_t kMost = 1 << 12;    // candidates that the line goes through: 2^12 products of 2^46 fit
    static constexpr double kLargest = 1 << 22;  // of a score on the scale of estimates

    // `unit`: estimates per unit of score.
    explicit Line(double unit) : unit_(unit) {}

    void add(int64_t estimate, float score) {
        if (n_ == kMost || !std::isfinite(score)) return;
        if (n_ == 0) first_ = score;
        const int64_t c = estimate, s = scaled(score);
        ++n_, c_ += c, s_ += s, cc_ += c * c, cs_ += c * s, ss_ += s * s;
    }
    // Whether a candidate is more than `deviations` below the line of what would reach `least`.
    bool below(int64_t estimate, double deviations, float least) const {
        const auto n = static_cast<double>(n_);
        const double c = double(c_) / n, s = double(s_) / n;
        const double spread = double(cc_) / n - c * c, together = double(cs_) / n - c * s;
        const double slope = spread > 0 ? together / spread : 0.0;
        const double rest = double(ss_) / n - s * s - slope * together;
        const double reached = s + slope * (double(estimate) - c) + deviations * std::sqrt(std::max(rest, 0.0));
        return reached < double(scaled(least));
    }

    // A score as an estimate of other scores.
    static int64_t estimate(float score, float best, double unit) {
        return scaled(score, best, unit) + int64_t{1 << 22};
    }

private:
    static int64_t scaled(float score, float origin, double unit) {
        const double distance = (double(score) - double(origin)) * unit;
        return static_cast<int64_t>(std::nearbyint(std::clamp(distance, -kLargest, kLargest)));
    }
    int64_t scaled(float score) const { return scaled(score, first_, unit_); }

    double unit_;
    float first_ = 0;
    int64_t n_ = 0, c_ = 0, s_ = 0, cc_ = 0, cs_ = 0, ss_ = 0;
};

}  // namespace lateint::codes
