// Overlapped block motion compensation of `pixa.motion.overlap`, exact: sums are whole numbers, in 2**-20 of a level.
#include "kernels.h"

namespace {

constexpr int CHANNELS = 3, READ = SPAN + TAPS - 1, BEHIND = FADE / 2 + TAPS / 2 - 1, WIDE = CHANNELS * SPAN;

// What the prediction of a block weighs along one axis, in 16ths; nothing fades into it at an edge of the picture.
void weigh(int block, int blocks, int32_t* weights) {
    for (int i = 0; i < SPAN; i++) {
        weights[i] = 2 * FADE;
        if (i < FADE && block > 0) weights[i] = 2 * i + 1;
        if (i >= BLOCK && block < blocks - 1) weights[i] = 2 * (SPAN - i) - 1;
    }
}

}  // namespace

// The picture `past` (16 height, 16 width, 3) along motion (height, width, 2), rounded.
KERNEL(compensate)
(Span<const uint8_t> past, int32_t height, int32_t width, Span<const int32_t> motion, Span<uint8_t> moved) {
    if (height < 1 || width < 1 || height > MAX_BLOCKS || width > MAX_BLOCKS) return WRONG_SIZE;
    const int64_t blocks = int64_t(height) * width;
    if (past.size() != CHANNELS * BLOCK * BLOCK * blocks || moved.size() != past.size()) return WRONG_SIZE;
    if (!vectors_fit(motion, blocks)) return WRONG_VALUE;
    const int rows = BLOCK * height, columns = BLOCK * width, stride = CHANNELS * (columns + FADE);
    Buffer<int32_t> total(int64_t(rows + FADE) * stride);  // FADE / 2 more on every side
    if (!total) return NO_MEMORY;
    for (int row = 0; row < height; row++)
        for (int column = 0; column < width; column++) {
            const int32_t* vector = motion.data + 2 * (int64_t(row) * width + column);
            const int top = BLOCK * row + (vector[0] >> 2) - BEHIND, left = BLOCK * column + (vector[1] >> 2) - BEHIND;
            uint8_t square[READ][CHANNELS * READ];
            for (int y = 0; y < READ; y++) {
                const uint8_t* from = past.data + int64_t(clip(top + y, 0, rows - 1)) * columns * CHANNELS;
                if (left >= 0 && left + READ <= columns)
                    memcpy(square[y], from + CHANNELS * left, CHANNELS * READ);
                else
                    for (int x = 0; x < READ; x++)
                        memcpy(square[y] + CHANNELS * x, from + CHANNELS * clip(left + x, 0, columns - 1), CHANNELS);
            }
            int32_t down[SPAN], across[SPAN], weights[WIDE];
            weigh(row, height, down);
            weigh(column, width, across);
            for (int i = 0; i < WIDE; i++) weights[i] = across[i / CHANNELS];
            const int16_t *vertical = PHASES[vector[0] & 3], *horizontal = PHASES[vector[1] & 3];
            for (int y = 0; y < SPAN; y++) {
                int16_t between[CHANNELS * READ];
                int32_t sums[WIDE];
                if (vector[0] & 3) {
                    for (int x = 0; x < CHANNELS * READ; x++) {
                        int sum = 0;
                        for (int k = 0; k < TAPS; k++) sum += vertical[k] * square[y + k][x];
                        between[x] = int16_t(sum);
                    }
                } else {
                    for (int x = 0; x < CHANNELS * READ; x++) between[x] = int16_t(64 * square[y + TAPS / 2 - 1][x]);
                }
                if (vector[1] & 3) {
                    for (int x = 0; x < WIDE; x++) {
                        int sum = 0;
                        for (int k = 0; k < TAPS; k++) sum += horizontal[k] * between[x + CHANNELS * k];
                        sums[x] = sum;
                    }
                } else {
                    for (int x = 0; x < WIDE; x++) sums[x] = 64 * between[x + CHANNELS * (TAPS / 2 - 1)];
                }
                int32_t* to = total + int64_t(BLOCK * row + y) * stride + CHANNELS * BLOCK * column;
                for (int x = 0; x < WIDE; x++) to[x] += sums[x] * (down[y] * weights[x]);
            }
        }
    for (int y = 0; y < rows; y++) {
        const int32_t* from = total + int64_t(y + FADE / 2) * stride + CHANNELS * (FADE / 2);
        uint8_t* to = moved.data + int64_t(y) * columns * CHANNELS;
        for (int x = 0; x < CHANNELS * columns; x++) to[x] = uint8_t(clip((from[x] + (1 << 19)) >> 20, 0, 255));
    }
    return DONE;
}
