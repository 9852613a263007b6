// sum(d) = sum over query tokens of the best gain among the token's lists that hold d; and the best documents by sum.
//
// A block owns ranges of documents of one query and keeps those its lists name in a table in shared memory. Query
// tokens come one after another; a warp takes a list, finds its slice of the range by a search of 32 places at a time,
// and each lane an entry. The best list of a token so far is an atomic maximum: whoever raises it adds the difference
// to the sum, so that in any order of threads the differences add up to the best gain.
//
// The best keys (sum, position) are selected without knowing how many there are: each of the first launches counts keys
// by their next bits, from which the following launch knows a larger least key, until what is left fits. Then blocks do
// nothing until the last launch, which writes the keys that are left, in any order.
#include "scoreboard.cuh"

namespace lateint {

constexpr int NONE = 0x7fffffff;

// Documents of a range in shared memory, found by hashing, or by their place where the range is no larger than that.
struct Table {
    int* documents;  // [slots] -1: none
    unsigned* best;  // [slots] what the last query token that touched it found, as Slice::value; 0: untouched
    unsigned* sums;  // [slots]
    int* full;       // nonzero: a document found no slot
    int slots;
    int first;
    bool direct;
};

// The documents of one list from table.first on; a lane of the warp has read its first one already.
struct Slice {
    const int* documents;
    int left;
    int document;
    unsigned value;    // rises with the query token, and within one from its worst list to its best
    unsigned before;   // the largest value of earlier tokens
    const int* gains;  // [used] of the token
};

// The bits of a key that a launch does not look at; those that launch -1 did not look at are all.
__device__ inline int shift_of(int pass) {
    const int shift = KEY_BITS - (pass + 1) * DIGIT;
    return shift > 0 ? shift : 0;
}

struct Selection {
    uint64 least;
    int above;
};

// By one warp: what the histogram of the launch before tells of keys from `known.least` on.
__device__ inline Selection narrow(const Scoreboard& a, Selection known, const int* histogram, int pass) {
    constexpr int EACH = BINS / 32;
    const int lane = threadIdx.x % 32;
    const int* mine = histogram + lane * EACH;
    int own = 0;
    for (int b = 0; b < EACH; ++b) own += mine[b];
    int from_here = own;  // and in the lanes after this one
    for (int offset = 1; offset < 32; offset *= 2) {
        const int other = __shfl_sync(ALL_LANES, from_here, (lane + offset) % 32);
        if (lane + offset < 32) from_here += other;
    }
    int total = known.above + from_here - own;
    const bool here = total < a.candidates && total + own >= a.candidates;
    const unsigned found = __ballot_sync(ALL_LANES, here);
    if (!found) return Selection{known.least, -1};  // there are no more than are wanted
    int bin = 0, beyond = 0;
    if (here) {
        for (bin = EACH - 1;; --bin) {
            beyond = total;
            total += mine[bin];
            if (total >= a.candidates) break;
        }
        bin += lane * EACH;
    }
    const int lane_found = __popc(found - 1 & ~found);
    bin = __shfl_sync(ALL_LANES, bin, lane_found);
    total = __shfl_sync(ALL_LANES, total, lane_found);
    beyond = __shfl_sync(ALL_LANES, beyond, lane_found);
    return Selection{known.least + (static_cast<uint64>(bin) << shift_of(pass)), total <= a.capacity ? -1 : beyond};
}

// By one warp: what is known before this launch, kept for the next one.
__device__ inline Selection select(const Scoreboard& a, int query) {
    Selection known{0, a.passes ? 0 : -1};
    if (!a.pass) return known;
    const int64 row = static_cast<int64>(a.pass - 1) * a.query_count + query;
    if (a.pass > 1) known = Selection{a.least[row - a.query_count], a.above[row - a.query_count]};
    if (known.above >= 0) known = narrow(a, known, a.histograms + row * BINS, a.pass - 1);
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        a.least[row] = known.least;
        a.above[row] = known.above;
    }
    return known;
}

