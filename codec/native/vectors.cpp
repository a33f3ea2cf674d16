// Vectors of motion to symbols and back with the network that expects them, as `pixa.motion.vectors` does it.
#include "rans.h"
#include "vector_net.h"

namespace {

// Vectors that are coded together, at rows top, top + step, ... and columns left, left + step, ...; the neighbours of
// each are `half` away, in its row and column or on diagonals. Of the first vector `half` is 0.
struct Group {
    int top, left, step, half;
    bool straight;
};

// Calls `code` with every group of a field in turn, until one fails.
template <class Code> Status every_group(int height, int width, const Code& code) {
    Status status = code(Group{0, 0, MAX_BLOCKS, 0, false});
    int step = 1;
    while (step < height || step < width) step *= 2;
    for (; step > 1; step /= 2) {
        const int half = step / 2;
        const Group groups[3] = {{half, half, step, half, false}, {0, half, step, half, true}, {half, 0, step, half, true}};
        for (const Group& group : groups)
            if (status == DONE && group.top < height && group.left < width) status = code(group);
    }
    return status;
}

// Calls `use` with the place of every vector of a group.
template <class Use> void every_place(const Group& group, const Known& known, const Use& use) {
    for (int row = group.top; row < known.height; row += group.step)
        for (int column = group.left; column < known.width; column += group.step)
            use(row, column, int64_t(row) * known.width + column);
}

// What the network is told of a vector of a group.
Told told_of(const Group& group, const Vector* field, const Known& known, int row, int column) {
    constexpr int DIAGONAL[4][2] = {{-1, -1}, {-1, 1}, {1, -1}, {1, 1}}, STRAIGHT[4][2] = {{-1, 0}, {0, -1}, {0, 1}, {1, 0}};
    const int64_t place = int64_t(row) * known.width + column;
    Vector around[4] = {}, before[4] = {};
    if (group.half) {
        int64_t places[4], first = -1;
        for (int i = 0; i < 4; i++) {
            const int* way = group.straight ? STRAIGHT[i] : DIAGONAL[i];
            const int y = row + group.half * way[0], x = column + group.half * way[1];
            const bool inside = y >= 0 && y < known.height && x >= 0 && x < known.width;
            places[i] = inside ? int64_t(y) * known.width + x : -1;
            if (inside && first < 0) first = places[i];
        }
        for (int i = 0; i < 4; i++) {
            const int64_t from = places[i] < 0 ? first : places[i];
            around[i] = field[from], before[i] = known.before[from];
        }
    }
    return Told(around, before, known.before[place], known.skip[place], known.activity[place], known.level, group.half,
                group.straight);
}

bool known_fits(int height, int width, Span<const int32_t> before, Span<const uint8_t> skip,
                Span<const int32_t> activity, int level) {
    if (height < 1 || width < 1 || height > MAX_BLOCKS || width > MAX_BLOCKS || level < 0 || level > 4096) return false;
    const int64_t blocks = int64_t(height) * width;
    if (!vectors_fit(before, blocks) || skip.size() != blocks || activity.size() != blocks) return false;
    for (int64_t i = 0; i < blocks; i++)
        if (activity[i] < 0) return false;
    return true;
}

}  // namespace

// The symbols and tables of a field (height, width, 2) in coding order: of every group all rows, then all columns.
KERNEL(vector_symbols)
(Span<const int32_t> field, int32_t height, int32_t width, Span<const float> layers, int32_t hidden,
 Span<const int32_t> before, Span<const uint8_t> skip, Span<const int32_t> activity, int32_t level,
 Span<int32_t> symbols, Span<uint8_t> tables) {
    const VectorNet net(layers, hidden);
    if (!net.fits() || !known_fits(height, width, before, skip, activity, level)) return WRONG_SIZE;
    if (!vectors_fit(field, int64_t(height) * width)) return WRONG_VALUE;
    if (symbols.size() != field.size() || tables.size() != field.size()) return WRONG_SIZE;
    const Known known = {reinterpret_cast<const Vector*>(before.data), skip.data, activity.data, height, width, level};
    const Vector* vectors = reinterpret_cast<const Vector*>(field.data);
    int64_t done = 0;
    return every_group(height, width, [&](const Group& group) {
        int64_t count = 0, i = done;
        every_place(group, known, [&](int, int, int64_t) { count++; });
        every_place(group, known, [&](int row, int column, int64_t place) {
            Told told = told_of(group, vectors, known, row, column);
            const Vector v = vectors[place];
            const Expected rows = net.expected(told, 0, 0), columns = net.expected(told, 1, v.row);
            symbols[i] = rows.symbol(v.row), tables[i] = uint8_t(rows.table);
            symbols[i + count] = columns.symbol(v.column), tables[i + count] = uint8_t(columns.table);
            i++;
        });
        done += 2 * count;
        return DONE;
    });
}

// Decode a field (height, width, 2) from where `place` is in a payload, see `Decoder`.
KERNEL(decode_vectors)
(Span<const uint8_t> payload, int32_t start, Span<uint64_t> place, Span<const uint32_t> cumulative,
 Span<const int64_t> offsets, Span<const int32_t> limits, Span<const uint16_t> starts, Span<int32_t> field,
 int32_t height, int32_t width, Span<const float> layers, int32_t hidden, Span<const int32_t> before,
 Span<const uint8_t> skip, Span<const int32_t> activity, int32_t level) {
    const Tables tables = {cumulative, offsets, limits, starts};
    Decoder decoder(payload, start, place, tables);
    const VectorNet net(layers, hidden);
    if (!decoder.fits() || !net.fits() || !known_fits(height, width, before, skip, activity, level)) return WRONG_SIZE;
    const int64_t blocks = int64_t(height) * width;
    if (field.size() != 2 * blocks) return WRONG_SIZE;
    const Known known = {reinterpret_cast<const Vector*>(before.data), skip.data, activity.data, height, width, level};
    Vector* vectors = reinterpret_cast<Vector*>(field.data);
    Buffer<Expected> expected(blocks);
    Buffer<uint8_t> indexes(blocks);
    Buffer<int32_t> symbols(blocks);
    if (!expected || !indexes || !symbols) return NO_MEMORY;
    return every_group(height, width, [&](const Group& group) {
        for (int component = 0; component < 2; component++) {
            int64_t count = 0;
            every_place(group, known, [&](int row, int column, int64_t at) {
                Told told = told_of(group, vectors, known, row, column);
                expected[count] = net.expected(told, component, vectors[at].row);
                indexes[count] = uint8_t(expected[count].table);
                count++;
            });
            const Status status = decoder.decode({indexes, count}, symbols);
            if (status != DONE) return status;
            count = 0;
            every_place(group, known, [&](int, int, int64_t at) {
                const int found = expected[count].vector(symbols[count]);
                (component ? vectors[at].column : vectors[at].row) = found;
                count++;
            });
        }
        return DONE;
    });
}
