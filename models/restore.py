"""A trained `fast` back from its exported files, to go on training or to search with gradients.

Exported weights are float16 and the exact layers integers, so what comes back encodes and decodes as the export does;
the level vectors between the learned anchors are straight lines again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from pixa.bitstream.tables import Tables
from pixa.models.exact import ACT_BITS, WEIGHT_BITS, Exact
from pixa.models.fast import Fast, FastConfig
from pixa.models.layers import ANCHOR_STEP, Block, Up
from pixa.models.rates import SCALES


def convolutions(*modules: nn.Module) -> Iterator[nn.Module]:
    """The layers that hold weights, in the order in which `graph.Graph.layer` writes them."""
    for module in modules:
        match module:
            case nn.Sequential():
                yield from convolutions(*module)
            case Block():
                yield from convolutions(module.depthwise, module.expand, module.project)
            case Up():
                yield module.pointwise
            case _:
                yield module


def stored(path: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(weight, bias) of every convolution of a graph file, as float32, in order."""
    graph = onnx.load(path).graph
    arrays = {i.name: numpy_helper.to_array(i).astype(np.float32) for i in graph.initializer}
    arrays |= {node.output[0]: arrays[node.input[0]] for node in graph.node if node.input[0] in arrays}
    for node in graph.node:
        if node.op_type == "Conv":
            yield tuple(torch.tensor(arrays[name]) for name in node.input[1:])


@torch.no_grad()
def restore(folder: Path) -> Fast:
    """The model whose export lies in `folder`.

    Raises:
        ValueError: the graphs do not have the widths of the stored configuration.
    """
    model = Fast(FastConfig(**json.loads((folder / "export.json").read_text())["config"]))
    h_s, scale_a, scale_b, mean_a, mean_b, g_s = (
        model.h_s, model.scale_a, model.scale_b, model.mean_a, model.mean_b, model.g_s
    )  # fmt: skip
    graphs = {
        "analysis": [model.g_a],
        "hyper": [model.h_a],
        "scale_a": [h_s.up1, h_s.mix1, h_s.pw1, h_s.up2, h_s.mix2, h_s.pw2, scale_a.hidden, scale_a.index],
        "scale_b": [scale_b.context, scale_b.hidden, scale_b.index],
        "mean_a": [mean_a.enter, mean_a.block, mean_a.mean],
        "mean_b": [mean_b.enter, mean_b.blocks, mean_b.mean],
        "synthesis": [g_s.low, g_s.up, g_s.high, g_s.head],
    }
    for name, modules in graphs.items():
        for layer, (weight, bias) in zip(convolutions(*modules), stored(folder / f"{name}.onnx"), strict=True):
            if isinstance(layer, Exact):
                weight, bias = weight / 2**WEIGHT_BITS, bias / layer.bias_unit
            if weight.numel() != layer.weight.numel():
                raise ValueError(f"{folder / name}.onnx does not have the stored widths")
            layer.weight.copy_(weight.view_as(layer.weight))
            layer.bias.copy_(bias)
    first = model.g_a[0]
    first.weight.mul_(255)
    first.bias.add_(0.5 * first.weight.sum(1))

    with np.load(folder / "tables.npz", allow_pickle=False) as arrays:
        model.set_tables(Tables(arrays["limits"], arrays["frequencies"]))
        anchors = {name: torch.from_numpy(arrays[name][::ANCHOR_STEP].astype(np.float32)) for name in LEVEL_ARRAYS}
    for name, (path, transform) in LEVEL_ARRAYS.items():
        model.get_submodule(path).anchors.copy_(transform(anchors[name]))
    return model


LEVEL_ARRAYS = {
    "gain": ("log_gain", torch.log),
    "step": ("log_step", torch.log),
    "z_gain": ("log_z_gain", torch.log),
    "vector": ("vector", lambda a: a),
    "z_scale": ("h_s.z_scale", lambda a: a / 2**ACT_BITS),
    "z_index": ("z_index", lambda a: (a - (SCALES - 1)).clamp(min=0) / 16),
    "feature_bias": ("h_s.bias", lambda a: a / 2**10),
    "index_bias_a": ("index_bias_a", lambda a: a / 2**10),
    "index_bias_b": ("index_bias_b", lambda a: a / 2**10),
}
