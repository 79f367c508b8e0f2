"""What pictures of a clip tell about it: sharpness, and a hash that survives encoding again."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from talkhead.errors import ShapeError

HASH_SIDE = 8
HASH_BITS = HASH_SIDE * HASH_SIDE
_SMALL = 32
_GREY = (0.299, 0.587, 0.114)


def grey(pictures: Tensor) -> Tensor:
    """Luma of RGB pictures, ``(n, 3, H, W)`` uint8 -> ``(n, H, W)`` float32 in [0, 255].

    Raises:
        ShapeError: No such pictures.
    """
    if pictures.ndim != 4 or pictures.shape[1] != 3 or 0 in pictures.shape:
        raise ShapeError(
            f"expected pictures (n, 3, H, W), got {tuple(pictures.shape)}; keep RGB in axis 1."
        )
    weights = torch.tensor(_GREY, device=pictures.device)
    return torch.einsum("nchw,c->nhw", pictures.float(), weights)


def sharpness(luma: Tensor) -> Tensor:
    """Share of fine detail: deviation of the 4-neighbour Laplacian over that of the luma.

    Neither brightness nor contrast changes it. A grating of ``w`` radians a pixel along one axis
    has ``2 (1 - cos w)``; white noise ``sqrt(20)``. It depends on the size of the pictures: only
    clips of one prepared set compare.

    Args:
        luma: ``(n, H, W)``, at least 3 pixels a side.

    Returns:
        Float64 ``(n,)``; 0 for a flat picture.

    Raises:
        ShapeError: Pictures of another shape.
    """
    if luma.ndim != 3 or min(luma.shape[1:]) < 3:
        raise ShapeError(f"expected luma (n, H, W) of 3 pixels or more, got {tuple(luma.shape)}.")
    x = luma.to(torch.float64)
    middle = x[:, 1:-1, 1:-1]
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    detail = (around - 4.0 * middle).flatten(1).std(dim=1, correction=0)
    contrast = middle.flatten(1).std(dim=1, correction=0)
    # One grey level: below it, rounding is all there is to see.
    return torch.where(contrast < 1.0, torch.zeros_like(detail), detail / contrast.clamp_min(1.0))


@lru_cache(maxsize=1)
def _cosines() -> Tensor:
    """First rows of the orthonormal DCT-II matrix, ``(9, 32)``."""
    k = torch.arange(HASH_SIDE + 1, dtype=torch.float64)[:, None]
    n = torch.arange(_SMALL, dtype=torch.float64)[None]
    rows = torch.cos(math.pi * k * (2 * n + 1) / (2 * _SMALL)) * math.sqrt(2 / _SMALL)
    rows[0] /= math.sqrt(2)
    return rows


def picture_hashes(luma: Tensor) -> NDArray[np.uint64]:
    """Perceptual hash of each picture: 64 signs of its lowest frequencies.

    The picture is shrunk to 32 x 32; of its DCT the frequencies 1 to 8 of both axes are compared
    with their median. Encoding, scaling, brightness and contrast change few bits.

    Args:
        luma: ``(n, H, W)``.

    Returns:
        ``(n,)`` uint64.

    Raises:
        ShapeError: Pictures of another shape.

    Source: the DCT hash of Zauner (2010), "Implementation and Benchmarking of Perceptual Image Hash
        Functions", section 3.2.1; deviates: an antialiased shrink in place of its 7 x 7 mean.
    """
    if luma.ndim != 3 or 0 in luma.shape:
        raise ShapeError(f"expected luma (n, H, W), got {tuple(luma.shape)}.")
    x = luma.to(torch.float64)[:, None]
    small = F.interpolate(x, (_SMALL, _SMALL), mode="bilinear", antialias=True, align_corners=False)
    rows = _cosines().to(small.device)
    waves = (rows @ small[:, 0] @ rows.T)[:, 1:, 1:].flatten(1)
    bits = (waves > waves.median(dim=1, keepdim=True).values).cpu().numpy()
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def differing_bits(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """How many bits differ, word by word.

    Args:
        a: Unsigned words of any shape.
        b: Words of the same type and shape.
    """
    mixed = np.ascontiguousarray(a ^ b)
    raw = mixed.view(np.uint8).reshape(*mixed.shape, mixed.dtype.itemsize)
    counts: NDArray[np.int64] = np.unpackbits(raw, axis=-1).sum(axis=-1).astype(np.int64)
    return counts
