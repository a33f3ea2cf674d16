"""The networks that every image model exports: analysis, hyper analysis, exact hyper synthesis, synthesis."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixa.models.export.graph import FLOAT, UINT8, Graph, Network, spatial, vector
from pixa.models.nets.backbone import FLOAT32, Backbone
from pixa.models.nets.exact import ACT_MAX
from pixa.models.nets.layers import Down


def analysis(model: Backbone) -> Network:
    """picture (1, H, W, 3) uint8 -> y (1, M, H/16, W/16)."""
    return of_pictures("analysis", "y", model.g_a)


def of_pictures(name: str, output: str, net: nn.Sequential) -> Network:
    """picture (1, H, W, 3) uint8 -> what an analysis makes of it; the scaling to [-0.5, 0.5] is in the first layer."""

    def forward(picture: Tensor) -> list[Tensor]:
        return [net(picture.permute(0, 3, 1, 2) / 255 - 0.5)]

    def write(g: Graph, picture: str) -> list[str]:
        first = Down(3, len(net[0].bias), 8)
        with torch.no_grad():
            first.weight.copy_(net[0].weight / 255)
            first.bias.copy_(net[0].bias - 0.5 * net[0].weight.sum(1))
        x = g.op("Transpose", g.op("Cast", picture, to=FLOAT), perm=[0, 3, 1, 2])
        return [g.layer(nn.Sequential(first, *net[1:]), x)]

    inputs = {"picture": (UINT8, (1, "height", "width", 3))}
    return Network(name, inputs, {output: FLOAT}, [*net], forward, write)


def hyper(model: Backbone) -> Network:
    """y (1, M, 4h, 4w) -> z (1, N, h, w), neither scaled nor rounded."""
    return Network(
        "hyper",
        {"y": spatial(model.config.m)},
        {"z": FLOAT},
        [model.h_a],
        lambda y: [model.h_a(y)],
        lambda g, y: [g.layer(model.h_a, y)],
    )


def hyper_inputs(model: Backbone) -> dict[str, tuple]:
    """The inputs of `write_features`, which begins the first scale graph."""
    n, f = model.config.n, model.config.f
    return {"z": spatial(n), "z_scale": vector(n), "feature_bias": vector(f)}


def hyper_layers(model: Backbone) -> list[nn.Module]:
    h_s = model.h_s
    return [h_s.up1, h_s.mix1, h_s.pw1, h_s.up2, h_s.mix2, h_s.pw2]


def write_features(g: Graph, model: Backbone, z: str, z_scale: str, bias: str) -> str:
    """z integers (1, N, h, w) -> features (1, F, 4h, 4w)."""
    h_s = model.h_s
    x = g.op("Clip", g.op("Mul", z, z_scale), g.scalar(-ACT_MAX), g.scalar(ACT_MAX))
    x = g.layer(h_s.pw1, g.layer(h_s.mix1, g.up(h_s.up1, x, 2)))
    return g.layer(h_s.pw2, g.layer(h_s.mix2, g.up(h_s.up2, x, 2)), bias)


def write_index(g: Graph, index: str) -> str:
    return g.op("Cast", index, to=UINT8)


def synthesis(model: Backbone) -> Network:
    """y_hat (1, M, h, w) and the level's vector -> picture (1, 16h, 16w, 3) uint8; a model with a context is told of
    that too, (1, planes, 16h, 16w), and gives samples that are neither rounded nor clipped.
    """
    net = model.g_s
    whole = net.context is None

    def forward(y_hat: Tensor, vector: Tensor, *context: Tensor) -> list[Tensor]:
        picture = net(y_hat, vector, FLOAT32, *context).mul(255).permute(0, 2, 3, 1)
        return [picture.round().clamp(0, 255) if whole else picture]

    def write(g: Graph, y_hat: str, vector: str, *context: str) -> list[str]:
        x = g.op("Mul", g.layer(net.up, g.layer(net.low, y_hat)), vector)
        for planes in context:
            x = g.op("Add", x, g.layer(net.context, planes))
        x = g.layer(net.head, g.layer(net.high, x))
        x = g.op("Add", g.op("Mul", x, g.scalar(255.0)), g.scalar(127.5 + 0.5 * whole))  # 0.5 to round
        if whole:
            x = g.op("Cast", g.op("Clip", g.op("Floor", x), g.scalar(0.0), g.scalar(255.0)), to=UINT8)
        return [g.op("Transpose", x, perm=[0, 2, 3, 1])]

    inputs = {"y_hat": spatial(model.config.m), "vector": vector(model.config.c)}
    layers = [net.low, net.up, net.high, net.head]
    if net.context is not None:
        inputs["context"] = FLOAT, (1, net.context.c_in, "rows", "columns")
        layers.insert(2, net.context)
    outputs = {"picture": UINT8} if whole else {"samples": FLOAT}
    return Network("synthesis", inputs, outputs, layers, forward, write)
