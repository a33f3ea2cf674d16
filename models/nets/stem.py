"""`stem`: the frames of a video between key frames, coded as what the past does not tell.

    past picture --(motion)--> moved --> g_p --> predicted (M, h, w) ----+--------------------+
                                                                         |                    |
    frame --> g_a --> y - predicted = residual latents, coded as `fast` codes latents ... + predicted --> g_s --> shown
                                            |                                  |
                             table indexes: hyper features, past symbols     means: hyper features, predicted

That the entropy model alone sees time, and symbols of past frames choose tables, follows STEM (Sun et al.,
"Spatiotemporal entropy model is all you need for learned video compression", 2021) and VCT (Mentzer et al., NeurIPS
2022). Where the means come from is another matter: latents lie 16 pixels apart, so a picture that moves by a fraction
of that has quite other latents, and those of the past hardly predict them. Block motion, coded ahead of the latents,
and one more analysis do. What is coded is a difference, but the means see the prediction too and can take back what
is wrong in it (conditional coding, DCVC, Li et al., NeurIPS 2021).

Transforms, gains and steps are those of an image model, which codes key frames and which `stem` grows from: at its
start it codes residual latents by that model's prices. g_p starts as g_a and is a network of its own, because g_a of a
decoded picture is not what the picture was decoded from: frames that repeat would lose about 0.7 dB each. Residuals
are taken among latents as they are decoded, since gains and steps need not be inverses of each other.

What latents leave out of the moved picture the frame takes over to a share, so that detail is coded once and not worn
down by an analysis and a synthesis for every frame:

    taken over = share * (moved - g_s(predicted))
    frame shown = g_s(y_hat; taken over, moved) + taken over

What g_s sees of the past beside its latents lets it mend what does not fit when two pictures are added; where nothing
is coded it sees nothing, and the sum is the moved picture.

A block of which coding would not pay is skipped, as in every video standard: its latents are the predicted ones, its
share is 1, so that it shows the moved picture.

No float chooses a table: the symbols of the past frames are integers and do not depend on what was predicted from
pixels, so a rounding error can move a sample and never a symbol.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.bitstream.tables import Tables
from pixa.models.export.vector_fit import Vectors
from pixa.models.nets.backbone import CONTEXT_MAX, Backbone, BackboneConfig, Coded
from pixa.models.nets.exact import ACT_BITS, ExactDepthwise, ExactPointwise, LevelInteger
from pixa.models.nets.fast import Fast, ScaleSeeing
from pixa.models.nets.layers import ANCHORS, LevelVector, Pointwise, blocks, round_ste
from pixa.models.nets.rates import SCALES, start_tables
from pixa.motion.fields import BLOCK, FIRST_TABLE
from pixa.motion.vectors import vector_tables

WIDER = 0.4  # units of 16 tables: residual latents are less smooth than those of pictures
HYPER = 4  # latents a hyper-latent, along a side
PAST = 2  # frames whose symbols choose tables
SHARE = 0.65  # of what latents leave out of the past that is taken over
VECTORS = 64
PLANES = 6  # what a synthesis sees of the past beside the latents: what is taken over, and the moved picture


@dataclass(frozen=True)
class StemConfig(BackboneConfig):
    """Widths of `stem`; those of the transforms are those of the image model that codes its key frames.

    Attributes:
        planes: that the synthesis sees beside latents.
        vectors: width of the network that expects motion, see `pixa.motion.vectors`.
    """

    synthesis_low: int = 0
    synthesis_hidden: int = 192
    planes: int = PLANES
    vectors: int = VECTORS


def pass_mask(height: int, width: int, channels: int, device=None) -> Tensor:
    """(1, channels, height, width) booleans, true for the symbols of pass A: those of the first half of the channels
    where row + column is even, of the second where it is odd. Pass B codes the rest.

    The checkerboard of He et al. (CVPR 2021) with the channel halves on opposite parities of DCVC-RT (Jia et al., CVPR
    2025).
    """
    parity = (torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)[None, :]) % 2
    first = torch.arange(channels, device=device)[:, None, None] < channels // 2
    return ((parity == 0) == first)[None]


class ScalePast(nn.Module):
    """Exact: features (B, F, h, w) and min(|symbols|, 15) of the past frames, each (B, M, h, w), the last one first.

    Returns:
        hidden (B, H, h, w) in [0, 255] and table indexes (B, M, h, w) in [0, 63].
    """

    def __init__(self, f: int, hidden: int, m: int):
        super().__init__()
        self.context = ExactDepthwise(PAST * m, in_bits=0)
        self.hidden = ExactPointwise(f + PAST * m, hidden)
        self.index = ExactPointwise(hidden, m, high=SCALES - 1)

    def forward(self, features: Tensor, past: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(torch.cat([features, self.context(past)], 1))
        return hidden, self.index(hidden, bias)


class MeanPast(nn.Module):
    """Float means of residual latents, pass A.

    Features (B, F, h, w), predicted and the past frame's latents (B, M, h, w) -> state (B, K, h, w), base (B, M, h, w)
    and means (B, M, h, w). The base takes back what is wrong in the prediction, or puts the past latents in its place:
    a second analysis never gives quite what the first gave.
    """

    def __init__(self, f: int, k: int, m: int):
        super().__init__()
        self.enter = Pointwise(f, k)
        self.predicted = Pointwise(m, k, zero=True)
        self.change = Pointwise(m, k, zero=True)
        self.blocks = blocks(k, 2)
        self.gate = Pointwise(k, m, zero=True)
        self.back = Pointwise(k, m, zero=True)
        self.mean = Pointwise(k, m, zero=True)

    def forward(self, features: Tensor, predicted: Tensor, past: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        change = past - predicted
        state = self.enter(features * 2.0**-ACT_BITS) + self.predicted(predicted) + self.change(change)
        state = self.blocks(state)
        base = self.gate(state) * predicted + self.back(state) * change
        return state, base, self.mean(state) + base


class MeanRest(nn.Module):
    """Float means of residual latents, pass B: from state and base of A and what A rebuilt (zero elsewhere)."""

    def __init__(self, k: int, m: int):
        super().__init__()
        self.enter = Pointwise(m, k)
        self.blocks = blocks(k, 2)
        self.mean = Pointwise(k, m, zero=True)

    def forward(self, state: Tensor, base: Tensor, y_hat: Tensor) -> Tensor:
        return self.mean(self.blocks(state + self.enter(y_hat))) + base


class Past(NamedTuple):
    """What a frame is coded with.

    Attributes:
        moved: the past picture along the motion (B, 3, 16h, 16w), in [0, 1].
        predicted: its latents (B, M, h, w).
        skip: where nothing more is coded, (B, 1, h, w) booleans.
        latents: those of the past frame (B, M, h, w).
        magnitudes: min(|symbols|, 15) of the past frames, the last one first (B, 2M, h, w).
    """

    moved: Tensor
    predicted: Tensor
    skip: Tensor
    latents: Tensor
    magnitudes: Tensor


def nothing(y: Tensor) -> Past:
    """The past of latents (B, M, h, w) that follow nothing, not even a picture."""
    zeros = torch.zeros_like(y)
    return Past(zeros[:, :0], zeros, torch.zeros_like(y[:, :1], dtype=torch.bool), zeros, zeros.repeat(1, PAST, 1, 1))


class Stem(Backbone):
    """The model `stem`; see the module. Without a past it predicts nothing and codes whole latents."""

    def __init__(self, config: StemConfig = StemConfig(), mixed: bool = False):
        super().__init__(config, mixed, config.planes)
        m, f = config.m, config.f
        self.g_p = copy.deepcopy(self.g_a)
        self.scale_a = ScalePast(f, config.hidden, m)
        self.scale_b = ScaleSeeing(f + config.hidden, m, config.hidden, m)
        self.mean_a = MeanPast(f, config.k, m)
        self.mean_b = MeanRest(config.k, m)
        self.index_bias_a = LevelInteger(torch.zeros(ANCHORS, m), 2**10, -(2**16), 2**16)
        self.index_bias_b = LevelInteger(torch.zeros(ANCHORS, m), 2**10, -(2**16), 2**16)
        self.bypass = LevelVector(torch.full((ANCHORS, 1), SHARE))
        self.vectors = Vectors(config.vectors)
        self.continue_tables(start_tables())

    def continue_tables(self, tables: Tables) -> None:
        """Price symbols by the tables of an image model, and behind them by those that motion starts with."""
        motion = vector_tables()
        limits = np.append(tables.limits[:FIRST_TABLE], motion.limits[1:])
        self.set_tables(Tables(limits, np.concatenate(tables.frequencies[1:FIRST_TABLE] + motion.frequencies[1:])))

    def as_decoded(self, y: Tensor, level: Tensor) -> Tensor:
        """Latents of the analysis at the size that they have when decoded: gains and steps need not be inverses."""
        return y * (self.log_gain(level) + self.log_step(level)).exp()

    def predict(self, moved: Tensor, level: Tensor) -> Tensor:
        """Latents (B, M, H/16, W/16) that a moved past picture (B, 3, H, W) in [0, 1] lets expect."""
        trunk = 1 + self.config.analysis_high
        with self.trunk_precision(moved):
            high = self.g_p[:trunk](moved - 0.5)
        return self.as_decoded(self.g_p[trunk:](high.float()), level)

    def start_scales(self, index: Tensor) -> None:
        for scale, bias in ((self.scale_a, self.index_bias_a), (self.scale_b, self.index_bias_b)):
            scale.index.weight.mul_(0.1)
            bias.anchors.copy_(index / 16)

    @torch.no_grad()
    def follow(self, image: Fast) -> None:
        """Start with the transforms of `image`, and code residual latents as it does those of passes C and D, whatever
        the past says. Of its first slice only the biases of the tables are taken.

        Raises:
            ValueError: the image model is none of `fast`'s architecture, or differs in its widths or depths.
        """
        if not isinstance(image, Fast):
            raise ValueError(f"a model can follow one of fast's architecture, not a {type(image).__name__}")
        own = self.config.as_dict()
        if any(own[name] != width for name, width in image.config.as_dict().items() if name in own):
            raise ValueError("a model cannot follow one of other widths")
        f, hidden, low = self.config.f, self.config.hidden, image.config.low
        for name in ("g_a", "g_s", "h_a", "h_s", "log_gain", "log_step", "log_z_gain", "vector", "z_index"):
            own = self.get_submodule(name)
            own.load_state_dict(own.state_dict() | image.get_submodule(name).state_dict())
        self.g_p.load_state_dict(image.g_a.state_dict())
        for letter, old in (("a", "c"), ("b", "d")):
            scale, mean = self.get_submodule(f"scale_{letter}"), self.get_submodule(f"mean_{letter}")
            old_scale, old_mean = image.get_submodule(f"scale_{old}"), image.get_submodule(f"mean_{old}")
            biases = (image.get_submodule(f"index_bias_{name}").anchors for name in (letter, old))
            self.get_submodule(f"index_bias_{letter}").anchors.copy_(torch.cat([*biases], 1) + WIDER)
            scale.hidden.weight.zero_()
            scale.hidden.weight[:, :f] = old_scale.hidden.weight[:, :f]
            scale.hidden.bias.copy_(old_scale.hidden.bias)
            mean.blocks[0].load_state_dict(old_mean.block.state_dict())
            for layer, source in ((scale.index, old_scale.index), (mean.mean, old_mean.mean)):
                layer.weight[:low] = 0
                layer.weight[low:], layer.bias[low:] = source.weight, source.bias
        self.scale_b.hidden.weight[:, f + hidden + low :] = image.scale_d.hidden.weight[:, f + low :]
        self.scale_b.context.weight[low:] = image.scale_d.context.weight
        self.scale_b.context.bias[low:] = image.scale_d.context.bias
        self.mean_a.enter.load_state_dict(image.mean_c.enter.state_dict())
        self.mean_b.enter.weight[:, low:] = image.mean_d.enter.weight
        self.mean_b.enter.bias.copy_(image.mean_d.enter.bias)
        self.continue_tables(image.tables)

    def forward(self, x: Tensor, level: Tensor, past: Past | None = None) -> dict:
        """Rate and reconstruction of frames, as those of `Backbone.forward` of pictures.

        Returns:
            What `Backbone.forward` returns, the latents "y" and "y_hat" (B, M, H/16, W/16) added.
        """
        y = self.as_decoded(self.analyse(x), level)
        past = past or nothing(y)
        residual = (y - past.predicted) * ~past.skip
        covered = F.max_pool2d((~past.skip).float(), HYPER) == 0
        z = self.hyper(residual, level) * ~covered
        coded = self.code(residual, z, level, past=past)
        y_hat = coded.y_hat * ~past.skip + past.predicted
        x_hat = self.shown(y_hat, past.predicted, past.moved, past.skip, level)
        out = self.priced(coded, z) | {"x_hat": x_hat, "y": y, "y_hat": y_hat}
        for name, free in (("y", past.skip), ("z", covered)):
            out["likelihoods"][name] = out["likelihoods"][name].masked_fill(free, 1.0)
            out["indexes"][name] = out["indexes"][name] * ~free
        return out

    def shown(self, y_hat: Tensor, predicted: Tensor, moved: Tensor, skip: Tensor, level: Tensor) -> Tensor:
        """Frames (B, 3, H, W) of latents (B, M, h, w) and of what a past as that of `Past` leaves to be taken over."""
        synthesis = lambda latents, *seen: self.g_s(latents, self.vector(level), self.trunk_precision(y_hat), *seen)
        if not moved.numel():
            return synthesis(y_hat)
        skip = skip.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
        taken = torch.where(skip, 1.0, self.bypass(level)) * (moved - synthesis(predicted))
        return synthesis(y_hat, torch.cat([taken, moved - 0.5], 1) * ~skip) + taken

    def code(
        self,
        y: Tensor,
        z: Tensor,
        level: Tensor,
        quantise: Callable[[Tensor], Tensor] = round_ste,
        past: Past | None = None,
    ) -> Coded:
        """As `Backbone.code`, y being residual latents."""
        past = past or nothing(y)
        z_symbols, z_index, features = self.hyper_features(z, level, quantise, y.shape[2:])
        step = self.log_step(level).exp()
        in_a = pass_mask(y.shape[2], y.shape[3], y.shape[1], y.device)
        hidden, index_a = self.scale_a(features, past.magnitudes, self.index_bias_a(level))
        state, base, mean_a = self.mean_a(features, past.predicted, past.latents)
        coded = ~past.skip
        symbols_a = quantise((y - mean_a) / step) * (in_a & coded & (index_a > 0))
        y_hat_a = (symbols_a * step + mean_a) * (in_a & coded)
        magnitude = round_ste(symbols_a.detach().abs()).clamp(max=CONTEXT_MAX)
        seen = [features, hidden, self.scale_b.context(magnitude)]
        index_b = self.scale_b(seen, self.index_bias_b(level))
        index = torch.where(in_a, index_a, index_b) * coded
        mean = torch.where(in_a, mean_a, self.mean_b(state, base, y_hat_a))

        residual = (y - mean) / step
        symbols = torch.where(in_a, symbols_a, quantise(residual) * (index > 0))
        return Coded(symbols, residual, index, z_symbols, z_index, symbols * step + mean)
