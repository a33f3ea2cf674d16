"""The networks of the passes of `mlic`, for export."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from pixa.models.backbone_graphs import hyper_inputs, hyper_layers, write_features, write_index
from pixa.models.exact import ACT_BITS
from pixa.models.graph import FLOAT, UINT8, Graph, Network, spatial, vector
from pixa.models.mlic import Mean, Mlic


def passes(model: Mlic) -> np.ndarray:
    """(P, M, 2) booleans: whether a pass codes a channel where row + column is even and where it is odd."""
    patterns = np.zeros((len(model.config.passes), model.config.m, 2), bool)
    for p, (_, channels) in enumerate(model.config.passes):
        patterns[p, channels, p % 2] = True
    return patterns


def scales(model: Mlic) -> list[Network]:
    """Table indexes of every pass; the first also gives the features, all but the last their hidden state."""
    return [scale_first(model), *(scale_next(model, p) for p in range(1, len(model.config.passes)))]


def scale_first(model: Mlic) -> Network:
    net = model.scale_a

    def forward(z: Tensor, z_scale: Tensor, feature_bias: Tensor, index_bias: Tensor) -> list[Tensor]:
        features = model.h_s(z, z_scale, feature_bias)
        return [features, *net(features, index_bias)]

    def write(g: Graph, z: str, z_scale: str, feature_bias: str, index_bias: str) -> list[str]:
        features = write_features(g, model, z, z_scale, feature_bias)
        hidden = g.layer(net.hidden, features)
        return [features, hidden, write_index(g, g.layer(net.index, hidden, index_bias))]

    inputs = hyper_inputs(model) | {"index_bias": vector(len(net.index.bias))}
    outputs = {"features": FLOAT, "hidden_a": FLOAT, "index": UINT8}
    return Network("scale_a", inputs, outputs, [*hyper_layers(model), net], forward, write)


def scale_next(model: Mlic, p: int) -> Network:
    c, letter, before = model.config, model.config.passes[p][0], model.config.passes[p - 1][0]
    net = model.get_submodule(f"scale_{letter}")
    last = p == len(c.passes) - 1

    def forward(*inputs: Tensor) -> list[Tensor]:
        hidden, index = net(*inputs)
        return [index] if last else [hidden, index]

    def write(g: Graph, features: str, hidden: str, magnitude: str, index_bias: str) -> list[str]:
        joint = g.op("Concat", features, hidden, g.layer(net.context, magnitude), axis=1)
        hidden = g.layer(net.hidden, joint)
        index = write_index(g, g.layer(net.index, hidden, index_bias))
        return [index] if last else [hidden, index]

    inputs = {
        "features": spatial(c.f),
        f"hidden_{before}": spatial(c.hidden),
        "magnitude": spatial(len(net.context.bias)),
        "index_bias": vector(len(net.index.bias)),
    }
    outputs = ({} if last else {f"hidden_{letter}": FLOAT}) | {"index": UINT8}
    return Network(f"scale_{letter}", inputs, outputs, [net], forward, write)


def means(model: Mlic) -> list[Network]:
    """Means of every pass; all but the last give their state, those between the passes of a slice also its anchors."""
    return [mean_first(model), *(mean_next(model, p) for p in range(1, len(model.config.passes)))]


def write_mean(g: Graph, net: Mean, state: str, known: str) -> list[str]:
    """State and means."""
    for addition in [g.layer(context, state, known) for context in net.contexts.values()]:
        state = g.op("Add", state, addition)
    state = g.layer(net.block, g.layer(net.gate, state))
    return [state, g.layer(net.mean, state)]


def mean_first(model: Mlic) -> Network:
    net = model.mean_a

    def forward(features: Tensor) -> tuple[Tensor, Tensor]:
        state = model.first_state(features)
        return net(state, state)

    def write(g: Graph, features: str) -> list[str]:
        state = g.layer(model.enter, g.op("Mul", features, g.scalar(2.0**-ACT_BITS)))
        return write_mean(g, net, state, state)

    inputs = {"features": spatial(model.config.f)}
    return Network("mean_a", inputs, {"state_a": FLOAT, "mean": FLOAT}, [model.enter, net], forward, write)


def mean_next(model: Mlic, p: int) -> Network:
    """For the rest of a slice y_hat are its anchors; for the next slice y_hat and the kept anchors make a whole."""
    c, letter, before = model.config, model.config.passes[p][0], model.config.passes[p - 1][0]
    net = model.get_submodule(f"mean_{letter}")
    known = model.config.passes[p - 1][1]
    inside, last = p % 2 == 1, p == len(c.passes) - 1

    def said(state: object, anchors: object, mean: object) -> list:
        return [mean] if last else [state, anchors, mean] if inside else [state, mean]

    def forward(state: Tensor, y_hat: Tensor, *anchors: Tensor) -> list[Tensor]:
        state, mean = net(state, sum(anchors, y_hat))
        return said(state, y_hat, mean)

    def write(g: Graph, state: str, y_hat: str, *anchors: str) -> list[str]:
        whole = y_hat if inside else g.op("Add", *anchors, y_hat)
        state, mean = write_mean(g, net, state, whole)
        return said(state, y_hat, mean)

    width = spatial(known.stop - known.start)
    inputs = {f"state_{before}": spatial(c.k), "y_hat": width} | ({} if inside else {f"anchors_{before}": width})
    outputs = said(f"state_{letter}", f"anchors_{letter}", "mean")
    return Network(f"mean_{letter}", inputs, dict.fromkeys(outputs, FLOAT), [net], forward, write)