// By one warp: how many of `size` rising documents are before `first`.
__device__ inline int count_before(const int* documents, int size, int first) {
    int begin = 0, end = size;
    while (begin < end) {
        const int step = (end - begin + 31) / 32, lane = threadIdx.x % 32;
        const int64 place = begin + static_cast<int64>(lane + 1) * step - 1;
        const int passed = __popc(__ballot_sync(ALL_LANES, place < end && documents[place] < first));
        const int64 next = begin + static_cast<int64>(passed + 1) * step - 1;  // a document not before first, if any
        begin += passed * step;
        end = next < end ? static_cast<int>(next) : end;
    }
    return begin;
}

// By one warp: a list of the query's token.
__device__ inline Slice open_list(const Scoreboard& a, const Table& table, int64 first_token, int token, int list) {
    if (list >= a.used * a.segments) return Slice{nullptr, 0, NONE, 0, 0, nullptr};
    const int rank = list / a.segments, segment = list % a.segments;
    const int64 centroid = a.ids[(first_token + token) * a.probed + rank];
    const int64* bounds = a.list_offsets + static_cast<int64>(segment) * (a.lists + 1) + centroid;
    const int* documents = a.list_documents + bounds[0];
    const int size = static_cast<int>(bounds[1] - bounds[0]), lane = threadIdx.x % 32;
    const int skipped = count_before(documents, size, table.first);
    const unsigned before = static_cast<unsigned>(token) * a.used;
    return Slice{documents + skipped,    size - skipped, lane < size - skipped ? documents[skipped + lane] : NONE,
                 before + a.used - rank, before,         a.gains + (first_token + token) * a.used};
}

// Where a document is, or from now on is; -1 if there is no room.
__device__ inline int slot_of(const Table& table, int document) {
    if (table.direct) return document - table.first;
    int slot = static_cast<int>(__umulhi(static_cast<unsigned>(document) * 2654435769u, table.slots));
#pragma unroll 1
    for (int probe = 0; probe < PROBES; ++probe) {
        const int held = atomicCAS(table.documents + slot, -1, document);
        if (held == -1 || held == document) return slot;
        if (++slot == table.slots) slot = 0;
    }
    return -1;
}

__device__ inline void add_entry(const Scoreboard& a, const Table& table, const Slice& slice, int document) {
    const int slot = slot_of(table, document);
    if (slot < 0) {
        *table.full = 1;
        return;
    }
    const unsigned old = atomicMax(table.best + slot, slice.value);
    if (old >= slice.value) return;
    const int known = old > slice.before ? slice.gains[a.used - (old - slice.before)] : 0;
    atomicAdd(table.sums + slot, slice.gains[a.used - (slice.value - slice.before)] - known);
}

// By one warp: its documents before `last`.
__device__ inline void add_slice(const Scoreboard& a, const Table& table, const Slice& slice, int last) {
    int document = slice.document;
    for (int k = threadIdx.x % 32 + 32;; k += 32) {
        const bool inside = document < last;
        if (inside && !*table.full) add_entry(a, table, slice, document);
        if (__ballot_sync(ALL_LANES, inside) != ALL_LANES) return;
        document = k < slice.left ? slice.documents[k] : NONE;
    }
}

// Adds up the documents from table.first to last; whether they fitted. Threads come and leave together.
__device__ inline bool add_up(const Scoreboard& a, const Table& table, int query, int last) {
    __syncthreads();  // the table may still be read
    for (int slot = threadIdx.x; slot < table.slots; slot += blockDim.x) {
        table.documents[slot] = -1;
        table.best[slot] = table.sums[slot] = 0;
    }
    if (threadIdx.x == 0) *table.full = 0;
    __syncthreads();
    const int64 first_token = a.query_offsets[query];
    const int tokens = static_cast<int>(a.query_offsets[query + 1] - first_token);
    const int warps = blockDim.x / 32, warp = threadIdx.x / 32;
    const int rounds = (a.used * a.segments + warps - 1) / warps;  // lists of a token that a warp takes
    Slice next = open_list(a, table, first_token, 0, warp);
    for (int token = 0; token < tokens; ++token) {
        for (int round = 0; round < rounds; ++round) {
            const Slice slice = next;
            // On its way while this one is added.
            if (round + 1 < rounds) {
                next = open_list(a, table, first_token, token, (round + 1) * warps + warp);
            } else if (token + 1 < tokens) {
                next = open_list(a, table, first_token, token + 1, warp);
            }
            add_slice(a, table, slice, last);
        }
        __syncthreads();  // values of the next token are above all of this one
    }
    return !*table.full;
}

