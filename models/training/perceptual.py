"""Distances of VGG features: a loss that sees texture and structure where LPIPS on a smaller network looks away.

Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer" (ECCV 2016), on VGG-16 (Simonyan and
Zisserman, 2015), with features of unit length as in LPIPS (Zhang et al., CVPR 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.errors import UsageError

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512,))  # widths between poolings, conv1_1 to conv4_1
NAMES = [f"block{stage}_conv{layer}" for stage, widths in enumerate(STAGES, 1) for layer in range(1, len(widths) + 1)]
BGR_MEAN = (103.939, 116.779, 123.68)


class VggDistance(nn.Module):
    """Mean squared difference of the features of two pictures behind the last layer of every stage.

    Args:
        arrays: the weights by Keras's names, `block1_conv1.weight` (out, in, 3, 3), `block1_conv1.bias` and so on, of
            a network that takes BGR of 0 to 255 less its mean.

    Raises:
        KeyError: one is missing.
        RuntimeError: one has another shape.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        super().__init__()
        widths = [3, *(width for stage in STAGES for width in stage)]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        for name, layer in zip(NAMES, self.layers, strict=True):
            state = {kind: torch.tensor(arrays[f"{name}.{kind}"], dtype=torch.float32) for kind in ("weight", "bias")}
            layer.load_state_dict(state)
        self.register_buffer("mean", torch.tensor(BGR_MEAN).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def features(self, x: Tensor) -> list[Tensor]:
        """Features of x (B, 3, H, W) in [0, 1] behind every stage, of unit length along the channels."""
        x, found, layers = x.flip(1) * 255 - self.mean, [], iter(self.layers)
        for stage, widths in enumerate(STAGES):
            x = F.max_pool2d(x, 2) if stage else x
            for _ in widths:
                x = F.relu(next(layers)(x))
            found.append(F.normalize(x, eps=1e-6))
        return found

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances (B,) of x and y, (B, 3, H, W) in [0, 1], sides of at least 8."""
        pairs = zip(self.features(x), self.features(y), strict=True)
        return sum((a - b).square().sum(1).mean((1, 2)) for a, b in pairs)


def load_vgg(backbone: Path) -> VggDistance:
    """The distance with the weights in an .npz.

    Raises:
        UsageError: the file does not hold VGG-16 up to conv4_1.
    """
    try:
        with np.load(backbone, allow_pickle=False) as arrays:
            return VggDistance(arrays)
    except (OSError, ValueError, TypeError, BadZipFile, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{backbone} does not hold VGG-16 up to conv4_1: {reason}") from error
