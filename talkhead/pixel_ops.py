"""Changes of colour, sharpness and grain, each drawn apart for every picture of a batch.

All operations take and give pictures ``(n, 3, H, W)`` in [0, 1] (the result may leave that range), and
draw from a ``torch.Generator`` or torch's global one.

Source: LPD's list with its ranges and PC-AVS' channel gain (reference-facts 1.3). What the list leaves
open is imgaug's default. Deviates: the elastic displacement is given in pixels of a 256 px picture and
scaled to the picture; edges are blended through smoothed random numbers in place of simplex noise;
saturation changes by up to 20 % in place of 20 of 255 levels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.jpeg import jpeg_artefacts

Rng = torch.Generator | None

_GREY = (0.299, 0.587, 0.114)
_ELASTIC_SIDE = 256
_MEDIAN_OF_NINE = (
    (1, 2), (4, 5), (7, 8), (0, 1), (3, 4), (6, 7), (1, 2), (4, 5), (7, 8), (0, 3),
    (5, 8), (4, 7), (3, 6), (1, 4), (2, 5), (4, 7), (4, 2), (6, 4), (4, 2),
)  # fmt: skip
"""Exchanges (smaller first) after which the fifth of nine numbers is their median; J. L. Smith's network."""


def draw_device(like: Tensor, generator: Rng) -> torch.device:
    """Where numbers are drawn: a generator only serves its own device."""
    return like.device if generator is None else generator.device


def uniform(n: int, low: float, high: float, like: Tensor, generator: Rng) -> Tensor:
    """``(n,)`` uniform numbers of the pictures' type, on their device."""
    drawn = torch.rand(n, generator=generator, device=draw_device(like, generator))
    return (low + (high - low) * drawn).to(like)


def _column(like: Tensor, low: float, high: float, generator: Rng) -> Tensor:
    """One number per picture, ``(n, 1, 1, 1)``."""
    return uniform(len(like), low, high, like, generator)[:, None, None, None]


def coin(n: int, p: float, like: Tensor, generator: Rng) -> Tensor:
    """``(n,)`` bool, True with probability ``p``."""
    drawn = torch.rand(n, generator=generator, device=draw_device(like, generator))
    return (drawn < p).to(like.device)


def _blur(x: Tensor, generator: Rng) -> Tensor:
    """A Gaussian with a deviation of at most 1 pixel, the mean or the median of 3 x 3, a third each."""
    kind = uniform(len(x), 0.0, 3.0, x, generator)[:, None, None, None]
    near = F.pad(x, (1, 1, 1, 1), mode="replicate")
    mean = F.avg_pool2d(near, 3, 1)
    smooth = torch.where(kind < 2.0, _median(near), _gaussian(x, generator))
    return torch.where(kind < 1.0, mean, smooth)


def _median(near: Tensor) -> Tensor:
    """Median of 3 x 3 of pictures padded by 1, by exchanges that bring it to the middle of nine.

    Ten times as fast as ``torch.median`` over unfolded pictures.
    """
    height, width = near.shape[-2] - 2, near.shape[-1] - 2
    nine = [near[..., i : i + height, j : j + width] for i in range(3) for j in range(3)]
    for a, b in _MEDIAN_OF_NINE:
        nine[a], nine[b] = torch.minimum(nine[a], nine[b]), torch.maximum(nine[a], nine[b])
    return nine[4]


def _gaussian(x: Tensor, generator: Rng) -> Tensor:
    n, channels, height, width = x.shape
    sigma = uniform(n, 0.1, 1.0, x, generator)
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


def _emboss(x: Tensor, generator: Rng) -> Tensor:
    """Blend with a relief lit from one corner: share 0..1, strength 0..2."""
    share, strength = _column(x, 0.0, 1.0, generator), _column(x, 0.0, 2.0, generator)
    above, below, left, right = _neighbours(x)
    near = F.pad(x, (1, 1, 1, 1), mode="replicate")
    slope = near[..., 2:, 2:] - near[..., :-2, :-2]
    relief = x + slope + strength * (slope + below - above + right - left)
    return x + share * (relief - x)


