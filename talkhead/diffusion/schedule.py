"""Noise schedules as value objects: the tables every sampler and every loss reads.

Step ``n`` runs from 0 (almost clean) to ``steps - 1`` (almost pure noise). A noised code is
``x_n = alpha[n] * x_0 + sigma[n] * noise`` with ``alpha**2 + sigma**2 == 1`` (variance preserving).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from talkhead.errors import ConfigError

ScheduleKind = Literal["cosine", "linear", "short_linear"]

COSINE_OFFSET = 0.008
MAX_BETA = 0.999
LINEAR_BETAS = (1e-4, 2e-2)
"""First and last beta of the linear schedule at 1000 steps; both scale with ``1000 / steps``."""
SHORT_LINEAR_BETAS = (1e-4, 6e-2)
"""The same at 100 steps, for the schedule of shallow diffusion; both scale with ``100 / steps``."""


def cosine_betas(steps: int) -> Tensor:
    """Cosine schedule, ``(steps,)`` float64: offset 0.008, betas capped at 0.999.

    ``beta_n = 1 - f((n+1)/steps) / f(n/steps)`` with ``f(u) = cos^2((u + .008)/1.008 * pi/2)``.

    Source: Nichol & Dhariwal (2021), eq. 17; the cap keeps the last step finite.
    """
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    level = torch.cos((u + COSINE_OFFSET) / (1 + COSINE_OFFSET) * math.pi / 2) ** 2
    return (1 - level[1:] / level[:-1]).clamp(max=MAX_BETA)


def linear_betas(steps: int) -> Tensor:
    """Linear schedule, ``(steps,)`` float64, 1e-4 to 0.02 at 1000 steps.

    Source: Ho et al. (2020), section 4.
    """
    first, last = (beta * 1000 / steps for beta in LINEAR_BETAS)
    return torch.linspace(first, last, steps, dtype=torch.float64).clamp(max=MAX_BETA)


def short_linear_betas(steps: int) -> Tensor:
    """Linear schedule that stops early, ``(steps,)`` float64, 1e-4 to 0.06 at 100 steps.

    It leaves 4.7 % of the signal's power at the last step, where ``"linear"`` leaves 0.004 %. The
    boundary of :mod:`talkhead.diffusion.shallow` compares with what is left there: if nothing is, no
    start but pure noise is close enough.

    Source: DiffSinger's configurations (reference-facts 5.3).
    """
    first, last = (beta * 100 / steps for beta in SHORT_LINEAR_BETAS)
    return torch.linspace(first, last, steps, dtype=torch.float64).clamp(max=MAX_BETA)


@dataclass(frozen=True)
class NoiseSchedule:
    """Immutable float64 tables of one variance-preserving diffusion process.

    Attributes:
        kind: ``"cosine"`` (MDM and the default), ``"linear"``, or ``"short_linear"`` (DiffSinger).
        steps: Number of diffusion steps ``N``.
        betas: ``(N,)`` variance added at each step.
        alpha_bar: ``(N,)`` signal power left after each step, ``prod(1 - beta)``.
        alpha: ``(N,)`` signal scale, ``sqrt(alpha_bar)``.
        sigma: ``(N,)`` noise scale, ``sqrt(1 - alpha_bar)``.
        log_snr: ``(N,)`` half log signal-to-noise ratio, ``log(alpha / sigma)``, falling in ``n``.

    Raises:
        ConfigError: Unknown kind or fewer than 2 steps.
    """

    kind: ScheduleKind = "cosine"
    steps: int = 1000
    betas: Tensor = field(init=False, repr=False, compare=False)
    alpha_bar: Tensor = field(init=False, repr=False, compare=False)
    alpha: Tensor = field(init=False, repr=False, compare=False)
    sigma: Tensor = field(init=False, repr=False, compare=False)
    log_snr: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Build the tables once, in float64."""
        makers = {
            "cosine": cosine_betas,
            "linear": linear_betas,
            "short_linear": short_linear_betas,
        }
        if self.kind not in makers:
            raise ConfigError(
                f"expected a noise schedule out of {sorted(makers)}, got {self.kind!r}; set one."
            )
        if self.steps < 2:
            raise ConfigError(
                f"expected at least 2 diffusion steps, got {self.steps}; raise the number."
            )
        betas = makers[self.kind](self.steps)
        alpha_bar = torch.cumprod(1 - betas, 0)
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        tables = {
            "betas": betas,
            "alpha_bar": alpha_bar,
            "alpha": alpha,
            "sigma": sigma,
            "log_snr": alpha.log() - sigma.log(),
        }
        for name, table in tables.items():
            object.__setattr__(self, name, table)  # the dataclass is frozen for everyone else

    def coefficients(self, n: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``alpha`` and ``sigma`` of steps ``n`` ``(B,)``, shaped to broadcast over ``like``.

        The look-up is in float64; the result has the device and type of ``like``.
        """
        shape = (-1,) + (1,) * (like.ndim - 1)
        index = n.to(self.alpha.device)
        alpha = self.alpha[index].reshape(shape).to(like)
        return alpha, self.sigma[index].reshape(shape).to(like)

    def noised(self, x0: Tensor, n: Tensor, noise: Tensor) -> Tensor:
        """Draw from ``q(x_n | x_0)`` with given unit noise.

        Args:
            x0: Clean data, ``(B, …)``.
            n: Diffusion steps in ``[0, N)``, ``(B,)`` int64.
            noise: Standard normal draw, shape of ``x0``.

        Returns:
            ``alpha[n] * x0 + sigma[n] * noise``, shape of ``x0``.

        Source: eq. 6 of the prior's paper in closed form.
        """
        alpha, sigma = self.coefficients(n, x0)
        return alpha * x0 + sigma * noise
