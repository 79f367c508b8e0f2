r"""Shallow diffusion: from which step a rough prediction is as good a start as pure noise.

Diffusion makes the trajectories of the truth ``x0`` and of a rough prediction ``xc`` of it meet. Both
diffused to step ``n`` are Gaussians of one covariance, ``sigma_n^2 I``, so

.. math:: KL_n = \frac{\bar\alpha_n}{2 (1 - \bar\alpha_n)} \lVert x_0 - x_c \rVert^2

exactly. Sampling from noise makes an error of the same kind, as the last step of the truth is not quite
``N(0, I)``:

.. math:: KL_N = \tfrac12 [D (-\bar\alpha_N - \ln(1 - \bar\alpha_N)) + \bar\alpha_N \lVert x_0 \rVert^2]

The boundary is the smallest number of steps ``K`` with ``KL_{K-1} <= KL_N``: entering the chain there
with the diffused prediction costs no more than entering it at its end with noise. The first divergence is
that of the two *closed-form* laws. Comparing samples that were noised already instead (a public variant
does) adds the noise's own distance, which does not shrink with the step, and the rule then always
answers ``N``.

Source: the shallow diffusion mechanism of paper 2, section 3.3, whose criterion is not printed; the rule is
    the published one of DiffSinger in the form derived in reference-facts 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from talkhead.diffusion.schedule import NoiseSchedule
from talkhead.errors import ConfigError, ShapeError

StartKind = Literal["calibrated", "predicted", "noise"]
"""Where sampling starts: at the step calibrated on validation data, at the one predicted for each sample, or
at pure noise."""
StartStep = int | StartKind
"""The same, or after so many diffusion steps (0 leaves the coarse prediction as it is)."""


def check_start(start: object, steps: int) -> None:
    """Refuse what is no :data:`StartStep` of a schedule of ``steps`` steps; None is fine.

    Raises:
        ConfigError: Neither 0 to ``steps`` nor a known word.
    """
    words = get_args(StartKind)
    number = isinstance(start, int) and not isinstance(start, bool) and 0 <= start <= steps
    if start is not None and start not in words and not number:
        raise ConfigError(
            f"start_step: expected 0 to {steps} or one of {', '.join(words)}, got {start!r}."
        )


def diffused_kl(distance: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Divergence of the diffused truth from the diffused prediction at every step.

    Args:
        distance: Squared distance of truth and prediction, summed over entries, ``(...)``.
        schedule: Tables of ``N`` steps.

    Returns:
        Nats, float64 ``(..., N)``, falling.
    """
    kept = schedule.alpha_bar.to(distance.device)
    return distance.double()[..., None] * (kept / (2 * (1 - kept)))


def terminal_kl(power: Tensor, entries: Tensor | int, schedule: NoiseSchedule) -> Tensor:
    """Divergence of the fully diffused truth from the noise that sampling starts with.

    Args:
        power: Squared norm of the truth, summed over entries, ``(...)``.
        entries: Number of these entries ``D``.
        schedule: Tables.

    Returns:
        Nats, float64 ``(...)``.
    """
    kept = float(schedule.alpha_bar[-1])
    counted = torch.as_tensor(entries, device=power.device).double()
    return 0.5 * (counted * (-kept - math.log1p(-kept)) + kept * power.double())


def boundary_step(
    distance: Tensor,
    power: Tensor,
    entries: Tensor | int,
    schedule: NoiseSchedule,
    *,
    tolerance: float = 0.0,
) -> Tensor:
    """Fewest reverse steps for which a shallow start is as good as a start from noise.

    Example: a prediction that is exact starts at step 1; one as far off as the truth is long starts
    near the end.

    Args:
        distance: Squared distance of truth and prediction over ``D`` entries, ``(...)``; one number a
            sample gives a step a sample, the mean over a data set the step of the expected divergence.
        power: Squared norm of the truth over the same entries, ``(...)``.
        entries: ``D``.
        schedule: Tables of ``N`` steps.
        tolerance: Nats an entry that are always allowed, for a schedule that ends in almost pure noise,
            by whose own ``KL_N`` no start but noise would pass.

    Returns:
        ``K``, int64 ``(...)`` from 1 to ``N``; sampling starts at table index ``K - 1``.

    Raises:
        ShapeError: Shapes differ, or a distance or norm is negative or not finite.
        ConfigError: A negative tolerance.
    """
    if tolerance < 0:
        raise ConfigError(f"tolerance: expected at least 0 nats an entry, got {tolerance}.")
    if distance.shape != power.shape:
        raise ShapeError(
            f"expected one squared norm for each squared distance, got {tuple(power.shape)} and "
            f"{tuple(distance.shape)}; sum both over the same entries."
        )
    for name, values in (("distances", distance), ("norms", power)):
        if not bool((torch.isfinite(values) & (values >= 0)).all()):
            raise ShapeError(f"expected finite squared {name} of at least 0; check the prediction.")
    counted = torch.as_tensor(entries, device=power.device).double()
    allowed = terminal_kl(power, entries, schedule).clamp_min(0) + tolerance * counted
    too_far = diffused_kl(distance, schedule) > allowed[..., None]
    return (too_far.sum(-1) + 1).clamp(max=schedule.steps)


class BoundaryCalibration:
    """The boundary of the expected divergence over a data set, from sums alone.

    Attributes:
        sums: Squared distance, squared norm, entries and samples so far.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.sums = [0.0, 0.0, 0.0, 0.0]

    def update(self, coarse: Tensor, real: Tensor) -> None:
        """Add samples.

        Args:
            coarse: Predictions ``(B, ...)`` in the denoiser's space, frames that are given left out.
            real: The truth, same shape.

        Raises:
            ShapeError: Shapes differ.
        """
        if coarse.shape != real.shape:
            raise ShapeError(
                f"expected a prediction for every real sample, got {tuple(coarse.shape)} and "
                f"{tuple(real.shape)}."
            )
        distance, power = squares(coarse, real)
        added = (float(distance.sum()), float(power.sum()), float(real.numel()), float(len(real)))
        self.sums = [old + new for old, new in zip(self.sums, added, strict=True)]

    def step(self, schedule: NoiseSchedule, *, tolerance: float = 0.0) -> int | None:
        """:func:`boundary_step` of the means; None without a sample."""
        distance, power, entries, count = self.sums
        if count == 0:
            return None
        means = torch.tensor([distance, power, entries], dtype=torch.float64) / count
        return int(boundary_step(means[0], means[1], means[2], schedule, tolerance=tolerance))

    @classmethod
    def joined(cls, parts: Sequence[Sequence[float]]) -> Self:
        """Over all samples of several ranks, from the ``sums`` of each."""
        whole = cls()
        whole.sums = [math.fsum(column) for column in zip(*parts, strict=True)]
        return whole


def squares(coarse: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of ``(B, ...)`` pairs and squared norm of the real ones, float64 ``(B,)``."""
    truth = real.detach().double().flatten(1)
    return (coarse.detach().double().flatten(1) - truth).square().sum(1), truth.square().sum(1)