def _edges(x: Tensor, generator: Rng) -> Tensor:
    """Blend with the picture's edges by up to 15 %, more in some places than in others."""
    edges = (sum(_neighbours(x)) - 4.0 * x).clamp(0.0, 1.0)
    coarse = uniform(16 * len(x), 0.0, 1.0, x, generator).view(-1, 1, 4, 4)
    where = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
    return x + _column(x, 0.0, 0.15, generator) * where * (edges - x)


def _neighbours(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pixels above, below, left and right of every pixel."""
    near = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows, columns = near[..., 1:-1], near[..., 1:-1, :]
    return rows[..., :-2, :], rows[..., 2:, :], columns[..., :-2], columns[..., 2:]


def _noise(x: Tensor, generator: Rng) -> Tensor:
    """Gaussian noise of up to 5 % of the range."""
    normal = torch.randn(x.shape, generator=generator, device=draw_device(x, generator))
    return x + _column(x, 0.0, 0.05, generator) * normal.to(x)


def _brightness(x: Tensor, generator: Rng) -> Tensor:
    """Add up to 10 of 255 levels, for half of the pictures to each channel apart."""
    n = len(x)
    level = uniform(3 * n, -10 / 255, 10 / 255, x, generator).view(n, 3, 1, 1)
    apart = coin(n, 0.5, x, generator)[:, None, None, None]
    return x + torch.where(apart, level, level[:, :1])


def _jpeg(x: Tensor, generator: Rng) -> Tensor:
    """Compression at quality 70..99."""
    return jpeg_artefacts(x.clamp(0.0, 1.0), uniform(len(x), 70.0, 99.0, x, generator))


def _saturation(x: Tensor, generator: Rng) -> Tensor:
    """Move 20 % towards or away from grey at most."""
    grey = (x * x.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)
    return grey + (x - grey) * _column(x, 0.8, 1.2, generator)


def _multiply(x: Tensor, generator: Rng) -> Tensor:
    """Exposure 0.5..1.5."""
    return x * _column(x, 0.5, 1.5, generator)


def _contrast(x: Tensor, generator: Rng) -> Tensor:
    """About mid-grey, linear by 0.75..1.25 or, for half of the pictures, a sigmoid of gain 3..11."""
    linear = 0.5 + (x - 0.5) * _column(x, 0.75, 1.25, generator)
    curved = torch.sigmoid((x - 0.5) * _column(x, 3.0, 11.0, generator))
    return torch.where(coin(len(x), 0.5, x, generator)[:, None, None, None], curved, linear)


def _elastic(x: Tensor, generator: Rng) -> Tensor:
    """Move every pixel by its own 0.5..3.5 pixels at most (of a 256 px picture), in half of the pictures."""
    n, _, height, width = x.shape
    reach = uniform(n, 0.5, 3.5, x, generator) * coin(n, 0.5, x, generator).to(x) / _ELASTIC_SIDE
    moved = uniform(n * height * width * 2, -2.0, 2.0, x, generator).view(n, height, width, 2)
    still = F.affine_grid(torch.eye(2, 3).to(x).expand(n, 2, 3), list(x.shape), align_corners=False)
    grid = still + reach[:, None, None, None] * moved  # the grid spans 2, hence twice the share
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _channel_gain(x: Tensor, generator: Rng) -> Tensor:
    """Gain 0.3..1.6 on one channel."""
    n = len(x)
    channel = uniform(n, 0.0, 3.0, x, generator).floor().clamp_max(2.0)
    gain = uniform(n, 0.3, 1.6, x, generator)
    here = torch.arange(3, device=x.device) == channel[:, None]
    return x * torch.where(here, gain[:, None], 1.0)[:, :, None, None]


PixelOp = Callable[[Tensor, Rng], Tensor]

PIXEL_OPS: dict[str, PixelOp] = {
    "blur": _blur,
    "sharpen": _sharpen,
    "emboss": _emboss,
    "edges": _edges,
    "noise": _noise,
    "brightness": _brightness,
    "saturation": _saturation,
    "jpeg": _jpeg,
    "multiply": _multiply,
    "contrast": _contrast,
    "elastic": _elastic,
    "channel_gain": _channel_gain,
}
"""Pixel operations on pictures in [0, 1], in the order in which they run."""

COLOUR_OPS: dict[str, PixelOp] = {
    name: PIXEL_OPS[name]
    for name in ("brightness", "saturation", "multiply", "contrast", "channel_gain")
}
"""Those of the operations that look at one pixel at a time."""
