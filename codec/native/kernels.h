// What all kernels share. Every source is compiled once for each instruction set, with KERNEL_SET as the last part of
// the names that it exports, so all else has internal linkage: a function that two objects share would be taken from
// either, also from the one that the processor cannot run.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define KERNEL_EXPORT extern "C" __declspec(dllexport)
#else
#define KERNEL_EXPORT extern "C" __attribute__((visibility("default")))
#endif
#define KERNEL_JOIN(a, b) a##_##b
#define KERNEL_NAMED(name, set) KERNEL_JOIN(name, set)
#define KERNEL(name) KERNEL_EXPORT int32_t KERNEL_NAMED(pixa_##name, KERNEL_SET)

namespace {

// What a kernel returns.
enum Status : int32_t { DONE = 0, WRONG_SIZE = 1, WRONG_VALUE = 2, NO_MEMORY = 3, CORRUPT = 4 };

// An array as `pixa.native` passes it, which tells its bytes, so that one of a wrong type is of a wrong size and no more.
template <class T> struct Span {
    T* data;
    int64_t bytes;
    int64_t size() const { return bytes / int64_t(sizeof(T)); }
    T& operator[](int64_t i) const { return data[i]; }
};

// Memory that is freed with its owner; nothing is in it if there was none. Ends in room that vectors may read.
template <class T> class Buffer {
  public:
    explicit Buffer(int64_t size) : data_(static_cast<T*>(calloc(size_t(size) + 64, sizeof(T)))) {}
    ~Buffer() { free(data_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    explicit operator bool() const { return data_ != nullptr; }
    operator T*() const { return data_; }

  private:
    T* data_;
};

constexpr int BLOCK = 16, UNIT = 4, REACH = 256, FADE = 8, SPAN = BLOCK + FADE;
constexpr int MAX_BLOCKS = 1 << 12;  // a side

template <class T> inline T clip(T x, T low, T high) { return x < low ? low : x > high ? high : x; }
template <class T> inline T lower(T a, T b) { return a < b ? a : b; }
template <class T> inline T higher(T a, T b) { return a > b ? a : b; }

// Rows and columns, in quarters of a pixel.
struct Vector {
    int32_t row, column;
    bool operator==(const Vector& other) const { return row == other.row && column == other.column; }
    bool within_reach() const { return row >= -REACH && row <= REACH && column >= -REACH && column <= REACH; }
};

inline Vector operator+(Vector a, Vector b) { return {a.row + b.row, a.column + b.column}; }
inline Vector operator-(Vector a, Vector b) { return {a.row - b.row, a.column - b.column}; }
inline int length(Vector v) { return abs(v.row) + abs(v.column); }
inline Vector clipped(Vector v) { return {clip(v.row, -REACH, REACH), clip(v.column, -REACH, REACH)}; }

// The mean of the middle two of four, rounded down.
inline int median(int a, int b, int c, int d) {
    const int low = lower(lower(a, b), lower(c, d)), high = higher(higher(a, b), higher(c, d));
    return (a + b + c + d - low - high) >> 1;
}
inline Vector median(const Vector* v) {
    return {median(v[0].row, v[1].row, v[2].row, v[3].row),
            median(v[0].column, v[1].column, v[2].column, v[3].column)};
}

// Taps between pixels by phase, in 64ths; those that H.265 has for luma.
constexpr int TAPS = 8;
constexpr int16_t PHASES[UNIT][TAPS] = {
    {0, 0, 0, 64, 0, 0, 0, 0}, {-1, 4, -10, 58, 17, -5, 1, 0}, {-1, 4, -11, 40, 40, -11, 4, -1}, {0, 1, -5, 17, 58, -10, 4, -1}};

inline bool vectors_fit(Span<const int32_t> field, int64_t blocks) {
    if (field.size() != 2 * blocks) return false;
    for (int64_t i = 0; i < field.size(); i++)
        if (field[i] < -REACH || field[i] > REACH) return false;
    return true;
}

}  // namespace
