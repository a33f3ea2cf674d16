"""ONNX graphs built layer by layer from the modules of `layers` and `exact`.

Weights of float layers are stored as float16, integers in the smallest type that holds them; a Cast to float32, which
onnxruntime folds when it loads the graph, stands behind each.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from pixa.models.exact import ExactDepthwise, ExactPointwise
from pixa.models.layers import Block, Depthwise, Down, Pointwise, Up

OPSET = 18


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
        """The nodes of one module; `extra` joins the sum of an exact 1x1 convolution."""
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
                return self.shuffle(self.layer(module.pointwise, x), module.k)
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
        raise TypeError(f"no ONNX form is known for {type(module).__name__}")

    def shuffle(self, x: str, k: int) -> str:
        return self.op("DepthToSpace", x, blocksize=k, mode="CRD")

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
