// What coarse scores are added up from. Python fills this struct byte for byte
// (lateint_kernels/codes/cuda/scoreboard.py).
#pragma once

#include "device.cuh"

namespace lateint {

typedef unsigned long long uint64;

constexpr int DIGIT = 11, BINS = 1 << DIGIT;  // a histogram tells apart so many bits of a key
constexpr int KEY_BITS = 63;                  // a sum below 2^31, and 32 bits for the position
constexpr int PROBES = 64;                    // slots looked at for a document before its table counts as full

struct Scoreboard {
    const int64* list_offsets;     // [S, K + 1]
    const int* list_documents;     // [P], rising within a list
    const int64* ids;              // [T, probed] centroids, best first
    const int* gains;              // [T, used] what a document gains from a list, falling
    const int64* query_offsets;    // [Nq + 1]
    const int64* ranges;           // [Nq] documents that a block takes at a time, if they fit
    const unsigned char* allowed;  // [documents] nonzero: may be found; null: all may
    int* histograms;               // [passes, Nq, BINS] zeros at first
    uint64* least;                 // [passes, Nq] the least key that may be wanted
    int* above;                    // [passes, Nq] keys known to be wanted, -1: all from the least on are kept
    int* kept;                     // [Nq] zeros at first: keys written
    int64* keys;                   // [Nq, capacity]
    uint64* touched;               // [1] documents found in lists, added to
    int documents;
    int lists;        // K + 1: one for each centroid, and an empty one
    int segments;     // S
    int query_count;  // Nq
    int probed;
    int used;
    int candidates;  // of a query: what is wanted
    int capacity;    // of its keys, at least the candidates
    int slots;       // of a block's table
    int passes;      // that count, before the one that writes
    int pass;
};

}  // namespace lateint
