// What the products of queries with residual codes are formed from. Python fills this struct byte for byte
// (lateint_kernels/codes/cuda/products.py).
#pragma once

#include "device.cuh"

namespace lateint {

typedef unsigned long long uint64;

struct BestProducts {
    const void* queries;                 // [T, depth] signed bytes
    const int64* query_offsets;          // [Nq + 1]
    const int64* positions;              // [Nq, C] documents, negative: none
    const int64* offsets;                // [documents + 1] tokens of documents
    const void* codes;                   // [tokens, WIDTH * NBITS / 8]
    const unsigned char* scales;         // [tokens], of 8 bits null
    const unsigned short* centroid_low;  // [tokens], of 8 bits null
    const unsigned char* centroid_high;  // [tokens], or null: 0
    const void* centroids;               // [K, depth] signed bytes
    int* best;                           // [Nq, C, longest]
    unsigned depth;                      // of queries and centroids
    int candidates;                      // C
    int longest;                         // query tokens, at most
    int pieces;                          // of ROWS query tokens
    int each;                            // candidates of a block
};

}  // namespace lateint
