"""The networks of the passes of fast.1, for export."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pixa.models.export.backbone_graphs import hyper_inputs, hyper_layers, write_features, write_index
from pixa.models.export.graph import FLOAT, UINT8, Graph, Network, spatial, vector
from pixa.models.nets.checkerboard import Checkerboard, pass_mask
from pixa.models.nets.exact import ACT_BITS


def passes(model: Checkerboard) -> np.ndarray:
    """(2, M, 2) booleans: whether a pass codes a channel where row + column is even and where it is odd."""
    first = pass_mask(1, 2, model.config.m)[0, :, 0].numpy()
    return np.stack([first, ~first])


def scales(model: Checkerboard) -> list[Network]:
    """z integers -> features and table indexes of pass A, at four times the resolution; then the indexes of B."""
    c, a, b = model.config, model.scale_a, model.scale_b

    def forward_a(z: Tensor, z_scale: Tensor, feature_bias: Tensor, index_bias: Tensor) -> list[Tensor]:
        features = model.h_s(z, z_scale, feature_bias)
        return [features, a(features, index_bias)]

    def write_a(g: Graph, z: str, z_scale: str, feature_bias: str, index_bias: str) -> list[str]:
        features = write_features(g, model, z, z_scale, feature_bias)
        return [features, write_index(g, g.layer(a.index, g.layer(a.hidden, features), index_bias))]

    def write_b(g: Graph, features: str, magnitude: str, index_bias: str) -> list[str]:
        joint = g.op("Concat", features, g.layer(b.context, magnitude), axis=1)
        return [write_index(g, g.layer(b.index, g.layer(b.hidden, joint), index_bias))]

    inputs_a = hyper_inputs(model) | {"index_bias": vector(c.m)}
    inputs_b = {"features": spatial(c.f), "magnitude": spatial(c.m), "index_bias": vector(c.m)}
    layers_a = [*hyper_layers(model), a]
    return [
        Network("scale_a", inputs_a, {"features": FLOAT, "index": UINT8}, layers_a, forward_a, write_a),
        Network("scale_b", inputs_b, {"index": UINT8}, [b], lambda *inputs: [b(*inputs)], write_b),
    ]


def means(model: Checkerboard) -> list[Network]:
    """features -> state (1, K, h, w) and means of pass A; state and the latents that A rebuilt -> means of B."""
    c, a, b = model.config, model.mean_a, model.mean_b

    def write_a(g: Graph, features: str) -> list[str]:
        state = g.layer(a.block, g.layer(a.enter, g.op("Mul", features, g.scalar(2.0**-ACT_BITS))))
        return [state, g.layer(a.mean, state)]

    def write_b(g: Graph, state: str, y_hat: str) -> list[str]:
        x = g.op("Add", state, g.layer(b.enter, y_hat))
        return [g.layer(b.mean, g.layer(b.blocks, x))]

    inputs_b = {"state": spatial(c.k), "y_hat": spatial(c.m)}
    return [
        Network("mean_a", {"features": spatial(c.f)}, {"state": FLOAT, "mean": FLOAT}, [a], a, write_a),
        Network("mean_b", inputs_b, {"mean": FLOAT}, [b], lambda *inputs: [b(*inputs)], write_b),
    ]
