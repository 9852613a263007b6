// Centroids, residual codes and search. Arguments arrive checked (lateint_kernels.residual, lateint.index): shapes are
// trusted here, and every array is C-contiguous and of the dtype named.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <memory>

#include "bindings/families.hpp"
#include "codes/centroids.hpp"
#include "codes/int8.hpp"
#include "codes/residual.hpp"
#include "codes/search.hpp"
#include "platform/dtype.hpp"
#include "platform/threads.hpp"

namespace py = pybind11;

namespace lateint::codes {
namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;

Centroids view(const Array<uint8_t>& rows, const Array<uint8_t>& cells, const Array<int64_t>& cell_offsets) {
    return {rows.data(), rows.shape(0), rows.shape(1), cells.data(), cell_offsets.data(), cells.shape(0)};
}

struct OwnedAssigner {
    std::unique_ptr<Assigner> assigner;
    OwnedAssigner(const Array<uint8_t>& rows, const Array<uint8_t>& cells, const Array<int64_t>& cell_offsets,
                  int threads) {
        const Centroids centroids = view(rows, cells, cell_offsets);
        py::gil_scoped_release release;
        assigner = std::make_unique<Assigner>(centroids, threads);
    }
    Array<uint32_t> assign(const Array<uint8_t>& tokens, int cells, int threads) const {
        Array<uint32_t> ids(tokens.shape(0));
        uint32_t* out = ids.mutable_data();
        py::gil_scoped_release release;
        assigner->assign(tokens.data(), tokens.shape(0), cells, threads, out);
        return ids;
    }
};

py::tuple accumulate_tokens(const Array<uint8_t>& tokens, const Array<uint32_t>& ids, int64_t count, int threads) {
    Array<int32_t> sums({count, int64_t(tokens.shape(1))});
    Array<int64_t> members(count);
    int32_t* to = sums.mutable_data();
    int64_t* many = members.mutable_data();
    {
        py::gil_scoped_release release;
        accumulate(tokens.data(), ids.data(), tokens.shape(0), tokens.shape(1), count, threads, to, many);
    }
    return py::make_tuple(sums, members);
}

constexpr int64_t kTokensPerTask = 256;

// Centred, permuted and rotated tokens, divided by `step`.
Array<float> rotate_tokens(const py::array& tokens, int dtype, const Array<float>& mean, const Array<float>& rotation,
                           const Array<int32_t>& permutation, float step, int threads) {
    const int64_t n = tokens.shape(0), dim = tokens.shape(1), width = permutation.shape(0), block = rotation.shape(1);
    Array<float> out({n, width});
    float* to = out.mutable_data();
    const char* from = static_cast<const char*>(tokens.data());
    const int64_t row_bytes = dim * itemsize(static_cast<Dtype>(dtype));
    const float* centre = mean.data();
    const int32_t* order = permutation.data();
    const float inverse = 1.0f / step;
    py::gil_scoped_release release;
    parallel_for((n + kTokensPerTask - 1) / kTokensPerTask, threads, [&](int64_t task, int) {
        const int64_t first = task * kTokensPerTask, count = std::min(kTokensPerTask, n - first);
        std::vector<float> plain(dim), centred(count * width, 0.0f);
        for (int64_t i = 0; i < count; ++i) {
            residual_kernels().widen(from + (first + i) * row_bytes, static_cast<Dtype>(dtype), dim, plain.data());
            for (int64_t k = 0; k < dim; ++k) plain[k] = (plain[k] - centre[k]) * inverse;
            float* row = centred.data() + i * width;
            if (block == width) {  // a single block is not permuted
                std::copy(plain.begin(), plain.end(), row);
            } else {
                for (int64_t k = 0; k < width; ++k)
                    if (order[k] < dim) row[k] = plain[order[k]];
            }
        }
        residual_kernels().rotate(centred.data(), count, width, block, rotation.data(), to + first * width);
    });
    return out;
}

Array<uint8_t> to_bytes(const Array<float>& scaled, int64_t depth, int threads) {
    const int64_t n = scaled.shape(0), width = scaled.shape(1);
    Array<uint8_t> out({n, depth});
    uint8_t* to = out.mutable_data();
    py::gil_scoped_release release;
    parallel_for((n + kTokensPerTask - 1) / kTokensPerTask, threads, [&](int64_t task, int) {
        for (int64_t i = task * kTokensPerTask; i < std::min(n, (task + 1) * kTokensPerTask); ++i) {
            residual_kernels().to_bytes(scaled.data() + i * width, width, to + i * depth);
            std::fill(to + i * depth + width, to + (i + 1) * depth, uint8_t{128});
        }
    });
    return out;
}

Codec make_codec(const Array<uint8_t>& centroids, int64_t width, int nbits) {
    Codec codec;
    codec.nbits = nbits;
    codec.width = width;
    codec.depth = centroids.shape(1);
    codec.centroids = centroids.data();
    codec.fill_tables();
    return codec;
}

const uint8_t* optional_data(const py::object& array) {
    return array.is_none() ? nullptr : array.cast<Array<uint8_t>>().data();
}

Array<uint8_t> decode_rows(const Codec& codec, const CodedTokens& tokens, int64_t first, int64_t n) {
    std::vector<uint8_t> rows(n * codec.depth);
    residual_kernels().decode(codec, tokens, first, n, rows.data());
    Array<uint8_t> out({n, codec.width});
    for (int64_t i = 0; i < n; ++i)
        std::copy_n(rows.data() + i * codec.depth, codec.width, out.mutable_data() + i * codec.width);
    return out;
}

py::tuple encode_tokens(const Array<float>& scaled, const Array<uint32_t>& ids, const Array<uint8_t>& centroids,
                        int nbits, int threads) {
    const int64_t n = scaled.shape(0), width = scaled.shape(1);
    const Codec codec = make_codec(centroids, width, nbits);
    Array<uint8_t> codes({n, codec.code_bytes()}), scales(n);
    uint8_t *to = codes.mutable_data(), *scale = scales.mutable_data();
    {
        py::gil_scoped_release release;
        parallel_for((n + kTokensPerTask - 1) / kTokensPerTask, threads, [&](int64_t task, int) {
            for (int64_t i = task * kTokensPerTask; i < std::min(n, (task + 1) * kTokensPerTask); ++i)
                scale[i] = residual_kernels().encode(codec, scaled.data() + i * width,
                                                     codec.centroids + int64_t(ids.data()[i]) * codec.depth,
                                                     to + i * codec.code_bytes());
        });
    }
    return py::make_tuple(codes, scales);
}

Array<uint8_t> decode_tokens(const Array<uint8_t>& codes, const py::object& scales, const Array<uint16_t>& low,
                             const py::object& high, const Array<uint8_t>& centroids, int nbits, int64_t width) {
    const Codec codec = make_codec(centroids, width, nbits);
    const CodedTokens tokens = {codes.data(), optional_data(scales), low.data(), optional_data(high),
                                static_cast<uint32_t>(centroids.shape(0) - 1)};
    return decode_rows(codec, tokens, 0, low.shape(0));
}

// Distinct (centroid, document) pairs by centroid: a counting sort that meets documents in ascending order.
py::tuple invert(const Array<uint32_t>& ids, const Array<int64_t>& offsets, int64_t count) {
    const int64_t documents = offsets.shape(0) - 1;
    Array<int64_t> list_offsets(count + 1);
    int64_t* starts = list_offsets.mutable_data();
    std::vector<uint32_t> last(count, 0xFFFFFFFFu);
    const uint32_t* id = ids.data();
    const int64_t* at = offsets.data();
    {
        py::gil_scoped_release release;
        std::fill(starts, starts + count + 1, int64_t{0});
        for (int64_t d = 0; d < documents; ++d)
            for (int64_t i = at[d]; i < at[d + 1]; ++i)
                if (last[id[i]] != d) last[id[i]] = static_cast<uint32_t>(d), ++starts[id[i] + 1];
        for (int64_t c = 0; c < count; ++c) starts[c + 1] += starts[c];
    }
    Array<uint32_t> list_documents(starts[count]);
    uint32_t* list = list_documents.mutable_data();
    {
        py::gil_scoped_release release;
        std::vector<int64_t> next(starts, starts + count);
        std::fill(last.begin(), last.end(), 0xFFFFFFFFu);
        for (int64_t d = 0; d < documents; ++d)
            for (int64_t i = at[d]; i < at[d + 1]; ++i)
                if (last[id[i]] != d)
                    last[id[i]] = static_cast<uint32_t>(d), list[next[id[i]]++] = static_cast<uint32_t>(d);
    }
    return py::make_tuple(list_offsets, list_documents);
}

struct PySegment {
    Array<int64_t> offsets;
    Array<uint8_t> codes;
    py::object scales, centroid_high;
    Array<uint16_t> centroid_ids;
    Array<int64_t> list_offsets;
    Array<uint32_t> list_documents;
    py::object list_centroids;

