"""A trained model back from its exported files, to go on training or to search with gradients.

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
from onnx import TensorProto, numpy_helper
from torch import nn

from pixa.bitstream.tables import Tables
from pixa.models.export.architectures import decoder, encoder, make
from pixa.models.nets.backbone import Backbone
from pixa.models.nets.exact import ACT_BITS, WEIGHT_BITS, Exact
from pixa.models.nets.layers import ANCHOR_STEP
from pixa.models.nets.rates import SCALES


def parameters(*modules: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """(layer, name in it, parameter), in the order in which the layers are written to a graph."""
    for module in modules:
        for layer in module.modules():
            for name, parameter in layer.named_parameters(recurse=False):
                yield layer, name, parameter


def unit(layer: Exact, name: str) -> int:
    """What one stands for among the integers of a layer's weight or bias."""
    return 2**WEIGHT_BITS if name == "weight" else layer.bias_unit


def stored(path: Path) -> Iterator[torch.Tensor]:
    """The weights and biases of a graph file, as float32, in the order in which its layers were written."""
    for constant in onnx.load(path).graph.initializer:
        if constant.dims and constant.data_type != TensorProto.INT64:
            yield torch.tensor(numpy_helper.to_array(constant).astype(np.float32))


@torch.no_grad()
def restore(folder: Path) -> Backbone:
    """The model whose export lies in `folder`.

    Raises:
        ValueError: the graphs do not have the widths of the stored configuration.
    """
    record = json.loads((folder / "export.json").read_text())
    model = make(record.get("model", "fast"), record["config"])
    for network in [*encoder(model), *decoder(model)]:
        values = stored(folder / f"{network.name}.onnx")
        for (layer, name, parameter), value in zip(parameters(*network.layers), values, strict=True):
            if isinstance(layer, Exact):
                value /= unit(layer, name)
            if value.numel() != parameter.numel():
                raise ValueError(f"{folder / network.name}.onnx does not have the stored widths")
            parameter.copy_(value.view_as(parameter))
    for network in (model.g_a, *([model.g_p] if hasattr(model, "g_p") else [])):
        network[0].weight.mul_(255)
        network[0].bias.add_(0.5 * network[0].weight.sum(1))

    with np.load(folder / "tables.npz", allow_pickle=False) as arrays:
        model.set_tables(Tables(arrays["limits"], arrays["frequencies"]))
        biases = [name for name in arrays.files if name.startswith("index_bias_")]
        places = LEVEL_ARRAYS | {name: (name, lambda a: a / 2**10) for name in biases}
        if "bypass" in arrays:
            places["bypass"] = ("bypass", lambda a: a)
        if getattr(model, "vectors", None):
            for path, parameter in model.vectors.named_parameters():
                layer, name = path.split(".")
                value = torch.from_numpy(arrays[f"vectors_{layer}_{name}"].astype(np.float32))
                parameter.copy_(value / unit(model.vectors.get_submodule(layer), name))
        for name, (path, transform) in places.items():
            anchors = torch.from_numpy(arrays[name][::ANCHOR_STEP].astype(np.float32))
            model.get_submodule(path).anchors.copy_(transform(anchors))
    return model


LEVEL_ARRAYS = {
    "gain": ("log_gain", torch.log),
    "step": ("log_step", torch.log),
    "z_gain": ("log_z_gain", torch.log),
    "vector": ("vector", lambda a: a),
    "z_scale": ("h_s.z_scale", lambda a: a / 2**ACT_BITS),
    "z_index": ("z_index", lambda a: (a - (SCALES - 1)).clamp(min=0) / 16),
    "feature_bias": ("h_s.bias", lambda a: a / 2**10),
}
