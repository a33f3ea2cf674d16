"""Graphs that native decoders run in the place of others: the same functions in fewer and cheaper steps.

The scale networks become integer ones, see `pixa.models.export.integers`; large mean networks end where their pass
codes, see `pixa.models.export.phases`. Of the synthesis:

* A block whose hidden units never fire is the constant that it adds. In noise they may; where latents are as
  strong as that, the decoder runs the whole synthesis.
* Sub-pixel shuffles move whole rows of channels, those of the pixels bytes instead of floats.
* The trunk at 1/8 resolution begins with a convolution by one, because onnxruntime keeps the layout of its fastest
  convolutions from there on and joins the additions of the blocks to them.

They stand beside the files that the hash of a model covers, which stay what a stranger's decoder reads, and are told by
these in native.npz, since most of their bytes are the same weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from pixa.bitstream.delta import write_delta
from pixa.models.export.architectures import architecture_of
from pixa.models.export.backbone_graphs import synthesis
from pixa.models.export.graph import Graph, Network
from pixa.models.export.integers import IntegerGraph, fits
from pixa.models.export.phases import in_phases
from pixa.models.export.reduced import dead_leaves
from pixa.models.nets.backbone import Backbone
from pixa.models.nets.layers import LEVELS, Block, Up

FILE = "native.npz"
LEAVES_LEVELS = (0, 67, 133, 200)
STRONG = 8  # channels of most energy, which a position's does not count


class DeadBlocks(NamedTuple):
    """What need not be computed of the low blocks of a synthesis, and for which latents.

    Attributes:
        blocks: those whose hidden units fire nowhere in generated pictures.
        strong: channels of most energy.
        limit: of the sum of squares of the other latents of a position; from there on a unit may fire in noise, which
            begins with far less than a level of a pixel.
    """

    blocks: frozenset[Block]
    strong: list[int]
    limit: float


NOTHING = DeadBlocks(frozenset(), [], float("inf"))


def noises(rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Pictures (128, 128, 3) uint8 of black and white squares, and of all colours, in several sizes."""
    for channels in (1, 3):
        for size in (1, 2, 4, 8):
            squares = 255 * rng.integers(0, 2, (128 // size, 128 // size, channels), np.uint8)
            yield np.broadcast_to(squares.repeat(size, 0).repeat(size, 1), (128, 128, 3))


@torch.no_grad()
def find_dead_blocks(model: Backbone) -> DeadBlocks:
    """What is dead in the synthesis of an image model."""
    model.eval()
    rng, seen = np.random.default_rng(3), []
    leaves = [(dead_leaves(rng), level) for level in LEAVES_LEVELS]
    for picture, level in [*leaves, *((picture, LEVELS - 1) for picture in noises(rng))]:
        y, levels = model.analyse(torch.tensor(picture).permute(2, 0, 1)[None] / 255), torch.tensor([level])
        x = y_hat = model.code(y, model.hyper(y, levels), levels).y_hat
        fires = []
        for block in model.g_s.low:
            fires.append(block.expand(block.depthwise(x)).amax(1) > 0)
            x = block(x)
        seen.append((y_hat.square(), fires))
    natural = seen[: len(leaves)]
    blocks = [block for i, block in enumerate(model.g_s.low) if not any(fires[i].any() for _, fires in natural)]
    if not blocks:
        return NOTHING
    strong = torch.stack([squares.mean((0, 2, 3)) for squares, _ in natural]).mean(0).topk(STRONG).indices.tolist()
    energies = [F.max_pool2d(squares.sum(1) - squares[:, strong].sum(1), 5, 1, 2) for squares, _ in seen]
    active = [
        float(energy[fired].min())
        for energy, (_, fires) in zip(energies, seen, strict=True)
        for block, fired in zip(model.g_s.low, fires, strict=True)
        if block in blocks and fired.any()
    ]
    return DeadBlocks(frozenset(blocks), strong, min(active, default=float(max(e.max() for e in energies))))


class NativeGraph(Graph):
    """A graph in which dead blocks are constants."""

    def __init__(self, name: str, inputs: dict[str, tuple[int, tuple]], dead: DeadBlocks):
        super().__init__(name, inputs)
        self.dead = dead

    def layer(self, module, x: str, extra: str | None = None) -> str:
        if module in self.dead.blocks:
            return self.op("Add", x, self.constant(module.project.bias[None, :, None, None], np.float32))
        return super().layer(module, x, extra)

    def to_bytes(self, x: str) -> str:
        """[0, 1] -> 0..255, rounded and clipped."""
        zero = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(0, np.uint8), zero))
        return self.op("QuantizeLinear", x, self.scalar(1 / 255), zero)

    def expanded(self, up: Up, x: str, offset: float = 0.0) -> str:
        """The 1x1 convolution of an up-sampling, plus `offset`, its channels ordered (row, column, C)."""
        weight, bias = (
            parameter.detach().unflatten(0, (-1, up.k, up.k)).movedim(0, 2).flatten(0, 2)
            for parameter in (up.pointwise.weight, up.pointwise.bias)
        )
        return self.conv(x, weight[:, :, None, None], bias + offset)

    def spread(self, x: str, up: Up, latents: str, factor: int) -> str:
        """What `expanded` made, or its bytes, as (1, h, w, k*k*C) -> (1, k*h, k*w, C), `factor` times as many rows and
        columns as those latents have.
        """
        channels = len(up.pointwise.bias) // up.k**2
        x = self.op("Transpose", self.reshape(x, 0, 0, 0, up.k, up.k * channels), perm=[0, 1, 3, 2, 4])
        size = self.op("Slice", self.op("Shape", latents), self.integers(2), self.integers(4))
        size = self.op("Mul", size, self.integers(factor, factor))
        return self.op("Reshape", x, self.op("Concat", self.integers(1), size, self.integers(channels), axis=0))

    def channels_last(self, x: str) -> str:
        return self.op("Transpose", x, perm=[0, 2, 3, 1])


