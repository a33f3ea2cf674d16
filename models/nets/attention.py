"""What lets an entropy model look around: attention over neighbours and over the whole tile, channel context, gates.

All of it works on a state (B, K, h, w) and on latents that are known already, (B, C, h, w), and starts without effect:
the last layer of each is zero. Its sums are floats, so it may refine means but never choose a table.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixa.models.nets.layers import Pointwise


class LocalAttention(nn.Module):
    """Checkerboard attention: every position looks at the positions of the other parity in a window around it.

    Queries come from the state, keys and values from the anchors; every head adds a bias for each relative place. The
    last layer also sees the anchors themselves, which the block behind it spreads to their neighbours. Beyond the edge
    of the tile keys and values are zero.

    Args:
        k, c: channels of the state and of the anchors.
        width: channels of queries, keys and values, a multiple of heads.
        window: side of the window, odd.

    Attributes:
        offsets: rows and columns of the places from the upper left corner of the window.
        products: multiply-accumulates a position beside those of the layers.
    """

    def __init__(self, k: int, c: int, width: int, heads: int, window: int):
        super().__init__()
        self.heads, self.reach = heads, window // 2
        self.offsets = [(i, j) for i in range(window) for j in range(window) if (i + j) % 2]
        self.products = 2 * width * len(self.offsets)
        self.position = nn.Parameter(torch.zeros(len(self.offsets), heads, 1, 1))
        self.query = Pointwise(k, width)
        self.key = Pointwise(c, width)
        self.value = Pointwise(c, width)
        self.out = Pointwise(width + c, k, zero=True)

    def near(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> what lies at every offset, (B, offsets, heads, width / heads, h * w)."""
        height, width = x.shape[2:]
        x = F.pad(x, [self.reach] * 4)
        x = torch.stack([x[:, :, i : i + height, j : j + width] for i, j in self.offsets], 1)
        return x.flatten(3).unflatten(2, (self.heads, -1))

    def forward(self, state: Tensor, anchors: Tensor) -> Tensor:
        """(B, K, h, w) and (B, C, h, w), zero between the anchors -> what to add to the state."""
        query = self.query(state)
        key, value = self.near(self.key(anchors)), self.near(self.value(anchors))
        scores = (query.flatten(2).unflatten(1, (1, self.heads, -1)) * key).sum(3, keepdim=True)
        weights = torch.softmax(scores * key.shape[3] ** -0.5 + self.position, 1)
        seen = (weights * value).sum(1).reshape(query.shape)
        return self.out(torch.cat([seen, anchors], 1))


class GlobalAttention(nn.Module):
    """Linear attention over all positions of a tile: its cost grows with their number, not with its square.

    Queries, a softmax over the channels of a head, and keys, a softmax over positions, come from the state (Shen et
    al., "Efficient attention: attention with linear complexities", WACV 2021); values come from what is known.

    Args:
        k, c: channels of the state and of what is known.
        width: channels of queries, keys and values, a multiple of heads.

    Attributes:
        products: multiply-accumulates a position beside those of the layers.
    """

    def __init__(self, k: int, c: int, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.products = 2 * width * width // heads
        self.query = Pointwise(k, width)
        self.key = Pointwise(k, width)
        self.value = Pointwise(c, width)
        self.out = Pointwise(width, k, zero=True)

    def forward(self, state: Tensor, known: Tensor) -> Tensor:
        """(B, K, h, w) and (B, C, h, w) -> what to add to the state."""
        query = self.query(state)
        queries, keys, values = (
            x.flatten(2).unflatten(1, (self.heads, -1)) for x in (query, self.key(state), self.value(known))
        )
        seen = values @ keys.softmax(3).mT @ queries.softmax(2)
        return self.out(seen.reshape(query.shape))


class ChannelContext(nn.Module):
    """The slice that was coded before, position by position."""

    def __init__(self, k: int, c: int):
        super().__init__()
        self.out = Pointwise(c, k, zero=True)

    def forward(self, state: Tensor, known: Tensor) -> Tensor:
        """(B, K, h, w) and (B, C, h, w) -> what to add to the state."""
        return self.out(known)


class ChannelGate(nn.Module):
    """Channel reweighting: (B, K, h, w) times a factor in (0, 2) for every channel, made of the means over positions.

    Squeeze and excitation (Hu et al., CVPR 2018), started at a factor of 1.
    """

    def __init__(self, k: int):
        super().__init__()
        self.squeeze = Pointwise(k, k // 4)
        self.excite = Pointwise(k // 4, k, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * (2 * torch.sigmoid(self.excite(F.relu(self.squeeze(mean)))))
