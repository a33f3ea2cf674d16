"""Vector quantisation: a codebook that follows its data, and the grouping of its codes by k-means.

The codes are moving averages of what falls on them (van den Oord et al., NeurIPS 2017, appendix A.1); codes that
nothing falls on begin anew at a vector of the batch (Dhariwal et al., "Jukebox", 2020). Groups of equal size make the
codebook nested: a group alone, without the member, stands for its centroid (k-means of a codebook for lower rates: Mao
et al., "Extreme Image Compression using Fine-tuned VQGANs", DCC 2024).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEMORY = 10.0  # vectors a code that its average goes back over, whatever the size of a batch
SAMPLE = 64  # vectors a code that k-means looks at, at most
DEAD = 0.1  # of the mean share: a code that is hit less often begins anew


class Codebook(nn.Module):
    """K codes of d dimensions in sqrt(K) groups of sqrt(K): the code of group a and member b is the one of index
    a * sqrt(K) + b, once `regroup` has put them in that order.

    Args:
        groups: sqrt(K).

    Attributes:
        codes: (K, d).
        count, total: of the vectors that fall on every code, the number and the sum, older ones fading away.
    """

    def __init__(self, groups: int, d: int):
        super().__init__()
        size = groups * groups
        self.groups = groups
        self.register_buffer("codes", torch.randn(size, d))
        self.register_buffer("count", torch.ones(size))
        self.register_buffer("total", self.codes.clone())

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def centroids(self) -> Tensor:
        """(groups, d), the mean code of every group, weighted by use."""
        weight = self.count.view(self.groups, -1, 1) + 1e-3
        return (self.codes.view(self.groups, self.groups, -1) * weight).sum(1) / weight.sum(1)

    def forward(self, z: Tensor, nested: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The nearest code of every vector.

        Args:
            z: (B, d, h, w).
            nested: (B,) booleans, where the nearest centroid is meant instead.

        Returns:
            ((B, d, h, w) codes without a gradient, (B, h, w) indexes; of a nested token, that of its group).
        """
        flat = z.detach().float().permute(0, 2, 3, 1)
        index = nearest(flat, self.codes)
        chosen = F.embedding(index, self.codes)
        if nested is not None:
            centroids = self.centroids
            group = nearest(flat, centroids)
            where = nested[:, None, None]
            index = torch.where(where, group, index)
            chosen = torch.where(where[..., None], F.embedding(group, centroids), chosen)
        return chosen.permute(0, 3, 1, 2), index

    @torch.no_grad()
    def start(self, z: Tensor, fresh: bool = True, rounds: int = 8) -> None:
        """A few rounds of k-means of vectors (N, d), from some of them or, if not `fresh`, from the codes there are."""
        z = z[torch.randperm(len(z), device=z.device)[: SAMPLE * len(self)]]
        if fresh:
            self.codes.copy_(z[torch.randint(len(z), (len(self),), device=z.device)])
        for _ in range(rounds):
            index = nearest(z, self.codes)
            count = torch.zeros_like(self.count).index_add_(0, index, torch.ones(len(z), device=z.device))
            total = torch.zeros_like(self.total).index_add_(0, index, z)
            spare = z[torch.randint(len(z), (len(self),), device=z.device)]
            self.codes.copy_(torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], spare))
        self.count.copy_(count.clamp(min=1) * (MEMORY * len(self) / len(z)))
        self.total.copy_(self.codes * self.count[:, None])

    @torch.no_grad()
    def follow(self, z: Tensor, index: Tensor, used: Tensor) -> None:
        """Move the codes towards the vectors z (B, d, h, w) that fell on them, where `used` (B, h, w) is one.

        Nothing here waits for the device.
        """
        flat = z.detach().float().permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        index, used = index.flatten(), used.flatten().float()
        count = torch.zeros_like(self.count).index_add_(0, index, used)
        total = torch.zeros_like(self.total).index_add_(0, index, flat * used[:, None])
        decay = torch.exp(-used.sum() / (MEMORY * len(self)))
        self.count.mul_(decay).add_(count)
        self.total.mul_(decay).add_(total)
        codes = self.total / self.count.clamp(min=1e-6)[:, None]

        # multinomial would refuse a batch in which nothing is used
        spare = flat[torch.multinomial(used + 1e-6, len(self), replacement=True)]
        mean = self.count.mean()
        dead = (self.count < DEAD * mean)[:, None]
        self.codes.copy_(torch.where(dead, spare, codes))
        self.count.copy_(torch.where(dead[:, 0], 0.5 * mean, self.count))
        self.total.copy_(self.codes * self.count[:, None])

    @torch.no_grad()
    def order(self, rounds: int = 10) -> Tensor:
        """The order (K,) of the codes in which every run of `groups` codes is one of k-means with clusters of equal
        size."""
        from scipy.optimize import linear_sum_assignment

        codes = self.codes.double().cpu()
        centres = codes[torch.randperm(len(codes))[: self.groups]]
        for _ in range(rounds):
            distance = torch.cdist(codes, centres).square().repeat_interleave(self.groups, 1)
            _, seat = linear_sum_assignment(distance.numpy())
            group = torch.from_numpy(seat) // self.groups
            order = torch.argsort(group, stable=True)
            centres = codes[order].view(self.groups, self.groups, -1).mean(1)
        return order.to(self.codes.device)

    @torch.no_grad()
    def regroup(self, order: Tensor) -> None:
        """Put the codes in an order (K,)."""
        for buffer in (self.codes, self.count, self.total):
            buffer.copy_(buffer[order])


def nearest(z: Tensor, codes: Tensor) -> Tensor:
    """Indexes (...) of the codes (K, d) nearest to vectors z (..., d)."""
    flat = z.reshape(-1, z.shape[-1])
    return torch.addmm(codes.square().sum(1), flat, codes.mT, alpha=-2).argmin(1).view(z.shape[:-1])
