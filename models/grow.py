"""`mlic` grown from a trained fast.1: the same transforms, and the same prices as those of its first pass.

What `mlic` has more starts without effect: residual blocks as the identity, contexts and what the exact networks see of
symbols at zero. Channels are put in the order of their mean magnitude, so that the first slices hold what matters most.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pixa.models.backbone import Backbone
from pixa.models.checkerboard import Checkerboard
from pixa.models.layers import LEVELS, Block
from pixa.models.mlic import Mlic

WIDTHS = ("c", "m", "n", "f", "k", "hidden")
DEPTHS = ("analysis_high", "analysis_low", "synthesis_low", "synthesis_high")


def compare(old: Backbone, new: Backbone, equal: tuple[str, ...], growing: tuple[str, ...] = ()) -> None:
    """Whether one model can grow from another.

    Raises:
        ValueError: one of their sizes in `equal` differs, or one in `growing` would shrink.
    """
    for name in (*equal, *growing):
        before, now = getattr(old.config, name), getattr(new.config, name)
        if before != now if name in equal else before > now:
            raise ValueError(f"a model with {name} {now} cannot grow from one with {before}")


@torch.no_grad()
def grow(fast: Checkerboard, model: Mlic, x: Tensor) -> None:
    """Set the weights of a fresh `model`.

    Args:
        x: pictures (B, 3, H, W) in [0, 1] by which the channels are ranked, at the middle level.

    Raises:
        ValueError: the models differ in a width, or `model` has fewer blocks.
    """
    compare(fast, model, WIDTHS, DEPTHS)
    level = torch.full((len(x),), LEVELS // 2, device=x.device)
    magnitude = fast.eval()(x, level)["symbols"]["y"].abs().mean((0, 2, 3))
    fast = reordered(fast, magnitude.argsort(descending=True))

    for name in ("h_a", "h_s", "log_gain", "log_step", "log_z_gain", "vector", "z_index", "g_s.up", "g_s.head"):
        take(model.get_submodule(name), fast.get_submodule(name))
    trunk, old_trunk = 1 + model.config.analysis_high, 1 + fast.config.analysis_high
    take_blocks(model.g_a[:trunk], fast.g_a[:old_trunk])
    take_blocks(model.g_a[trunk:], fast.g_a[old_trunk:])
    take_blocks(model.g_s.low, fast.g_s.low)
    take_blocks(model.g_s.high, fast.g_s.high)

    take(model.enter, fast.mean_a.enter)
    take(model.mean_a.block, fast.mean_a.block)
    for letter, channels in model.config.passes:
        mean, scale, bias = (model.get_submodule(f"{name}_{letter}") for name in ("mean", "scale", "index_bias"))
        take_rows(mean.mean, fast.mean_a.mean, channels)
        take_rows(scale.index, fast.scale_a.index, channels)
        bias.anchors.copy_(fast.index_bias_a.anchors[:, channels])
        scale.hidden.weight.zero_()
        scale.hidden.weight[:, : fast.config.f] = fast.scale_a.hidden.weight
        scale.hidden.bias.copy_(fast.scale_a.hidden.bias)


def reordered(fast: Checkerboard, order: Tensor) -> Checkerboard:
    """A copy of `fast` whose latent channel i is channel order[i] of the original; pass B is left as it was."""
    fast = copy.deepcopy(fast)
    down, *low = fast.g_a[1 + fast.config.analysis_high :]
    blocks: list[Block] = [*low, *fast.g_s.low]
    made = [down, fast.scale_a.index, fast.mean_a.mean]
    seen = [fast.h_a[0], fast.g_s.up.pointwise]
    for block in blocks:
        made += [block.depthwise, block.project]
        seen.append(block.expand)
    for layer in made:
        take_rows(layer, layer, order)
    for layer in seen:
        layer.weight.copy_(layer.weight[:, order])
    for vector in (fast.log_gain, fast.log_step, fast.index_bias_a):
        vector.anchors.copy_(vector.anchors[:, order])
    return fast


def take(module: nn.Module, source: nn.Module) -> None:
    module.load_state_dict(source.state_dict())


def take_blocks(modules: nn.Sequential, sources: nn.Sequential) -> None:
    """Take what there is; the residual blocks behind it are the identity."""
    for module, source in zip(modules, sources, strict=False):
        take(module, source)


def take_rows(layer: nn.Module, source: nn.Module, rows: Tensor | slice) -> None:
    """Take some outputs of a layer."""
    layer.weight.copy_(source.weight[rows])
    layer.bias.copy_(source.bias[rows])
