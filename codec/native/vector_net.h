// The network of `pixa.motion.vectors`. Its floats are whole numbers times powers of two below 2**24, so that sums are
// exact in any order.
#pragma once

#include "kernels.h"

namespace {

constexpr int INPUTS = 34, MAX_HIDDEN = 256, MEANS = 16, MEAN_MAX = 2047, SCALES = 24, KINDS = 3, NEAR[2] = {2, 5};
constexpr float MAX_WEIGHT = 1 << 14;  // of weights and biases: sums of 256 times inputs in bytes stay within an int
constexpr int LARGEST_STEP = 4 * REACH, FIRST_TABLE = 127, LIMIT = REACH - 1;

// Eight times the logarithm to the base two of n + 1, straight between powers of two.
inline int octaves(int n) {
    const int exponent = 31 - __builtin_clz(unsigned(n + 1));
    return 8 * exponent + (((n + 1) << 3) >> exponent) - 8;
}
inline int stepped(int n) { return n < 0 ? -octaves(-n) : octaves(n); }

inline int rounded_down(float x) {
    const int whole = int(x);
    return whole - (float(whole) > x);
}

// What is known of a tile before its vectors are; fields (height, width, 2).
struct Known {
    const Vector* before;
    const uint8_t* skip;
    const int32_t* activity;
    int height, width, level;
};

// symbol = sign * (vector - centre)
struct Expected {
    int centre, sign, table;
    int symbol(int vector) const { return sign * (vector - centre); }
    int vector(int64_t symbol) const { return int(clip<int64_t>(centre + sign * symbol, -REACH, REACH)); }
};

// What the network is told of a vector between four neighbours.
struct Told {
    Vector middle;
    float inputs[2][INPUTS];

    Told(const Vector* around, const Vector* before, Vector own, bool skip, int activity, int level, int distance,
         bool straight)
        : middle(median(around)), inputs() {
        own = own - middle;
        for (int c = 0; c < 2; c++) {
            const auto part = [c](Vector v) { return c ? v.column : v.row; };
            const auto other = [c](Vector v) { return abs(c ? v.row : v.column); };
            float* x = inputs[c];
            for (int i = 0; i < 4; i++) {
                const Vector known = around[i] - middle, past = before[i] - middle;
                x[i] = float(stepped(part(known)));
                x[5 + i] = float(stepped(part(past)));
                x[9 + i] = float(stepped(part(own) - part(past)));
                x[13 + i] = float(stepped(part(known) - part(past)));
                x[18 + i] = float(octaves(other(known)));
            }
            x[4] = float(stepped(part(own)));
            x[17] = float(stepped(-part(middle)));
            x[22] = float(octaves(other(own)));
            x[23] = float(octaves(other(middle)));
            x[24] = skip ? 16.0f : 0.0f;
            x[25] = float(octaves(lower(activity, LARGEST_STEP)));
            x[26] = float(level / 8);
            if (distance) x[27 + (distance >= 8 ? 3 : distance >= 4 ? 2 : distance >= 2 ? 1 : 0)] = 16;
            x[31] = straight ? 16.0f : 0.0f;
            x[32] = c ? 16.0f : 0.0f;
        }
    }
};

class VectorNet {
  public:
    // Weights (inputs, outputs) and biases of the layers one behind the other: first, second, mean, scale.
    VectorNet(Span<const float> layers, int hidden) : hidden_(hidden) {
        fits_ = hidden > 0 && hidden <= MAX_HIDDEN && hidden % 16 == 0 &&
                layers.size() == INPUTS * hidden + hidden + int64_t(hidden) * hidden + hidden + 2 * (hidden + 1);
        if (!fits_) return;
        first_ = layers.data;
        second_ = first_ + (INPUTS + 1) * hidden;
        mean_ = second_ + (hidden + 1) * hidden;
        scale_ = mean_ + hidden + 1;
        for (int64_t i = 0; i < layers.size(); i++) fits_ &= layers[i] >= -MAX_WEIGHT && layers[i] <= MAX_WEIGHT;
    }
    bool fits() const { return fits_; }

    // Of rows, or of columns once the row of the vector is known.
    Expected expected(Told& told, int component, int row) const {
        if (component) told.inputs[1][INPUTS - 1] = float(octaves(abs(row - told.middle.row)));
        float first[MAX_HIDDEN], second[MAX_HIDDEN];
        layer(first_, told.inputs[component], INPUTS, first);
        layer(second_, first, hidden_, second);
        const int mean = clip(rounded_down(dot(mean_, second)), -MEAN_MAX, MEAN_MAX);
        const int scale = clip(rounded_down(dot(scale_, second)), 0, SCALES - 1);
        const int shift = (mean + MEANS / 2) >> 4, off = mean - MEANS * shift, size = abs(off);
        const int middle = component ? told.middle.column : told.middle.row;
        return {middle + shift, off < 0 ? -1 : 1, FIRST_TABLE + KINDS * scale + (size > NEAR[0]) + (size > NEAR[1])};
    }

  private:
    void layer(const float* weights, const float* x, int inputs, float* y) const {
        const float* bias = weights + int64_t(inputs) * hidden_;
        for (int first = 0; first < hidden_; first += 16) {
            float sums[16];
            for (int o = 0; o < 16; o++) sums[o] = bias[first + o];
            for (int i = 0; i < inputs; i++)
                for (int o = 0; o < 16; o++) sums[o] += x[i] * weights[int64_t(i) * hidden_ + first + o];
            for (int o = 0; o < 16; o++) y[first + o] = float(clip(rounded_down(sums[o]), 0, 255));
        }
    }
    float dot(const float* weights, const float* x) const {
        float sums[16] = {};
        for (int first = 0; first < hidden_; first += 16)
            for (int o = 0; o < 16; o++) sums[o] += weights[first + o] * x[first + o];
        float sum = weights[hidden_];
        for (float part : sums) sum += part;
        return sum;
    }

    const float *first_ = nullptr, *second_ = nullptr, *mean_ = nullptr, *scale_ = nullptr;
    int hidden_;
    bool fits_;
};

}  // namespace