def native_synthesis(model: Backbone) -> Network:
    """As `synthesis`."""
    net, c = model.g_s, model.config.c

    def write(g: NativeGraph, y_hat: str, vector: str, *context: str) -> list[str]:
        x = g.channels_last(g.expanded(net.up, g.layer(net.low, y_hat)))
        x = g.op("Mul", g.spread(x, net.up, y_hat, 2), g.channels_last(vector))
        x = g.conv(g.op("Transpose", x, perm=[0, 3, 1, 2]), torch.ones(c, 1, 1, 1), torch.zeros(c), group=c)
        for planes in context:
            x = g.op("Add", x, g.layer(net.context, planes))
        x = g.channels_last(g.expanded(net.head, g.layer(net.high, x), 0.5))
        samples = g.op("Mul", x, g.scalar(255.0)) if context else g.to_bytes(x)
        return [g.spread(samples, net.head, y_hat, 16)]

    return synthesis(model)._replace(write=write)


def synthesis_graph(model: Backbone, dead: DeadBlocks) -> bytes:
    """The native synthesis, whose metadata say for which latents it may take the place of the whole synthesis."""
    network = native_synthesis(model)
    g = NativeGraph(network.name, network.inputs, dead)
    (output,), ((name, kind),) = network.write(g, *network.inputs), network.outputs.items()
    graph = onnx.load_from_string(g.finish({name: (output, kind)}))
    onnx.helper.set_model_props(graph, {"strong": json.dumps(dead.strong), "limit": repr(dead.limit)})
    return graph.SerializeToString()


def write(model: Backbone, folder: Path, dead: DeadBlocks) -> dict:
    """Write the native graphs of a model beside the others; returns what the manifest says of them."""
    architecture = architecture_of(model)
    scales = [network for network in architecture.scales(model) if fits(network)]
    graphs = {n.name: n.graph(IntegerGraph(n.name, n.inputs, {model.h_s.up1})) for n in scales}
    passes = architecture.passes(model)
    squares = passes if passes.shape[2] == 4 else passes[:, :, [0, 1, 1, 0]]
    means = zip(architecture.means(model), squares, strict=True)
    graphs |= {n.name: graph for n, pattern in means if (graph := in_phases(n, pattern))}
    graphs["synthesis"] = synthesis_graph(model, dead)
    arrays = {}
    for name, content in graphs.items():
        runs, own = write_delta(content, (folder / f"{name}.onnx").read_bytes())
        arrays |= {f"{name}_runs": runs, f"{name}_own": own}
    np.savez_compressed(folder / FILE, **arrays)
    digest = hashlib.sha256(b"".join(graphs.values())).hexdigest()
    return {"native": [*graphs], "native_hash": digest[:8]}
