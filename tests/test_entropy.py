"""The entropy coder and its tables: round trips, literal bytes, exact frequencies, size, and mismatches noticed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixa.bitstream import entropy
from pixa.bitstream.container import write_varint
from pixa.bitstream.entropy import AnsCoder
from pixa.bitstream.tables import MAX_LIMIT, TOTAL, Tables, gaussian_tables, integer_frequencies
from pixa.errors import Corrupt

SCALES = 0.11 * 1000 ** (np.arange(64) / 63)
TABLES = gaussian_tables(SCALES)
LARGEST = 32767

Group = tuple[np.ndarray, np.ndarray]


def group(pairs: list[tuple[int, int]]) -> Group:
    """(symbols, indexes) of (symbol, table) pairs; table 0 has the symbol zero alone."""
    symbols, indexes = np.array(pairs, np.int32).reshape(-1, 2).T
    return symbols * (indexes > 0), indexes.astype(np.uint8)


def drawn(count: int, lowest: int = 0, seed: int = 0) -> Group:
    """Symbols as the tables expect them."""
    rng = np.random.default_rng(seed)
    indexes = rng.integers(lowest, len(SCALES), count).astype(np.uint8)
    return np.rint(rng.normal(0, SCALES[indexes])).astype(np.int32) * (indexes > 0), indexes


def decode(payload: bytes, *indexes: np.ndarray, tables: Tables = TABLES) -> list[np.ndarray]:
    decoder = entropy.Decoder(payload, tables)
    groups = [decoder.decode(index) for index in indexes]
    decoder.finish()
    return groups


pairs = st.lists(
    st.tuples(st.one_of(st.integers(-9, 9), st.integers(-LARGEST, LARGEST)), st.integers(0, len(SCALES) - 1)),
    max_size=60,
)


class TestRoundTrip:
    @settings(deadline=None)
    @given(st.lists(pairs.map(group), min_size=1, max_size=3))
    def test_any_symbols_of_any_tables(self, groups):
        payload = entropy.encode(groups, TABLES)
        decoded = decode(payload, *(indexes for _, indexes in groups))
        assert all(np.array_equal(a, symbols) for a, (symbols, _) in zip(decoded, groups, strict=True))

    @pytest.mark.parametrize("symbol", [0, 1, -1, 551, -551, 552, -552, LARGEST, -LARGEST])
    def test_a_long_run_of_one_symbol(self, symbol):
        symbols, indexes = np.full(5000, symbol, np.int32), np.full(5000, 63, np.uint8)
        assert np.array_equal(decode(entropy.encode([(symbols, indexes)], TABLES), indexes)[0], symbols)

    def test_bytes_are_literal(self):
        narrow, wide = [1 << 22, 1 << 23, (1 << 22) - 1, 1], [1 << 20, 1 << 22, 5 << 20, 5 << 20, (1 << 20) - 5, 5]
        tables = Tables(np.array([0, 1, 2]), np.array(narrow + wide))
        tables.check()
        first = group([(0, 1), (1, 1), (-1, 2), (2, 2), (-9, 1), (0, 0), (1, 2)])
        second = group([(-1, 1), (700, 2), (0, 2), (-2, 2)])
        payload = entropy.encode([first, second], tables)
        assert payload.hex(" ") == "03 63 17 40 ef 1a cd 8c 37 9a 99 01 00 13 f8 0a"
        assert np.array_equal(decode(payload, first[1], second[1], tables=tables)[1], second[0])


class TestSize:
    def test_is_within_three_thousandths_of_the_estimate(self):
        symbols, indexes = drawn(100_000)
        size = 8 * len(entropy.encode([(symbols, indexes)], TABLES))
        assert size == pytest.approx(TABLES.cost(symbols, indexes).sum(dtype=np.float64), rel=3e-3)

    def test_estimate_is_the_information_of_the_frequencies(self):
        limit = int(TABLES.limits[20])
        symbols = np.arange(-limit, limit + 1)
        estimated = TABLES.cost(symbols, np.full(len(symbols), 20, np.uint8))
        assert estimated == pytest.approx(-np.log2(TABLES.frequencies[20][:-1] / TOTAL), abs=1e-4)

    def test_an_escape_is_estimated_with_two_bytes_of_its_own(self):
        limit, escape = int(TABLES.limits[20]), TABLES.frequencies[20][-1]
        estimated = TABLES.cost(np.array([limit + 1, -LARGEST]), np.array([20, 20], np.uint8))
        assert estimated == pytest.approx(16 - np.log2(escape / TOTAL), abs=1e-4)

    def test_table_zero_costs_nothing(self):
        assert entropy.encode([group([(0, 0)] * 1000)], TABLES) == entropy.encode([], TABLES)


class TestMismatch:
    @pytest.mark.parametrize("step", [-3, -1, 1, 3])
    @pytest.mark.parametrize("count", [200, 20_000])
    def test_other_tables_are_noticed(self, step, count):
        symbols, indexes = drawn(count, lowest=4)
        payload = entropy.encode([(symbols, indexes)], TABLES)
        with pytest.raises(Corrupt):
            decode(payload, np.clip(indexes.astype(int) + step, 1, 63).astype(np.uint8))

    def test_one_other_index_is_noticed(self):
        symbols, indexes = drawn(2000)
        payload = entropy.encode([(symbols, indexes)], TABLES)
        indexes[1000] ^= 1
        with pytest.raises(Corrupt):
            decode(payload, indexes)

    @pytest.mark.parametrize("change", [-1, 1])
    def test_fewer_or_more_symbols_are_noticed(self, change):
        symbols, indexes = drawn(2000, lowest=1)
        payload = entropy.encode([(symbols, indexes)], TABLES)
        with pytest.raises(Corrupt):
            decode(payload, np.resize(indexes, len(indexes) + change))

    def test_escapes_that_are_none_are_refused(self):
        symbols, indexes = group([(300, 20)])
        payload, limit = entropy.encode([(symbols, indexes)], TABLES), int(TABLES.limits[20])
        assert payload.endswith(write_varint(600))
        for zigzag in (0, 1, 2 * limit, 2 * limit + 1, 2 * LARGEST + 2, 2 * LARGEST + 3):
            with pytest.raises(Corrupt):
                decode(payload[:-2] + write_varint(zigzag), indexes)
        for zigzag, value in ((2 * limit + 2, limit + 1), (2 * limit + 3, -limit - 1), (2 * LARGEST + 1, -LARGEST)):
            assert decode(payload[:-2] + write_varint(zigzag), indexes)[0] == [value]

    @settings(deadline=None)
    @given(st.binary(max_size=60), st.lists(st.integers(0, 63), max_size=40))
    def test_noise_gives_symbols_or_an_error(self, payload, indexes):
        try:
            (symbols,) = decode(payload, np.array(indexes, np.uint8))
        except Corrupt:
            return
        assert np.abs(symbols).max(initial=0) <= LARGEST
        assert entropy.encode([(symbols, np.array(indexes, np.uint8))], TABLES) == payload


class TestTables:
    @pytest.mark.parametrize("table", range(1, len(SCALES)))
    def test_the_coder_uses_the_integers_to_the_last_unit(self, table):
        """Each entry is found at the first and the last of its quantiles."""
        frequencies = TABLES.frequencies[table]
        ends = np.cumsum(frequencies)
        for entry, (first, last) in enumerate(zip(ends - frequencies, ends - 1, strict=True)):
            for quantile in (first, last):
                coder = AnsCoder(np.array([quantile], np.uint32)) if quantile else AnsCoder()
                assert coder.decode(TABLES.categorical[table], 1)[0] == entry

    @settings(deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=2, max_size=2 * MAX_LIMIT).filter(any))
    def test_frequencies_are_positive_and_sum_to_the_whole(self, mass):
        frequencies = integer_frequencies(np.array(mass))
        assert frequencies.min() >= 1
        assert frequencies.sum() == TOTAL

    def test_gaussian_tables_are_symmetric_and_usable(self):
        TABLES.check()
        for frequencies in TABLES.frequencies[1:]:
            assert np.array_equal(frequencies[:-1], frequencies[-2::-1])

    @pytest.mark.parametrize(
        ("limits", "frequencies"),
        [
            ([0, 1], [1, TOTAL - 3, 1, 2]),
            ([0, 1], [0, TOTAL - 2, 1, 1]),
            ([0, 0], [1, TOTAL - 1]),
            ([0, 1], [1, TOTAL - 2, 1]),
            ([0, 1024], [TOTAL - 2049] + [1] * 2049),
        ],
        ids=["sum", "zero", "no limit", "too short", "too long"],
    )
    def test_unusable_tables_are_refused(self, limits, frequencies):
        with pytest.raises(ValueError, match="table"):
            Tables(np.array(limits), np.array(frequencies)).check()
