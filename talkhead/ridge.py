"""Ridge regression from sums alone: any batch or rank split gives the same fit.

A data set enters as :class:`RidgeSums` (counts, sums and products of inputs ``X`` ``(N, P)`` and
targets ``Y`` ``(N, Q)``). Sums of different clips add, sums of a fold subtract, and every error
that cross-validation needs follows from them in closed form, so rows are never kept.

``min_W,b  1/N |Y - X W - b|^2 + alpha |S W|^2``, ``S`` the inputs' standard deviations: the penalty
does not depend on the scale of an input nor on the number of rows, and the bias goes free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from talkhead.errors import ShapeError

ALPHAS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties tried by default, relative to unit-variance inputs."""

_TINY = 1e-12


@dataclass(frozen=True)
class RidgeSums:
    """Everything a ridge fit needs to know of ``N`` rows, in float64.

    ``count`` scalar, ``x`` ``(P,)``, ``y`` ``(Q,)``, ``xx`` ``(P, P)``, ``xy`` ``(P, Q)``, ``yy``
    ``(Q,)`` (sums of squared targets).
    """

    count: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @classmethod
    def of(cls, inputs: Tensor, targets: Tensor) -> Self:
        """Sums of rows ``(N, P)`` and ``(N, Q)``.

        Raises:
            ShapeError: Not two matrices with the same number of rows.
        """
        if inputs.ndim != 2 or targets.ndim != 2 or inputs.shape[0] != targets.shape[0]:
            raise ShapeError(
                f"expected inputs (N, P) and targets (N, Q), got {tuple(inputs.shape)} and "
                f"{tuple(targets.shape)}; give one target row for each input row."
            )
        x, y = inputs.to(torch.float64), targets.to(torch.float64)
        return cls(
            count=torch.tensor(float(x.shape[0]), dtype=torch.float64, device=x.device),
            x=x.sum(0),
            y=y.sum(0),
            xx=x.mT @ x,
            xy=x.mT @ y,
            yy=y.square().sum(0),
        )

    def __add__(self, other: RidgeSums) -> RidgeSums:
        """Sums of both sets of rows."""
        return RidgeSums(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in _F})

    def __sub__(self, other: RidgeSums) -> RidgeSums:
        """Sums of the rows that are in this set but not in ``other``."""
        return RidgeSums(**{f.name: getattr(self, f.name) - getattr(other, f.name) for f in _F})

    def spread(self) -> Tensor:
        """Sum of squared deviations of each target from its mean, ``(Q,)``."""
        return (self.yy - self.y.square() / self.count.clamp_min(1.0)).clamp_min(0.0)


_F = fields(RidgeSums)


@dataclass(frozen=True)
class LinearMap:
    """``Y = X weight + bias``: ``weight`` ``(P, Q)``, ``bias`` ``(Q,)``, float64."""

    weight: Tensor
    bias: Tensor

    def squared_error(self, sums: RidgeSums) -> Tensor:
        """Sum of squared errors for each target over the rows in ``sums``, ``(Q,)``."""
        through = self.weight.mT @ sums.x
        predicted_y = (self.weight * sums.xy).sum(0) + self.bias * sums.y
        predicted_2 = (self.weight * (sums.xx @ self.weight)).sum(0)
        predicted_2 = predicted_2 + 2.0 * self.bias * through + sums.count * self.bias.square()
        return (sums.yy - 2.0 * predicted_y + predicted_2).clamp_min(0.0)


def total(parts: Sequence[RidgeSums]) -> RidgeSums:
    """Sums over several sets of rows."""
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + part
    return joined


def ridge_fits(sums: RidgeSums, alphas: Sequence[float]) -> list[LinearMap]:
    """One fit for each penalty, from one eigendecomposition.

    Inputs that never vary get weight 0.
    """
    n = sums.count
    mean_x, mean_y = sums.x / n, sums.y / n
    cov = sums.xx / n - mean_x[:, None] * mean_x[None, :]
    cross = sums.xy / n - mean_x[:, None] * mean_y[None, :]
    variance = cov.diagonal().clone()
    # Rounding leaves a constant input with a variance of about 1e-16 of its mean square.
    alive = variance > _TINY * (1.0 + mean_x.square())
    inverse = torch.where(alive, variance.clamp_min(_TINY).rsqrt(), torch.zeros_like(variance))
    values, vectors = torch.linalg.eigh(cov * inverse[:, None] * inverse[None, :])
    projected = vectors.mT @ (cross * inverse[:, None])
    fits = []
    for alpha in alphas:
        shrunk = projected / (values.clamp_min(0.0) + alpha)[:, None]
        weight = (vectors @ shrunk) * inverse[:, None]
        fits.append(LinearMap(weight, mean_y - weight.mT @ mean_x))
    return fits


def best_alpha(folds: Sequence[RidgeSums], alphas: Sequence[float] = ALPHAS) -> float:
    """Penalty with the smallest error on left-out folds, each target weighted by its variance.

    Raises:
        ShapeError: Fewer than two folds with rows.
    """
    used = [fold for fold in folds if fold.count > 0]
    if len(used) < 2:
        raise ShapeError(
            f"expected at least 2 folds with rows, got {len(used)}; give more clips, "
            "penalties are chosen on held-out ones."
        )
    everything = total(used)
    scale = everything.spread().clamp_min(_TINY)
    errors = torch.zeros(len(alphas), dtype=torch.float64)
    for fold in used:
        for k, fit in enumerate(ridge_fits(everything - fold, alphas)):
            errors[k] += (fit.squared_error(fold) / scale).mean().cpu()
    return alphas[int(errors.argmin())]


def fit_ridge(
    folds: Sequence[RidgeSums], alphas: Sequence[float] = ALPHAS
) -> tuple[LinearMap, float]:
    """Fit on all folds with the penalty chosen by :func:`best_alpha`; returns map and penalty."""
    alpha = best_alpha(folds, alphas)
    return ridge_fits(total([f for f in folds if f.count > 0]), [alpha])[0], alpha


def r_squared(error: Tensor, spread: Tensor) -> Tensor:
    """``1 - error / spread`` for each target, NaN where a target does not vary."""
    nothing = torch.full_like(error, float("nan"))
    return torch.where(spread > _TINY, 1.0 - error / spread.clamp_min(_TINY), nothing)
