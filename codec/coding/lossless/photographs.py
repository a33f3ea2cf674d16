"""Photographs: every sample is predicted from those around it, and its probability table chosen, by exact integers.

Two stages. Least squares fitted to the tile (its coefficients are in the file, as in Wu, Barthel and Zhang's TMW and
Matsuda's MRP) give a first prediction; a small network, trained once for all pictures, sees how that went at the
neighbours, corrects it and chooses a table. Units: predictions and errors are in 1/16 of a sample, coefficients in
1/256, inputs and activations of the network in 1/32 of a power of two 2**k that follows the local activity, its weights
in 1/128. Integers are carried in float32 and no sum exceeds 2**24, so that every order of summation gives the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixa.bitstream import entropy
from pixa.bitstream.container import read_varint, write_varint
from pixa.bitstream.tables import Tables
from pixa.coding.lossless.wavefront import Wavefront
from pixa.errors import Corrupt

CAUSAL = [  # neighbours of the first prediction but the left one, which is the origin of all differences
    *((-1, 0), (-1, -1), (-1, 1), (-2, 0), (0, -2), (-2, -1), (-2, 1), (-1, -2), (-2, -2), (-2, 2), (-3, 0)),
    *((0, -3), (-3, -1), (-3, 1), (-1, -3), (-3, -2), (-3, 2), (-2, -3), (-2, 3), (-4, 0), (0, -4)),
]
AROUND = [(0, 0), (-1, 0), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]  # the same in earlier planes
SAMPLES = [  # what the network sees of this plane: samples less the prediction, errors at the neighbours
    *((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-2, -1), (-2, 1), (-2, 2), (-2, -2), (0, -3)),
    *((-3, 0), (-3, 1)),
]
ERRORS = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-2, -1), (-2, 1), (-2, 2)]
EARLIER_ERRORS = [(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]
EARLIER_SAMPLES = [(0, 1), (1, 0), (0, -1), (-1, 0)]
UNIT, COEFFICIENT = 16, 256
SCALES, FRACTIONS = 47, 5
MAX_SUM = 1 << 14  # of the magnitudes of coefficients, so that sums stay below 2**24
CHUNK = 1 << 15


class Model:
    """The trained part: default coefficients, networks and tables.

    Args:
        arrays: of each kind of plane p = 0, 1, 2 (which sees p earlier ones) `coefficients_p`, `w1_p`, `b1_p`, `w2_p`,
            `b2_p`, `w3_p` (2, hidden), `skip_p` (2, inputs) and `b3_p`, whole numbers; `limits` and `frequencies`.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.tables = Tables(arrays["limits"], arrays["frequencies"])
        self.coefficients = [arrays[f"coefficients_{p}"].astype(np.int64) for p in range(3)]
        names = "w1", "b1", "w2", "b2", "w3", "skip", "b3"
        self.layers = [[arrays[f"{name}_{p}"].T.astype(np.float32) for name in names] for p in range(3)]

    def network(self, p: int, x: np.ndarray) -> np.ndarray:
        """Inputs (n, F) -> (n, 2) in 1/4096, shift of the prediction and logarithm of the scale."""
        w1, b1, w2, b2, w3, skip, b3 = self.layers[p]
        h = activate(x @ w1 + b1)
        h = activate(h @ w2 + b2)
        return (h @ w3 + x @ skip + b3).astype(np.int32)


def activate(total: np.ndarray) -> np.ndarray:
    """Sums in 1/4096 -> activations in 1/32, rounded half up and clipped."""
    total *= 1 / 128
    total += 0.5
    np.floor(total, out=total)
    return np.clip(total, 0, 255, out=total)


