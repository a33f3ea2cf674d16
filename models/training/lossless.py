"""Trains the networks of lossless photographs: `python -m pixa.models.training.lossless PICTURES... --out model.npz`.

Their first predictions are fitted to every picture as the encoder does, so training sees the inputs of the codec: the
planes of the program itself give inputs, and a discretised logistic of the network's mean and scale is the loss.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pixa.bitstream.tables import integer_frequencies
from pixa.coding.lossless import photographs
from pixa.coding.lossless.photographs import FRACTIONS, SCALES, UNIT, Plane
from pixa.coding.lossless.tile import split
from pixa.coding.lossless.wavefront import Wavefront
from pixa.models.nets.layers import round_ste

INPUTS = (25, 38, 51)
HIDDEN = 64
ACTIVATION, WEIGHT = 32, 128
OFFSET = 0.6  # the scale of a sample whose k + r is 4.5, as minus its natural logarithm
TAIL, WIDE = 2.0**-13, 256  # probability that is spread evenly over this many values


class Layer(nn.Module):
    """A linear layer that sees its weights as the decoder does, once `exact`."""

    def __init__(self, inputs: int, outputs: int, gain: float):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * gain / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def integers(self) -> tuple[Tensor, Tensor]:
        return round_ste(self.weight * WEIGHT), round_ste(self.bias * WEIGHT * ACTIVATION)

    def forward(self, x: Tensor, exact: bool) -> Tensor:
        if not exact:
            return F.linear(x, self.weight, self.bias)
        weight, bias = self.integers()
        return F.linear(x, weight / WEIGHT, bias / (WEIGHT * ACTIVATION))


class Network(nn.Module):
    """Inputs (n, F) -> shift of the mean in 2**k/16 and the logarithm to base 2 of the scale over 2**k."""

    def __init__(self, inputs: int):
        super().__init__()
        self.first, self.second = Layer(inputs, HIDDEN, 1.4), Layer(HIDDEN, HIDDEN, 1.4)
        self.last, self.skip = Layer(HIDDEN, 2, 0.1), Layer(inputs, 2, 0.05)

    def forward(self, x: Tensor, exact: bool = True) -> tuple[Tensor, Tensor]:
        bound = lambda v: (round_ste(v * ACTIVATION) / ACTIVATION if exact else v).clamp(0, 255 / ACTIVATION)
        hidden = bound(self.second(bound(self.first(x, exact)), exact))
        return (self.last(hidden, exact) + self.skip(x, exact)).unbind(1)

    def arrays(self, p: int) -> dict[str, np.ndarray]:
        """What `photographs.Model` takes, whole numbers."""
        (w1, b1), (w2, b2), (w3, b3), (skip, b4) = (
            layer.integers() for layer in (self.first, self.second, self.last, self.skip)
        )
        named = {"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w3": w3, "skip": skip, "b3": b3 + b4}
        return {f"{name}_{p}": value.detach().numpy().astype(np.int32) for name, value in named.items()}


def bits(network: Network, x: Tensor, k: Tensor, distance: Tensor, exact: bool) -> Tensor:
    """Code lengths (n,) of samples that lie `distance` sixteenths above their first prediction."""
    shift, scale = network(x, exact)
    z = -(shift * 2**k - distance).abs() / UNIT
    inverse = torch.exp(OFFSET - ((k + scale).clamp(-1, 10.5) - 4.5) * math.log(2))
    mass = torch.sigmoid((z + 0.5) * inverse) - torch.sigmoid((z - 0.5) * inverse)
    return -torch.log2(mass * (1 - TAIL) + TAIL / WIDE)


def tables() -> dict[str, np.ndarray]:
    """Logistics by scale and by how far the mean is from a whole number."""
    limits, frequencies = [0], []
    cumulative = lambda z: 1 / (1 + np.exp(-np.clip(z, -700, 700)))
    for index in range(SCALES * FRACTIONS):
        scale = max(0.02, 2 ** ((index // FRACTIONS - 4) / 4 - 4.5) * math.exp(-OFFSET))
        offset = (0.5, 2.5, 4.5, 6.5, 8)[index % FRACTIONS] / UNIT
        limit = min(600, math.ceil(10 * scale + 3))
        z = np.abs(np.arange(-limit, limit + 1) - offset)
        mass = np.maximum(cumulative((0.5 - z) / scale) - cumulative((-0.5 - z) / scale), 0)
        mass = mass / mass.sum() * (1 - 1e-6) + 2.0**-15 / len(mass)
        limits.append(limit)
        frequencies.append(integer_frequencies(np.append(mass, 1e-6)))
    return {"limits": np.array(limits, np.int16), "frequencies": np.concatenate(frequencies).astype(np.int32)}


def untrained() -> dict[str, np.ndarray]:
    """Arrays of a model whose networks correct nothing."""
    arrays = tables()
    for p, inputs in enumerate(INPUTS):
        network = Network(inputs)
        nn.init.zeros_(network.last.weight)
        nn.init.zeros_(network.skip.weight)
        causal = np.zeros(len(photographs.CAUSAL) + p * len(photographs.AROUND), np.int16)
        arrays |= network.arrays(p) | {f"coefficients_{p}": causal}
    return arrays


def samples(paths: Iterable[str], count: int, side: int = 512) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """Inputs, k and distances of `count` random pixels of every plane of every picture, by kind of plane; the mean
    coefficients of each kind."""
    model, rng = photographs.Model(untrained()), np.random.default_rng(1)
    seen: list[list] = [[], [], []]
    fitted: list[list] = [[], [], []]
    for path in paths:
        with Image.open(path) as image:
            colour = np.asarray(image.convert("RGB")).astype(np.int32)[:side, :side]
        wave, done = Wavefront(*colour.shape[:2]), []
        places = np.sort(rng.choice(np.concatenate(list(wave.all_places(1 << 16))), count))
        for p, plane_samples in enumerate(split(colour, 0)):
            plane = Plane(wave, model, done, wave.skew(plane_samples))
            coefficients = plane.fit()
            flat, errors = plane.samples.ravel(), plane.errors.ravel()
            for part in wave.all_places(1 << 15):
                errors[part] = UNIT * flat[part] - plane.predict(part, coefficients.astype(np.float32))
            wave.complete(plane.errors)
            x, k = plane.inputs(places, UNIT * flat[places] - errors[places])
            seen[p].append((x.astype(np.int8), k.astype(np.int8), errors[places].astype(np.int16)))
            fitted[p].append(coefficients)
            done = [*done, plane]
    joined = [[np.concatenate(column) for column in zip(*parts, strict=True)] for parts in seen]
    return joined, [np.rint(np.mean(rows, 0)).astype(np.int16) for rows in fitted]


def fit(data: list[np.ndarray], steps: int, batch: int = 4096, lr: float = 3e-3) -> Network:
    """A network trained on what `samples` gives of one kind of plane; exact from half the steps on."""
    x, k, distance = (torch.from_numpy(a) for a in data)
    network = Network(x.shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr, (0.9, 0.99), weight_decay=1e-5)
    start = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 50) * (1 - step / steps) + 2e-5
        chosen = torch.randint(len(x), (batch,))
        loss = bits(
            network, x[chosen] / ACTIVATION, k[chosen].float(), distance[chosen].float(), 2 * step >= steps
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 500 == 499 or step == steps - 1:
            print(f"step {step + 1}: {loss.item():.4f} bits, {time.monotonic() - start:.0f} s", flush=True)
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description="train the networks of lossless photographs")
    parser.add_argument("pictures", nargs="+", help="pictures without traces of lossy coding")
    parser.add_argument("--out", required=True, help="model.npz")
    parser.add_argument("--steps", type=int, default=4500, help="of each network (4500)")
    parser.add_argument("--pixels", type=int, default=11000, help="of each plane of each picture (11000)")
    args = parser.parse_args()
    data, coefficients = samples(args.pictures, args.pixels)
    arrays = tables()
    for p in range(3):
        arrays |= fit(data[p], args.steps).arrays(p) | {f"coefficients_{p}": coefficients[p]}
    np.savez_compressed(args.out, **arrays)


if __name__ == "__main__":
    main()
