// Layers of float networks at chosen positions of planes whose channels lie together; see `pixa.runtime.transforms`.
#include "kernels.h"

#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace {

constexpr int PANEL = 16, CHUNK = 48;  // outputs that weights stand together for, and positions worked on at a time
constexpr int MAX_CHANNELS = 1024, MAX_PLACES = 1 << 16;
constexpr int RUN = 128, RUNS = MAX_CHANNELS / RUN;  // inputs that are summed by themselves: less is rounded so

#if defined(__AVX512F__)
typedef __m512 Floats;
constexpr int LANES = 16, ROWS = 12;
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
#elif defined(__FMA__)
typedef __m256 Floats;
constexpr int LANES = 8, ROWS = 6;
inline Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
#elif defined(__ARM_NEON)
typedef float32x4_t Floats;
constexpr int LANES = 4, ROWS = 6;
inline Floats fused(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
#else
typedef float Floats __attribute__((vector_size(16)));
constexpr int LANES = 4, ROWS = 3;
inline Floats fused(Floats a, Floats b, Floats c) { return a * b + c; }
#endif
constexpr int PARTS = PANEL / LANES;
static_assert(CHUNK % ROWS == 0, "whole groups of rows");

inline Floats load(const float* from) {
    Floats x;
    memcpy(&x, from, sizeof x);
    return x;
}
inline void store(float* to, Floats x) { memcpy(to, &x, sizeof x); }

// What is not zero in all of `ROWS` rows, and which inputs these are, run by run.
struct Active {
    float values[MAX_CHANNELS][ROWS];
    uint16_t inputs[MAX_CHANNELS];
    int ends[RUNS];

    void find(const float* x, int64_t count) {
        uint32_t bits[MAX_CHANNELS] = {};
        for (int r = 0; r < ROWS; r++)
            for (int64_t i = 0; i < count; i++) {
                uint32_t word;
                memcpy(&word, x + r * count + i, sizeof word);
                bits[i] |= word;
            }
        int known = 0;
        for (int64_t i = 0; i < count; i++) {
            inputs[known] = uint16_t(i), known += bits[i] != 0;
            if (i % RUN == RUN - 1 || i == count - 1) ends[i / RUN] = known;
        }
        for (int k = 0; k < known; k++)
            for (int r = 0; r < ROWS; r++) values[k][r] = x[r * count + inputs[k]];
    }
};

// Weights (outputs / 16, inputs, 16) and then biases (outputs).
class Dense {
  public:
    Dense(Span<const float> weights, int64_t inputs) : weights_(weights.data), inputs_(inputs) {
        outputs_ = inputs > 0 && inputs <= MAX_CHANNELS ? weights.size() / (inputs + 1) : 0;
        fits_ = outputs_ > 0 && outputs_ <= MAX_CHANNELS && outputs_ % PANEL == 0 &&
                weights.size() == outputs_ * (inputs + 1);
    }
    bool fits() const { return fits_; }
    int outputs() const { return int(outputs_); }

    // Calls `use` with the row, the first channel and the values of every sixteen outputs of rows (CHUNK, inputs).
    template <class Use> void apply(const float* x, int count, const Use& use) const {
        each(count, use, [&](int first, const float* weights, Sums& sums) {
            const float* rows = x + first * inputs_;
            for (int64_t begin = 0; begin < inputs_; begin += RUN) {
                Sums run = {};
                for (int64_t i = begin; i < lower<int64_t>(begin + RUN, inputs_); i++)
                    multiply(weights + PANEL * i, rows + i, inputs_, run);
                add(sums, run);
            }
        });
    }

    // Likewise, of rows of which many inputs are zero.
    template <class Use> void apply_sparse(const float* x, int count, Active* active, const Use& use) const {
        for (int first = 0; first < count; first += ROWS) active[first / ROWS].find(x + first * inputs_, inputs_);
        each(count, use, [&](int first, const float* weights, Sums& sums) {
            const Active& group = active[first / ROWS];
            int k = 0;
            for (int64_t n = 0; n * RUN < inputs_; n++) {
                if (k == group.ends[n]) continue;
                Sums run = {};
                for (; k < group.ends[n]; k++)
                    multiply(weights + PANEL * int64_t(group.inputs[k]), group.values[k], 1, run);
                add(sums, run);
            }
        });
    }

  private:
    struct Sums {
        Floats values[ROWS][PARTS];
    };

    template <class Use, class Sum> void each(int count, const Use& use, const Sum& sum) const {
        for (int64_t panel = 0; panel < outputs_; panel += PANEL) {
            const float* bias = weights_ + outputs_ * inputs_ + panel;
            for (int first = 0; first < count; first += ROWS) {
                Sums sums;
                for (int r = 0; r < ROWS; r++)
                    for (int p = 0; p < PARTS; p++) sums.values[r][p] = load(bias + LANES * p);
                sum(first, weights_ + panel * inputs_, sums);
                for (int r = 0; r < lower(ROWS, count - first); r++) {
                    float values[PANEL];
                    for (int p = 0; p < PARTS; p++) store(values + LANES * p, sums.values[r][p]);
                    use(first + r, int(panel), values);
                }
            }
        }
    }

    // Add sixteen weights of an input times its values, `stride` apart, to rows of sums.
    static inline void multiply(const float* weights, const float* x, int64_t stride, Sums& sums) {
        Floats column[PARTS];
        for (int p = 0; p < PARTS; p++) column[p] = load(weights + LANES * p);
        for (int r = 0; r < ROWS; r++) {
            const Floats value = x[r * stride] - Floats{};
            for (int p = 0; p < PARTS; p++) sums.values[r][p] = fused(value, column[p], sums.values[r][p]);
        }
    }
    static inline void add(Sums& sums, const Sums& run) {
        for (int r = 0; r < ROWS; r++)
            for (int p = 0; p < PARTS; p++) sums.values[r][p] = sums.values[r][p] + run.values[r][p];
    }

    const float* weights_;
    int64_t inputs_, outputs_;
    bool fits_;
};

bool grid_fits(int height, int width, Span<const int32_t> places) {
    if (height < 1 || width < 1 || height > MAX_PLACES || width > MAX_PLACES) return false;
    for (int64_t i = 0; i < places.size(); i++)
        if (places[i] < 0 || places[i] >= int64_t(height) * width) return false;
    return true;
}

}  // namespace

