"""Exact denoisers for data whose posterior is known: a fixed point, and Gaussian data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from talkhead.diffusion.schedule import NoiseSchedule


def point_denoiser(x0: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """All data sit at ``x0``: the posterior mean is ``x0`` wherever one stands."""
    return lambda x, n: x0.expand_as(x)


def gaussian_denoiser(
    mean: Tensor, covariance: Tensor, schedule: NoiseSchedule
) -> Callable[[Tensor, Tensor], Tensor]:
    """``E[x0 | x_n]`` for rows drawn from ``N(mean, covariance)``, ``x`` is ``(B, T, D)`` float64.

    ``mean + alpha C (alpha^2 C + sigma^2 I)^-1 (x - alpha mean)``.
    """

    def denoise(x: Tensor, n: Tensor) -> Tensor:
        alpha, sigma = schedule.alpha[n[0]], schedule.sigma[n[0]]
        total = alpha**2 * covariance + sigma**2 * torch.eye(len(mean), dtype=mean.dtype)
        gain = alpha * torch.linalg.solve(total, covariance).T
        posterior: Tensor = mean + (x - alpha * mean) @ gain.T
        return posterior

    return denoise
