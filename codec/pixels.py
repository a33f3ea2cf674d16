"""A picture in memory: samples and the metadata that travels with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pixa.errors import LimitExceeded, UnsupportedInput

MAX_SIDE = 65535


@dataclass
class Picture:
    """Samples (H, W, C) with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; upright. They are uint8, or uint16
    to be coded without loss.

    Attributes:
        metadata: any of "icc", "exif", "xmp" -> bytes.

    Raises:
        UnsupportedInput: other shapes and sample types.
        LimitExceeded: a side of 0 or more than 65535.
    """

    samples: np.ndarray
    metadata: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self):
        if self.samples.ndim == 2:
            self.samples = self.samples[:, :, None]
        if self.samples.dtype not in (np.uint8, np.uint16):
            raise UnsupportedInput(f"samples of type {self.samples.dtype}: pixa codes 8 or 16 bits a sample")
        if self.samples.ndim != 3 or self.samples.shape[2] not in (1, 2, 3, 4):
            raise UnsupportedInput(f"an array of shape {self.samples.shape} is no grey, RGB or RGBA picture")
        if not all(1 <= side <= MAX_SIDE for side in self.samples.shape[:2]):
            raise LimitExceeded(f"{self.width}x{self.height} is outside 1x1 to {MAX_SIDE}x{MAX_SIDE}")

    @property
    def height(self) -> int:
        return self.samples.shape[0]

    @property
    def width(self) -> int:
        return self.samples.shape[1]

    @property
    def colour(self) -> np.ndarray:
        """The samples without alpha, (H, W, 1 or 3)."""
        return self.samples[:, :, : 1 if self.samples.shape[2] < 3 else 3]

    @property
    def alpha(self) -> np.ndarray | None:
        """The alpha plane (H, W), or None."""
        return self.samples[:, :, -1] if self.samples.shape[2] in (2, 4) else None