// A convolution by squares of `side` that do not overlap, each to a square of `spread`.
//
//   input: (side height, side width, channels).
//   places: of the positions (height, width) laid flat, those to be computed.
//   layer: see `Dense`; inputs and outputs by row, column and channel.
//   output: (spread height, spread width, outputs / spread**2), changed at these positions: set, or `added` to; the
//     outputs are those of the layer up to less than sixteen.
KERNEL(convolve)
(Span<const float> input, int32_t height, int32_t width, int32_t channels, int32_t side, Span<const int32_t> places,
 Span<const float> layer, int32_t spread, int32_t added, Span<float> output) {
    if (side < 1 || side > 16 || spread < 1 || spread > 16 || channels < 1 || channels > MAX_CHANNELS) return WRONG_SIZE;
    if (!grid_fits(height, width, places)) return WRONG_VALUE;
    const int64_t positions = int64_t(height) * width, run = int64_t(side) * channels, inputs = side * run;
    const Dense dense(layer, inputs);
    const int64_t outputs = output.size() / positions;
    if (!dense.fits() || input.size() != positions * inputs || output.size() != positions * outputs) return WRONG_SIZE;
    if (outputs > dense.outputs() || outputs <= dense.outputs() - PANEL || outputs % (spread * spread)) return WRONG_SIZE;
    const int out_run = int(outputs / spread);
    Buffer<float> x(CHUNK * inputs), y(int64_t(CHUNK) * dense.outputs());
    if (!x || !y) return NO_MEMORY;
    for (int64_t first = 0; first < places.size(); first += CHUNK) {
        const int count = int(lower<int64_t>(CHUNK, places.size() - first));
        for (int i = 0; i < count; i++) {
            const int64_t row = places[first + i] / width, column = places[first + i] % width;
            for (int k = 0; k < side; k++)
                memcpy(x + i * inputs + k * run, input.data + ((row * side + k) * width + column) * run, sizeof(float) * run);
        }
        dense.apply(x, count, [&](int i, int channel, const float* values) {
            memcpy(y + int64_t(i) * dense.outputs() + channel, values, sizeof(float) * PANEL);
        });
        for (int i = 0; i < count; i++) {
            const int64_t row = places[first + i] / width, column = places[first + i] % width;
            for (int k = 0; k < spread; k++) {
                const float* from = y + int64_t(i) * dense.outputs() + k * out_run;
                float* to = output.data + ((row * spread + k) * width + column) * out_run;
                if (added)
                    for (int c = 0; c < out_run; c++) to[c] += from[c];
                else
                    memcpy(to, from, sizeof(float) * out_run);
            }
        }
    }
    return DONE;
}

