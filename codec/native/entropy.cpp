// Groups of symbols to payloads and back, as `pixa.bitstream.entropy` does it.
#include "rans.h"

// Decode the next group of a payload: table indexes -> symbols, as many. See `Decoder` for the rest.
KERNEL(decode_symbols)
(Span<const uint8_t> payload, int32_t start, Span<uint64_t> place, Span<const uint32_t> cumulative,
 Span<const int64_t> offsets, Span<const int32_t> limits, Span<const uint16_t> starts, Span<const uint8_t> indexes,
 Span<int32_t> symbols) {
    const Tables tables = {cumulative, offsets, limits, starts};
    Decoder decoder(payload, start, place, tables);
    if (!decoder.fits() || symbols.size() != indexes.size()) return WRONG_SIZE;
    return decoder.decode(indexes, symbols.data);
}

// Code groups, which end at `ends` in symbols and table indexes: their words and their escaped values.
//
//   sizes: (2,), of words and of escapes; there is room for two words more than symbols, and five bytes a symbol.
KERNEL(encode_symbols)
(Span<const int32_t> symbols, Span<const uint8_t> indexes, Span<const int64_t> ends, Span<const uint32_t> cumulative,
 Span<const int64_t> offsets, Span<const int32_t> limits, Span<const uint16_t> starts, Span<uint32_t> words,
 Span<uint8_t> escapes, Span<int64_t> sizes) {
    const Tables tables = {cumulative, offsets, limits, starts};
    if (!tables.fit() || symbols.size() != indexes.size() || sizes.size() != 2) return WRONG_SIZE;
    if (words.size() < symbols.size() + 2 || escapes.size() < 5 * symbols.size()) return WRONG_SIZE;
    for (int64_t g = 0; g < ends.size(); g++)
        if (ends[g] > symbols.size() || ends[g] < (g ? ends[g - 1] : 0)) return WRONG_SIZE;
    for (int64_t i = 0; i < indexes.size(); i++)
        if (indexes[i] >= limits.size()) return WRONG_VALUE;
    Buffer<uint8_t> written(5 * symbols.size());
    if (!written) return NO_MEMORY;
    uint64_t state = SEED;
    int64_t count = 0, first = 5 * symbols.size();  // escapes are written from behind
    for (int64_t g = ends.size() - 1; g >= 0; g--) {
        const int64_t begin = g ? ends[g - 1] : 0;
        const Order order({indexes.data + begin, ends[g] - begin});
        if (!order) return NO_MEMORY;
        for (int64_t i = order.size() - 1; i >= 0; i--) {
            const int64_t at = begin + order[i], symbol = symbols[at];
            const int table = indexes[at], limit = limits[table];
            int64_t entry = symbol + limit;
            if (symbol < -limit || symbol > limit) {
                entry = 2 * limit + 1;
                const uint64_t value = symbol >= 0 ? uint64_t(symbol) << 1 : uint64_t(-symbol) << 1 | 1;
                int length = 1;
                while (length < 5 && value >> (7 * length)) length++;
                first -= length;
                for (int k = 0; k < length; k++)
                    written[first + k] = uint8_t((value >> (7 * k) & 0x7f) | (k < length - 1 ? 0x80 : 0));
            }
            const uint32_t* edges = cumulative.data + offsets[table] + entry;
            const uint32_t frequency = edges[1] - edges[0];
            if (!frequency || frequency > 1u << PRECISION) return WRONG_VALUE;
            if (state >> (64 - PRECISION) >= frequency) words[count++] = uint32_t(state), state >>= 32;
            state = (state / frequency) << PRECISION | (state % frequency + edges[0]);
        }
    }
    words[count++] = uint32_t(state);
    if (state >> 32) words[count++] = uint32_t(state >> 32);
    sizes[0] = count, sizes[1] = 5 * symbols.size() - first;
    memcpy(escapes.data, written + first, size_t(sizes[1]));
    return DONE;
}
