"""Moments and spectrum of sampled motion against the true process given the same speech.

The embedded corpus draws head, brow, lid and gaze motion from a known process conditioned on the
speech. ``K`` samples of a prior for one speech are compared with it by mean, variance, lag
autocorrelation and power spectrum, all estimated alike on both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.metrics.sequences import PerClipMetric

MAX_LAG_FRAMES = 50
_TINY = 1e-12

DistanceName = Literal[
    "mean_error", "variance_ratio", "log_spectral_distance", "autocorrelation_distance"
]


@dataclass(frozen=True)
class SequenceMoments:
    """First and second moments of motion given one speech.

    Attributes:
        mean: ``(T, D)``, the mean over takes at each frame.
        autocovariance: ``(L + 1, D)``, covariance at lags 0…L around that mean, averaged over the
            frames of the clip: ``1 / (T - l) sum_t cov(x_t, x_{t + l})``.
        takes: Number of takes behind an estimate; None for a closed form.
    """

    mean: Tensor
    autocovariance: Tensor
    takes: int | None = None

    @classmethod
    def from_takes(cls, takes: Tensor, max_lag: int = MAX_LAG_FRAMES) -> SequenceMoments:
        """Unbiased estimate from ``K`` takes ``(K, T, D)``.

        Deviations from the mean over takes are too small by ``(K - 1) / K``, which is put right.

        Raises:
            ShapeError: Fewer than two takes, or ``T <= max_lag``.
        """
        if takes.ndim != 3 or takes.shape[0] < 2 or takes.shape[1] <= max_lag:
            raise ShapeError(
                f"expected at least 2 takes (K, T, D) longer than {max_lag} frames, got "
                f"{tuple(takes.shape)}; sample more takes or lower max_lag."
            )
        x = takes.to(torch.float64)
        mean = x.mean(dim=0)
        deviation = x - mean
        k, frames = x.shape[:2]
        lags = [
            (deviation[:, : frames - lag] * deviation[:, lag:]).mean(dim=(0, 1)) * k / (k - 1)
            for lag in range(max_lag + 1)
        ]
        return cls(mean, torch.stack(lags), k)

    def spectrum(self, bins: int = 64) -> Tensor:
        """Power at ``bins`` frequencies from 0 to half the frame rate, ``(bins, D)``.

        ``S(f) = c_0 + 2 sum_l (1 - l / (L + 1)) c_l cos(2 pi f l)`` with Bartlett's window: a true
        autocovariance then gives no negative power; an estimate's is clipped at 1e-12.
        """
        c = self.autocovariance.to(torch.float64)
        lag = torch.arange(c.shape[0], dtype=torch.float64, device=c.device)
        window = 1.0 - lag / c.shape[0]
        window[1:] *= 2.0
        frequency = torch.linspace(0.0, 0.5, bins, dtype=torch.float64, device=c.device)
        kernel = torch.cos(2.0 * torch.pi * frequency[:, None] * lag[None, :]) * window
        return (kernel @ c).clamp_min(_TINY)


def mean_error(sampled: SequenceMoments, true: SequenceMoments) -> Tensor:
    """RMS distance of the means over frames, in true standard deviations, averaged over entries.

    With an estimate from ``K`` takes, the ``variance / K`` that noise alone adds is taken off
    before the root, so the right process scores about 0 for any ``K``.
    """
    difference = (sampled.mean - true.mean).square().mean(dim=0)
    for side in (sampled, true):
        if side.takes is not None:
            difference = difference - side.autocovariance[0] / side.takes
    scale = true.autocovariance[0].clamp_min(_TINY)
    return (difference.clamp_min(0.0) / scale).sqrt().mean()


def variance_ratio(sampled: SequenceMoments, true: SequenceMoments) -> Tensor:
    """Geometric mean over entries of sampled over true variance; 1 is right, below 1 too tame."""
    ratio = sampled.autocovariance[0].clamp_min(_TINY) / true.autocovariance[0].clamp_min(_TINY)
    return ratio.log().mean().exp()


def log_spectral_distance(sampled: SequenceMoments, true: SequenceMoments) -> Tensor:
    """Mean over entries of the RMS over frequencies of the power ratio in dB; 0 is right."""
    decibel = 10.0 * (sampled.spectrum().log10() - true.spectrum().log10())
    return decibel.square().mean(dim=0).sqrt().mean()


def autocorrelation_distance(sampled: SequenceMoments, true: SequenceMoments) -> Tensor:
    """Mean absolute difference of the autocorrelations over lags 1…L and entries; 0 is right."""
    ours = sampled.autocovariance[1:] / sampled.autocovariance[0].clamp_min(_TINY)
    truth = true.autocovariance[1:] / true.autocovariance[0].clamp_min(_TINY)
    return (ours - truth).abs().mean()


def process_distance(
    sampled: SequenceMoments, true: SequenceMoments, valid_entries: Tensor | None = None
) -> dict[DistanceName, Tensor]:
    """All four distances, float64 scalars.

    Args:
        sampled: Moments of a prior's takes, :meth:`SequenceMoments.from_takes`.
        true: Moments of the process for the same speech, closed form or from many takes.
        valid_entries: ``(D,)`` bool, entries to compare; default those that truly vary.

    Raises:
        ShapeError: Frames, entries or lags differ.
    """
    if (
        sampled.mean.shape != true.mean.shape
        or sampled.autocovariance.shape != true.autocovariance.shape
    ):
        raise ShapeError(
            f"expected moments of the same frames, entries and lags, got mean "
            f"{tuple(sampled.mean.shape)} and {tuple(true.mean.shape)}, autocovariance "
            f"{tuple(sampled.autocovariance.shape)} and {tuple(true.autocovariance.shape)}."
        )
    kept = true.autocovariance[0] > _TINY if valid_entries is None else valid_entries.bool()
    ours, truth = (
        SequenceMoments(
            m.mean[:, kept].to(torch.float64), m.autocovariance[:, kept].to(torch.float64), m.takes
        )
        for m in (sampled, true)
    )
    return {
        "mean_error": mean_error(ours, truth),
        "variance_ratio": variance_ratio(ours, truth),
        "log_spectral_distance": log_spectral_distance(ours, truth),
        "autocorrelation_distance": autocorrelation_distance(ours, truth),
    }


class ProcessDistance(PerClipMetric):
    """Mean over clips of one of the distances of :func:`process_distance`."""

    def __init__(self, distance: DistanceName, max_lag: int = MAX_LAG_FRAMES) -> None:
        """``distance`` names the value that ``compute`` averages."""
        super().__init__()
        if distance not in get_args(DistanceName):
            raise ShapeError(f"expected one of {get_args(DistanceName)}, got {distance!r}.")
        self.distance: DistanceName = distance
        self.max_lag = max_lag

    def update(
        self,
        takes: Tensor,
        true: Sequence[SequenceMoments],
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add clips: takes ``(C, K, T, D)`` and the true moments of each of the ``C`` speeches.

        Raises:
            ShapeError: Other shapes, or other than ``C`` true moments.
        """
        if len(takes) != len(true):
            raise ShapeError(
                f"expected true moments of {len(takes)} speeches, got {len(true)}; give one a clip."
            )
        values = [
            process_distance(SequenceMoments.from_takes(one, self.max_lag), moments)[self.distance]
            for one, moments in zip(takes, true, strict=True)
        ]
        self.add_clips(torch.stack(values), clip)
