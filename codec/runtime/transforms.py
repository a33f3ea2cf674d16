"""Analysis and synthesis of inter frames where their results are wanted, by kernels; channels of arrays come last.

Of a frame little is coded, and what is not coded changes nothing beyond the reach of the convolutions. Both networks
are residual blocks at 1/8 of the size, each of which looks one position further.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

from pixa.motion.fields import widened
from pixa.native import Kernels

ACT_BITS = 4  # of the units of features
PANEL = 16  # outputs whose weights stand together

Weights = list[tuple[np.ndarray, np.ndarray]]  # (weight (C_out, C_in, k, k), bias (C_out,)) of convolutions


@cache
def thread_pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def each(cores: int, work: Callable[[np.ndarray], None], places: np.ndarray) -> None:
    """Call `work` with the numbers, int32, of the true ones of places (h, w), shared by so many threads."""
    numbers = np.flatnonzero(places).astype(np.int32)
    first, *others = (numbers[len(numbers) * n // cores : len(numbers) * (n + 1) // cores] for n in range(cores))
    futures = [thread_pool(cores).submit(work, other) for other in others]
    work(first)
    for future in futures:
        future.result()


def enlarged(places: np.ndarray, by: int = 2) -> np.ndarray:
    """(h, w) -> (by * h, by * w)."""
    return places.repeat(by, 0).repeat(by, 1)


def packed(matrix: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A matrix (C_in, C_out) and its bias as kernels take them: outputs filled up to whole panels."""
    missing = -len(bias) % PANEL
    matrix, bias = np.pad(matrix, ((0, 0), (0, missing))), np.pad(bias, (0, missing))
    panels = matrix.reshape(len(matrix), -1, PANEL).swapaxes(0, 1)
    return np.concatenate([panels.ravel(), bias]).astype(np.float32)


class Convolution:
    """A convolution by squares of k pixels that do not overlap, each to a square of `spread` positions."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray, spread: int = 1, scale: float = 1, offset: float = 0):
        self.side, self.spread, self.channels = weight.shape[2], spread, len(weight) // spread**2
        self.inputs = weight.shape[1]
        order = np.arange(len(weight)).reshape(self.channels, spread**2).T.ravel()
        self.matrix = scale * weight.transpose(2, 3, 1, 0).reshape(-1, len(weight))[:, order]
        self.bias = scale * bias[order] + np.float32(offset)
        self.packed = packed(self.matrix, self.bias)

    def scaled(self, vector: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """The layer with its channels multiplied by a vector (C,), plus a bias (C,)."""
        vector, bias = np.tile(vector, self.spread**2), np.tile(bias, self.spread**2)
        return packed(self.matrix * vector, self.bias * vector + bias)

    def __call__(
        self,
        native: Kernels,
        cores: int,
        x: np.ndarray,
        places: np.ndarray,
        target: np.ndarray | None = None,
        layer: np.ndarray | None = None,
        added: bool = False,
    ) -> np.ndarray:
        """x (k*h, k*w, C_in) float32 -> (spread*h, spread*w, C_out) at places (h, w), set in or added to a target."""
        height, width = places.shape
        if target is None:
            target = np.empty((self.spread * height, self.spread * width, self.channels), np.float32)
        layer = self.packed if layer is None else layer
        size = height, width, x.shape[2], self.side
        each(cores, lambda p: native.convolve(x, *size, p, layer, self.spread, int(added), target), places)
        return target


class Block:
    """A residual block: a depthwise convolution by three, a hidden layer with ReLU, and a sum."""

    def __init__(self, depthwise: tuple, expand: tuple, project: tuple):
        weight, bias = depthwise
        self.depthwise = np.ascontiguousarray(np.vstack([weight.reshape(len(weight), 9).T, bias]))
        into, out = (weight[:, :, 0, 0].T for weight, _ in (expand, project))
        out = np.pad(out, ((0, -len(out) % PANEL), (0, 0)))
        self.layers = packed(into, expand[1]), packed(out, project[1])

    def __call__(
        self, native: Kernels, cores: int, x: np.ndarray, places: np.ndarray, target: np.ndarray | None = None
    ) -> np.ndarray:
        """x (h, w, C) float32 -> likewise, at places (h, w), set in a target."""
        target = np.empty_like(x) if target is None else target
        each(cores, lambda p: native.block(x, *x.shape, p, self.depthwise, *self.layers, target), places)
        return target


def layers(weights: Weights) -> list[Convolution | Block]:
    """The layers of a network, in which depthwise convolutions begin blocks."""
    result, rest = [], list(weights)
    while rest:
        block = rest[0][0].shape[1:] == (1, 3, 3)
        result.append(Block(*rest[:3]) if block else Convolution(*rest[0]))
        rest = rest[3 if block else 1 :]
    return result


class Chain:
    """Layers one behind the other."""

    def __init__(self, weights: Weights):
        self.layers = layers(weights)

    @property
    def reach(self) -> int:
        """Places that blocks look beyond the wanted ones."""
        return sum(isinstance(layer, Block) for layer in self.layers)

    def __call__(self, native: Kernels, cores: int, x: np.ndarray, places: np.ndarray) -> np.ndarray:
        """What the layers make of x, (h, w, C) at places (h, w)."""
        wanted = [places]
        for layer in self.layers[:0:-1]:
            wanted.append(widened(wanted[-1], 1) if isinstance(layer, Block) else enlarged(wanted[-1], layer.side))
        for layer, there in zip(self.layers, reversed(wanted), strict=True):
            x = layer(native, cores, x, there)
        return x


class Means:
    """The networks of means: blocks behind what is known, to which pass b adds its own."""

    def __init__(self, first: Weights, second: Weights):
        enter = [weight for weight, _ in first[:3]]
        enter[0] = enter[0] * np.float32(2.0**-ACT_BITS)
        self.enter = Convolution(np.concatenate(enter, 1), sum(bias for _, bias in first[:3]))
        self.first, self.outputs = Chain(first[3:-3]), [Convolution(*each) for each in first[-3:]]
        self.told, self.second = Convolution(*second[0]), Chain(second[1:])

    def a(
        self,
        native: Kernels,
        cores: int,
        features: np.ndarray,
        predicted: np.ndarray,
        before: np.ndarray,
        coded: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Means (n, M) at the n places coded (h, w), and what pass b needs.

        Args:
            features, predicted, before: (C, h, w), of the hyper-latents, the moved picture and the last frame.
        """
        run, inner = (native, cores), widened(coded, self.second.reach)
        outer = widened(inner, self.first.reach)
        x = np.empty((*coded.shape, self.enter.inputs), np.float32)
        x[outer] = np.concatenate([features[:, outer], predicted[:, outer], (before - predicted)[:, outer]]).T
        state = self.first(*run, self.enter(*run, x, outer), inner)
        gate, change_gate, mean = (output(*run, state, coded)[coded] for output in self.outputs)
        base = gate * predicted[:, coded].T + change_gate * (before - predicted)[:, coded].T
        return mean + base, state, base

    def b(
        self,
        native: Kernels,
        cores: int,
        state: np.ndarray,
        base: np.ndarray,
        y_hat: np.ndarray,
        coded: np.ndarray,
    ) -> np.ndarray:
        """Likewise, with y_hat (M, h, w) of pass a, zeros away from what is coded."""
        inner, state = widened(coded, self.second.reach), state.copy()
        x = np.zeros((*coded.shape, len(y_hat)), np.float32)
        x[coded] = y_hat[:, coded].T
        self.told(native, cores, x, inner, state, added=True)
        return self.second(native, cores, state, coded)[coded] + base


