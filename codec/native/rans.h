// The entropy coder of `pixa.bitstream.entropy`: asymmetric numeral systems with a state of 64 bits, words of 32 bits,
// and frequencies of 24, as constriction's AnsCoder.
#pragma once

#include "kernels.h"

namespace {

constexpr int PRECISION = 24, BUCKETS = 256, MAX_TABLES = 256, LARGEST = 32767;
constexpr uint64_t SEED = 1;

// The tables of a model, one behind the other, see `Tables.flat`. Table 0 is empty.
struct Tables {
    Span<const uint32_t> cumulative;  // of every table from 0 to 2**24
    Span<const int64_t> offsets;      // of these
    Span<const int32_t> limits;
    Span<const uint16_t> starts;  // (T, BUCKETS): the entry that a quantile of such first bits is at, or behind

    bool fit() const {
        const int64_t count = limits.size();
        if (count < 1 || count > MAX_TABLES || offsets.size() != count + 1 || starts.size() != count * BUCKETS) return false;
        if (offsets[0] != 0 || offsets[count] != cumulative.size() || offsets[1] != 0) return false;
        for (int64_t t = 1; t < count; t++)
            if (limits[t] < 1 || limits[t] > LARGEST || offsets[t + 1] - offsets[t] != 2 * int64_t(limits[t]) + 3)
                return false;
        return true;
    }
};

// The symbols of a group in coding order: table by table, ascending, positions in order; table 0 has none.
class Order {
  public:
    explicit Order(Span<const uint8_t> indexes) : positions_(indexes.size()) {
        if (!positions_) return;
        int64_t starts[MAX_TABLES + 1] = {};
        for (int64_t i = 0; i < indexes.size(); i++) starts[indexes[i] + 1]++;
        const int64_t none = starts[1];
        starts[1] = 0;
        for (int t = 1; t <= MAX_TABLES; t++) starts[t] += starts[t - 1];
        size_ = indexes.size() - none;
        for (int64_t i = 0; i < indexes.size(); i++)
            if (indexes[i]) positions_[starts[indexes[i]]++] = i;
    }
    explicit operator bool() const { return bool(positions_); }
    int64_t size() const { return size_; }
    int64_t operator[](int64_t i) const { return positions_[i]; }

  private:
    Buffer<int64_t> positions_;
    int64_t size_ = 0;
};

// Reads a payload, whose words begin at `start`. `place` holds how far it has come: the state, how many words are left,
// and where the next escaped value is.
class Decoder {
  public:
    Decoder(Span<const uint8_t> payload, int64_t start, Span<uint64_t> place, const Tables& tables)
        : payload_(payload), start_(start), place_(place), tables_(tables) {}

    bool fits() const {
        return place_.size() == 3 && start_ >= 0 && start_ <= payload_.size() && tables_.fit() &&
               place_[1] <= uint64_t(payload_.size() - start_) / 4 && place_[2] <= uint64_t(payload_.size());
    }

    Status decode(Span<const uint8_t> indexes, int32_t* symbols) {
        const Order order(indexes);
        if (!order) return NO_MEMORY;
        if (indexes.size()) memset(symbols, 0, sizeof(int32_t) * size_t(indexes.size()));
        uint64_t state = place_[0], left = place_[1];
        for (int64_t i = 0; i < order.size(); i++) {
            const int64_t position = order[i];
            const int table = indexes[position];
            if (table >= tables_.limits.size()) return WRONG_VALUE;
            const int limit = tables_.limits[table], entries = 2 * limit + 2;
            const uint32_t* cumulative = tables_.cumulative.data + tables_.offsets[table];
            const uint32_t quantile = uint32_t(state) & ((1u << PRECISION) - 1);
            int entry = tables_.starts[table * BUCKETS + (quantile >> (PRECISION - 8))];
            while (entry + 1 < entries && cumulative[entry + 1] <= quantile) entry++;
            if (entry >= entries) return WRONG_VALUE;
            state = (state >> PRECISION) * (cumulative[entry + 1] - cumulative[entry]) + quantile - cumulative[entry];
            if (state >> 32 == 0 && left > 0) state = state << 32 | word(--left);
            symbols[position] = entry - limit;
            if (entry == entries - 1 && !escaped(limit, symbols[position])) return CORRUPT;
        }
        place_[0] = state, place_[1] = left;
        return DONE;
    }

  private:
    uint32_t word(uint64_t i) const {
        const uint8_t* bytes = payload_.data + start_ + 4 * i;
        return uint32_t(bytes[0]) | uint32_t(bytes[1]) << 8 | uint32_t(bytes[2]) << 16 | uint32_t(bytes[3]) << 24;
    }

    // A zigzag varint in its shortest form.
    bool escaped(int limit, int32_t& symbol) {
        uint64_t value = 0;
        for (int shift = 0; shift < 35 && place_[2] < uint64_t(payload_.size()); shift += 7) {
            const uint8_t byte = payload_[int64_t(place_[2]++)];
            value |= uint64_t(byte & 0x7f) << shift;
            if (byte >= 0x80) continue;
            if ((!byte && shift) || int64_t(value >> 1) > LARGEST) return false;
            symbol = value & 1 ? -int32_t(value >> 1) : int32_t(value >> 1);
            return int64_t(value >> 1) > limit;
        }
        return false;
    }

    Span<const uint8_t> payload_;
    int64_t start_;
    Span<uint64_t> place_;
    const Tables& tables_;
};

}  // namespace
