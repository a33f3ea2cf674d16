"""ONNX graphs built layer by layer from the modules of `layers`, `exact` and `attention`.

Weights of float layers are stored as float16, integers in the smallest type that holds them; a Cast to float32, which
onnxruntime folds when it loads the graph, stands behind each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from pixa.models.nets.attention import ChannelContext, ChannelGate, GlobalAttention, LocalAttention
from pixa.models.nets.exact import ExactDepthwise, ExactPointwise
from pixa.models.nets.layers import Block, Depthwise, Down, Pointwise, Up

OPSET = 18
FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
END = 2**31 - 1  # of a slice that goes to the end


def spatial(channels: int) -> tuple:
    """Type and shape of an array over positions."""
    return FLOAT, (1, channels, "height", "width")


def vector(channels: int) -> tuple:
    """Type and shape of a channel vector."""
    return FLOAT, (1, channels, 1, 1)


class Graph:
    """A graph in the making; methods add nodes and return the name of their output."""

    def __init__(self, name: str, inputs: dict[str, tuple[int, tuple]]):
        self.name, self.nodes, self.initializers = name, [], []
        self.inputs = [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()]

    def op(self, kind: str, *inputs: str, **attributes) -> str:
        output = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, values: Tensor | np.ndarray, kind) -> str:
        """A constant stored as NumPy type `kind` and used as float32."""
        stored = np.asarray(values.detach() if isinstance(values, Tensor) else values).astype(kind)
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(stored, name))
        return name if stored.dtype == np.float32 else self.op("Cast", name, to=TensorProto.FLOAT)

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value), np.float32)

    def integers(self, *values: int) -> str:
        """Axes, places or a shape."""
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def conv(self, x: str, weight: Tensor, bias: Tensor, kinds=(np.float16, np.float32), **attributes) -> str:
        kernel = list(weight.shape[2:])
        constants = [self.constant(v, kind) for v, kind in zip((weight, bias), kinds, strict=True)]
        return self.op("Conv", x, *constants, kernel_shape=kernel, **attributes)

    def rescale(self, x: str, layer) -> str:
        """floor(x / 2**shift + 0.5) clipped to the layer's range."""
        x = self.op("Mul", x, self.scalar(2.0**-layer.shift)) if layer.shift else x
        x = self.op("Floor", self.op("Add", x, self.scalar(0.5)))
        return self.op("Clip", x, self.scalar(layer.low), self.scalar(layer.high))

    def layer(self, module: nn.Module, x: str, extra: str | None = None) -> str:
        """The nodes of one module; `extra` joins the sum of an exact 1x1 convolution, or is what a context knows."""
        match module:
            case nn.Sequential():
                for child in module:
                    x = self.layer(child, x)
                return x
            case Pointwise():
                return self.conv(x, module.weight[:, :, None, None], module.bias)
            case Down():
                weight = module.weight.view(-1, module.c_in, module.k, module.k)
                return self.conv(x, weight, module.bias, strides=[module.k] * 2)
            case Up():
                return self.up(module.pointwise, x, module.k)
            case Depthwise():
                return self.conv(x, module.weight, module.bias, pads=[1] * 4, group=len(module.weight))
            case Block():
                hidden = self.op("Relu", self.layer(module.expand, self.layer(module.depthwise, x)))
                return self.op("Add", x, self.layer(module.project, hidden))
            case ExactPointwise():
                weight, bias = module.integers()
                total = self.conv(x, weight[:, :, None, None], bias, (np.int8, np.int32))
                return self.rescale(self.op("Add", total, extra) if extra else total, module)
            case ExactDepthwise():
                weight, bias = module.integers()
                total = self.conv(x, weight, bias, (np.int8, np.int32), pads=[1] * 4, group=len(weight))
                return self.rescale(total, module)
            case nn.Identity():
                return x
            case ChannelContext():
                return self.layer(module.out, extra)
            case ChannelGate():
                mean = self.op("ReduceMean", x, self.integers(2, 3))
                gate = self.layer(module.excite, self.op("Relu", self.layer(module.squeeze, mean)))
                return self.op("Mul", x, self.op("Mul", self.op("Sigmoid", gate), self.scalar(2.0)))
            case LocalAttention():
                return self.local_attention(module, x, extra)
            case GlobalAttention():
                return self.global_attention(module, x, extra)
        raise TypeError(f"no ONNX form is known for {type(module).__name__}")

    def up(self, layer: nn.Module, x: str, k: int) -> str:
        """A 1x1 layer whose channels (C, row, column) become k*k pixels."""
        return self.op("DepthToSpace", self.layer(layer, x), blocksize=k, mode="CRD")

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps a size, -1 takes the rest."""
        return self.op("Reshape", x, self.integers(*shape))

    def local_attention(self, module: LocalAttention, state: str, anchors: str) -> str:
        """Arrays in between are (1, offsets, heads, channels of a head, positions)."""
        position = self.constant(module.position, np.float32)
        width, reach, count = len(module.query.bias), module.reach, len(module.offsets)
        head = width // module.heads

        def near(x: str) -> str:
            x = self.op("Pad", x, self.integers(*[0, 0, reach, reach] * 2))
            axes = self.integers(2, 3)
            parts = [
                self.op("Slice", x, self.integers(*place), self.integers(*(n - 2 * reach or END for n in place)), axes)
                for place in module.offsets
            ]
            return self.reshape(self.op("Concat", *parts, axis=1), 0, count, module.heads, head, -1)

        query = self.layer(module.query, state)
        key, value = near(self.layer(module.key, anchors)), near(self.layer(module.value, anchors))
        products = self.op("Mul", self.reshape(query, 0, 1, module.heads, head, -1), key)
        scores = self.op("Mul", self.op("ReduceSum", products, self.integers(3)), self.scalar(head**-0.5))
        weights = self.op("Softmax", self.op("Add", scores, position), axis=1)
        seen = self.op("ReduceSum", self.op("Mul", weights, value), self.integers(1))
        seen = self.op("Reshape", seen, self.op("Shape", query))
        return self.layer(module.out, self.op("Concat", seen, anchors, axis=1))

    def global_attention(self, module: GlobalAttention, state: str, known: str) -> str:
        """Arrays in between are (1, heads, channels of a head, positions)."""
        head = len(module.query.bias) // module.heads
        query, key = self.layer(module.query, state), self.layer(module.key, state)
        value = self.layer(module.value, known)
        queries, keys, values = (self.reshape(x, 0, module.heads, head, -1) for x in (query, key, value))
        queries, keys = self.op("Softmax", queries, axis=2), self.op("Softmax", keys, axis=3)
        summary = self.op("MatMul", values, self.op("Transpose", keys, perm=[0, 1, 3, 2]))
        seen = self.op("Reshape", self.op("MatMul", summary, queries), self.op("Shape", query))
        return self.layer(module.out, seen)

    def finish(self, outputs: dict[str, tuple[str, int]]) -> bytes:
        """Name the outputs {name: (node output, element type)} and serialise."""
        infos = []
        for name, (source, kind) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [source], [name]))
            infos.append(helper.make_tensor_value_info(name, kind, [None] * 4))
        graph = helper.make_graph(self.nodes, self.name, self.inputs, infos, self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="pixa")
        model.ir_version = 10
        onnx.checker.check_model(model)
        return model.SerializeToString()


class Network(NamedTuple):
    """A network of a model, as torch computes it and as a graph.

    Attributes:
        name: of the graph.
        inputs: (element type, shape) by name.
        outputs: element types by name.
        layers: its modules, in the order in which the graph stores their weights.
        forward: tensors of the inputs, in their order -> those of the outputs.
        write: adds the nodes to a graph; names of the inputs -> names of the outputs in it.
    """

    name: str
    inputs: dict[str, tuple]
    outputs: dict[str, int]
    layers: list[nn.Module]
    forward: Callable[..., Iterable[Tensor]]
    write: Callable[..., Iterable[str]]

    def graph(self, g: Graph | None = None) -> bytes:
        """The file of the graph, made by `g` if given."""
        g = g or Graph(self.name, self.inputs)
        sources = self.write(g, *self.inputs)
        return g.finish(dict(zip(self.outputs, zip(sources, self.outputs.values(), strict=True), strict=True)))
