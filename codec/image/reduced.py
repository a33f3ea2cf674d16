"""Small pictures: decoding at 1/2, 1/4 and 1/8 without the synthesis, and the thumbnail that a file may carry.

Sizes are rounded up, as everywhere. A reduced picture is close to the average of squares of the whole one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pixa.bitstream.headers import Head
from pixa.errors import ModelMissing
from pixa.image.picture import Progress, decode_latents, decode_samples, thread_pool
from pixa.models.registry import ModelEntry
from pixa.runtime.model import OnnxModel

THUMBNAIL = 8  # a thumbnail is the picture at 1/8
STRIP = 64  # latent rows at a time
FILE = "reduced.npz"


def decode_reduced(
    head: Head,
    tiles: Sequence[bytes],
    nets: OnnxModel,
    factor: int,
    progress: Progress | None = None,
    lost: list[int] | None = None,
) -> np.ndarray:
    """Colour samples (ceil(H / factor), ceil(W / factor), 1 or 3) uint8 of an image's tiles.

    A model without a reduced synthesis decodes the whole picture first.

    Args:
        factor: 2, 4 or 8.
        progress, lost: as `image.decode_samples`.

    Raises:
        Corrupt: as `image.decode_samples`.
        ModelMissing: as `synthesis`.
    """
    if not nets.entry.reduced:
        return average(decode_samples(head, tiles, nets, progress, lost), factor)
    weight, bias = synthesis(nets.entry, factor)
    with thread_pool(nets) as pool:
        y_hat = decode_latents(head, tiles, nets, pool, lost, len(weight))
    (_, height, width), side, near = y_hat.shape, len(bias[0]), weight.shape[1]
    y_hat = np.pad(y_hat, ((0, 0), *((near // 2, near // 2),) * 2), mode="edge")
    samples = np.empty((height * side, width * side, 3 if head.colour else 1), np.uint8)
    for top in range(0, height, STRIP):
        strip = sliding_window_view(y_hat[:, top : top + STRIP + near - 1], (near, near), (1, 2))
        rgb = np.tensordot(strip, weight, ((0, 3, 4), (0, 1, 2))) + bias  # (rows, columns, 3, side, side)
        rgb = rgb.transpose(0, 3, 1, 4, 2).reshape(-1, width * side, 3)
        rgb = rgb if head.colour else rgb.mean(2, keepdims=True)
        samples[top * side :][: len(rgb)] = np.clip(np.rint(rgb), 0, 255)
        if progress:
            progress(min(top + STRIP, height), height)
    return samples[: -(-head.height // factor), : -(-head.width // factor)]


@cache
def synthesis(entry: ModelEntry, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, k, k, 3, n, n) and bias (3, n, n), from the first C latents of the k by k positions around one to its
    n by n pixels at 1/factor. At 1/8 those that are coded first will do, where a model has such.

    Raises:
        ModelMissing: the file is missing or altered.
    """
    path = entry.folder / FILE
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest()[:8] != entry.reduced:
        raise ModelMissing(f"the weights of {entry.name}.{entry.tag} are incomplete or altered: {FILE}")
    with np.load(path, allow_pickle=False) as arrays:
        if factor == 8 and "first_weight" in arrays:
            return arrays["first_weight"], arrays["first_bias"]
        weight, bias = (arrays[name].astype(np.float32) for name in ("weight", "bias"))
    ratio = factor // 2
    side = weight.shape[-1] // ratio
    weight, bias = (a.reshape(*a.shape[:-2], side, ratio, side, ratio).mean((-3, -1)) for a in (weight, bias))
    return weight[:, None, None], bias


def average(samples: np.ndarray, factor: int) -> np.ndarray:
    """Samples (H, W, C) -> (ceil(H / factor), ceil(W / factor), C), means of squares; the edge goes on."""
    height, width, channels = samples.shape
    padded = np.pad(samples, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")
    squares = padded.reshape(padded.shape[0] // factor, factor, -1, factor, channels)
    return np.rint(squares.mean((1, 3), dtype=np.float32)).astype(samples.dtype)
