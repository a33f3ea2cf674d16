// The search for motion of `pixa.motion.search`: the same integers, block by block.
#include "vector_net.h"

namespace {

constexpr int COARSE = 4, COARSE_REACH = 8, QUARTERS = 4, WHITE = 64 * 255;
constexpr int FITS = 3, SPREADS[7] = {0, 1, 2, 4, 8, 16, 32}, AREA = SPAN * SPAN;
constexpr double SMOOTH = 8.0, SWEEPS[6] = {4.0, 3.0, 2.0, 1.5, 1.0, 1.0}, DEAREST = 9.0, MOVING = 0.1;
constexpr Vector AROUND[8] = {{-1, 0}, {1, 0}, {0, -1}, {0, 1}, {-1, -1}, {-1, 1}, {1, -1}, {1, 1}};

// What vectors cost; `departures` by distance, `first` and `further` by how far neighbours lie apart, `bits` by table
// and symbol.
struct Costs {
    Span<const double> departures;
    Span<const float> first, further, bits;
};

struct Picture {
    int height, width;
    Buffer<int16_t> luma;  // quarters of a level

    Picture(Span<const uint8_t> rgb, int rows, int columns)
        : height(rows), width(columns), luma(int64_t(rows) * columns) {
        if (!luma) return;
        for (int64_t i = 0; i < int64_t(height) * width; i++)
            luma[i] = int16_t(rgb[3 * i] + 2 * rgb[3 * i + 1] + rgb[3 * i + 2]);
    }
};

// Samples in 64ths of a level, at whole pixels and between them, with SPAN more on every side.
class Patches {
  public:
    explicit Patches(const Picture& picture)
        : height_(picture.height + 2 * SPAN), width_(picture.width + 2 * SPAN), planes_(16 * size()),
          padded_(int64_t(TAPS) * (width_ + TAPS)), row_(width_ + TAPS) {
        if (!*this) return;
        for (int y = 0; y < height_ + TAPS - 1; y++) {
            const int from = clip(y - SPAN - TAPS / 2 + 1, 0, picture.height - 1);
            const int16_t* source = picture.luma + int64_t(from) * picture.width;
            int16_t* row = padded_ + int64_t(y % TAPS) * (width_ + TAPS);
            for (int x = 0; x < width_ + TAPS - 1; x++)
                row[x] = source[clip(x - SPAN - TAPS / 2 + 1, 0, picture.width - 1)];
            if (y >= TAPS - 1)
                for (int down = 0; down < UNIT; down++) make_row(y - TAPS + 1, down);
        }
    }
    explicit operator bool() const { return planes_ && padded_ && row_; }
    int stride() const { return width_; }

    // The square of a block along a vector.
    const int16_t* at(int row, int column, Vector v) const {
        const int y = clip(BLOCK * row + (v.row >> 2) + SPAN - FADE / 2, 0, height_ - SPAN);
        const int x = clip(BLOCK * column + (v.column >> 2) + SPAN - FADE / 2, 0, width_ - SPAN);
        return planes_ + (UNIT * (v.row & 3) + (v.column & 3)) * size() + int64_t(y) * width_ + x;
    }

  private:
    int64_t size() const { return int64_t(height_) * width_; }

    void make_row(int y, int down) {
        const int16_t* rows[TAPS];
        for (int k = 0; k < TAPS; k++) rows[k] = padded_ + int64_t((y + k) % TAPS) * (width_ + TAPS);
        int16_t* sums = row_;
        const int16_t* taps = PHASES[down];
        for (int x = 0; x < width_ + TAPS - 1; x++) {
            int sum = 2;
            for (int k = 0; k < TAPS; k++) sum += taps[k] * rows[k][x];
            sums[x] = int16_t(sum >> 2);
        }
        for (int across = 0; across < UNIT; across++) {
            int16_t* out = planes_ + (UNIT * down + across) * size() + int64_t(y) * width_;
            const int16_t* weights = PHASES[across];
            for (int x = 0; x < width_; x++) {
                int sum = 32;
                for (int k = 0; k < TAPS; k++) sum += weights[k] * sums[x + k];
                out[x] = int16_t(clip(sum >> 6, 0, WHITE));
            }
        }
    }

