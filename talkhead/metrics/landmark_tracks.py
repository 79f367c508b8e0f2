"""What the landmark metrics share: 68-point tracks, masks and units.

Tracks are ``(T, 68, C)`` or ``(B, T, 68, C)`` in crop space: x right and y down from 0 to 1 across
the crop, z away from the viewer in the same unit (``C`` is 2 or 3). Mesh landmarks become such
tracks by :func:`talkhead.geometry.points68.ibug_points`; pixels by division by the picture's side.
All sums run in float64.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.points68 import N_POINTS, inter_ocular

CROP_PIXELS = 256
"""Side of the picture that distances in pixels refer to, whatever the crop's real size."""

Unit = Literal["px256", "inter_ocular"]
"""Pixels of a crop of side 256, or multiples of the distance between the outer eye corners."""

Track = tuple[Tensor, Tensor]
"""Points ``(T, 68, C)`` in float64 and the mask ``(T,)`` of frames that count."""


def landmark_tracks(landmarks: Tensor, valid: Tensor | None, name: str = "given") -> list[Track]:
    """Checked clips, one track each.

    Args:
        landmarks: ``(T, 68, C)`` or ``(B, T, 68, C)``.
        valid: Mask ``(T,)`` or ``(B, T)``, False on padding and lost frames; None: all count.
        name: Whose landmarks, for the message.

    Raises:
        ShapeError: Not 68 points in 2 or 3 coordinates, a mask that does not fit, or valid frames
            with NaN or infinity.
    """
    if (
        landmarks.ndim not in (3, 4)
        or landmarks.shape[-2] != N_POINTS
        or landmarks.shape[-1] not in (2, 3)
    ):
        raise ShapeError(
            f"expected {name} landmarks (T, {N_POINTS}, 2 or 3) or (B, T, {N_POINTS}, 2 or 3), got "
            f"{tuple(landmarks.shape)}; convert mesh landmarks with ibug_points."
        )
    if valid is not None and valid.shape != landmarks.shape[:-2]:
        raise ShapeError(
            f"expected a {name} mask {tuple(landmarks.shape[:-2])}, got {tuple(valid.shape)}; "
            "one flag a frame."
        )
    points = landmarks.to(torch.float64)
    kept = torch.ones(landmarks.shape[:-2]) if valid is None else valid
    kept = kept.to(landmarks.device).bool()
    if not bool(torch.isfinite(points[kept]).all()):
        raise ShapeError(
            f"expected finite {name} landmarks in valid frames, got NaN or infinity; bridge lost "
            "frames or mask them."
        )
    if landmarks.ndim == 3:
        points, kept = points[None], kept[None]
    return list(zip(points.unbind(), kept.unbind(), strict=True))


def in_unit(distance: Tensor, points: Tensor, unit: Unit) -> Tensor:
    """Distances in crop widths as pixels at 256 or as shares of the eyes' distance.

    Args:
        distance: ``(T, ...)`` in crop widths.
        points: Track ``(T, 68, C)`` whose eyes give the size, frame by frame.
        unit: See :data:`Unit`.

    Returns:
        As ``distance``.

    Raises:
        ShapeError: A frame's outer eye corners coincide.
    """
    if unit == "px256":
        return CROP_PIXELS * distance
    eyes = inter_ocular(points)
    if not bool((eyes > 0).all()):
        raise ShapeError(
            "expected two eyes apart from each other, got outer eye corners at one place; mask the "
            "frames where tracking failed."
        )
    return distance / eyes.reshape(-1, *[1] * (distance.ndim - 1))