// Counts or writes the keys of a table; returns how many documents are in the thread's part of it.
__device__ inline int hand_out(const Scoreboard& a, const Table& table, int query, int last, uint64 least) {
    int touched = 0;
    const int end = table.direct ? last - table.first : table.slots;
    for (int slot = threadIdx.x; slot < end; slot += blockDim.x) {
        if (!table.best[slot]) continue;
        ++touched;
        const int document = table.direct ? table.first + slot : table.documents[slot];
        if (a.allowed && !a.allowed[document]) continue;
        const uint64 key = (static_cast<uint64>(table.sums[slot]) << 32) + (0xffffffffu - document);
        if (key < least) continue;
        if (a.pass == a.passes) {
            const int place = atomicAdd(a.kept + query, 1);
            a.keys[static_cast<int64>(query) * a.capacity + place] = static_cast<int64>(key);
        } else {
            if ((key - least) >> shift_of(a.pass - 1)) continue;  // one of those above, which are counted
            const int64 row = static_cast<int64>(a.pass) * a.query_count + query;
            atomicAdd(a.histograms + row * BINS + ((key - least) >> shift_of(a.pass)), 1);
        }
    }
    return touched;
}

__device__ inline void scoreboard(const Scoreboard& a, char* shared) {
    struct Header {
        Selection selection;
        int full;
        unsigned touched;
    };
    Header* header = reinterpret_cast<Header*>(shared);
    int* documents = reinterpret_cast<int*>(header + 1);
    unsigned* best = reinterpret_cast<unsigned*>(documents + a.slots);
    Table table{documents, best, best + a.slots, &header->full, a.slots, 0, false};
    const int query = blockIdx.y;
    if (threadIdx.x < 32) {
        const Selection selection = select(a, query);
        if (threadIdx.x == 0) {
            header->selection = selection;
            header->touched = 0;
        }
    }
    __syncthreads();
    const Selection selection = header->selection;
    const bool writing = a.pass == a.passes;
    if (!writing && selection.above < 0) return;  // what is left fits
    const int64 size = a.ranges[query], stride = size * gridDim.x;
    int touched = 0;
    for (int64 begin = size * blockIdx.x; begin < a.documents; begin += stride) {
        const int end = static_cast<int>(begin + size < a.documents ? begin + size : a.documents);
        int part = end - static_cast<int>(begin);
        table.first = static_cast<int>(begin);
        while (table.first < end) {
            const int last = end - table.first < part ? end : table.first + part;
            table.direct = last - table.first <= a.slots;
            if (!add_up(a, table, query, last)) {  // entries are close together: half as many documents at a time
                part = (last - table.first + 1) / 2;
                continue;
            }
            touched += hand_out(a, table, query, last, selection.least);
            table.first = last;
        }
    }
    if (!writing) return;
    atomicAdd(&header->touched, static_cast<unsigned>(touched));
    __syncthreads();
    if (threadIdx.x == 0 && header->touched) atomicAdd(a.touched, static_cast<uint64>(header->touched));
}

}  // namespace lateint

extern "C" __global__ void __launch_bounds__(256, 4) scoreboard(const lateint::Scoreboard arguments) {
    extern __shared__ float4 shared[];
    lateint::scoreboard(arguments, reinterpret_cast<char*>(shared));
}
