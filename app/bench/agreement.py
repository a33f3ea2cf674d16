"""Whether the coder keeps what the model promises (needs the extra `train`): `python -m pixa.app.bench.agreement
PICTURE...`.

For each level, the bits that `forward()` expects against those of the tiles, over all pictures, each cut to sides that
are multiples of 64 so that both see the same latents.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from pixa.app.bench.measurements import read_picture
from pixa.coding.tile import TileInput
from pixa.errors import UsageError
from pixa.image.picture import ImageEncoder
from pixa.models.export.restore import restore
from pixa.models.registry import find_model
from pixa.pixels import Picture

LEVELS = (0, 50, 100, 150, 200)


@torch.no_grad()
def agreement(pictures: list[np.ndarray], model: str = "fast") -> dict[int, float]:
    """Level -> bytes of pictures (H, W, 3) uint8, each one tile of rounded latents, over bytes expected, minus 1.

    Raises:
        UsageError: the model codes tokens, or frames that follow others.
    """
    entry = find_model(model)
    if not {"pictures", "latents"} <= set(entry.can):
        raise UsageError(f"{entry.name} does not code pictures as latents")
    network = restore(entry.folder).eval()
    coded, expected = dict.fromkeys(LEVELS, 0.0), dict.fromkeys(LEVELS, 0.0)
    for samples in pictures:
        height, width = (side // 64 * 64 for side in samples.shape[:2])
        samples = samples[:height, :width]
        encoder = ImageEncoder(Picture(samples), model)
        x = torch.tensor(samples).permute(2, 0, 1)[None] / 255
        for level in LEVELS:
            coded[level] += 8 * len(encoder.nets.codec.encode(TileInput(encoder.y), level).payload)
            likelihoods = network(x, torch.tensor([level]))["likelihoods"].values()
            expected[level] -= sum(p.log2().sum().item() for p in likelihoods)
    return {level: coded[level] / expected[level] - 1 for level in LEVELS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    for level, excess in agreement([read_picture(path) for path in parser.parse_args().pictures]).items():
        print(f"quality {level / 2:5.1f}: files {excess:+.3%} against forward()")


if __name__ == "__main__":
    main()
