"""`fast` grown from its forerunner: the same transforms with fewer hidden units, what fits of the entropy model."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.models.nets.checkerboard import Checkerboard
from pixa.models.nets.fast import Fast
from pixa.models.nets.layers import LEVELS, Block
from pixa.models.training.grow import WIDTHS, compare, reordered, take, take_rows

DEPTHS = ("analysis_high", "analysis_low", "synthesis_high")


@torch.no_grad()
def refine(old: Checkerboard, model: Fast, x: Tensor) -> None:
    """Set the weights of a fresh `fast` to those of its forerunner, but for the entropy model of the first slice.

    Blocks of the synthesis at 1/16 are taken for what they add where none of their hidden units fires.

    Args:
        x: pictures (B, 3, H, W) in [0, 1] by which channels and hidden units are ranked, at the middle level.

    Raises:
        ValueError: the models differ in a width or depth of what both have.
    """
    compare(old, model, (*WIDTHS, *DEPTHS))
    m, low = model.config.m, model.config.low
    level = torch.full((len(x),), LEVELS // 2, device=x.device)
    strong = old.eval()(x, level)["symbols"]["y"].abs().mean((0, 2, 3)).view(2, -1).argsort(1, descending=True)
    strong += torch.tensor([[0], [m // 2]], device=strong.device)
    order = torch.cat([strong[:, : low // 2].T.flatten(), *strong[:, low // 2 :].sort(1).values])
    ordered = reordered(old, order)

    for name in ("g_a", "h_a", "h_s", "log_gain", "log_step", "log_z_gain", "vector", "z_index", "g_s.up", "g_s.head"):
        take(model.get_submodule(name), ordered.get_submodule(name))
    prune(model.g_s.high, old.g_s.high, lambda: old(x, level))
    for block in old.g_s.low:
        model.g_s.up.pointwise.bias += model.g_s.up.pointwise.weight @ block.project.bias

    places = order[low:]
    for letter in "ab":
        model.get_submodule(f"scale_{letter}").index.weight.mul_(0.1)
        model.get_submodule(f"index_bias_{letter}").anchors.copy_(old.index_bias_a.anchors[:, order[:low]])
    take(model.mean_c.enter, old.mean_a.enter)
    take(model.mean_c.block, old.mean_a.block)
    take_rows(model.mean_c.mean, old.mean_a.mean, places)
    f = model.config.f
    model.scale_c.hidden.weight.zero_()
    model.scale_c.hidden.weight[:, :f] = old.scale_a.hidden.weight
    model.scale_c.hidden.bias.copy_(old.scale_a.hidden.bias)
    take_rows(model.scale_c.index, old.scale_a.index, places)
    model.index_bias_c.anchors.copy_(old.index_bias_a.anchors[:, places])

    take_rows(model.scale_d.context, old.scale_b.context, places)
    model.scale_d.hidden.weight.zero_()
    model.scale_d.hidden.weight[:, :f] = old.scale_b.hidden.weight[:, :f]
    model.scale_d.hidden.weight[:, f + low :] = old.scale_b.hidden.weight[:, f:][:, places]
    model.scale_d.hidden.bias.copy_(old.scale_b.hidden.bias)
    take_rows(model.scale_d.index, old.scale_b.index, places)
    model.index_bias_d.anchors.copy_(old.index_bias_b.anchors[:, places])
    model.mean_d.enter.weight.copy_(old.mean_b.enter.weight[:, places])
    model.mean_d.enter.bias.copy_(old.mean_b.enter.bias)
    take(model.mean_d.block, old.mean_b.blocks[0])
    take_rows(model.mean_d.mean, old.mean_b.mean, places)


def prune(blocks: nn.Sequential, sources: nn.Sequential, run: Callable[[], object]) -> None:
    """Take of the hidden units of blocks those that vary most while `run` runs them; the others become their means."""
    hidden: dict[Block, Tensor] = {}
    hooks = [
        block.expand.register_forward_hook(lambda _, __, output, block=block: hidden.update({block: F.relu(output)}))
        for block in sources
    ]
    run()
    for hook in hooks:
        hook.remove()
    for block, source in zip(blocks, sources, strict=True):
        mean, variance = hidden[source].mean((0, 2, 3)), hidden[source].var((0, 2, 3))
        order = (variance * source.project.weight.square().sum(0)).argsort(descending=True)
        kept, dropped = order.tensor_split([block.expand.weight.shape[0]])
        take(block.depthwise, source.depthwise)
        take_rows(block.expand, source.expand, kept)
        block.project.weight.copy_(source.project.weight[:, kept])
        block.project.bias.copy_(source.project.bias + source.project.weight[:, dropped] @ mean[dropped])
