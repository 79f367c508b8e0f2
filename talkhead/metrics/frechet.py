"""Frechet distance between two Gaussians, in float64.

``d^2 = |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2))``

``tr((C1 C2)^(1/2))`` is the nuclear norm of ``C1^(1/2) C2^(1/2)``. With covariances it is the sum
of the square roots of the eigenvalues of the symmetric ``C1^(1/2) C2 C1^(1/2)``; with samples in
more dimensions than rows it is the nuclear norm of the small matrix ``A B^T`` of centred rows, and
no ``D x D`` matrix is ever formed. Neither route needs a general matrix square root, which costs 50
times more at ``D = 2048`` and fails on singular covariances.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from talkhead.errors import ShapeError
from talkhead.metrics.sequences import Standard, standardised, valid_frames


def gaussian_frechet(
    mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor, *, eps: float = 0.0
) -> Tensor:
    """Squared Frechet distance of two Gaussians.

    Args:
        mean_a: ``(D,)``.
        cov_a: ``(D, D)``, symmetric positive semi-definite; may be singular.
        mean_b: ``(D,)``.
        cov_b: ``(D, D)``.
        eps: Added to both diagonals. pytorch-fid adds 1e-6 when its matrix square root fails on
            singular input; the symmetric root used here does not fail, so 0 gives the exact limit.

    Returns:
        Distance, float64 scalar, at least 0.

    Raises:
        ShapeError: Sizes differ.

    Example: ``N(0, I)`` against ``N(1, I)`` in 16 dimensions gives 16.

    Source: Heusel et al. (2017), equation 6; Dowson & Landau (1982).
    """
    d = mean_a.shape[-1] if mean_a.ndim == 1 else -1
    if mean_b.shape != (d,) or cov_a.shape != (d, d) or cov_b.shape != (d, d):
        raise ShapeError(
            f"expected two means (D,) and two covariances (D, D), got {tuple(mean_a.shape)}, "
            f"{tuple(cov_a.shape)}, {tuple(mean_b.shape)}, {tuple(cov_b.shape)}; "
            "use statistics of the same features."
        )
    m1, c1, m2, c2 = (x.to(torch.float64) for x in (mean_a, cov_a, mean_b, cov_b))
    if eps > 0.0:
        ridge = eps * torch.eye(d, dtype=torch.float64, device=c1.device)
        c1, c2 = c1 + ridge, c2 + ridge
    values, vectors = torch.linalg.eigh(c1)
    root = (vectors * values.clamp_min(0.0).sqrt()) @ vectors.mT
    inner = torch.linalg.eigvalsh(root @ c2 @ root)
    cross = inner.clamp_min(0.0).sqrt().sum()
    distance: Tensor = (m1 - m2).square().sum() + c1.trace() + c2.trace() - 2.0 * cross
    return distance.clamp_min(0.0)


def frechet_distance(a: Tensor, b: Tensor, *, eps: float = 0.0) -> Tensor:
    """Squared Frechet distance between Gaussians fitted to two sets of samples.

    Covariances are unbiased (divided by ``N - 1``). Uses the low-rank route when both sets have
    fewer rows than dimensions, which is exact, not an approximation.

    Args:
        a: ``(N, D)``.
        b: ``(M, D)``.
        eps: See :func:`gaussian_frechet`; a positive value forces the covariance route.

    Returns:
        Distance, float64 scalar, at least 0.

    Raises:
        ShapeError: Not two matrices of one width, or fewer than two rows.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(a.shape[0], b.shape[0]) < 2:
        raise ShapeError(
            f"expected samples (N, D) and (M, D) with at least 2 rows, got {tuple(a.shape)} and "
            f"{tuple(b.shape)}; use longer clips or pool them."
        )
    a, b = a.to(torch.float64), b.to(torch.float64)
    if eps == 0.0 and max(a.shape[0], b.shape[0]) < a.shape[1]:
        return _low_rank_frechet(a, b)
    return gaussian_frechet(a.mean(0), _covariance(a), b.mean(0), _covariance(b), eps=eps)


def _low_rank_frechet(a: Tensor, b: Tensor) -> Tensor:
    """Exact distance through the ``N x M`` product of centred rows."""
    ca, cb = a - a.mean(0), b - b.mean(0)
    na, nb = a.shape[0] - 1, b.shape[0] - 1
    cross = torch.linalg.svdvals(ca @ cb.mT).sum() / (na * nb) ** 0.5
    spread = ca.square().sum() / na + cb.square().sum() / nb
    distance: Tensor = (a.mean(0) - b.mean(0)).square().sum() + spread - 2.0 * cross
    return distance.clamp_min(0.0)


def _covariance(x: Tensor) -> Tensor:
    """Unbiased covariance of rows, ``(D, D)``."""
    centred = x - x.mean(0)
    return centred.mT @ centred / (x.shape[0] - 1)


class FrechetDistance(Metric):
    """Frechet distance pooled over all frames that were fed, from sums that add up over ranks.

    Feed ``update`` any leading shape; the last axis is the feature. Give the training split's
    ``standard``: sums of raw features far from zero would lose digits.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    count: Tensor
    total: Tensor
    outer: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, dim: int, standard: Standard | None = None) -> None:
        """Pool features of width ``dim``; ``standard`` as in :func:`standardised`."""
        super().__init__()
        self.set_dtype(torch.float64)
        # Index 0 holds the generated side, index 1 the real one.
        self.add_state("count", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(2, dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(2, dim, dim, dtype=torch.float64), dist_reduce_fx="sum")
        mean, std = standard if standard is not None else (torch.zeros(dim), torch.ones(dim))
        self.register_buffer("mean", mean.detach().clone().double(), persistent=False)
        self.register_buffer("std", std.detach().clone().double(), persistent=False)

    def update(self, features: Tensor, *, real: bool, valid: Tensor | None = None) -> None:
        """Add features ``(..., D)`` of one side; ``valid`` ``(...)`` masks rows.

        Raises:
            ShapeError: Another width, or a mask of another shape.
        """
        if valid is not None and valid.shape != features.shape[:-1]:
            raise ShapeError(
                f"expected a mask {tuple(features.shape[:-1])}, got {tuple(valid.shape)}; one flag a row."
            )
        rows = standardised(features, (self.mean, self.std)).reshape(-1, self.total.shape[1])
        rows = valid_frames(rows, None if valid is None else valid.reshape(-1)).to(self.device)
        side = int(real)
        self.count[side] += rows.shape[0]
        self.total[side] += rows.sum(0)
        self.outer[side] += rows.mT @ rows

    def compute(self) -> Tensor:
        """Distance, float64 scalar; NaN while a side has fewer than two rows."""
        if self.count.min() < 2:
            return torch.full((), float("nan"), dtype=torch.float64, device=self.device)
        means = self.total / self.count[:, None]
        outer = self.outer - self.count[:, None, None] * means[:, :, None] * means[:, None, :]
        cov = outer / (self.count - 1)[:, None, None]
        return gaussian_frechet(means[0], cov[0], means[1], cov[1])