// A residual block: a depthwise convolution by three, beyond the edge zeros, a hidden layer with ReLU, and a sum.
//
//   input, output: (height, width, channels), the latter set at `places`, see `convolve`.
//   depthwise: (10, channels), the last its bias.
KERNEL(block)
(Span<const float> input, int32_t height, int32_t width, int32_t channels, Span<const int32_t> places,
 Span<const float> depthwise, Span<const float> expand, Span<const float> project, Span<float> output) {
    if (channels < PANEL || channels > MAX_CHANNELS || channels % PANEL) return WRONG_SIZE;
    if (!grid_fits(height, width, places)) return WRONG_VALUE;
    const Dense up(expand, channels);
    if (!up.fits() || depthwise.size() != 10 * int64_t(channels)) return WRONG_SIZE;
    const Dense down(project, up.outputs());
    if (!down.fits() || down.outputs() != channels) return WRONG_SIZE;
    if (input.size() != int64_t(height) * width * channels || output.size() != input.size()) return WRONG_SIZE;
    Buffer<float> x(int64_t(CHUNK) * channels), hidden(int64_t(CHUNK) * up.outputs());
    Buffer<Active> active(CHUNK / ROWS);
    if (!x || !hidden || !active) return NO_MEMORY;
    for (int64_t first = 0; first < places.size(); first += CHUNK) {
        const int count = int(lower<int64_t>(CHUNK, places.size() - first));
        for (int i = 0; i < count; i++) {
            const int row = places[first + i] / width, column = places[first + i] % width;
            const float *around[9], *taps[9];
            int known = 0;
            for (int k = 0; k < 9; k++) {
                const int y = row + k / 3 - 1, z = column + k % 3 - 1;
                if (y < 0 || y >= height || z < 0 || z >= width) continue;
                around[known] = input.data + (int64_t(y) * width + z) * channels;
                taps[known++] = depthwise.data + k * channels;
            }
            for (int c = 0; c < channels; c += LANES) {
                Floats sum = load(depthwise.data + 9 * channels + c);
                for (int k = 0; k < known; k++) sum = fused(load(around[k] + c), load(taps[k] + c), sum);
                store(x + int64_t(i) * channels + c, sum);
            }
        }
        up.apply(x, count, [&](int i, int channel, const float* values) {
            float* to = hidden + int64_t(i) * up.outputs() + channel;
            for (int c = 0; c < PANEL; c++) to[c] = higher(values[c], 0.0f);
        });
        down.apply_sparse(hidden, count, active, [&](int i, int channel, const float* values) {
            const int64_t at = int64_t(places[first + i]) * channels + channel;
            for (int c = 0; c < PANEL; c++) output[at + c] = input[at + c] + values[c];
        });
    }
    return DONE;
}

// What a frame takes over of the moved picture, see `pixa.coding.tile.CarryOver`, in squares of 8 pixels.
//
//   moved, shown: (8 height, 8 width, 3), the latter what the prediction shows; it becomes what is taken over.
//   places: of squares (height, width) laid flat.
//   coded: (height, width), where the weight of the difference is this and the synthesis has a context, elsewhere 1.
//   context: (8 height, 8 width, 6).
KERNEL(carry)
(Span<const uint8_t> moved, int32_t height, int32_t width, Span<const int32_t> places, Span<const uint8_t> coded,
 double weight, Span<float> shown, Span<float> context) {
    if (!grid_fits(height, width, places)) return WRONG_VALUE;
    const int64_t samples = 3 * 64 * int64_t(height) * width;
    if (moved.size() != samples || shown.size() != samples || context.size() != 2 * samples) return WRONG_SIZE;
    if (coded.size() != int64_t(height) * width) return WRONG_SIZE;
    const float level = 1.0f / 255;
    for (int64_t i = 0; i < places.size(); i++) {
        const bool here = coded[places[i]];
        const float share = here ? float(weight) : 1.0f;
        const int64_t top = 8 * int64_t(places[i] / width), left = 8 * int64_t(places[i] % width);
        for (int y = 0; y < 8; y++) {
            const int64_t at = 3 * ((top + y) * 8 * width + left);
            float values[24];
            for (int x = 0; x < 24; x++) values[x] = share * (float(moved[at + x]) - shown[at + x]);
            memcpy(shown.data + at, values, sizeof values);
            if (!here) continue;
            for (int x = 0; x < 8; x++)
                for (int c = 0; c < 3; c++) {
                    context[2 * at + 6 * x + c] = level * values[3 * x + c];
                    context[2 * at + 6 * x + 3 + c] = level * (float(moved[at + 3 * x + c]) - 127.5f);
                }
        }
    }
    return DONE;
}

// Samples (8 height, 8 width, 3), set in squares of 8 pixels at `places`: the sum of two pictures, rounded and clipped.
KERNEL(show)
(Span<const float> first, Span<const float> second, int32_t height, int32_t width, Span<const int32_t> places,
 Span<uint8_t> samples) {
    if (!grid_fits(height, width, places)) return WRONG_VALUE;
    const int64_t size = 3 * 64 * int64_t(height) * width;
    if (first.size() != size || second.size() != size || samples.size() != size) return WRONG_SIZE;
    for (int64_t i = 0; i < places.size(); i++)
        for (int y = 0; y < 8; y++) {
            const int64_t at = 3 * ((8 * int64_t(places[i] / width) + y) * 8 * width + 8 * int64_t(places[i] % width));
            for (int x = 0; x < 24; x++) {
                const float sum = lower(higher(first[at + x] + second[at + x], 0.0f), 255.0f);
                samples[at + x] = uint8_t(__builtin_nearbyintf(sum));
            }
        }
    return DONE;
}
