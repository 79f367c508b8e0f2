"""The loss of JPEG compression, for a batch of pictures at once and without writing a file."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError

BLOCK = 8

# fmt: off
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * BLOCK for _ in range(4)),
)
# fmt: on


def jpeg_artefacts(pictures: Tensor, quality: Tensor) -> Tensor:
    """What is left of pictures after JPEG at a quality, chroma at half resolution.

    The lossy steps only: colour change, halved chroma, quantised 8 x 8 cosine transform, and back.

    Args:
        pictures: ``(n, 3, H, W)`` RGB in [0, 1]; any size.
        quality: ``(n,)`` in 1…100, the libjpeg scale; fractions are rounded.

    Returns:
        Pictures of the same shape and type in [0, 1]; no gradient flows through the rounding.

    Raises:
        ShapeError: Not RGB pictures with one quality each.

    Source: ITU-T T.81, tables K.1 and K.2 and the quality scale of the Independent JPEG Group. Chroma is
    brought back to size by repetition, where libjpeg interpolates.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or quality.shape != pictures.shape[:1]:
        raise ShapeError(
            f"expected pictures (n, 3, H, W) and a quality (n,), got {tuple(pictures.shape)} and "
            f"{tuple(quality.shape)}."
        )
    height, width = pictures.shape[-2:]
    x = pictures.to(torch.promote_types(pictures.dtype, torch.float32)) * 255.0
    side = 2 * BLOCK  # a block of halved chroma
    x = F.pad(x, (0, -width % side, 0, -height % side), mode="replicate")
    red, green, blue = x.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1)
    luma = _quantised(luma[:, None] - 128.0, _table(_LUMINANCE, quality, x)) + 128.0
    chroma = _quantised(F.avg_pool2d(chroma, 2), _table(_CHROMINANCE, quality, x))
    cb, cr = chroma.repeat_interleave(2, -1).repeat_interleave(2, -2).unbind(1)
    y = luma[:, 0]
    back = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    return (back[..., :height, :width] / 255.0).clamp(0.0, 1.0).to(pictures)


def _table(base: tuple[tuple[int, ...], ...], quality: Tensor, like: Tensor) -> Tensor:
    """Quantisation steps ``(n, 1, 1, 1, 8, 8)``."""
    q = quality.to(like).round().clamp(1.0, 100.0)[:, None, None]
    percent = torch.where(q < 50.0, (5000.0 / q).floor(), 200.0 - 2.0 * q)
    steps = ((like.new_tensor(base) * percent + 50.0) / 100.0).floor().clamp(1.0, 255.0)
    return steps[:, None, None, None]


def _quantised(planes: Tensor, steps: Tensor) -> Tensor:
    """Round the cosine coefficients of every 8 x 8 block of ``(n, C, H, W)``."""
    n, channels, height, width = planes.shape
    blocks = planes.view(n, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = blocks.transpose(3, 4)
    basis = _cosines(planes)
    coefficients = basis @ blocks @ basis.T
    coefficients = (coefficients / steps).round() * steps
    blocks = basis.T @ coefficients @ basis
    return blocks.transpose(3, 4).reshape(planes.shape)


def _cosines(like: Tensor) -> Tensor:
    """Orthonormal cosine transform ``(8, 8)``, one frequency a row."""
    k = torch.arange(BLOCK, device=like.device, dtype=like.dtype)
    basis = torch.cos(math.pi / BLOCK * (k[None] + 0.5) * k[:, None]) * math.sqrt(2.0 / BLOCK)
    basis[0] /= math.sqrt(2.0)
    return basis