    int height_, width_;
    Buffer<int16_t> planes_, padded_, row_;
};

// 64ths of a level times 256ths, in quarters; `mask` holds eight times the latter.
inline int16_t weighed(int16_t sample, int16_t mask) { return int16_t(((int(sample) * mask >> 14) + 1) >> 1); }

// The sum of squared differences of a prediction from a goal, or one that is at least `enough`.
inline int32_t squared_error(const int16_t* patch, int stride, const int16_t* mask, const int16_t* goal, double enough) {
    int32_t sum = 0;
    for (int part = 0; part < SPAN; part += 8) {
        for (int y = part; y < part + 8; y++)
            for (int x = 0; x < SPAN; x++) {
                const int16_t off = int16_t(weighed(patch[int64_t(y) * stride + x], mask[SPAN * y + x]) - goal[SPAN * y + x]);
                sum += int32_t(off) * off;
            }
        if (sum >= enough) break;
    }
    return sum;
}

class Field {
  public:
    Field(const Picture& current, const Picture& past, double penalty)
        : height_(current.height / BLOCK), width_(current.width / BLOCK), penalty_(QUARTERS * QUARTERS * penalty),
          current_(current), past_(past), patches_(past), vectors_(count()), errors_(count()), goals_(count() * AREA),
          parts_(count() * AREA), total_(int64_t(BLOCK) * (height_ + 1) * stride()),
          wanted_(int64_t(BLOCK) * (height_ + 1) * stride()) {
        for (int i = 0; i < SPAN; i++) side_[i] = i < FADE ? 2 * i + 1 : i < BLOCK ? 2 * FADE : 2 * (SPAN - i) - 1;
    }
    explicit operator bool() const {
        return patches_ && vectors_ && errors_ && goals_ && parts_ && total_ && wanted_;
    }
    int64_t count() const { return int64_t(height_) * width_; }
    const Vector* vectors() const { return vectors_; }

    bool coarse() {
        const int side = BLOCK / COARSE, rows = side * height_, columns = side * width_;
        Buffer<int32_t> small(int64_t(rows) * columns), old(int64_t(rows) * columns);
        if (!small || !old) return false;
        for (int y = 0; y < COARSE * rows; y++)
            for (int x = 0; x < COARSE * columns; x++) {
                const int64_t to = int64_t(y / COARSE) * columns + x / COARSE, from = int64_t(y) * current_.width + x;
                small[to] += current_.luma[from];
                old[to] += past_.luma[from];
            }
        for (int row = 0; row < height_; row++)
            for (int column = 0; column < width_; column++) {
                int32_t best = INT32_MAX;
                Vector& vector = vectors_[int64_t(row) * width_ + column];
                for (int down = -COARSE_REACH; down <= COARSE_REACH; down++) {
                    int32_t near = INT32_MAX;
                    int nearest = 0;
                    for (int across = -COARSE_REACH; across <= COARSE_REACH; across++) {
                        int32_t error = QUARTERS * (abs(across) + abs(down));
                        for (int y = side * row; y < side * (row + 1); y++) {
                            const int32_t* there = old + int64_t(clip(y + down, 0, rows - 1)) * columns;
                            const int32_t* here = small + int64_t(y) * columns;
                            for (int x = side * column; x < side * (column + 1); x++)
                                error += abs(here[x] - there[clip(x + across, 0, columns - 1)]);
                        }
                        if (error < near) near = error, nearest = across;
                    }
                    if (near <= best) best = near, vector = {COARSE * UNIT * down, COARSE * UNIT * nearest};
                }
            }
        return true;
    }

