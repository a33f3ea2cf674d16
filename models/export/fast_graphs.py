"""The networks of the passes of `fast`, for export."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pixa.models.export.backbone_graphs import hyper_inputs, hyper_layers, write_features, write_index
from pixa.models.export.graph import FLOAT, UINT8, Graph, Network, spatial, vector
from pixa.models.nets.exact import ACT_BITS
from pixa.models.nets.fast import Fast, MeanBetween, pass_mask


def passes(model: Fast) -> np.ndarray:
    """(4, M, 4) booleans: whether a pass codes a channel at each position of a square of 2x2, row by row."""
    return pass_mask(2, 2, model.config).flatten(2).numpy()


def scales(model: Fast) -> list[Network]:
    """Table indexes of every pass; A also gives the features, B keeps the magnitudes of A, C what it sees of both."""
    c, low, rest = model.config, model.config.low, model.config.m - model.config.low
    a, b, net_c, d = model.scale_a, model.scale_b, model.scale_c, model.scale_d

    def forward_a(z: Tensor, z_scale: Tensor, feature_bias: Tensor, index_bias: Tensor) -> list[Tensor]:
        features = model.h_s(z, z_scale, feature_bias)
        return [features, a([features], index_bias)]

    def forward_b(features: Tensor, magnitude: Tensor, index_bias: Tensor) -> list[Tensor]:
        return [magnitude, b([features, b.context(magnitude)], index_bias)]

    def forward_c(features: Tensor, magnitude_a: Tensor, magnitude: Tensor, index_bias: Tensor) -> list[Tensor]:
        seen = net_c.context(magnitude_a + magnitude)
        return [seen, net_c([features, seen], index_bias)]

    def forward_d(features: Tensor, seen: Tensor, magnitude: Tensor, index_bias: Tensor) -> list[Tensor]:
        return [d([features, seen, d.context(magnitude)], index_bias)]

    def index(g: Graph, net, seen: str, bias: str) -> str:
        return write_index(g, g.layer(net.index, g.layer(net.hidden, seen), bias))

    def write_a(g: Graph, z: str, z_scale: str, feature_bias: str, index_bias: str) -> list[str]:
        features = write_features(g, model, z, z_scale, feature_bias)
        return [features, index(g, a, features, index_bias)]

    def write_b(g: Graph, features: str, magnitude: str, index_bias: str) -> list[str]:
        seen = g.op("Concat", features, g.layer(b.context, magnitude), axis=1)
        return [magnitude, index(g, b, seen, index_bias)]

    def write_c(g: Graph, features: str, magnitude_a: str, magnitude: str, index_bias: str) -> list[str]:
        seen = g.layer(net_c.context, g.op("Add", magnitude_a, magnitude))
        return [seen, index(g, net_c, g.op("Concat", features, seen, axis=1), index_bias)]

    def write_d(g: Graph, features: str, seen: str, magnitude: str, index_bias: str) -> list[str]:
        return [index(g, d, g.op("Concat", features, seen, g.layer(d.context, magnitude), axis=1), index_bias)]

    features = {"features": spatial(c.f)}
    first, known = {"magnitude": spatial(low), "index_bias": vector(low)}, {"magnitude_a": spatial(low)}
    inputs_c = features | known | {"magnitude": spatial(low), "index_bias": vector(rest)}
    inputs_d = features | {"seen": spatial(low), "magnitude": spatial(rest), "index_bias": vector(rest)}
    answer = {"index": UINT8}
    order = lambda net: [net.context, net.hidden, net.index]  # in which layers are written
    return [
        Network(
            "scale_a",
            hyper_inputs(model) | {"index_bias": vector(low)},
            {"features": FLOAT} | answer,
            [*hyper_layers(model), a],
            forward_a,
            write_a,
        ),
        Network("scale_b", features | first, {"magnitude_a": FLOAT} | answer, order(b), forward_b, write_b),
        Network("scale_c", inputs_c, {"seen": FLOAT} | answer, order(net_c), forward_c, write_c),
        Network("scale_d", inputs_d, answer, order(d), forward_d, write_d),
    ]


def write_between(g: Graph, net: MeanBetween, state: str, y_hat: str) -> str:
    """Means."""
    near = g.layer(net.near, y_hat)
    mean = g.layer(net.mean, g.layer(net.block, g.op("Add", state, g.layer(net.enter, near))))
    return g.op("Add", mean, g.layer(net.straight, near))


def means(model: Fast) -> list[Network]:
    """Means of every pass; A and C also give their state, B keeps what A rebuilt."""
    c, low, rest = model.config, model.config.low, model.config.m - model.config.low
    a, b, net_c, d = model.mean_a, model.mean_b, model.mean_c, model.mean_d

    def entered(g: Graph, net, features: str) -> str:
        return g.layer(net.enter, g.op("Mul", features, g.scalar(2.0**-ACT_BITS)))

    def write_a(g: Graph, features: str) -> list[str]:
        state = g.layer(a.block, entered(g, a, features))
        return [state, g.layer(a.mean, state)]

    def write_b(g: Graph, state: str, y_hat: str) -> list[str]:
        return [y_hat, write_between(g, b, state, y_hat)]

    def write_c(g: Graph, features: str, y_hat_a: str, y_hat: str) -> list[str]:
        whole = g.layer(net_c.low, g.op("Add", y_hat_a, y_hat))
        state = g.layer(net_c.block, g.op("Add", entered(g, net_c, features), whole))
        return [state, g.layer(net_c.mean, state)]

    def write_d(g: Graph, state: str, y_hat: str) -> list[str]:
        return [g.layer(d.mean, g.layer(d.block, g.op("Add", state, g.layer(d.enter, y_hat))))]

    features, first = {"features": spatial(c.f)}, {"y_hat": spatial(low)}
    inputs_b, inputs_c = {"state_a": spatial(c.low_k)} | first, features | {"y_hat_a": spatial(low)} | first
    inputs_d = {"state_c": spatial(c.k), "y_hat": spatial(rest)}
    forward_c = lambda features, y_hat_a, y_hat: net_c(features, y_hat_a + y_hat)
    answer, layers_c = {"mean": FLOAT}, [net_c.low, net_c.enter, net_c.block, net_c.mean]  # as they are written
    return [
        Network("mean_a", features, {"state_a": FLOAT} | answer, [a], a, write_a),
        Network("mean_b", inputs_b, {"y_hat_a": FLOAT} | answer, [b], lambda state, y: [y, b(state, y)], write_b),
        Network("mean_c", inputs_c, {"state_c": FLOAT} | answer, layers_c, forward_c, write_c),
        Network("mean_d", inputs_d, answer, [d], lambda *inputs: [d(*inputs)], write_d),
    ]
