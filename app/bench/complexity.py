"""Multiply-accumulates of learned codecs, counted over what runs while a picture is encoded and decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

import numpy as np

if TYPE_CHECKING:
    from pixa.app.bench.codecs import Codec

SIDE = 256  # a multiple of every stride, so that no padding is counted


class Complexity(NamedTuple):
    """Thousand multiply-accumulates a pixel, and millions of parameters."""

    encoding_kmac: float
    decoding_kmac: float
    parameters: float


Counter = Callable[[], AbstractContextManager[Callable[[], float]]]


def count(codec: Codec, quality: float, counter: Counter, parameters: int) -> Complexity:
    """The complexity of a codec on a square picture of noise.

    Args:
        counter: opens a block and gives what tells the multiply-accumulates inside it.
    """
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    codec.decode(codec.encode(picture[:64, :64], quality))  # loads the networks and runs their self-test
    with counter() as encoding:
        data = codec.encode(picture, quality)
    with counter() as decoding:
        codec.decode(data)
    encoding_kmac, decoding_kmac = (macs() / SIDE**2 / 1000 for macs in (encoding, decoding))
    return Complexity(encoding_kmac, decoding_kmac, parameters / 1e6)


@contextmanager
def onnx_counter() -> Iterator[Callable[[], float]]:
    """Counts the graphs that pixa runs."""
    from pixa.runtime.model import OnnxModel

    runs, original = [], OnnxModel.run

    def run(self: OnnxModel, graph: str, beside: bool = False, /, **inputs: np.ndarray) -> list[np.ndarray]:
        path = self.entry.folder / f"{graph.removeprefix('native ')}.onnx"
        runs.append((path, {name: array.shape for name, array in inputs.items()}))
        return original(self, graph, beside, **inputs)

    with patch.object(OnnxModel, "run", run):
        yield lambda: sum(graph_macs(*arguments) for arguments in runs)


def graph_macs(path: Path, shapes: dict[str, tuple[int, ...]]) -> int:
    """Multiply-accumulates of the convolutions and matrix products of an ONNX graph whose inputs have these shapes.

    Raises:
        ValueError: the shape of a result is not known before the graph runs.
    """
    import onnx

    model = onnx.load(path)
    for value in model.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dimension.dim_value = size
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}
    sizes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}

    total = 0
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            batch, _, *positions = sizes[node.output[0] if node.op_type == "Conv" else node.input[0]]
            macs = math.prod(sizes[node.input[1]]) * batch * math.prod(positions)
        elif node.op_type in ("MatMul", "Gemm"):
            macs = math.prod(sizes[node.output[0]]) * sizes[node.input[0]][-1]
        else:
            continue
        if not macs:
            raise ValueError(f"{path.name}: the shape of {node.output[0]} is not known")
        total += macs
    return total


@contextmanager
def torch_counter() -> Iterator[Callable[[], float]]:
    """Counts the convolutions and matrix products that torch runs, those of GDN and of context models included."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        yield lambda: counter.get_total_flops() / 2
