"""Tables that fit: the model's Gaussians corrected by how often each symbol really occurs.

Training prices symbols by Gaussians; what an integer table holds is free, and counting a few hundred crops saves about
one per cent of a file. Hyper-latents have tables of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from pixa.bitstream.tables import Tables, integer_frequencies
from pixa.datasets.pictures import Pictures
from pixa.models.nets.backbone import Backbone
from pixa.models.nets.layers import LEVELS

PRIOR = 2000.0  # how many observations the Gaussian counts for


@torch.no_grad()
def coded_crops(model: Backbone, pictures: Pictures, held_out: int, crops: int, size: int) -> Iterator[dict]:
    """What the model makes of random crops, one at a time, at random levels; the first `held_out` pictures left out."""
    model.eval()
    generator = torch.Generator().manual_seed(1)
    for _ in range(crops):
        x = pictures.batch(1, size, held_out, 0.3, generator)
        yield model(x, torch.randint(0, LEVELS, (1,), generator=generator))


def calibrated_tables(tables: Tables, coded: Iterable[dict]) -> Tables:
    """Tables refitted to the "symbols" and their "indexes" of what has been coded with them, each tensors by name."""
    counts = [np.zeros(int(limit) + 2) for limit in tables.limits]
    for out in coded:
        for part in out["symbols"]:
            symbols, indexes = (out[name][part].numpy().astype(np.int64).ravel() for name in ("symbols", "indexes"))
            for table in np.unique(indexes[indexes > 0]):
                magnitudes = np.abs(symbols[indexes == table]).clip(max=tables.limits[table] + 1)
                counts[table] += np.bincount(magnitudes, minlength=len(counts[table]))
    frequencies = [refit(table, count) for table, count in zip(tables.frequencies[1:], counts[1:], strict=True)]
    return Tables(tables.limits, np.concatenate(frequencies))


def refit(table: np.ndarray, count: np.ndarray) -> np.ndarray:
    """A table (2L + 2,) blended with counts (L + 2,) of magnitudes 0..L and of escapes, shared out by the table."""
    mass = table / table.sum()
    above, below = mass[len(count) - 1 : -1], mass[len(count) - 3 :: -1]
    sides = count[1:-1] / (above + below)
    counted = np.concatenate([(sides * below)[::-1], count[:1], sides * above, count[-1:]])
    return integer_frequencies(mass * PRIOR + counted)