    // Each block by itself.
    void refine(const int16_t* root_mask) {
        memcpy(mask_, root_mask, sizeof mask_);
        for (int row = 0; row < height_; row++)
            for (int column = 0; column < width_; column++) {
                const int64_t block = int64_t(row) * width_ + column;
                for (int y = 0; y < SPAN; y++)
                    for (int x = 0; x < SPAN; x++)
                        goals_[block * AREA + SPAN * y + x] =
                            weighed(int16_t(16 * pixel(BLOCK * row + y, BLOCK * column + x)), mask_[SPAN * y + x]);
                errors_[block] = error(row, column, vectors_[block]);
                const auto moves = [](Vector v) { return length(v) ? MOVING : 0.0; };
                const Vector still = {0, 0};
                consider(row, column, &still, 1, moves, 1);
                for (int step = 2 * UNIT; step; step /= 2) {
                    Vector others[8];
                    for (int i = 0; i < 8; i++)
                        others[i] = vectors_[block] + Vector{step * AROUND[i].row, step * AROUND[i].column};
                    consider(row, column, others, 8, moves, 1);
                }
            }
    }

    // Each block with regard to its neighbours; `price` makes of a block and the vectors around it what vectors cost.
    template <class Price> void smooth(double weight, const Price& price, const Vector* before) {
        for (int odd = 1; odd >= 0; odd--)
            for (int row = 0; row < height_; row++)
                for (int column = (row + odd) % 2; column < width_; column += 2) {
                    Vector others[11];
                    const int count = gather(row, column, AROUND, 4, before, others);
                    consider(row, column, others, count, price(row, column, others, own(row, column)), weight);
                }
    }

    // Each block with regard to what those around predict where they overlap it.
    template <class Price> void fit(const Price& price, const Vector* before) {
        for (int i = 0; i < AREA; i++) mask_[i] = int16_t(8 * side_[i / SPAN] * side_[i % SPAN]);
        for (int y = 0; y < BLOCK * (height_ + 1); y++) {
            const int down = covered(y, height_);
            for (int x = 0; x < stride(); x++)
                wanted_[int64_t(y) * stride() + x] =
                    int16_t((down * covered(x, width_) * 16 * pixel(y, x) + 2048) >> 12);
        }
        for (int row = 0; row < height_; row++)
            for (int column = 0; column < width_; column++) predict(row, column);
        for (int odd = 0; odd < 4; odd++)
            for (int row = odd / 2; row < height_; row += 2)
                for (int column = odd % 2; column < width_; column += 2) {
                    const int64_t block = int64_t(row) * width_ + column;
                    for (int y = 0; y < SPAN; y++)
                        for (int x = 0; x < SPAN; x++) {
                            const int64_t at = int64_t(BLOCK * row + y) * stride() + BLOCK * column + x;
                            const int64_t part = block * AREA + SPAN * y + x;
                            goals_[part] = int16_t(wanted_[at] - total_[at] + parts_[part]);
                        }
                    errors_[block] = error(row, column, vectors_[block]);
                    Vector others[23];
                    const Vector now = vectors_[block];
                    int count = gather(row, column, AROUND, 8, nullptr, others);
                    for (const Vector& way : AROUND) others[count++] = now + way;
                    if (before) others[count++] = before[block];
                    consider(row, column, others, count, price(row, column, others, now), 1);
                    predict(row, column);
                }
    }

  private:
    int stride() const { return BLOCK * (width_ + 1); }
    Vector own(int row, int column) const { return vectors_[int64_t(row) * width_ + column]; }

    // A sample of the current picture, of which (4, 4) is the first.
    int pixel(int y, int x) const {
        y = clip(y - FADE / 2, 0, current_.height - 1), x = clip(x - FADE / 2, 0, current_.width - 1);
        return current_.luma[int64_t(y) * current_.width + x];
    }

    // What all blocks together weigh at a place along a side of so many.
    int covered(int place, int blocks) const {
        const int block = place / BLOCK, rest = place % BLOCK;
        return (block < blocks ? side_[rest] : 0) + (block > 0 && rest < FADE ? side_[BLOCK + rest] : 0);
    }

    int32_t error(int row, int column, Vector v, double enough = 1e300) const {
        const int16_t* goal = goals_ + (int64_t(row) * width_ + column) * AREA;
        return squared_error(patches_.at(row, column, v), patches_.stride(), mask_, goal, enough);
    }

