"""Waking of dead units: hidden units of blocks that fire nowhere get new weights, and lead to nothing at first.

What the model computes stays the same, and training finds units that have a gradient again (dead units and their
reinitialisation: Sokar et al., "The dormant neuron phenomenon in deep reinforcement learning", ICML 2023). A revived
unit weighs its inputs by what each varies, or all would follow the mean of a picture, which varies most.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from pixa.models.nets.layers import Block

SIGNAL = (
    0.02  # standard deviation of what a revived unit sees; a step that moves hundreds of louder ones would undo more
)


@torch.no_grad()
def reinit_dormant(model: nn.Module, run: Callable[[], object]) -> dict[str, int]:
    """Give new weights to the units of every block of a model that do not fire while `run` runs it.

    Returns:
        How many it were, by the name of the block; blocks that `run` does not use are left out.
    """
    highest: dict[str, torch.Tensor] = {}
    spread: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable:
        def hook(_, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            peak = output.amax((0, 2, 3))
            highest[name] = torch.maximum(highest[name], peak) if name in highest else peak
            spread[name] = inputs[0].std((0, 2, 3))

        return hook

    blocks = {name: block for name, block in model.named_modules() if isinstance(block, Block)}
    hooks = [block.expand.register_forward_hook(watch(name)) for name, block in blocks.items()]
    run()
    for hook in hooks:
        hook.remove()
    revived = {}
    for name, peak in highest.items():
        block, dead = blocks[name], peak <= 0
        bound = SIGNAL * math.sqrt(3 / block.expand.weight.shape[1])
        rows = torch.empty_like(block.expand.weight[dead]).uniform_(-bound, bound)
        block.expand.weight[dead] = rows / spread[name].clamp(min=1e-2 * spread[name].max())
        block.expand.bias[dead] = 0
        block.project.weight[:, dead] = 0
        revived[name] = int(dead.sum())
    return revived
