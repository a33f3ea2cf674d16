"""The networks of the passes of `stem`, for export."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pixa.models.export.backbone_graphs import hyper_inputs, hyper_layers, of_pictures, write_features, write_index
from pixa.models.export.graph import FLOAT, UINT8, Graph, Network, spatial, vector
from pixa.models.nets.exact import ACT_BITS
from pixa.models.nets.stem import Stem, pass_mask


def passes(model: Stem) -> np.ndarray:
    """(2, M, 2) booleans: whether a pass codes a channel where row + column is even and where it is odd."""
    first = pass_mask(1, 2, model.config.m)[0, :, 0].numpy()
    return np.stack([first, ~first])


def scales(model: Stem) -> list[Network]:
    """z and past magnitudes -> features, hidden state and table indexes of pass A; then the indexes of B."""
    c, a, b = model.config, model.scale_a, model.scale_b

    def forward_a(
        z: Tensor, z_scale: Tensor, feature_bias: Tensor, past_1: Tensor, past_2: Tensor, index_bias: Tensor
    ) -> list[Tensor]:
        features = model.h_s(z, z_scale, feature_bias)
        return [features, *a(features, torch.cat([past_1, past_2], 1), index_bias)]

    def forward_b(features: Tensor, hidden: Tensor, magnitude: Tensor, index_bias: Tensor) -> list[Tensor]:
        return [b([features, hidden, b.context(magnitude)], index_bias)]

    def write_a(
        g: Graph, z: str, z_scale: str, feature_bias: str, past_1: str, past_2: str, index_bias: str
    ) -> list[str]:
        features = write_features(g, model, z, z_scale, feature_bias)
        past = g.layer(a.context, g.op("Concat", past_1, past_2, axis=1))
        hidden = g.layer(a.hidden, g.op("Concat", features, past, axis=1))
        return [features, hidden, write_index(g, g.layer(a.index, hidden, index_bias))]

    def write_b(g: Graph, features: str, hidden: str, magnitude: str, index_bias: str) -> list[str]:
        joint = g.op("Concat", features, hidden, g.layer(b.context, magnitude), axis=1)
        return [write_index(g, g.layer(b.index, g.layer(b.hidden, joint), index_bias))]

    past = {"past_1": spatial(c.m), "past_2": spatial(c.m)}
    inputs_a = hyper_inputs(model) | past | {"index_bias": vector(c.m)}
    inputs_b = {"features": spatial(c.f), "hidden_a": spatial(c.hidden), "magnitude": spatial(c.m)}
    inputs_b |= {"index_bias": vector(c.m)}
    outputs_a = {"features": FLOAT, "hidden_a": FLOAT, "index": UINT8}
    return [
        Network("scale_a", inputs_a, outputs_a, [*hyper_layers(model), a], forward_a, write_a),
        Network("scale_b", inputs_b, {"index": UINT8}, [b.context, b.hidden, b.index], forward_b, write_b),
    ]


def means(model: Stem) -> list[Network]:
    """features, predicted and past latents -> state (1, K, h, w), base and means of pass A; then the means of B."""
    c, a, b = model.config, model.mean_a, model.mean_b

    def write_a(g: Graph, features: str, predicted: str, past: str) -> list[str]:
        change = g.op("Sub", past, predicted)
        state = g.layer(a.enter, g.op("Mul", features, g.scalar(2.0**-ACT_BITS)))
        for layer, x in ((a.predicted, predicted), (a.change, change)):
            state = g.op("Add", state, g.layer(layer, x))
        state = g.layer(a.blocks, state)
        parts = [g.op("Mul", g.layer(layer, state), x) for layer, x in ((a.gate, predicted), (a.back, change))]
        base = g.op("Add", *parts)
        return [state, base, g.op("Add", g.layer(a.mean, state), base)]

    def write_b(g: Graph, state: str, base: str, y_hat: str) -> list[str]:
        state = g.layer(b.blocks, g.op("Add", state, g.layer(b.enter, y_hat)))
        return [g.op("Add", g.layer(b.mean, state), base)]

    latents = spatial(c.m)
    inputs_a = {"features": spatial(c.f), "predicted": latents, "past_hat_1": latents}
    inputs_b = {"state": spatial(c.k), "base": latents, "y_hat": latents}
    return [
        Network("mean_a", inputs_a, dict.fromkeys(("state", "base", "mean"), FLOAT), [a], a, write_a),
        Network("mean_b", inputs_b, {"mean": FLOAT}, [b], lambda *inputs: [b(*inputs)], write_b),
    ]


def extras(model: Stem) -> list[Network]:
    """Moved past picture (1, H, W, 3) uint8 -> predicted latents (1, M, H/16, W/16), not yet scaled by the level."""
    return [of_pictures("predict", "predicted", model.g_p)]