    // Lay what a block predicts in the place of what it predicted.
    void predict(int row, int column) {
        int16_t* part = parts_ + (int64_t(row) * width_ + column) * AREA;
        const int16_t* patch = patches_.at(row, column, own(row, column));
        for (int y = 0; y < SPAN; y++) {
            int16_t* total = total_ + int64_t(BLOCK * row + y) * stride() + BLOCK * column;
            for (int x = 0; x < SPAN; x++) {
                const int16_t sample = weighed(patch[int64_t(y) * patches_.stride() + x], mask_[SPAN * y + x]);
                total[x] = int16_t(total[x] + sample - part[SPAN * y + x]);
                part[SPAN * y + x] = sample;
            }
        }
    }

    // The four vectors around a block, their middle, none at all, those near the middle, and the one before.
    int gather(int row, int column, const Vector* ways, int count, const Vector* before, Vector* others) const {
        others[0] = own(clip(row - 1, 0, height_ - 1), column);
        others[1] = own(clip(row + 1, 0, height_ - 1), column);
        others[2] = own(row, clip(column - 1, 0, width_ - 1));
        others[3] = own(row, clip(column + 1, 0, width_ - 1));
        others[4] = median(others);
        others[5] = {0, 0};
        for (int i = 0; i < count; i++) others[6 + i] = others[4] + ways[i];
        if (!before) return 6 + count;
        others[6 + count] = before[int64_t(row) * width_ + column];
        return 7 + count;
    }

    // Give a block the best of its own and other vectors, by error and `weight` times bits.
    template <class Price>
    void consider(int row, int column, const Vector* others, int count, const Price& price, double weight) {
        const int64_t block = int64_t(row) * width_ + column;
        const double worth = weight * penalty_;
        Vector tried[24] = {vectors_[block]};
        double total = errors_[block] + worth * price(tried[0]);
        int known = 1;
        for (int i = 0; i < count; i++) {
            const Vector candidate = clipped(others[i]);
            bool is_new = true;
            for (int j = 0; j < known; j++) is_new &= !(candidate == tried[j]);
            if (!is_new) continue;
            tried[known++] = candidate;
            const double cost = worth * price(candidate);
            if (cost >= total) continue;
            const int32_t off = error(row, column, candidate, total - cost + 1);
            if (off + cost < total) vectors_[block] = candidate, errors_[block] = off, total = off + cost;
        }
    }

    int height_, width_;
    double penalty_;
    const Picture &current_, &past_;
    Patches patches_;
    Buffer<Vector> vectors_;
    Buffer<int32_t> errors_;
    Buffer<int16_t> goals_, parts_, total_, wanted_;  // (count, 24, 24) and with 8 pixels more on each side
    int16_t mask_[AREA];
    int side_[SPAN];
};

// By how far a vector lies from all around it.
struct Departure {
    const Costs& costs;
    auto operator()(int, int, const Vector* around, Vector) const {
        return [this, a = around[0], b = around[1], c = around[2], d = around[3]](Vector v) {
            const auto turn = [&](Vector near) { return costs.departures[length(v - near)]; };
            return (((0.0 + turn(a)) + turn(b)) + turn(c) + turn(d)) / 4;
        };
    }
};

// As tables of old cost it, by how far neighbours lie apart.
struct Spread {
    const Costs& costs;
    auto operator()(int, int, const Vector* around, Vector) const {
        const Vector middle = median(around);
        int contexts[2];
        for (int c = 0; c < 2; c++) {
            const auto part = [&](int i) { return c ? around[i].column : around[i].row; };
            const int low = lower(lower(part(0), part(1)), lower(part(2), part(3)));
            const int high = higher(higher(part(0), part(1)), higher(part(2), part(3)));
            contexts[c] = 0;
            for (int limit : SPREADS) contexts[c] += high - low > limit;
        }
        return [this, middle, row = contexts[0], column = contexts[1]](Vector v) {
            const auto cost = [&](int context, int steps) {
                return lower(double(costs.first[context]) + double(costs.further[context]) * steps, DEAREST);
            };
            return cost(row, abs(v.row - middle.row)) + cost(column, abs(v.column - middle.column));
        };
    }
};

// As a network expects them.
struct Networked {
    const Costs& costs;
    const VectorNet& net;
    const Known& known;
    auto operator()(int row, int column, const Vector* around, Vector now) const {
        const auto before = [&](int y, int x) {
            return known.before[int64_t(clip(y, 0, known.height - 1)) * known.width + clip(x, 0, known.width - 1)];
        };
        const Vector past[4] = {before(row - 1, column), before(row + 1, column), before(row, column - 1),
                                before(row, column + 1)};
        const int activity = known.activity[int64_t(row) * known.width + column];
        Told told(around, past, before(row, column), false, activity, known.level, 1, true);
        const Expected rows = net.expected(told, 0, 0), columns = net.expected(told, 1, now.row);
        return [this, rows, columns](Vector v) {
            const auto bits = [&](const Expected& e, int vector) {
                return costs.bits[int64_t(e.table - FIRST_TABLE) * (2 * LIMIT + 2) + clip(e.symbol(vector), -LIMIT, LIMIT) + LIMIT];
            };
            return double(bits(rows, v.row) + bits(columns, v.column));
        };
    }
};

}  // namespace

