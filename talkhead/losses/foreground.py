"""Foreground of a portrait from its landmarks, for losses that leave the background alone."""

from __future__ import annotations

import torch
from torch import Tensor

from talkhead.geometry.face_topology import FACE_OVAL
from talkhead.losses.region import points_and_pixels

BLACK = -1.0


def foreground_mask(landmarks: Tensor, height: int, width: int, margin: float = 1.3) -> Tensor:
    """Pixels whose centres lie in the face oval, grown about its middle to take in hair, ears and chin.

    Args:
        landmarks: ``(n, 478, 3)`` in crop units.
        height: Rows of the mask.
        width: Columns of the mask.
        margin: Factor by which the oval grows.

    Returns:
        ``(n, 1, height, width)`` of 0 and 1 in the landmarks' type and on their device, without gradient.

    Raises:
        ShapeError: Not 478 landmarks.

    Source: LPD, which multiplies prediction and target by a segmentation of person and background
        (reference-facts 1.2). Deviates: an oval in the place of a segmentation network, so shoulders and
        long hair count as background.
    """
    points, rows, columns = points_and_pixels(landmarks, height, width)
    oval = points[:, torch.as_tensor(FACE_OVAL.copy(), device=points.device), :2]
    middle = (oval.amin(1, keepdim=True) + oval.amax(1, keepdim=True)) / 2
    x, y = (middle + margin * (oval - middle)).unbind(2)
    next_x, next_y = x.roll(-1, 1), y.roll(-1, 1)
    # Even-odd rule: a point is inside if a ray to its right crosses an odd number of sides.
    spans = (y[:, :, None] > rows) != (next_y[:, :, None] > rows)
    rise = torch.where(next_y == y, 1.0, next_y - y)
    crossing = x[:, :, None] + (rows - y[:, :, None]) * ((next_x - x) / rise)[:, :, None]
    crossed = spans[..., None] & (crossing[..., None] > columns)
    return (crossed.sum(1) % 2 == 1)[:, None].to(points.dtype)


def without_background(pictures: Tensor, mask: Tensor) -> Tensor:
    """Pictures in [-1, 1] with black where the mask ``(n, 1, H, W)`` is 0."""
    return BLACK + (pictures - BLACK) * mask.to(pictures)