class Synthesis:
    """g_s: blocks at 1/8, told of a context."""

    def __init__(self, weights: Weights):
        self.up, (context, self.bias) = Convolution(*weights[0], spread=2), weights[1]
        self.context = Convolution(context, np.zeros_like(self.bias))  # all positions have its bias
        self.blocks, self.head = layers(weights[2:-1]), Convolution(*weights[-1], spread=8, scale=255, offset=127.5)

    @property
    def reach(self) -> int:
        """Positions at 1/8 beyond what is coded that change."""
        return len(self.blocks)

    def __call__(
        self,
        native: Kernels,
        cores: int,
        y_hat: np.ndarray,
        predicted: np.ndarray,
        vector: np.ndarray,
        coded: np.ndarray,
        moved: np.ndarray,
        size: tuple[int, int],
        weight: float,
    ) -> np.ndarray:
        """The samples (16h, 16w, 3) uint8 of a frame.

        Args:
            y_hat: latents (h, w, M) where the frame is coded.
            predicted: those of the moved picture, up to twice the reach from there.
            vector: of the level, (C,).
            coded: (h, w) bool.
            moved: the moved picture (16h, 16w, 3) uint8.
            size: rows and columns of it that are shown; there is no context of others.
            weight: of what `predicted` does not show of it, that is taken over where the frame is coded.
        """
        if not coded.any():
            return moved
        run, up, reach = (native, cores), self.up.scaled(vector, self.bias), self.reach
        near = [enlarged(coded)]
        for _ in range(2 * reach):
            near.append(widened(near[-1], 1))
        here, changed = near[0], near[reach]
        x = [self.up(*run, predicted, near[-1][::2, ::2] | near[-1][1::2, 1::2], layer=up)]
        for n, block in enumerate(self.blocks):
            x.append(block(*run, x[n], near[2 * reach - 1 - n]))
        carried = self.head(*run, x[-1], changed)
        context = np.empty((*moved.shape[:2], 2 * moved.shape[2]), np.float32)
        each(cores, lambda p: native.carry(moved, *here.shape, p, here, weight, carried, context), changed)
        context[size[0] :], context[:, size[1] :] = 0, 0
        # From here on x becomes that of the frame itself: away from what is coded it is that of `predicted`.
        self.up(*run, y_hat, coded, x[0], up)
        self.context(*run, context, here, x[0], added=True)
        for n, block in enumerate(self.blocks):
            block(*run, x[n], near[n + 1], x[n + 1])
        shown, samples = self.head(*run, x[-1], changed), moved.copy()
        each(cores, lambda p: native.show(shown, carried, *here.shape, p, samples), changed)
        return samples