    Segment view(int64_t count) const {
        const uint32_t* filled = list_centroids.is_none() ? nullptr : list_centroids.cast<Array<uint32_t>>().data();
        return {offsets.shape(0) - 1,
                offsets.data(),
                codes.shape(0),
                {codes.data(), optional_data(scales), centroid_ids.data(), optional_data(centroid_high),
                 static_cast<uint32_t>(count - 1)},
                {list_offsets.data(), list_documents.data(), list_documents.shape(0), filled, list_offsets.shape(0) - 1,
                 count}};
    }
};

// Keeps the arrays alive that the engine points into.
struct PyEngine {
    Engine engine;
    std::vector<py::object> arrays;
    std::vector<PySegment> segments;
};

std::unique_ptr<PyEngine> make_engine(const Array<uint8_t>& centroids, const Array<uint8_t>& cells,
                                      const Array<int64_t>& cell_offsets, const Array<float>& mean,
                                      const Array<float>& rotation, const Array<int32_t>& permutation, float step,
                                      int nbits, const std::vector<py::tuple>& segments) {
    auto made = std::make_unique<PyEngine>();
    Engine& engine = made->engine;
    engine.codec = make_codec(centroids, permutation.shape(0), nbits);
    engine.centroids = view(centroids, cells, cell_offsets);
    engine.step = step;
    engine.dim = mean.shape(0);
    engine.block = rotation.shape(1);
    engine.mean = mean.data();
    engine.rotation = rotation.data();
    engine.permutation = permutation.data();
    made->arrays = {centroids, cells, cell_offsets, mean, rotation, permutation};
    for (const py::tuple& s : segments)
        made->segments.push_back({s[0].cast<Array<int64_t>>(), s[1].cast<Array<uint8_t>>(), s[2], s[4],
                                  s[3].cast<Array<uint16_t>>(), s[5].cast<Array<int64_t>>(),
                                  s[6].cast<Array<uint32_t>>(), s[7]});
    for (const PySegment& segment : made->segments) engine.segments.push_back(segment.view(engine.centroids.count));
    engine.finish();
    return made;
}

using Ranking = std::pair<Array<int64_t>, Array<float>>;

Ranking to_arrays(const std::vector<Hit>& hits) {
    Array<int64_t> positions(hits.size());
    Array<float> scores(hits.size());
    for (size_t i = 0; i < hits.size(); ++i) {
        positions.mutable_data()[i] = hits[i].position;
        scores.mutable_data()[i] = hits[i].score;
    }
    return {positions, scores};
}

// body(i, threads inside): a single query is split inside; many are shared out whole, each in one piece.
template <typename Body>
void each_query(int64_t n, int threads, const Body& body) {
    if (n == 1)
        body(0, threads);
    else
        parallel_for(n, threads, [&](int64_t i, int) { body(i, 1); });
}

// queries [T, dim] cut at offsets; k hits for each. With nprobe < 0 every document is scored.
std::vector<Ranking> search(const PyEngine& self, const Array<float>& queries, const Array<int64_t>& offsets, int64_t k,
                            int64_t nprobe, int64_t candidates, int64_t patience, int64_t cells,
                            const py::object& allowed, int threads) {
    const Engine& engine = self.engine;
    const uint8_t* mask = optional_data(allowed);
    const int64_t n = offsets.shape(0) - 1;
    std::vector<std::vector<Hit>> hits(n);
    {
        const float* tokens = queries.data();
        const int64_t* at = offsets.data();
        py::gil_scoped_release release;
        each_query(n, threads, [&](int64_t i, int inside) {
            const Query query = engine.prepare(tokens + at[i] * engine.dim, at[i + 1] - at[i]);
            hits[i] = nprobe < 0 ? engine.exhaustive(query, k, mask, inside)
                                 : engine.search(query, {k, nprobe, candidates, patience, cells}, mask, inside);
        });
    }
    std::vector<Ranking> out;
    for (const auto& ranking : hits) out.push_back(to_arrays(ranking));
    return out;
}

// For each token of queries [T, dim] cut at offsets, the best centroids and their products [T, count], as a search
// looks for them; and how many of them there are [T].
py::tuple probe(const PyEngine& self, const Array<float>& queries, const Array<int64_t>& offsets, int64_t count,
                int64_t cells, int threads) {
    static_assert(sizeof(Probe) == 8 && offsetof(Probe, centroid) == 4, "pairs of 32 bits");
    const Engine& engine = self.engine;
    const int64_t n = offsets.shape(0) - 1;
    Array<int32_t> pairs({queries.shape(0), count, int64_t{2}});
    Array<int64_t> known(queries.shape(0));
    std::fill_n(pairs.mutable_data(), pairs.size(), 0);
    const float* tokens = queries.data();
    const int64_t* at = offsets.data();
    auto* out = reinterpret_cast<Probe*>(pairs.mutable_data());
    int64_t* found = known.mutable_data();
    {
        py::gil_scoped_release release;
        each_query(n, threads, [&](int64_t i, int inside) {
            const Query query = engine.prepare(tokens + at[i] * engine.dim, at[i + 1] - at[i]);
            engine.probe(query, count, cells, out + at[i] * count, found + at[i], inside);
        });
    }
    return py::make_tuple(pairs, known);
}

py::tuple gather(const PyEngine& self, const Array<float>& query, int64_t nprobe, int64_t candidates, int64_t cells) {
    SearchCounts counts;
    std::vector<Hit> hits;
    {
        py::gil_scoped_release release;
        const Query prepared = self.engine.prepare(query.data(), query.shape(0));
        hits = self.engine.gather(prepared, {candidates, nprobe, candidates, 0, cells}, nullptr, &counts);
    }
    const Ranking ranking = to_arrays(hits);
    return py::make_tuple(ranking.first, ranking.second, counts.postings, counts.touched);
}

Array<float> score(const PyEngine& self, const Array<float>& query, const Array<int64_t>& positions, int threads) {
    Array<float> scores(positions.shape(0));
    float* out = scores.mutable_data();
    py::gil_scoped_release release;
    const Query prepared = self.engine.prepare(query.data(), query.shape(0));
    self.engine.score(prepared, positions.data(), positions.shape(0), threads, out);
    return scores;
}

// The query as integers: bytes [Lq, depth], scale (the step included) of each token, and sum_i <q_i, mean>.
py::tuple prepare(const PyEngine& self, const Array<float>& query) {
    const Query prepared = self.engine.prepare(query.data(), query.shape(0));
    const int64_t depth = self.engine.codec.depth;
    Array<int8_t> bytes({prepared.length, depth});
    Array<double> scales(prepared.length);
    for (int64_t i = 0; i < prepared.length; ++i) {
        const int8_t* tile = prepared.tiles.data() + i / kLanes * depth * kLanes;
        for (int64_t k = 0; k < depth; ++k)
            bytes.mutable_data()[i * depth + k] = tile[k / 4 * 64 + i % kLanes * 4 + k % 4];
        scales.mutable_data()[i] = prepared.scales[i];
    }
    return py::make_tuple(bytes, scales, prepared.constant);
}

// Tokens [first, first + n) of a segment as unsigned bytes [n, width].
Array<uint8_t> decode(const PyEngine& self, int64_t segment, int64_t first, int64_t n) {
    return decode_rows(self.engine.codec, self.engine.segments[segment].tokens, first, n);
}

// The integer kernels as they are, for tests: rows [n, depth] uint8 times vectors [m, depth] int8.
Array<int32_t> int8_products(const Array<uint8_t>& rows, const Array<int8_t>& vectors, bool maximum) {
    const int64_t n = rows.shape(0), m = vectors.shape(0), depth = rows.shape(1);
    const int ntiles = static_cast<int>(tiles_for(m));
    std::vector<int8_t> tiles(ntiles * depth * kLanes);
    for (int t = 0; t < ntiles; ++t)
        pack_tile(vectors.data() + t * kLanes * depth, static_cast<int>(std::min<int64_t>(kLanes, m - t * kLanes)),
                  depth, depth, tiles.data() + t * depth * kLanes);
    Array<int32_t> out({maximum ? 1 : n, int64_t(ntiles) * kLanes});
    std::fill_n(out.mutable_data(), out.size(), INT32_MIN);
    const Session session(int8_kernels());
    (maximum ? session.kernels.dot_max : session.kernels.dot)(rows.data(), n, depth, tiles.data(), ntiles,
                                                              out.mutable_data());
    return out;
}

}  // namespace

void bind(py::module_& m) {
    py::class_<OwnedAssigner>(m, "Assigner")
        .def(py::init<Array<uint8_t>, Array<uint8_t>, Array<int64_t>, int>())
        .def("assign", &OwnedAssigner::assign);
    m.def("accumulate", &accumulate_tokens);
    m.def("rotate", &rotate_tokens);
    m.def("to_bytes", &to_bytes);
    m.def("encode", &encode_tokens);
    m.def("decode", &decode_tokens);
    m.def("invert", &invert);
    m.def("int8_products", &int8_products);
    py::class_<PyEngine>(m, "Engine")
        .def(py::init(&make_engine))
        .def("search", &search)
        .def("probe", &probe)
        .def("gather", &gather)
        .def("score", &score)
        .def("prepare", &prepare)
        .def("decode", &decode);
}

}  // namespace lateint::codes
