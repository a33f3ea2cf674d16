"""LPIPS, the learned perceptual distance, on SqueezeNet 1.1: a metric, and a loss that can be differentiated.

Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
(CVPR 2018). The linear weights are those inside the package `lpips` (version 0.1); the package itself is not imported,
because it needs a torchvision that matches torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.errors import UsageError

TAPS = (1, 4, 7, 9, 10, 11, 12)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of `lpips`, for samples in [-1, 1]
SMALLEST_SIDE = 17


class Fire(nn.Module):
    """1x1 convolution to few channels, then 1x1 and 3x3 ones side by side: (B, C, h, w) -> (B, 2 * expanded, h, w)."""

    def __init__(self, channels: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def squeezenet_features() -> nn.Sequential:
    """The convolutions of SqueezeNet 1.1 (Iandola et al., 2016), numbered as in torchvision."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 64),
        Fire(128, 16, 64),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(128, 32, 128),
        Fire(256, 32, 128),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(256, 48, 192),
        Fire(384, 48, 192),
        Fire(384, 64, 256),
        Fire(512, 64, 256),
    )


class LPIPS(nn.Module):
    """Distance of pictures, 0 for equal ones; agrees with `lpips.LPIPS(net="squeeze")` of `lpips` 0.1.4 within 1e-6.

    All weights are frozen; gradients reach the pictures, and stay finite where the features are all zero.

    Args:
        backbone: arrays by torchvision's names, "features.0.weight" and so on; other names are ignored.
        linear: seven weights (1, C, 1, 1), one for each of the features compared.

    Raises:
        RuntimeError: a weight is missing or has another shape.
    """

    def __init__(self, backbone: Mapping[str, np.ndarray], linear: Sequence[Tensor]):
        super().__init__()
        self.features = squeezenet_features()
        names = (name for name in backbone if name.startswith("features."))
        self.load_state_dict({name: torch.tensor(backbone[name], dtype=torch.float32) for name in names})
        self.linear = nn.ParameterList(linear)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def compared(self, x: Tensor) -> list[Tensor]:
        """Features of x (B, 3, H, W) in [0, 1] at seven depths, of unit length along the channels."""
        x, features = (2 * x - 1 - self.shift) / self.scale, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                features.append(F.normalize(x, eps=1e-10))
        return features

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances (B,) of x and y, (B, 3, H, W) in [0, 1], sides of at least `SMALLEST_SIDE`."""
        triples = zip(self.compared(x), self.compared(y), self.linear, strict=True)
        return sum(F.conv2d((a - b).square(), weight).mean((1, 2, 3)) for a, b, weight in triples)


def load_lpips(backbone: Path) -> LPIPS:
    """LPIPS with the weights of SqueezeNet in `backbone`, an .npz of torchvision's names, and those of `lpips`.

    Raises:
        UsageError: the package `lpips` is not installed, or the file is no such backbone.
    """
    package = find_spec("lpips")
    if not package:
        raise UsageError("LPIPS needs the linear weights inside the package lpips: pip install --no-deps lpips")
    weights = Path(package.submodule_search_locations[0]) / "weights" / "v0.1" / "squeeze.pth"
    linear = torch.load(weights, map_location="cpu", weights_only=True)
    try:
        with np.load(backbone, allow_pickle=False) as arrays:
            return LPIPS(arrays, [linear[f"lin{depth}.model.1.weight"] for depth in range(len(TAPS))])
    except (OSError, ValueError, TypeError, BadZipFile, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(":")
        raise UsageError(f"{backbone} does not hold SqueezeNet 1.1 under torchvision's names: {reason}") from error
