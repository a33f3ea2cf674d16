"""The networks of `vqgan` that are exported as graphs: analysis and synthesis. The entropy model becomes arrays."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pixa.models.export.graph import FLOAT, UINT8, Graph, Network, spatial
from pixa.models.nets.layers import Down
from pixa.models.nets.vqgan import Detour, Vqgan


def write_layers(g: Graph, module: nn.Module, x: str) -> str:
    """The nodes of a module that may hold detours."""
    match module:
        case Detour():
            return g.op("Add", x, g.layer(nn.Sequential(module.down, module.blocks, module.up), x))
        case nn.Sequential():
            for child in module:
                x = write_layers(g, child, x)
            return x
    return g.layer(module, x)


def analysis(model: Vqgan) -> Network:
    """picture (1, 16h, 16w, 3) uint8 -> y (1, d, 2h, 2w); the scaling to [-0.5, 0.5] is folded into the first layer."""

    def forward(picture: Tensor) -> list[Tensor]:
        return [model.g_a(picture.permute(0, 3, 1, 2) / 255 - 0.5)]

    def write(g: Graph, picture: str) -> list[str]:
        own = model.g_a[0]
        first = Down(3, len(own.weight), 8)
        with torch.no_grad():
            first.weight.copy_(own.weight / 255)
            first.bias.copy_(own.bias - 0.5 * own.weight.sum(1))
        x = g.op("Transpose", g.op("Cast", picture, to=FLOAT), perm=[0, 3, 1, 2])
        return [write_layers(g, nn.Sequential(first, *model.g_a[1:]), x)]

    inputs = {"picture": (UINT8, (1, "height", "width", 3))}
    return Network("analysis", inputs, {"y": FLOAT}, [model.g_a], forward, write)


def synthesis(model: Vqgan) -> Network:
    """y_hat (1, d + 3, 2h, 2w) -> picture (1, 16h, 16w, 3) uint8."""
    net = model.g_s

    def forward(y_hat: Tensor) -> list[Tensor]:
        return [net(y_hat).mul(255).add(0.5).floor().clamp(0, 255).permute(0, 2, 3, 1)]

    def write(g: Graph, y_hat: str) -> list[str]:
        x = write_layers(g, net.trunk, g.layer(net.enter, y_hat))
        x = g.op("Add", g.layer(net.head, x), g.layer(net.details, g.layer(net.quarter, x)))
        x = g.op("Add", g.op("Mul", x, g.scalar(255.0)), g.scalar(128.0))  # 255 * 0.5, and 0.5 to round
        x = g.op("Cast", g.op("Clip", g.op("Floor", x), g.scalar(0.0), g.scalar(255.0)), to=UINT8)
        return [g.op("Transpose", x, perm=[0, 2, 3, 1])]

    inputs = {"y_hat": spatial(model.config.d + 3)}
    return Network("synthesis", inputs, {"picture": UINT8}, [net], forward, write)