// Find motion from `current` to `past`, (16 height, 16 width, 3) uint8 both.
//
//   root_mask: eight times `root_window`, (24, 24).
//   hidden: units of the network `layers`; 0 if there is none, and vectors cost what `first` and `further` say.
//   before, activity, level: what is known of the tile; `before` and `bits` may be empty without a network.
//   field: (height, width, 2), the result.
KERNEL(search)
(Span<const uint8_t> current, Span<const uint8_t> past, int32_t height, int32_t width, double penalty,
 Span<const int16_t> root_mask, Span<const double> departures, Span<const float> first, Span<const float> further,
 Span<const int32_t> before, Span<const float> layers, int32_t hidden, Span<const float> bits,
 Span<const int32_t> activity, int32_t level, Span<int32_t> field) {
    if (height < 1 || width < 1 || height > MAX_BLOCKS || width > MAX_BLOCKS) return WRONG_SIZE;
    const int64_t blocks = int64_t(height) * width, bytes = 3 * BLOCK * BLOCK * blocks;
    if (current.size() != bytes || past.size() != bytes || field.size() != 2 * blocks) return WRONG_SIZE;
    if (root_mask.size() != AREA || departures.size() != 4 * REACH + 1 || first.size() != 8 || further.size() != 8)
        return WRONG_SIZE;
    if (before.size() && !vectors_fit(before, blocks)) return WRONG_VALUE;
    for (int64_t i = 0; i < AREA; i++)
        if (root_mask[i] < 0 || root_mask[i] > 2048) return WRONG_VALUE;
    const VectorNet net(layers, hidden);
    if (hidden) {
        if (!net.fits() || !before.size() || activity.size() != blocks) return WRONG_SIZE;
        if (bits.size() != int64_t(KINDS) * SCALES * (2 * LIMIT + 2)) return WRONG_SIZE;
        for (int64_t i = 0; i < blocks; i++)
            if (activity[i] < 0) return WRONG_VALUE;
        if (level < 0 || level > 4096) return WRONG_VALUE;
    }
    const Picture now(current, BLOCK * height, BLOCK * width), old(past, BLOCK * height, BLOCK * width);
    if (!now.luma || !old.luma) return NO_MEMORY;
    Field result(now, old, penalty);
    if (!result || !result.coarse()) return NO_MEMORY;
    const Costs costs = {departures, first, further, bits};
    const Vector* more = before.size() ? reinterpret_cast<const Vector*>(before.data) : nullptr;
    const Known known = {more, nullptr, activity.data, height, width, level};
    result.refine(root_mask.data);
    result.smooth(SMOOTH, Departure{costs}, more);
    for (double weight : SWEEPS) result.smooth(weight, Spread{costs}, more);
    for (int i = 0; i < FITS; i++)
        if (hidden)
            result.fit(Networked{costs, net, known}, more);
        else
            result.fit(Spread{costs}, more);
    memcpy(field.data, result.vectors(), sizeof(int32_t) * size_t(field.size()));
    return DONE;
}
