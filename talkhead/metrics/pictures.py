"""PSNR and SSIM of generated against real frames, per clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.metrics.sequences import PerClipMetric

MIN_SIDE = 11
"""Smallest picture SSIM is defined for here: the side of its window."""
_PSNR_CEILING = 100.0
_DEVIATION = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(generated: Tensor, real: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of a clip: mean over frames of ``10 log10(1 / MSE)``.

    Args:
        generated: ``(T, 3, H, W)`` in [0, 1].
        real: The same frames of the real video.

    Returns:
        Scalar float64 in dB; higher is better. A frame without any error counts as 100 dB, about a
        tenth of the error that rounding to 16 bits would leave, so that one perfect frame does not make the
        mean infinite.

    Raises:
        ShapeError: Not two clips of the same shape.

    Source: the usual definition with a peak of 1, on RGB. Deviates from implementations that pool the
        error over all frames before the logarithm, which gives lower values.
    """
    check_clips(generated, real)
    error = (generated.double() - real.double()).square().mean((1, 2, 3))
    frames = -10.0 * torch.log10(error.clamp_min(10.0 ** (-_PSNR_CEILING / 10.0)))
    return frames.mean()


def ssim(generated: Tensor, real: Tensor) -> Tensor:
    """Structural similarity of a clip, mean over frames; 1 is perfect.

    Gaussian window of 11 x 11 with a deviation of 1.5, constants (0.01)^2 and (0.03)^2 at a peak of 1,
    biased covariances, mean over RGB.

    Args:
        generated: ``(T, 3, H, W)`` in [0, 1], sides of at least 11.
        real: The same frames of the real video.

    Returns:
        Scalar float64 in [-1, 1]; higher is better.

    Raises:
        ShapeError: Not two clips of the same shape, or pictures smaller than the window.

    Source: Wang et al. (2004), where the window lies inside the picture. Deviates: RGB, the original is on
        luma.
    """
    check_clips(generated, real)
    if min(real.shape[-2:]) < MIN_SIDE:
        raise ShapeError(
            f"expected pictures of at least {MIN_SIDE} pixels a side, got {tuple(real.shape[-2:])}; "
            "compare larger crops."
        )
    window = _window(real.device)
    # One frame at a time: the five blurred maps of a whole clip would not fit in memory.
    frames = [
        _frame_ssim(g.double(), r.double(), window) for g, r in zip(generated, real, strict=True)
    ]
    return torch.stack(frames).mean()


def _window(device: torch.device) -> list[float]:
    """Weights of the Gaussian window along one axis, whose sum is 1."""
    place = torch.arange(MIN_SIDE, dtype=torch.float64, device=device) - MIN_SIDE // 2
    weights = torch.exp(-place.square() / (2.0 * _DEVIATION**2))
    return [float(w) for w in weights / weights.sum()]


def _frame_ssim(a: Tensor, b: Tensor, window: Sequence[float]) -> Tensor:
    """Mean structural similarity of two pictures ``(3, H, W)`` where the window lies inside."""
    x = torch.stack([a, b, a * a, b * b, a * b])
    # The window is a product of two: 22 sums of shifted pictures in place of a convolution with 121
    # weights, which takes fifteen times as long in float64 on a CPU.
    height, width = (side - MIN_SIDE + 1 for side in x.shape[-2:])
    rows = sum((w * x[..., k : k + height, :] for k, w in enumerate(window)), torch.zeros(()))
    blurred = sum((w * rows[..., k : k + width] for k, w in enumerate(window)), torch.zeros(()))
    mean_a, mean_b, square_a, square_b, product = blurred.unbind()
    covariance = product - mean_a * mean_b
    spread = square_a - mean_a.square() + square_b - mean_b.square()
    likeness = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    scale = (mean_a.square() + mean_b.square() + _C1) * (spread + _C2)
    return (likeness / scale).mean()


class PSNR(PerClipMetric):
    """Mean over clips of :func:`psnr`."""

    higher_is_better = True

    def update(self, generated: Tensor, real: Tensor, clip: str | None = None) -> None:
        """Add one clip; arguments as in :func:`psnr`, and its name."""
        self.add_clips(psnr(generated, real)[None], _names(clip))


class SSIM(PerClipMetric):
    """Mean over clips of :func:`ssim`."""

    higher_is_better = True

    def update(self, generated: Tensor, real: Tensor, clip: str | None = None) -> None:
        """Add one clip; arguments as in :func:`ssim`, and its name."""
        self.add_clips(ssim(generated, real)[None], _names(clip))


def check_clips(generated: Tensor, real: Tensor) -> None:
    """Refuse anything but two clips of RGB pictures ``(T, 3, H, W)`` of one shape.

    Raises:
        ShapeError: Other shapes, integers, or no frame.
    """
    same = generated.shape == real.shape and real.ndim == 4 and real.shape[1] == 3
    if (
        not same
        or len(real) == 0
        or not (generated.is_floating_point() and real.is_floating_point())
    ):
        raise ShapeError(
            f"expected two clips (T, 3, H, W) of float pictures in [0, 1], got {generated.dtype} "
            f"{tuple(generated.shape)} and {real.dtype} {tuple(real.shape)}; compare the same frames of both "
            "videos at one size."
        )


def _names(clip: str | None) -> Sequence[str] | None:
    return None if clip is None else [clip]
