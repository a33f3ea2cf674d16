"""FORMAT.md on video: a second decoder, written from it alone without a float, gives the symbols of golden clips."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pixa.models.registry import find_wire
from tests.test_format_doc import (
    PlainCoder,
    PlainModel,
    chunks,
    depthwise,
    plain,
    pointwise,
    rescale,
    tile_symbols,
    varint,
)

GOLDEN = Path(__file__).parent / "golden" / "video"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
SPREADS, ACTIVITIES = (0, 1, 2, 4, 8, 16, 32), (0, 2, 6, 15)
DIAGONAL, STRAIGHT = ((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (0, -1), (0, 1), (1, 0))


class PlainStem(PlainModel):
    """The files of a model of frames that follow others."""

    def scales(self, z: np.ndarray, past: list[np.ndarray], level: int) -> Iterator[np.ndarray]:
        """The table indexes of pass A and, given the magnitudes of A, those of B: section 6.9."""
        height, width = past[0].shape[1:]
        features, (d7, p8, p9) = self.features(z, level), self.layers("scale_a")[6:]
        missing = [(0, 4 * n - size) for n, size in zip(z.shape[1:], (height, width), strict=True)]
        seen = np.pad(np.minimum(abs(np.concatenate(past)), 15), ((0, 0), *missing))
        hidden = rescale(pointwise(np.concatenate([features, rescale(depthwise(seen, *d7), shift=2)]), *p8))
        index = rescale(pointwise(hidden, *p9) + self.vector("index_bias_a", level), top=63)
        index, features, hidden = (x[:, :height, :width] for x in (index, features, hidden))
        magnitude = yield index
        yield self.scale("b", [features, hidden], magnitude, level)[1]


def groups(height: int, width: int) -> Iterator[tuple[list, int, tuple]]:
    """(positions, distance, directions of the neighbours) of every group of section 6.10 but the first."""
    s = 1
    while s < max(height, width):
        s *= 2
    while s > 1:
        for top, left, ways in ((s // 2, s // 2, DIAGONAL), (0, s // 2, STRAIGHT), (s // 2, 0, STRAIGHT)):
            yield [(i, j) for i in range(top, height, s) for j in range(left, width, s)], s // 2, ways
        s //= 2


def predicted(values: np.ndarray, place: tuple[int, int], distance: int, ways: tuple) -> tuple[int, int]:
    """(prediction, context) of one component (h, w) at a place."""
    height, width = values.shape
    around = [(place[0] + distance * down, place[1] + distance * across) for down, across in ways]
    inside = [(i, j) for i, j in around if 0 <= i < height and 0 <= j < width]
    known = sorted(int(values[at if at in inside else inside[0]]) for at in around)
    return (known[1] + known[2]) // 2, sum(spread < known[3] - known[0] for spread in SPREADS)


def coarse_to_fine(height: int, width: int, components: int, read: Callable) -> np.ndarray:
    """What `read(positions, predictions, contexts)`, the latter (positions, components), makes of all groups."""
    values = np.zeros((components, height, width), np.int64)
    values[:, 0, 0] = read([(0, 0)], np.zeros((1, components), int), np.full((1, components), 5))[0]
    for positions, distance, ways in groups(height, width):
        if positions:
            known = np.array([[predicted(v, place, distance, ways) for v in values] for place in positions])
            for place, value in zip(positions, read(positions, known[..., 0], known[..., 1]), strict=True):
                values[:, *place] = value
    return values


def octaves(value: int) -> int:
    """o(v) of section 6.10."""
    exponent = (abs(value) + 1).bit_length() - 1
    size = 8 * exponent + (((abs(value) + 1) << 3) >> exponent) - 8
    return size if value >= 0 else -size


def expected_motion(
    symbols: Callable, flags: np.ndarray, before: np.ndarray, activity: np.ndarray, level: int, arrays: dict
) -> np.ndarray:
    """The vectors (h, w, 2) of a model whose network expects them; those of the frame before come first."""

    def layer(name: str, x: np.ndarray, bits: int, low: int, high: int) -> np.ndarray:
        weight, bias = (arrays[f"vectors_{name}_{kind}"].astype(np.int64) for kind in ("weight", "bias"))
        return np.clip((weight @ x + bias + (1 << bits - 1)) >> bits, low, high)

    field = np.zeros_like(before)
    for positions, distance, ways in [([(0, 0)], 0, ()), *groups(*flags.shape)]:
        found = {}
        for c in (0, 1):
            tables, centres, signs = [], [], []
            for i, j in positions:
                around = [(i + distance * down, j + distance * across) for down, across in ways]
                inside = [at for at in around if 0 <= at[0] < flags.shape[0] and 0 <= at[1] < flags.shape[1]]
                near = [at if at in inside else inside[0] for at in around]
                middle = np.array(
                    [sum(sorted(int(field[at][k]) for at in near)[1:3]) // 2 if near else 0 for k in (0, 1)]
                )
                known = [field[at] - middle for at in near] or 4 * [0 * middle]
                past = [before[at] - middle for at in near] or 4 * [0 * middle]
                own, d = before[i, j] - middle, 1 - c
                signed = [v[c] for v in (*known, own, *past)] + [own[c] - v[c] for v in past]
                signed += [v[c] - w[c] for v, w in zip(known, past, strict=True)] + [-middle[c]]
                sizes = [abs(v[d]) for v in (*known, own, middle)]
                rest = [16 * flags[i, j], octaves(int(activity[i, j])), level // 8]
                rest += [16 * (min(distance, 8) == n) for n in (1, 2, 4, 8)] + [16 * (ways is STRAIGHT), 16 * c]
                rest += [octaves(int(abs(field[i, j][0] - middle[0]))) if c else 0]
                told = np.array([octaves(int(v)) for v in signed + sizes] + [int(v) for v in rest])
                hidden = layer("second", layer("first", told, 5, 0, 255), 6, 0, 255)
                mean, scale = (
                    int(layer(n, hidden, 6, a, b)[0]) for n, a, b in (("mean", -2047, 2047), ("scale", 0, 23))
                )
                shift = (mean + 8) // 16
                beside = mean - 16 * shift
                tables.append(127 + 3 * scale + (abs(beside) > 2) + (abs(beside) > 5))
                centres.append(middle[c] + shift)
                signs.append(-1 if beside < 0 else 1)
            for place, said, centre, sign in zip(positions, symbols(tables), centres, signs, strict=True):
                found[place] = np.clip(centre + sign * said, -256, 256)
            for place, value in found.items():
                field[place][c] = value
    return field


def inter_symbols(
    payload: bytes, past: list[np.ndarray], level: int, model: PlainStem
) -> tuple[bytes, np.ndarray, np.ndarray]:
    """(flags, vectors, z and y as int16, y, vectors) of a tile whose frame follows others; `past` has the y of the two
    before, and the vectors of the last.
    """
    *past, before = past
    coder, last = PlainCoder(payload, model), len(model.arrays["limits"])
    channels, height, width = past[0].shape
    activity = np.minimum(abs(past[0]), 15).sum(0)
    symbols = lambda indexes: coder.group(np.array(indexes).ravel())

    def read_flags(positions: list, prediction: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        kind = np.minimum(contexts[:, 0], 2)
        active = np.array([sum(limit < activity[place] for limit in ACTIVITIES) for place in positions])
        index = last - 30 + 6 * active + 2 * kind + prediction[:, 0]
        return prediction ^ (symbols(index) & 1)[:, None]

    flags = coarse_to_fine(height, width, 1, read_flags)[0]
    motion = expected_motion(symbols, flags, before, activity, level, model.arrays)

    rows, columns = -(-height // 4), -(-width // 4)
    z_index = np.repeat(model.vector("z_index", level), rows * columns, 1).reshape(-1, rows, columns)
    coded = np.pad(1 - flags, ((0, 4 * rows - height), (0, 4 * columns - width)))
    z_index = z_index * coded.reshape(rows, 4, columns, 4).max((1, 3))
    z = np.clip(symbols(z_index).reshape(z_index.shape), -127, 127)
    y, scales, magnitude = np.zeros((channels, height, width), np.int64), model.scales(z, past, level), None
    row, column = np.indices((height, width)) % 2
    for pattern in model.passes:
        index = scales.send(magnitude) * pattern[:, row, column] * (1 - flags)
        y += (said := symbols(index).reshape(y.shape))
        magnitude = np.minimum(abs(said), 15)
    assert coder.at_end()
    return b"".join(part.astype("<i2").tobytes() for part in (flags, motion, z, y)), y, motion


@cache
def plain_stem(wire_id: int, model_hash: int) -> PlainStem:
    return PlainStem(find_wire(wire_id, model_hash))


def clip_symbols(data: bytes) -> str:
    """SHA-256 of the symbols of a clip of one tile."""
    digest, past, stem = hashlib.sha256(), [], None
    for kind, content in chunks(data):
        if kind == 1:
            _, width, height, _, _, wire_id, model_hash, tile_log2 = struct.unpack("<BHHBBHIB", content)
            size = -(-height // 16), -(-width // 16)
            assert 16 * max(size) <= 2**tile_log2
        elif kind == 0x02:
            stem = plain_stem(*struct.unpack("<HI", content))
        elif kind == 0x11:
            (flags, level), (_, at) = content[:2], varint(content, 2)
            if flags & 1:
                at += 8
            for _ in range(flags):
                _, at = varint(content, at)
            length, at = varint(content, at)
            assert at + length == len(content)
            payload = content[at:]
            if flags & 1:
                said = tile_symbols(payload, *size, level, plain(wire_id, model_hash))
                channels = plain(wire_id, model_hash).passes.shape[1]
                y = (
                    np.frombuffer(said, "<i2")[-channels * size[0] * size[1] :]
                    .reshape(channels, *size)
                    .astype(np.int64)
                )
                past = [y, np.zeros_like(y), np.zeros((*size, 2), np.int64)]
            else:
                said, y, motion = inter_symbols(payload, past, level, stem)
                past = [y, past[0], motion]
            digest.update(said)
    return digest.hexdigest()


@pytest.mark.parametrize("name", EXPECTED)
def test_symbols_of_every_golden_clip(name):
    assert clip_symbols((GOLDEN / f"{name}.pixa").read_bytes()) == EXPECTED[name]["symbols_sha256"]
