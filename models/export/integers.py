"""The scale networks as native decoders run them: the same integers, carried in bytes instead of floats.

Activations are bytes and weights signed bytes, so an exact layer is a quantised convolution whose scale is a power of
two. onnxruntime computes these with the integer instructions of a processor, channels last, in half the time.

* A quantised convolution rounds halves to the even number, exact layers round them up. The scale is larger by a part
  that lifts every half above it and nothing else.
* x86 before VNNI adds two neighbouring products in 16 bits and saturates. A network in which that could happen stays
  as it is.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from onnx import TensorProto, numpy_helper
from torch import nn

from pixa.models.export.graph import FLOAT, UINT8, Graph, Network
from pixa.models.nets.exact import ACT_MAX, Exact, ExactDepthwise

LIFT = 1 + 2.0**-21  # n + 1/2 comes out above it in float32, n + 1/2 - 2**-k below it, for n < 256 and k <= 12
KEEP_BYTES = ("Clip", "Concat")  # operators that give bytes where they are given some


def fits(network: Network) -> bool:
    """Whether all activations are bytes, and the sum of two neighbouring products always has room in 16 bits."""
    layers = (layer for module in network.layers for layer in module.modules() if isinstance(layer, Exact))
    return all(layer.low == 0 and largest_pair(layer) * ACT_MAX < 2**15 for layer in layers)


def largest_pair(layer: Exact) -> int:
    """The largest that two weights whose inputs are neighbours add up to, those of the other sign left out."""
    weight = layer.integers()[0].detach().flatten(1).numpy()
    pairs = np.pad(weight, ((0, 0), (0, weight.shape[1] % 2))).reshape(len(weight), -1, 2)
    return int(max(np.maximum(sign * pairs, 0).sum(2).max() for sign in (1, -1)))


class IntegerGraph(Graph):
    """A graph whose exact layers compute with bytes.

    Args:
        signed: exact layers whose inputs may be negative; they stay in float32.
    """

    def __init__(self, name: str, inputs: dict[str, tuple[int, tuple]], signed: set[nn.Module]):
        super().__init__(name, inputs)
        self.signed, self.bytes = {*signed}, set()

    def stored(self, value) -> str:
        """A constant of the type that it has."""
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def cast(self, x: str, kind: int) -> str:
        """x as bytes or as float32."""
        if (x in self.bytes) == (kind == UINT8):
            return x
        x = super().op("Cast", x, to=kind)
        if kind == UINT8:
            self.bytes.add(x)
        return x

    def op(self, kind: str, *inputs: str, **attributes) -> str:
        if kind == "Cast" and attributes["to"] == UINT8:
            return self.cast(*inputs, UINT8)
        in_bytes = kind in KEEP_BYTES and not self.bytes.isdisjoint(inputs)
        output = super().op(kind, *(self.cast(x, UINT8 if in_bytes else FLOAT) for x in inputs), **attributes)
        if in_bytes:
            self.bytes.add(output)
        return output

    def layer(self, module: nn.Module, x: str, extra: str | None = None) -> str:
        if not isinstance(module, Exact) or module in self.signed:
            return super().layer(module, x, extra)
        weight, bias = (values.detach().numpy() for values in module.integers())
        weight = weight.astype(np.int8).reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
        bias = self.stored(bias.astype(np.int32))
        if extra:
            extra = super().op("Cast", self.reshape(extra, -1), to=TensorProto.INT32)
            bias = super().op("Add", bias, extra)
        grouped = {"pads": [1] * 4, "group": len(weight)} if isinstance(module, ExactDepthwise) else {}
        one, zero = self.stored(np.float32(1)), self.stored(np.uint8(0))
        kernel = self.stored(weight), self.stored(np.float32(LIFT * 2.0**-module.shift)), self.stored(np.int8(0))
        y = super().op("QLinearConv", self.cast(x, UINT8), one, zero, *kernel, one, zero, bias, **grouped)
        if module.high < ACT_MAX:
            y = super().op("Clip", y, "", self.stored(np.uint8(module.high)))
        self.bytes.add(y)
        return y

    def up(self, layer: Exact, x: str, k: int) -> str:
        """Channels are computed in the order (row, column, C), so that whole rows of bytes move."""
        ordered = deepcopy(layer)
        for parameter in ordered.parameters():
            parameter.data = parameter.data.unflatten(0, (-1, k, k)).movedim(0, 2).flatten(0, 2)
        if layer in self.signed:
            self.signed.add(ordered)
        y, channels = self.cast(self.layer(ordered, x), UINT8), len(layer.bias) // k**2
        op = super().op
        size = op("Mul", op("Slice", op("Shape", y), self.integers(2), self.integers(4)), self.integers(k, k))
        size = op("Concat", self.integers(1), size, self.integers(channels), axis=0)
        y = op("Reshape", op("Transpose", y, perm=[0, 2, 3, 1]), self.integers(0, 0, 0, k, k * channels))
        y = op("Reshape", op("Transpose", y, perm=[0, 1, 3, 2, 4]), size)
        y = op("Transpose", y, perm=[0, 3, 1, 2])
        self.bytes.add(y)
        return y

    def finish(self, outputs: dict[str, tuple[str, int]]) -> bytes:
        return super().finish({name: (self.cast(x, kind), kind) for name, (x, kind) in outputs.items()})
