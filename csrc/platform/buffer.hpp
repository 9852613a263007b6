// Memory of a worker: aligned to 64 bytes, grows and stays.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace lateint {

class Buffer {
public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { std::free(data_); }

    // At least `bytes`; what was written before is lost when it grows.
    char* get(int64_t bytes) {
        if (bytes > bytes_) {
            std::free(data_);
            bytes_ = 0;
            bytes = (bytes + 4095) / 4096 * 4096;
            data_ = static_cast<char*>(std::aligned_alloc(64, static_cast<size_t>(bytes)));
            if (data_ == nullptr) throw std::bad_alloc();
            bytes_ = bytes;
        }
        return data_;
    }
    float* floats(int64_t count) { return reinterpret_cast<float*>(get(count * 4)); }
    char* data() const { return data_; }

private:
    char* data_ = nullptr;
    int64_t bytes_ = 0;
};

}  // namespace lateint
