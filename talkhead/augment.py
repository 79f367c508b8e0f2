"""Augmentation that takes identity out of the motion encoder's input.

All functions work on batches of float pictures in [-1, 1], draw separate numbers for every picture
from a ``torch.Generator`` (or torch's global one), and run on the pictures' device.

Source: LPD's recipe and PC-AVS' channel gain (reference-facts 1.3). Left out: JPEG artefacts and
emboss, edge and elastic filters, which have no cheap batched form; the main destroyer of identity
is the change of aspect ratio. The drawn pixel operations run in one fixed order, that of
:data:`PIXEL_OPS`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError

MAX_PIXEL_OPS = 5
_GREY = (0.299, 0.587, 0.114)

Rng = torch.Generator | None


def augment_pose_input(
    pictures: Tensor, generator: Rng = None, *, pixel: bool = True, squeeze: bool = True
) -> Tensor:
    """Pictures for the motion encoder: other colours and sharpness, another aspect ratio.

    Args:
        pictures: ``(n, 3, H, W)`` in [-1, 1].
        generator: Source of randomness.
        pixel: Apply 0 to 5 pixel operations to each picture.
        squeeze: Scale width and height apart (see :func:`squeeze_aspect`).

    Returns:
        New pictures of the same shape in [-1, 1].

    Raises:
        ShapeError: Not float RGB pictures.
    """
    _check(pictures)
    if pixel:
        pictures = pixel_noise(pictures, generator)
    return squeeze_aspect(pictures, generator) if squeeze else pictures


def pixel_noise(pictures: Tensor, generator: Rng = None) -> Tensor:
    """0 to 5 different operations of :data:`PIXEL_OPS` on each picture, number and choice uniform.

    Args:
        pictures: ``(n, 3, H, W)`` in [-1, 1].
        generator: Source of randomness.

    Returns:
        New pictures in [-1, 1].

    Raises:
        ShapeError: Not float RGB pictures.
    """
    _check(pictures)
    n = len(pictures)
    count = (_uniform(n, 0.0, MAX_PIXEL_OPS + 1.0, pictures, generator)).floor()
    # The rank of independent uniform numbers is a random order of the operations.
    order = _uniform(n * len(PIXEL_OPS), 0.0, 1.0, pictures, generator).view(n, -1).argsort(1)
    chosen = order.argsort(1) < count[:, None]
    x = (pictures + 1.0) / 2.0
    for i, operation in enumerate(PIXEL_OPS.values()):
        changed = operation(x, generator).clamp(0.0, 1.0)
        x = torch.where(chosen[:, i, None, None, None], changed, x)
    return x * 2.0 - 1.0


def squeeze_aspect(
    pictures: Tensor, generator: Rng = None, *, low: float = 0.8, high: float = 1.2, p: float = 0.5
) -> Tensor:
    """Scale width and height independently about the centre, reflecting at the border.

    Args:
        pictures: ``(n, 3, H, W)``.
        generator: Source of randomness.
        low: Smallest factor.
        high: Largest factor; above 1 enlarges.
        p: Share of pictures that are scaled.

    Returns:
        New pictures of the same shape.
    """
    _check(pictures)
    n = len(pictures)
    factors = _uniform(2 * n, low, high, pictures, generator).view(n, 2)
    factors = torch.where(_coin(n, p, pictures, generator)[:, None], factors, 1.0)
    theta = pictures.new_zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = (1.0 / factors).unbind(1)
    return _sample(pictures, theta)


def shared_shift(
    pictures: Tensor,
    landmarks: Tensor,
    generator: Rng = None,
    *,
    limit: float = 0.05,
    p: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Shift pictures and their landmarks together; use the result as input and as target.

    Shifting the motion encoder's input alone would teach it to forget where the head is.

    Args:
        pictures: ``(n, 3, H, W)``.
        landmarks: ``(n, P, 3)`` in crop units.
        generator: Source of randomness.
        limit: Largest shift on either axis, in picture sides.
        p: Share of pictures that are shifted.

    Returns:
        Shifted pictures and landmarks; a landmark at x = 0.5 with a shift of 0.05 moves to 0.55.

    Raises:
        ShapeError: Not float RGB pictures, or not as many landmark sets.
    """
    _check(pictures)
    n = len(pictures)
    if landmarks.ndim != 3 or len(landmarks) != n:
        raise ShapeError(f"expected landmarks ({n}, points, 3), got {tuple(landmarks.shape)}.")
    shift = _uniform(2 * n, -limit, limit, pictures, generator).view(n, 2)
    shift = torch.where(_coin(n, p, pictures, generator)[:, None], shift, 0.0)
    theta = pictures.new_zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1.0
    theta[:, :, 2] = -2.0 * shift
    moved = landmarks.clone()
    moved[..., :2] += shift[:, None].to(landmarks)
    return _sample(pictures, theta), moved


