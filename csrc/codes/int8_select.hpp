// Selection steps in plain C++, which a compiler turns into the vectors of the file that includes this.
#pragma once

#include <algorithm>
#include <cstring>

#include "codes/int8.hpp"

namespace lateint::codes {
namespace {

inline int64_t above_plain(const int32_t* scores, int64_t n, int32_t threshold, uint32_t first, int32_t* kept,
                           uint32_t* rows) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i) {
        kept[count] = scores[i];
        rows[count] = first + static_cast<uint32_t>(i);
        count += scores[i] > threshold;
    }
    return count;
}

inline int64_t reaching_plain(const uint32_t* entries, int64_t n, uint32_t bound, uint32_t* places) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i)
        if (entries[i] >= bound) places[count++] = static_cast<uint32_t>(i);  // few, once the bound has risen
    return count;
}

// Registers of the file that includes this. Of longer vectors compilers make scalar code where they are compared.
#if defined(__AVX512F__)
constexpr int kRegister = 16;  // scores in one
#elif defined(__AVX2__)
constexpr int kRegister = 8;
#else
constexpr int kRegister = 4;
#endif
typedef int32_t Register __attribute__((vector_size(4 * kRegister)));
constexpr int kRegisters = 16 / kRegister;

struct Scores {  // 16 of them
    Register of[kRegisters];
};

inline Scores load_scores(const int32_t* from) {
    Scores scores;
    for (int p = 0; p < kRegisters; ++p) std::memcpy(&scores.of[p], from + p * kRegister, sizeof scores.of[p]);
    return scores;
}

inline int32_t less_bias(int32_t* scores, const int32_t* bias, int64_t n, int count) {
    Register most[kRegisters], larger[kRegisters] = {};  // of each lane
    for (Register& part : most) part = Register{} + INT32_MIN;
    for (int64_t i = 0; i < n; i += 16)
        for (int p = 0; p < kRegisters; ++p) {
            Register score, less;
            std::memcpy(&score, scores + i + p * kRegister, sizeof score);
            std::memcpy(&less, bias + i + p * kRegister, sizeof less);
            score = score - less;
            std::memcpy(scores + i + p * kRegister, &score, sizeof score);
            most[p] = score > most[p] ? score : most[p];
        }
    // The count-th largest of the lanes: the least that fewer than `count` of them exceed.
    int32_t lanes[16];
    std::memcpy(lanes, most, sizeof lanes);
    for (const int32_t lane : lanes)
        for (int p = 0; p < kRegisters; ++p) larger[p] = larger[p] - (most[p] < lane);
    for (int p = 0; p < kRegisters; ++p) most[p] = larger[p] < count ? most[p] : Register{} + INT32_MAX;
    std::memcpy(lanes, most, sizeof lanes);
    return *std::min_element(lanes, lanes + 16);
}

// Turns 16 rows of 16 scores less their bias.
inline void turn_scores_plain(const int32_t* scores, const int32_t* bias, Scores (&columns)[16]) {
    int32_t turned[16][16];
    for (int r = 0; r < 16; ++r)
        for (int j = 0; j < 16; ++j) turned[j][r] = scores[r * 16 + j] - bias[j];
    for (int j = 0; j < 16; ++j) columns[j] = load_scores(turned[j]);
}

// Bit r: whether lane r is not 0.
inline uint32_t mask_plain(const Scores& scores) {
    int32_t lanes[16];
    std::memcpy(lanes, scores.of, sizeof lanes);
    uint32_t mask = 0;
    for (int r = 0; r < 16; ++r) mask |= (static_cast<uint32_t>(lanes[r]) & 1) << r;
    return mask;
}

// A score is among the `count` best if fewer than that are better; all 16 rows count at once.
template <void (*turn)(const int32_t*, const int32_t*, Scores (&)[16]), uint32_t (*mask_of)(const Scores&)>
inline void best_lanes(const int32_t* scores, const int32_t* bias, const int32_t* counts, uint32_t* rows) {
    Scores columns[16], chosen;
    turn(scores, bias, columns);
    const Scores wanted = load_scores(counts);
    for (int j = 0; j < 16; ++j) {
        for (int p = 0; p < kRegisters; ++p) {
            const Register score = columns[j].of[p];
            Register better{};
            for (int i = 0; i < j; ++i) better = better - (columns[i].of[p] >= score);
            for (int i = j + 1; i < 16; ++i) better = better - (columns[i].of[p] > score);
            chosen.of[p] = better < wanted.of[p];
        }
        rows[j] = mask_of(chosen);
    }
}

// The least of n scores above a bound, `most` if there is none.
inline int32_t least_above(const int32_t* scores, int64_t n, int32_t bound, int32_t most) {
    int32_t least = most;
    for (int64_t i = 0; i < n; ++i) {
        const int32_t score = scores[i] > bound ? scores[i] : most;
        least = score < least ? score : least;
    }
    return least;
}

// The count-th largest of n scores, by halving the range that it lies in, until a bound leaves just so many.
inline int32_t nth_largest(const int32_t* scores, int64_t n, int64_t count) {
    int32_t least = scores[0], most = scores[0];
    for (int64_t i = 1; i < n; ++i) least = std::min(least, scores[i]), most = std::max(most, scores[i]);
    int64_t low = least, high = most;  // at least `count` scores are >= low, fewer than `count` are > high
    while (low < high) {
        const auto middle = static_cast<int32_t>(low + (high - low) / 2);
        int32_t larger = 0;
        for (int64_t i = 0; i < n; ++i) larger += scores[i] > middle;
        if (larger == count) return least_above(scores, n, middle, most);
        if (larger < count)
            high = middle;
        else
            low = int64_t{middle} + 1;
    }
    return static_cast<int32_t>(low);
}

// The highest row that is kept among those that score `last`, so that `count` are kept with those that score more.
inline uint32_t highest_row(const int32_t* scores, const uint32_t* rows, int64_t n, int64_t count, int32_t last) {
    int64_t ties = 0, larger = 0;
    for (int64_t i = 0; i < n; ++i) ties += scores[i] == last, larger += scores[i] > last;
    if (larger + ties <= count) return ~uint32_t{0};
    // The lowest row up to which there are enough of them, by halving the range that it lies in.
    uint32_t low = 0, high = ~uint32_t{0};
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        int64_t up_to = 0;
        for (int64_t i = 0; i < n; ++i) up_to += (scores[i] == last) & (rows[i] <= middle);
        if (up_to >= count - larger)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

// Moves those of places [i, n) that are kept to place `kept` and on.
inline void keep_rows(int32_t* scores, uint32_t* rows, int64_t i, int64_t n, int32_t last, uint32_t highest,
                      int64_t kept) {
    for (; i < n; ++i) {
        const int32_t score = scores[i];
        const uint32_t row = rows[i];
        scores[kept] = score;
        rows[kept] = row;
        kept += (score > last) | ((score == last) & (row <= highest));
    }
}

inline int32_t keep_best_plain(int32_t* scores, uint32_t* rows, int64_t n, int64_t count) {
    const int32_t last = nth_largest(scores, n, count);
    keep_rows(scores, rows, 0, n, last, highest_row(scores, rows, n, count, last), 0);
    return last;
}

}  // namespace
}  // namespace lateint::codes
