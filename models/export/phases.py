"""Mean networks as native decoders run them: their last layer only where the pass codes.

A pass of a checkerboard codes a channel at every second position. Its means come from a 1x1 convolution, which here is
done for each position of a 2x2 square by itself, with a stride of two and of the channels coded there alone.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pixa.models.export.graph import FLOAT, Graph, Network
from pixa.models.nets.layers import Pointwise

LARGE = 2**14  # multiply-adds a position, from which on half of them cost more than putting the parts together


class PhaseGraph(Graph):
    """A graph whose last layer `mean` is done for each position of a square, of the channels in its run alone."""

    def __init__(self, network: Network, mean: Pointwise, runs: list[np.ndarray]):
        super().__init__(network.name, network.inputs)
        self.mean, self.runs, self.phases = mean, runs, []
        self.states = {name: shape[1] for name, (_, shape) in network.inputs.items() if name.startswith("state")}

    def op(self, kind: str, *inputs: str, **attributes) -> str:
        if kind == "Add":
            inputs = (self.laid_out(x) if x in self.states else x for x in inputs)
        return super().op(kind, *inputs, **attributes)

    def laid_out(self, state: str) -> str:
        """A state behind a convolution by one, so that onnxruntime joins additions to the convolutions around."""
        c = self.states[state]
        return self.conv(state, torch.ones(c, 1, 1, 1), torch.zeros(c), group=c)

    def layer(self, module: nn.Module, x: str, extra: str | None = None) -> str:
        if module is not self.mean:
            return super().layer(module, x, extra)
        constants = {}
        for place, own in enumerate(self.runs):
            if own[0] not in constants:
                weight, bias = module.weight[own][:, :, None, None], module.bias[own]
                constants[own[0]] = self.constant(weight, np.float16), self.constant(bias, np.float32)
            options = {"kernel_shape": [1, 1], "strides": [2, 2], "pads": [*divmod(place, 2), 0, 0]}
            self.phases.append(self.op("Conv", x, *constants[own[0]], **options))
        return self.phases[-1]


def in_phases(network: Network, pattern: np.ndarray) -> bytes | None:
    """The graph whose output "mean" became "mean_0" to "mean_3", one for each position of a square, row by row.

    Of an output (1, C', h', w'), C' are the channels coded there. Those of the second row begin with a row of no
    meaning, those of the second column with such a column, so that no side need be even.

    Args:
        pattern: (M, 4) booleans, whether the pass codes channel c at each position of a square.

    Returns:
        None if that would not be faster, since the last layer is small or none of these, or if not every position of
        a square has a run of channels of its own.
    """
    pattern = pattern[pattern.any(1)]
    runs = [np.flatnonzero(own) for own in pattern.T]
    mean = [*network.layers[-1].modules()][-1]
    if not isinstance(mean, Pointwise) or mean.weight.numel() < LARGE:
        return None
    if not all(len(own) and np.ptp(own) + 1 == len(own) < len(pattern) for own in runs):
        return None
    g = PhaseGraph(network, mean, runs)
    *kept, answer = network.write(g, *network.inputs)
    if [answer] != g.phases[-1:]:
        return None
    outputs = {name: (source, FLOAT) for name, source in zip(network.outputs, kept, strict=False)}
    return g.finish(outputs | {f"mean_{place}": (phase, FLOAT) for place, phase in enumerate(g.phases)})
