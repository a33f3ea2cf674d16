"""The networks of a model in PyTorch: an interpreter of the ONNX operators that the exporter uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, numpy_helper
from torch import Tensor

from pixa.models.registry import ModelEntry
from pixa.runtime.model import CODINGS, OnnxModel


def walk(path: Path, inputs: Mapping[str, object], constant: Callable, operators: Mapping[str, Callable]) -> list:
    """Evaluate a graph.

    Args:
        path: the ONNX file.
        inputs: a value for every input of the graph.
        constant: what makes a value of a constant's array.
        operators: for every ONNX operator, a function of the input values and, by name, the node's attributes.

    Returns:
        The values of the graph's outputs.
    """
    graph = read_graph(path)
    values = dict(inputs) | {c.name: constant(numpy_helper.to_array(c)) for c in graph.initializer}
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        values[node.output[0]] = operators[node.op_type](*(values[name] for name in node.input), **attributes)
    return [values[output.name] for output in graph.output]


@cache
def read_graph(path: Path) -> onnx.GraphProto:
    return onnx.load(path).graph


def slices(ndim: int, starts: list[int], ends: list[int], axes: list[int]) -> tuple[slice, ...]:
    """The index that an ONNX Slice stands for."""
    index = [slice(None)] * ndim
    for axis, start, end in zip(axes, starts, ends, strict=True):
        index[axis] = slice(start, end)
    return tuple(index)


class TorchGraphs(OnnxModel):
    """A model whose networks run in PyTorch.

    Args:
        entry: which model.
        dtype: arithmetic; torch.int64 runs convolutions on integers and the rest in float64, for exact networks only.
    """

    def __init__(self, entry: ModelEntry, dtype: torch.dtype = torch.float32):
        self.integer = dtype == torch.int64
        self.real = torch.float64 if self.integer else dtype
        self.operators = {
            "Add": torch.add,
            "Cast": lambda x, to: x.to(torch.uint8 if to == TensorProto.UINT8 else self.real),
            "Clip": torch.clamp,
            "Concat": lambda *parts, axis: torch.cat(parts, axis),
            "Conv": self.conv,
            "DepthToSpace": lambda x, blocksize, mode: F.pixel_shuffle(x, blocksize),
            "Floor": torch.floor,
            "Identity": lambda x: x,
            "MatMul": torch.matmul,
            "Mul": torch.mul,
            "Pad": lambda x, pads: F.pad(x, pads.view(2, -1).flip(1).T.flatten().tolist()),
            "ReduceMean": lambda x, axes: x.mean(axes.tolist(), keepdim=True),
            "ReduceSum": lambda x, axes: x.sum(axes.tolist(), keepdim=True),
            "Relu": F.relu,
            "Reshape": lambda x, shape: x.reshape([size or x.shape[i] for i, size in enumerate(shape.tolist())]),
            "Shape": lambda x: torch.tensor(x.shape),
            "Sigmoid": torch.sigmoid,
            "Slice": lambda x, *places: x[slices(x.ndim, *(place.tolist() for place in places))],
            "Softmax": torch.softmax,
            "Sub": torch.sub,
            "Transpose": lambda x, perm: x.permute(perm),
        }
        super().__init__(replace(entry, native=()))

    def conv(self, x: Tensor, weight: Tensor, bias: Tensor, kernel_shape, strides=1, pads=(0,), group=1) -> Tensor:
        arrays = [a.long() if self.integer else a for a in (x, weight, bias)]
        return F.conv2d(*arrays, stride=strides, padding=pads[0], groups=group).to(self.real)

    def value(self, array: np.ndarray) -> Tensor:
        tensor = torch.tensor(array)
        return tensor.to(self.real) if tensor.dtype == torch.float32 else tensor

    def run(self, graph: str, single_thread: bool = False, /, **inputs: np.ndarray) -> list[np.ndarray]:
        tensors = {name: self.value(array) for name, array in inputs.items()}
        outputs = walk(self.entry.folder / f"{graph}.onnx", tensors, self.value, self.operators)
        return [o.numpy() if o.dtype == torch.uint8 else o.float().numpy() for o in outputs]


def TorchModel(entry: ModelEntry, dtype: torch.dtype = torch.float32) -> OnnxModel:
    """A model of any coding whose graphs run in PyTorch; arguments as those of `TorchGraphs`."""
    return type("TorchModel", (TorchGraphs, CODINGS[entry.coding]), {})(entry, dtype)
