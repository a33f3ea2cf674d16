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


def inter_symbols(payload: bytes, past: list[np.ndarray], level: int, model: PlainStem) -> tuple[bytes, np.ndarray]:
    """(flags, vectors, z and y of a tile as int16, y) of a tile whose frame follows others."""
    coder, last = PlainCoder(payload, model), len(model.arrays["limits"])
    channels, height, width = past[0].shape
    activity, stays = np.minimum(abs(past[0]), 15).sum(0), "bypass" not in model.arrays
    symbols = lambda indexes: coder.group(np.array(indexes).ravel())

    def read_flags(positions: list, prediction: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        kind = np.minimum(contexts[:, 0], 2)
        active = np.array([sum(limit < activity[place] for limit in ACTIVITIES) for place in positions])
        index = last - 3 + kind if stays else last - 30 + 6 * active + 2 * kind + prediction[:, 0]
        return prediction ^ (symbols(index) & 1)[:, None]

    def read_vectors(positions: list, prediction: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        skipped = np.array([flags[place] for place in positions])[:, None] * stays
        if stays or last == 165:
            first = last - (11 if stays else 38)
            said = symbols((first + contexts) * (1 - skipped)).reshape(-1, 2)
        else:
            rows = symbols(last - 70 + contexts[:, 0])
            columns = symbols(last - 62 + 4 * contexts[:, 1] + np.minimum(abs(rows), 3))
            said = np.stack([rows, columns], 1)
        return np.clip(prediction + said, -256, 256) * (1 - skipped)

    flags = coarse_to_fine(height, width, 1, read_flags)[0]
    motion = np.moveaxis(coarse_to_fine(height, width, 2, read_vectors), 0, 2)

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
    return b"".join(part.astype("<i2").tobytes() for part in (flags, motion, z, y)), y


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
                past = [y, np.zeros_like(y)]
            else:
                said, y = inter_symbols(payload, past, level, stem)
                past = [y, past[0]]
            digest.update(said)
    return digest.hexdigest()


@pytest.mark.parametrize("name", EXPECTED)
def test_symbols_of_every_golden_clip(name):
    assert clip_symbols((GOLDEN / f"{name}.pixa").read_bytes()) == EXPECTED[name]["symbols_sha256"]