class Plane:
    """One plane of a tile and what is known of it: samples and errors of the first prediction, skewed.

    Args:
        earlier: the planes that it may look at, all around; two at most.
        samples: skewed; of a tile that is being read those not yet known count for nothing.
    """

    def __init__(self, wave: Wavefront, model: Model, earlier: Sequence[Plane], samples: np.ndarray):
        self.wave, self.model, self.earlier, self.samples = wave, model, earlier, samples
        self.errors = np.zeros(wave.shape, np.int32)
        self.kind = len(earlier)
        self.causal, self.around = wave.offsets(CAUSAL), wave.offsets(AROUND)
        self.near_samples, self.near_errors = wave.offsets(SAMPLES), wave.offsets(ERRORS)
        self.earlier_samples, self.earlier_errors = wave.offsets(EARLIER_SAMPLES), wave.offsets(EARLIER_ERRORS)

    def differences(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the first prediction sees, (n, F) float32, and the left neighbour (n,)."""
        parts = []
        for plane, offsets in [*((plane, self.around) for plane in self.earlier), (self, self.causal)]:
            flat = plane.samples.ravel()
            left = flat[places - self.wave.shape[1]]
            parts.append(flat[places[:, None] + offsets] - left[:, None])
        return np.concatenate(parts[-1:] + parts[:-1], 1).astype(np.float32), left

    def fit(self) -> np.ndarray:
        """Coefficients by weighted least squares, of every third pixel where there are many."""
        size = len(CAUSAL) + self.kind * len(AROUND)
        start = self.model.coefficients[self.kind]
        matrix, vector = np.eye(size) * 50, start / COEFFICIENT * 50
        flat = self.samples.ravel()
        for places in self.wave.all_places(CHUNK):
            places = places[:: 3 if self.wave.height * self.wave.width > 1 << 17 else 1]
            x, left = self.differences(places)
            weighted = x / (np.abs(x[:, :8]).mean(1, keepdims=True) + 1.5)
            matrix += weighted.T @ x
            vector += weighted.T @ (flat[places] - left)
        found = np.rint(np.linalg.solve(matrix, vector) * COEFFICIENT).astype(np.int64)
        return found if np.abs(found).sum() <= MAX_SUM else start

    def predict(self, places: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        """The first prediction, in 1/16."""
        x, left = self.differences(places)
        total = (x @ coefficients).astype(np.int32)
        return ((total + 8) >> 4) + UNIT * left

    def inputs(self, places: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the network sees, (n, F) float32, by the first predictions, and k (n,)."""
        gather = lambda array, offsets: array.ravel()[places[:, None] + offsets]
        near = UNIT * gather(self.samples, self.near_samples) - first[:, None]
        parts = [near, gather(self.errors, self.near_errors)]
        activity = np.abs(parts[1][:, :8]).sum(1) + np.abs(near[:, :4]).sum(1)
        for plane in self.earlier:
            errors = gather(plane.errors, self.earlier_errors)
            activity += 2 * np.abs(errors[:, :3]).sum(1)
            middle = plane.samples.ravel()[places]
            parts += [errors, UNIT * (gather(plane.samples, self.earlier_samples) - middle[:, None])]
        k = np.searchsorted((12 + 6 * self.kind) << np.arange(12), activity, side="right")
        x = np.concatenate([*parts, 16 * (k[:, None] - 4)], 1).astype(np.float32)
        x[:, :-1] *= np.float32(32) / np.float32(2) ** k.astype(np.float32)[:, None]
        x[:, :-1] = np.clip(np.floor(x[:, :-1] + 0.5), -127, 127)
        return x, k

    def distribution(self, places: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is expected of samples: the nearest whole number, whether a smaller one is likelier than a larger one
        as far from it, and the table of their distance to it."""
        x, k = self.inputs(places, first)
        shift, scale = self.model.network(self.kind, x).T
        shift = np.clip(shift, -(1 << 15), 1 << 15)
        mean = first + (((shift << k) + 2048) >> 12)
        nearest = (mean + 8) >> 4
        beyond = mean - UNIT * nearest
        scale = np.clip(4 * k + ((scale + 512) >> 10), -4, SCALES - 5) + 4
        return nearest, beyond < 0, (1 + scale * FRACTIONS + (np.abs(beyond) >> 1)).astype(np.uint8)


def estimate(planes: Sequence[np.ndarray], groups: Sequence[Sequence[int]], model: Model) -> float:
    """About how many bits a pixel the first predictions leave, from at most 256 rows in the middle."""
    middle = planes[0].shape[0] // 2
    planes = [samples[max(0, middle - 128) : middle + 128] for samples in planes]
    wave, done, bits = Wavefront(*planes[0].shape), [], 0.0
    for samples, looks in zip(planes, groups, strict=True):
        plane = Plane(wave, model, [done[q] for q in looks], wave.skew(samples))
        coefficients = plane.fit().astype(np.float32)
        for places in wave.all_places(CHUNK):
            error = UNIT * plane.samples.ravel()[places] - plane.predict(places, coefficients)
            bits += np.log2(1 + np.abs(error)).sum() / samples.size
        done.append(plane)
    return bits


def encode(planes: Sequence[np.ndarray], groups: Sequence[Sequence[int]], model: Model) -> bytes:
    """Code planes (height, width) int32; `groups` says of each which earlier ones it looks at."""
    wave = Wavefront(*planes[0].shape)
    counts = [np.subtract(*wave.rows(step)[::-1]) for step in range(wave.steps)]
    ends = np.cumsum(counts)[:-1]
    done, header, coded = [], b"", []
    for samples, looks in zip(planes, groups, strict=True):
        plane = Plane(wave, model, [done[q] for q in looks], wave.skew(samples))
        coefficients = plane.fit()
        for value in (coefficients - model.coefficients[plane.kind]).tolist():
            header += write_varint(value << 1 if value >= 0 else -value << 1 | 1)
        chosen = coefficients.astype(np.float32)
        flat, errors = plane.samples.ravel(), plane.errors.ravel()
        for places in wave.all_places(CHUNK):
            errors[places] = UNIT * flat[places] - plane.predict(places, chosen)
        wave.complete(plane.errors)
        symbols, indexes = [], []
        for places in wave.all_places(CHUNK):
            nearest, mirrored, index = plane.distribution(places, UNIT * flat[places] - errors[places])
            residual = flat[places] - nearest
            symbols.append(np.where(mirrored, -residual, residual))
            indexes.append(index)
        coded += zip(np.split(np.concatenate(symbols), ends), np.split(np.concatenate(indexes), ends), strict=True)
        done.append(plane)
    return header + entropy.encode(coded, model.tables)


def decode(
    payload: bytes,
    height: int,
    width: int,
    ranges: Sequence[tuple[int, int]],
    groups: Sequence[Sequence[int]],
    model: Model,
) -> list[np.ndarray]:
    """The planes of a payload, whose samples are to lie within `ranges`.

    Raises:
        Corrupt: the payload contradicts itself.
    """
    wave, start, coefficients = Wavefront(height, width), 0, []
    for looks in groups:
        default = model.coefficients[len(looks)]
        deltas = np.zeros(len(default), np.int64)
        for k in range(len(default)):
            value, start = read_varint(payload, start)
            deltas[k] = -(value >> 1) if value & 1 else value >> 1
        coefficients.append((default + deltas).astype(np.float32))
        if np.abs(default + deltas).sum() > MAX_SUM:
            raise Corrupt("coefficients of a tile are too large")
    decoder, done = entropy.Decoder(payload[start:], model.tables), []
    for looks, (low, high), chosen in zip(groups, ranges, coefficients, strict=True):
        plane = Plane(wave, model, [done[q] for q in looks], np.zeros(wave.shape, np.int32))
        flat, errors = plane.samples.ravel(), plane.errors.ravel()
        for step in range(wave.steps):
            places = wave.places(step)
            if len(places):
                first = plane.predict(places, chosen)
                nearest, mirrored, index = plane.distribution(places, first)
                residual = decoder.decode(index)
                samples = nearest + np.where(mirrored, -residual, residual)
                if samples.min() < low or samples.max() > high:
                    raise Corrupt("a sample of a tile is out of its range")
                flat[places], errors[places] = samples, UNIT * samples - first
            wave.fill(plane.samples, step)
            wave.fill(plane.errors, step)
        wave.fill_behind(plane.samples)
        wave.fill_behind(plane.errors)
        done.append(plane)
    decoder.finish()
    return [wave.straighten(plane.samples) for plane in done]