def _blur(x: Tensor, generator: Rng) -> Tensor:
    """Gaussian with a standard deviation of at most 1 pixel."""
    n, channels, height, width = x.shape
    sigma = _uniform(n, 0.1, 1.0, x, generator)
    taps = torch.exp(-0.5 * (torch.arange(-2, 3, device=x.device) / sigma[:, None]).square())
    taps = (taps / taps.sum(1, keepdim=True)).to(x).repeat_interleave(channels, 0)
    flat = F.pad(x, (2, 2, 2, 2), mode="replicate").reshape(1, n * channels, height + 4, width + 4)
    flat = F.conv2d(flat, taps[:, None, :, None], groups=n * channels)
    return F.conv2d(flat, taps[:, None, None, :], groups=n * channels).view_as(x)


def _sharpen(x: Tensor, generator: Rng) -> Tensor:
    """Blend with an eight-neighbour Laplacian: share 0..1, lightness 1..1.5."""
    share, lightness = _column(x, 0.0, 1.0, generator), _column(x, 1.0, 1.5, generator)
    neighbours = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) * 9.0 - x
    return x + share * ((8.0 + lightness) * x - neighbours - x)


def _noise(x: Tensor, generator: Rng) -> Tensor:
    """Gaussian noise of up to 5 % of the range."""
    normal = torch.randn(x.shape, generator=generator, device=_device(x, generator))
    return x + _column(x, 0.0, 0.05, generator) * normal.to(x)


def _brightness(x: Tensor, generator: Rng) -> Tensor:
    """Add up to 10 of 255 levels, for half of the pictures to each channel apart."""
    n = len(x)
    level = _uniform(3 * n, -10 / 255, 10 / 255, x, generator).view(n, 3, 1, 1)
    apart = _coin(n, 0.5, x, generator)[:, None, None, None]
    return x + torch.where(apart, level, level[:, :1])


def _saturation(x: Tensor, generator: Rng) -> Tensor:
    """Move 20 % towards or away from grey at most."""
    grey = (x * x.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)
    return grey + (x - grey) * _column(x, 0.8, 1.2, generator)


def _multiply(x: Tensor, generator: Rng) -> Tensor:
    """Exposure 0.5..1.5."""
    return x * _column(x, 0.5, 1.5, generator)


def _contrast(x: Tensor, generator: Rng) -> Tensor:
    """Linear contrast 0.75..1.25 about mid-grey."""
    return 0.5 + (x - 0.5) * _column(x, 0.75, 1.25, generator)


def _channel_gain(x: Tensor, generator: Rng) -> Tensor:
    """Gain 0.3..1.6 on one channel."""
    n = len(x)
    channel = _uniform(n, 0.0, 3.0, x, generator).floor().clamp_max(2.0)
    gain = _uniform(n, 0.3, 1.6, x, generator)
    here = torch.arange(3, device=x.device) == channel[:, None]
    return x * torch.where(here, gain[:, None], 1.0)[:, :, None, None]


PIXEL_OPS: dict[str, Callable[[Tensor, Rng], Tensor]] = {
    "blur": _blur,
    "sharpen": _sharpen,
    "noise": _noise,
    "brightness": _brightness,
    "saturation": _saturation,
    "multiply": _multiply,
    "contrast": _contrast,
    "channel_gain": _channel_gain,
}
"""Pixel operations on pictures in [0, 1], in the order in which they run."""


def _sample(pictures: Tensor, theta: Tensor) -> Tensor:
    """Resample by affine maps ``(n, 2, 3)`` of the output grid, reflecting at the border."""
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)


def _device(like: Tensor, generator: Rng) -> torch.device:
    """Where numbers are drawn: a generator only serves its own device."""
    return like.device if generator is None else generator.device


def _uniform(n: int, low: float, high: float, like: Tensor, generator: Rng) -> Tensor:
    """``(n,)`` uniform numbers of the pictures' type, on their device."""
    drawn = torch.rand(n, generator=generator, device=_device(like, generator))
    return (low + (high - low) * drawn).to(like)


def _column(like: Tensor, low: float, high: float, generator: Rng) -> Tensor:
    """One number per picture, ``(n, 1, 1, 1)``."""
    return _uniform(len(like), low, high, like, generator)[:, None, None, None]


def _coin(n: int, p: float, like: Tensor, generator: Rng) -> Tensor:
    """``(n,)`` bool, True with probability ``p``."""
    drawn = torch.rand(n, generator=generator, device=_device(like, generator))
    return (drawn < p).to(like.device)


def _check(pictures: Tensor) -> None:
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
        raise ShapeError(
            f"expected float pictures (n, 3, H, W) in [-1, 1], got {pictures.dtype} "
            f"{tuple(pictures.shape)}; convert with talkhead.batch.to_float."
        )
