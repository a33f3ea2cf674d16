"""Kernels against the NumPy code that defines what they compute, for every instruction set that this machine has."""

from __future__ import annotations

import numpy as np
import pytest

from pixa import native
from pixa.bitstream import entropy
from pixa.errors import Corrupt
from pixa.models.registry import find_model
from pixa.motion import overlap, vectors
from pixa.motion.fields import REACH
from pixa.motion.search import search
from pixa.native.build import SETS
from pixa.runtime.model import load_model

LEVEL = 100


def usable(choice: str) -> bool:
    try:
        return native.load(choice) is not None
    except ValueError:
        return False


pytestmark = pytest.mark.skipif(not usable("plain"), reason="the kernels are not compiled")


@pytest.fixture(params=[name for name in SETS if usable(name)])
def kernels(request, monkeypatch):
    """Calls a function with NumPy and with kernels, and returns both results."""

    def both(function, *arguments):
        results = []
        for choice in ("numpy", request.param):
            monkeypatch.setenv("PIXA_KERNELS", choice)
            results.append(function(*arguments))
        return results

    return both


@pytest.fixture(scope="module")
def nets():
    """The model that videos are coded with."""
    return load_model(find_model("stem"), 1)


def clip(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures (height, width, 3): squares of several sizes that have moved, and some noise."""
    scene = sum(rng.integers(0, 256 // 3, (128 // n, 192 // n, 3)).repeat(n, 0).repeat(n, 1) for n in (2, 8, 32))
    pictures = []
    for y, x in rng.integers(0, 20, (2, 2)):
        noise = rng.integers(-9, 10, (height, width, 3))
        pictures.append((scene[y : y + height, x : x + width] + noise).clip(0, 255).astype(np.uint8))
    return tuple(pictures)


class TestSearch:
    @pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (5, 7)])
    @pytest.mark.parametrize("worth", [0.0, 4.0, 900.0])
    def test_finds_the_same_vectors(self, kernels, nets, size, worth):
        rng = np.random.default_rng(size)
        picture, past = clip(rng, 16 * size[0], 16 * size[1])
        before, activity = rng.integers(-REACH, REACH + 1, (*size, 2)), rng.integers(0, 2000, size)
        prices = vectors.Prices(nets.vectors, nets.tables, before, activity, LEVEL)
        for arguments in ((None, None), (None, before[None]), (prices, before[None])):
            field, found = kernels(search, picture[None], past[None], worth, *arguments)
            assert np.array_equal(field, found)

    def test_pictures_of_extremes(self, kernels):
        rng = np.random.default_rng(1)
        picture, past = 255 * rng.integers(0, 2, (2, 64, 80, 3), np.uint8)
        field, found = kernels(search, picture[None], past[None], 1.0)
        assert np.array_equal(field, found)


def test_compensation_is_the_same(kernels):
    rng = np.random.default_rng(2)
    for size in ((1, 1), (3, 4), (4, 1)):
        picture = 255 * rng.integers(0, 2, (16 * size[0], 16 * size[1], 3), np.uint8)
        moved, found = kernels(overlap.moved, picture, rng.integers(-REACH, REACH + 1, (*size, 2)))
        assert np.array_equal(moved, found)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (11, 6)])
def test_symbols_of_vectors_are_the_same(kernels, nets, size):
    rng = np.random.default_rng(3)
    field, before = rng.integers(-REACH, REACH + 1, (2, *size, 2)).astype(np.int32)
    past = vectors.Past(before, rng.random(size) < 0.4, rng.integers(0, 4000, size), LEVEL)
    for groups in zip(*kernels(vectors.coded, field, past, nets.vectors), strict=True):
        assert all(map(np.array_equal, *groups))
    code = lambda: entropy.encode(vectors.coded(field, past, nets.vectors), nets.tables)
    payload, found = kernels(code)
    assert payload == found
    decode = lambda: vectors.decoded(entropy.Decoder(payload, nets.tables), past, nets.vectors)
    assert all(np.array_equal(each, field) for each in kernels(decode))


class TestEntropy:
    def groups(self, rng: np.random.Generator, nets) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of all tables, some escaped."""
        groups = []
        for count in (0, 1, 3000):
            indexes = rng.integers(0, len(nets.tables.limits), count, np.uint8)
            far = rng.integers(-32767, 32768, count)
            groups.append((np.where(rng.random(count) < 0.1, far, rng.integers(-3, 4, count)) * (indexes > 0), indexes))
        return groups

    def test_bytes_and_symbols_are_the_same(self, kernels, nets):
        groups = self.groups(np.random.default_rng(4), nets)
        payload, found = kernels(entropy.encode, groups, nets.tables)
        assert payload == found

        def decode() -> list[np.ndarray]:
            decoder = entropy.Decoder(payload, nets.tables)
            symbols = [decoder.decode(indexes) for _, indexes in groups]
            decoder.finish()
            return symbols

        for symbols in kernels(decode):
            assert all(np.array_equal(each, group[0]) for each, group in zip(symbols, groups, strict=True))

    def test_damage_is_found_alike(self, kernels, nets):
        rng = np.random.default_rng(5)
        groups = self.groups(rng, nets)
        payload = entropy.encode(groups, nets.tables)

        def verdict(damaged: bytes) -> list[bytes] | str:
            try:
                decoder = entropy.Decoder(damaged, nets.tables)
                symbols = [decoder.decode(indexes).tobytes() for _, indexes in groups]
                decoder.finish()
            except Corrupt:
                return "refused"
            return symbols

        for _ in range(60):
            damaged = bytearray(payload)
            damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
            expected, found = kernels(verdict, bytes(damaged[: rng.integers(1, 2 * len(damaged))]))
            assert expected == found


class TestBoundary:
    def test_lengths_are_not_trusted(self):
        plain, shape = native.load("plain"), (16, 32, 3)
        picture, field = np.zeros(shape, np.uint8), np.zeros((1, 2, 2), np.int32)
        mask, turns, rates = np.zeros((24, 24), np.int16), np.zeros(1025), np.zeros(8, np.float32)
        good = [picture, picture, 1, 2, 1.0, mask, turns, rates, rates, None, None, 0, None, None, 0, field]
        plain.search(*good)
        for place, wrong in ((0, picture[:8]), (3, 3), (5, mask[1:]), (6, turns[1:]), (8, None), (15, field[:0])):
            with pytest.raises(ValueError, match="size"):
                plain.search(*good[:place], wrong, *good[place + 1 :])
        with pytest.raises(ValueError, match="range"):
            plain.search(*good[:9], field + REACH + 1, *good[10:])


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv("PIXA_KERNELS", "fast")
    with pytest.raises(ValueError, match="PIXA_KERNELS is one of"):
        native.kernels()
