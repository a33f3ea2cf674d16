"""The network of `pixa.motion.vectors` in training: fitted to the motion of frames that a model has coded."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from pixa.models.nets.exact import ExactPointwise
from pixa.motion import vectors
from pixa.motion.fields import order

STEPS, BATCH, LR = 8000, 1024, 3e-3
MIRRORED = 18  # inputs that change their sign in a picture that is turned by 180 degrees


class Vectors(nn.Module):
    """Inputs (1, INPUTS, n, 1) -> means in sixteenths of a step and scales, (n,) each; all integers."""

    def __init__(self, hidden: int):
        super().__init__()
        self.first = ExactPointwise(vectors.INPUTS, hidden, in_bits=vectors.INPUT_BITS)
        self.second = ExactPointwise(hidden, hidden)
        self.mean = ExactPointwise(hidden, 1, low=-vectors.MEAN_MAX, high=vectors.MEAN_MAX)
        self.scale = ExactPointwise(hidden, 1, high=vectors.SCALES - 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.second(self.first(x))
        return self.mean(hidden)[0, 0, :, 0], self.scale(hidden)[0, 0, :, 0]

    @torch.no_grad()
    def arrays(self) -> dict[str, np.ndarray]:
        """The integers of the layers, as `vectors.VectorNet` takes them."""
        pairs = {name: self.get_submodule(name).integers() for name in vectors.RESCALE}
        return {
            f"vectors_{name}_{kind}": values.numpy().astype(dtype)
            for name, pair in pairs.items()
            for (kind, dtype), values in zip((("weight", np.int8), ("bias", np.int32)), pair, strict=True)
        }


def bits(mean: Tensor, scale: Tensor, steps: Tensor) -> Tensor:
    """What vectors so many steps from the middle take (n,), of Laplace distributions of such means and scales."""
    width = vectors.SMALLEST * (vectors.LARGEST / vectors.SMALLEST) ** (scale / (vectors.SCALES - 1))
    off = steps - mean / vectors.MEANS
    below = lambda t: torch.where(t < 0, 0.5 * t.clamp(max=0).exp(), 1 - 0.5 * (-t.clamp(min=0)).exp())
    mass = below((off + 0.5) / width) - below((off - 0.5) / width)
    return -(mass + vectors.FLOOR / (1 + off.abs())).log2()


def samples(fields: Iterable[tuple[np.ndarray, vectors.Past]]) -> tuple[Tensor, Tensor]:
    """Inputs (N, INPUTS) and steps from the middle (N,) of all vectors."""
    inputs, steps = [], []
    for field, past in fields:
        for group in order(*field.shape[:2]):
            told, found = vectors.Told.of_group(group, field, past), field[group.place]
            for component, rows in enumerate((None, found[:, 0])):
                inputs.append(told.of(component, rows).astype(np.int8))
                steps.append(found[:, component] - told.middle[:, component])
    return torch.from_numpy(np.concatenate(inputs)).float(), torch.from_numpy(np.concatenate(steps)).float()


def fit(hidden: int, fields: Iterable[tuple[np.ndarray, vectors.Past]]) -> Vectors:
    """A network of such a width with which the vectors of fields (h, w, 2) take few bits."""
    torch.manual_seed(1)
    network = Vectors(hidden)
    inputs, steps = samples(fields)
    turned = torch.ones(vectors.INPUTS)
    turned[:MIRRORED] = -1
    optimiser = torch.optim.Adam(network.parameters(), LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(steps), (BATCH,))
        sign = torch.randint(2, (BATCH,)) * 2 - 1
        x = torch.where(sign[:, None] < 0, inputs[chosen] * turned, inputs[chosen])
        loss = bits(*network(x.T[None, :, :, None]), steps[chosen] * sign).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network
