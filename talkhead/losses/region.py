"""Pixel loss on mouth and eyes, an addition for small runs."""

from __future__ import annotations

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.face_topology import LIPS_OUTER, PICTURE_LEFT_EYE, PICTURE_RIGHT_EYE
from talkhead.specs import N_LANDMARKS

REGIONS = (LIPS_OUTER, PICTURE_LEFT_EYE, PICTURE_RIGHT_EYE)
MIN_HALF_EXTENT = 0.02
"""Least half side of a region in crop units: a shut eye still has a lid."""


def points_and_pixels(landmarks: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Landmarks without gradient, and the centres of rows ``(height,)`` and columns ``(width,)`` beside them.

    Args:
        landmarks: ``(n, 478, 3)`` in crop units.
        height: Rows of the picture.
        width: Columns of the picture.

    Raises:
        ShapeError: Not 478 landmarks.
    """
    if landmarks.ndim != 3 or landmarks.shape[1] != N_LANDMARKS or landmarks.shape[2] < 2:
        raise ShapeError(
            f"expected landmarks (n, {N_LANDMARKS}, 3), got {tuple(landmarks.shape)}; flatten "
            "frames first."
        )
    points = landmarks.detach()
    rows = (torch.arange(height, device=points.device) + 0.5).to(points.dtype) / height
    columns = (torch.arange(width, device=points.device) + 0.5).to(points.dtype) / width
    return points, rows, columns


def region_mask(landmarks: Tensor, height: int, width: int, margin: float = 1.3) -> Tensor:
    """Soft mask of mouth and eyes.

    Around the box of each region's landmarks, with half sides ``h`` times ``margin``, the mask is
    ``exp(-(dx/hx)^4 - (dy/hy)^4)``: near 1 inside, 1/e at the middle of an edge, then quickly 0.
    Where regions meet the larger value counts.

    Args:
        landmarks: ``(n, 478, 3)`` in crop units.
        height: Rows of the mask.
        width: Columns of the mask.
        margin: Growth of each region's box.

    Returns:
        ``(n, 1, height, width)`` in [0, 1], on the landmarks' device, without gradient.

    Raises:
        ShapeError: Not 478 landmarks.
    """
    points, rows, columns = points_and_pixels(landmarks, height, width)
    mask = points.new_zeros(len(points), height, width)
    for region in REGIONS:
        index = torch.as_tensor(region.copy(), device=points.device)
        part = points[:, index, :2]
        low, high = part.amin(1), part.amax(1)
        centre = (low + high) / 2
        half = margin * ((high - low) / 2).clamp_min(MIN_HALF_EXTENT)
        x = ((columns - centre[:, :1]) / half[:, :1]).pow(4)
        y = ((rows - centre[:, 1:]) / half[:, 1:]).pow(4)
        mask = torch.maximum(mask, torch.exp(-(x[:, None, :] + y[:, :, None])))
    return mask.unsqueeze(1)


def region_loss(fake: Tensor, real: Tensor, landmarks: Tensor) -> Tensor:
    r"""Mean absolute difference on mouth and eyes: ``sum(m |fake - real|) / (3 sum(m))``.

    Args:
        fake: Generated pictures ``(n, 3, H, W)`` in [-1, 1].
        real: Real pictures of the same shape.
        landmarks: ``(n, 478, 3)`` of the real pictures in crop units.

    Returns:
        Scalar in [0, 2].

    Raises:
        ShapeError: Shapes do not fit.

    Source: our addition, not in paper 1, whose weight for it is 0. Mouth and eyes are a few percent
        of a 64-pixel picture; without a trained perceptual network they are what a small run learns
        last.
    """
    if fake.shape != real.shape or len(landmarks) != len(fake):
        raise ShapeError(
            f"expected pictures of one shape and as many landmark sets, got {tuple(fake.shape)}, "
            f"{tuple(real.shape)} and {tuple(landmarks.shape)}."
        )
    mask = region_mask(landmarks, *fake.shape[-2:])
    difference = (fake - real).abs().mean(1, keepdim=True)
    # The floor covers landmarks that lie outside the crop altogether.
    return (mask.to(difference) * difference).sum() / mask.sum().clamp_min(1e-6)
