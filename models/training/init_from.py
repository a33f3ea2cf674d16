"""`mlic` grown from a trained `fast`, which it is at first: what it has more starts without effect.

Residual blocks start as the identity; contexts, and what the exact networks see of the slices between, at zero. The
channels behind the first slice are put in the order of their mean magnitude, half by half, so that the next slices
hold what matters most.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pixa.models.nets.backbone import Backbone
from pixa.models.nets.fast import Fast
from pixa.models.nets.layers import LEVELS, Block
from pixa.models.nets.mlic import Mlic

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
def init_from(fast: Fast, model: Mlic, x: Tensor) -> None:
    """Set the weights of a fresh `model`.

    Args:
        x: pictures (B, 3, H, W) in [0, 1] by which the channels are ranked, at the middle level.

    Raises:
        ValueError: the models differ in a width or in the first slice, or `model` has fewer blocks.
    """
    compare(fast, model, (*WIDTHS, "low_k", "low_hidden"), DEPTHS)
    low, f = fast.config.low, fast.config.f
    if low != model.config.slices[0]:
        raise ValueError(f"a model whose first slice has {model.config.slices[0]} channels cannot grow from {low}")
    level = torch.full((len(x),), LEVELS // 2, device=x.device)
    magnitude = fast.eval()(x, level)["symbols"]["y"].abs().mean((0, 2, 3))
    half = low + (fast.config.m - low) // 2
    strong = [low + magnitude[low:half].argsort(descending=True), half + magnitude[half:].argsort(descending=True)]
    order = [torch.arange(low, device=x.device)]
    for own in model.config.channels[1:]:
        ends = [(end - low) // 2 for end in (own.start, own.stop)]
        order += [channels[slice(*ends)] for channels in strong]
    order = torch.cat(order)
    fast = reordered(fast, order)

    for name in ("h_a", "h_s", "log_gain", "log_step", "log_z_gain", "vector", "z_index", "g_s.up", "g_s.head"):
        take(model.get_submodule(name), fast.get_submodule(name))
    trunk, old_trunk = 1 + model.config.analysis_high, 1 + fast.config.analysis_high
    take_blocks(model.g_a[:trunk], fast.g_a[:old_trunk])
    take_blocks(model.g_a[trunk:], fast.g_a[old_trunk:])
    take_blocks(model.g_s.low, fast.g_s.low)
    take_blocks(model.g_s.high, fast.g_s.high)

    take(model.enter_low, fast.mean_a.enter)
    take(model.mean_a.block, fast.mean_a.block)
    take(model.mean_a.mean, fast.mean_a.mean)
    take(model.mean_b, fast.mean_b)
    take(model.enter, fast.mean_c.enter)
    for letter in "ab":
        for name in ("scale", "index_bias"):
            take(model.get_submodule(f"{name}_{letter}"), fast.get_submodule(f"{name}_{letter}"))
    anchors = order[low:] - low
    for p in model.config.passes[2:]:
        mean, scale, bias = (model.get_submodule(f"{name}_{p.letter}") for name in ("mean", "scale", "index_bias"))
        old_mean, old_scale, old_bias = (
            fast.get_submodule(f"{name}_{'c' if p.first else 'd'}") for name in ("mean", "scale", "index_bias")
        )
        rows = order[model.config.channels[p.part]] - low
        take_rows(mean.mean, old_mean.mean, rows)
        take_rows(scale.index, old_scale.index, rows)
        bias.anchors.copy_(old_bias.anchors[:, rows])
        scale.hidden.bias.copy_(old_scale.hidden.bias)
        scale.hidden.weight.zero_()
        scale.hidden.weight[:, : f + low] = old_scale.hidden.weight[:, : f + low]
        if not p.first:
            scale.hidden.weight[:, f + low : f + low + len(anchors)] = old_scale.hidden.weight[:, f + low :][:, anchors]
        if p.part > 1:
            continue
        take(mean.block, old_mean.block)
        columns = slice(None) if p.first else anchors
        take_rows(scale.context, old_scale.context, columns)
        kind, source = ("channel", old_mean.low) if p.first else ("local", old_mean.enter)
        if kind in mean.contexts:
            news = mean.contexts[kind].out
            news.weight[:, -source.weight.shape[1] :] = source.weight[:, columns]
            news.bias.copy_(source.bias)


def reordered(model: Backbone, order: Tensor) -> Backbone:
    """A copy of a model whose latent channel i is channel order[i] of the original; its entropy model is left."""
    model = copy.deepcopy(model)
    down, *low = model.g_a[1 + model.config.analysis_high :]
    blocks: list[Block] = [*low, *model.g_s.low]
    made: list[nn.Module] = [down]
    seen = [model.h_a[0], model.g_s.up.pointwise]
    for block in blocks:
        made += [block.depthwise, block.project]
        seen.append(block.expand)
    for layer in made:
        take_rows(layer, layer, order)
    for layer in seen:
        layer.weight.copy_(layer.weight[:, order])
    for vector in (model.log_gain, model.log_step):
        vector.anchors.copy_(vector.anchors[:, order])
    return model


def take(module: nn.Module, source: nn.Module) -> None:
    module.load_state_dict(source.state_dict())


def take_blocks(modules: Iterable[nn.Module], sources: Iterable[nn.Module]) -> None:
    """Take what there is; what a block has more hidden units leads to nothing, and blocks behind are the identity."""
    for module, source in zip(modules, sources, strict=False):
        if not isinstance(module, Block):
            take(module, source)
            continue
        hidden = len(source.expand.bias)
        take(module.depthwise, source.depthwise)
        module.expand.weight[:hidden] = source.expand.weight
        module.expand.bias[:hidden] = source.expand.bias
        module.project.weight[:, :hidden] = source.project.weight
        module.project.bias.copy_(source.project.bias)


def take_rows(layer: nn.Module, source: nn.Module, rows: Tensor | slice) -> None:
    """Take some outputs of a layer."""
    layer.weight.copy_(source.weight[rows])
    layer.bias.copy_(source.bias[rows])
