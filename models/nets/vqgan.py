"""`vqgan`: a picture as tokens of three grids, and a decoder that paints what the tokens leave open.

    x -> analysis -> f (d, H/8, W/8) = what 1/32 tokens give + what 1/16 tokens add + what 1/8 tokens add + the rest
                                                  |
            x_hat <- synthesis <- y_hat, their sum, and the map of how far each region of 32x32 pixels is refined

A region always has one token of the 1/32 grid; where it pays, four tokens of 1/16 and sixteen of 1/8 refine it. Each
codes what the coarser ones left (residual quantisation over scales, as in VAR, Tian et al., NeurIPS 2024), so no bit of
theirs is paid twice; choosing the grid by region follows Control-GIC (Li et al., ICLR 2025). A region is refined where
the squared error that its tokens take away, in latents, is worth their number: minimise error + trade * tokens. The
quality level sets `trade`; below level `NESTED` tokens name groups of codes instead of codes.

The parts are those of VQGAN (Esser, Rombach and Ommer, CVPR 2021), but the trunks work at 1/4 resolution and below with
1x1 and depthwise convolutions, and begin as a DCT and the principal components of its coefficients.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from pixa.models.nets.compressai_base import CompressionModel
from pixa.models.nets.layers import LEVELS, Down, Pointwise, Up, blocks, colour_dct
from pixa.models.nets.pyramid import GRIDS, TOKENS, Pyramid, Tokens
from pixa.models.nets.token_prior import TokenPrior

NESTED = 37  # the first level whose tokens name codes
BITS_LOW, BITS_HIGH = 5.2, 205.0  # of a region at the ends of the quality range, before entropy coding


@dataclass(frozen=True)
class VqganConfig:
    """Widths, from the decoder's trunk c, and depths.

    Attributes:
        d: dimensions of a code.
        groups: square root of the number of codes of a grid.
        analysis: blocks at 1/8 before and behind those at 1/16.
        low, high, quarter: blocks of the decoder at 1/16, 1/8 and 1/4.
        embedding, features, hidden: widths of the token entropy model.
    """

    c: int = 256
    d: int = 16
    groups: int = 32
    analysis: int = 2
    analysis_low: int = 2
    low: int = 4
    high: int = 8
    quarter: int = 4
    embedding: int = 16
    features: int = 48
    hidden: int = 96

    as_dict = asdict


class Detour(nn.Module):
    """x + what blocks at half the resolution make of it: (B, C, 2h, 2w) -> the same; begins as the identity."""

    def __init__(self, c: int, c_low: int, n: int):
        super().__init__()
        self.down, self.blocks, self.up = Down(c, c_low, 2), blocks(c_low, n), Up(c_low, c, 2)
        nn.init.zeros_(self.up.pointwise.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.blocks(self.down(x)))


def analysis(c: int, d: int, n: int, n_low: int) -> nn.Sequential:
    """x - 0.5 (B, 3, H, W), sides multiples of 16 -> f (B, d, H/8, W/8)."""
    return nn.Sequential(Down(3, c, 8), blocks(c, n), Detour(c, c * 4 // 3, n_low), blocks(c, n), Pointwise(c, d))


class Synthesis(nn.Module):
    """y_hat (B, d + 3, h, w), h and w even -> x_hat (B, 3, 8h, 8w) in [0, 1]."""

    def __init__(self, config: VqganConfig):
        super().__init__()
        c = config.c
        self.enter = Pointwise(config.d + 3, c)
        self.trunk = nn.Sequential(Detour(c, c * 3 // 2, config.low), blocks(c, config.high))
        self.head = Up(c, 3, 8)
        self.quarter = nn.Sequential(Up(c, c // 2, 2), blocks(c // 2, config.quarter))
        self.details = Up(c // 2, 3, 4)
        nn.init.zeros_(self.details.pointwise.weight)

    def forward(self, y_hat: Tensor) -> Tensor:
        x = self.trunk(self.enter(y_hat))
        return self.head(x).float() + self.details(self.quarter(x)).float() + 0.5


class Vqgan(CompressionModel):
    """The model; see the module.

    Args:
        mixed: run the trunks in bfloat16; tokens and pixels stay float32.

    Attributes:
        settled: the tokens no longer change: analysis and codebooks have no gradient, and nested tokens are in use.
        log_trade: (201,) log of `trade` by quality level.
    """

    def __init__(self, config: VqganConfig = VqganConfig(), mixed: bool = False):
        super().__init__()
        self.config, self.mixed, self.settled = config, mixed, False
        self.g_a = analysis(config.c * 3 // 4, config.d, config.analysis, config.analysis_low)
        self.pyramid = Pyramid(config.d, config.groups)
        self.g_s = Synthesis(config)
        self.prior = TokenPrior(config.groups, config.embedding, config.features, config.hidden)
        self.register_buffer("log_trade", torch.zeros(LEVELS))

    @torch.no_grad()
    def start_from_dct(self, x: Tensor) -> None:
        """Set analysis and synthesis to a DCT of its d strongest coefficients on pictures x (B, 3, H, W), and the
        tokens to the principal components and the k-means of those."""
        c, d = self.g_a[0].weight.shape[0], self.config.d
        dct = colour_dct(c)
        self.g_a[0].weight.copy_(dct)
        strongest = self.g_a[0](x - 0.5).square().mean((0, 2, 3)).argsort(descending=True)[:d]
        self.g_a[-1].weight.zero_()
        self.g_a[-1].weight[torch.arange(d), strongest] = 1
        self.g_s.enter.weight.zero_()
        self.g_s.enter.weight[strongest, torch.arange(d)] = 1
        self.g_s.head.pointwise.weight[:, :c] = dct.T
        self.g_s.head.pointwise.weight[:, c:] *= 0.1
        self.pyramid.start(torch.cat([self.analyse(part) for part in x.split(16)]))

    def trunk_precision(self, x: Tensor):
        return torch.autocast(x.device.type, torch.bfloat16) if self.mixed else nullcontext()

    def analyse(self, x: Tensor) -> Tensor:
        """f (B, d, H/8, W/8) of pictures (B, 3, H, W) in [0, 1]."""
        with self.trunk_precision(x):
            f = self.g_a(x - 0.5)
        return f.float()

    def synthesise(self, y_hat: Tensor) -> Tensor:
        with self.trunk_precision(y_hat):
            return self.g_s(y_hat)

    def trade(self, level: Tensor, errors: Tensor) -> Tensor:
        """What a token must take away, (B, 1, 1): by `log_trade`, or, until the tokens are settled, such that a level
        of l refines about l/200 of the batch."""
        if self.training and not self.settled:
            steps = errors[:, :-1] - errors[:, 1:]
            worth = (steps / steps.new_tensor([[[4.0]], [[16.0]]])).flatten()
            worth = worth[:: -(-len(worth) // 2**14)].sort().values
            place = (1 - level / (LEVELS - 1)) * (len(worth) - 1)
            return worth[place.long()].clamp(min=1e-6)[:, None, None]
        return self.log_trade[level].exp()[:, None, None]

    def is_nested(self, level: Tensor) -> Tensor:
        """Whether tokens at levels (B,) name groups."""
        return (level < NESTED) & self.settled

    def tokenise(self, x: Tensor, level: Tensor) -> Tokens:
        """Tokens of pictures (B, 3, H, W) at levels (B,)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.settled):
            return self.pyramid(self.analyse(x), lambda errors: self.trade(level, errors), self.is_nested(level))

    def forward(self, x: Tensor, level: Tensor) -> dict:
        """What the decoder would show.

        Args:
            x: (B, 3, H, W) in [0, 1], H and W multiples of 32.
            level: (B,) integers in [0, 200].

        Returns:
            {"x_hat": (B, 3, H, W), "tokens": Tokens}; outside training also {"likelihoods": {"map": (B, h, w),
            "32", "16", "8": (B, h, w)}}, 1 where there is no token.
        """
        tokens = self.tokenise(x, level)
        out = {"x_hat": self.synthesise(tokens.y_hat), "tokens": tokens}
        if not self.training:
            bits = self.bits(tokens, level)
            out["likelihoods"] = {name: torch.exp2(-b) for name, b in bits.items()}
        return out

    def bits(self, tokens: Tokens, level: Tensor) -> dict[str, Tensor]:
        """Bits of the map and of every token, (B, h, w) by "map", "32", "16" and "8"; zero where there is none."""
        bits = self.prior(tokens.index, tokens.used, tokens.stop, level, self.is_nested(level))
        return dict(zip(("map", *map(str, GRIDS)), bits, strict=True))

    @torch.no_grad()
    def follow(self, tokens: Tokens) -> None:
        """Move the codebooks towards what they were asked for."""
        for codebook, z, index, used in zip(self.pyramid.codebooks, tokens.z, tokens.index, tokens.used, strict=True):
            codebook.follow(z, index, used)

    @torch.no_grad()
    def calibrate(self, pictures: list[Tensor]) -> None:
        """Set `log_trade` so that the rates of the levels, before entropy coding, are spread evenly over their
        logarithm from `BITS_LOW` to `BITS_HIGH` bits a region on average."""
        bits = BITS_LOW * (BITS_HIGH / BITS_LOW) ** (torch.arange(LEVELS) / (LEVELS - 1))
        for nested, levels in ((True, slice(0, NESTED)), (False, slice(NESTED, LEVELS))):
            errors = []
            for x in pictures:
                flag = torch.full((len(x),), nested and self.settled, device=x.device)
                found = self.pyramid.split(self.analyse(x), flag).errors
                errors.append(found.permute(0, 2, 3, 1).reshape(-1, 3).cpu())
            regions = torch.cat(errors)
            scale = regions[:, 0].mean().clamp(min=1e-6).log()
            candidates = torch.linspace(-12, 4, 600) + scale
            each = torch.tensor(TOKENS, dtype=torch.float32)
            tokens = torch.stack([each[(regions + t.exp() * each).argmin(1)].mean() for t in candidates])
            tokens = tokens.cummin(0).values
            wanted = bits[levels] / (5 if nested else 10)
            place = torch.searchsorted(-tokens.contiguous(), -wanted.contiguous()).clamp(max=len(tokens) - 1)
            self.log_trade[levels] = candidates[place].to(self.log_trade.device)
