"""One fixed square box for a whole clip, so that head motion stays in the crop."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import ShapeError, SpecError
from talkhead.geometry.face_topology import FACE_OVAL

FloatArray = NDArray[np.floating[Any]]
Picture = NDArray[np.uint8]

POLICY = "fixed_box"
FACE_SHARE = 0.5
"""Share of the crop's width that the face takes; leaves room for hair, chin and motion."""
_MIN_MARGIN = 1.1
"""The crop is at least this many times as large as what the moving face sweeps over."""
_TIGHTEST = 1.45
"""A box may shrink to this many face widths to stay inside the picture; below that it is padded."""
_UP = 0.1
"""Upward shift in face heights: the mesh ends at the hairline, the head does not."""


@dataclass(frozen=True)
class Box:
    """A square in picture pixels; it may reach outside the picture."""

    x: int
    y: int
    side: int

    def as_list(self) -> list[int]:
        """``[x, y, w, h]``."""
        return [self.x, self.y, self.side, self.side]

    def snapped(self, x: int, y: int, grid: int) -> Box:
        """About the same box, never larger, on whole cells of a grid with origin ``(x, y)``."""
        return Box(
            x + grid * math.floor((self.x - x) / grid),
            y + grid * math.floor((self.y - y) / grid),
            grid * max(1, self.side // grid),
        )


def face_boxes(landmarks: FloatArray) -> FloatArray:
    """Left, top, right and bottom of the face oval, ``(T, 478, 3)`` px -> ``(T, 4)`` px."""
    oval = np.asarray(landmarks)[:, FACE_OVAL, :2]
    return np.concatenate([oval.min(axis=1), oval.max(axis=1)], axis=1)


def _place(centre: float, side: float, limit: int) -> float:
    """Start of an interval around ``centre``, moved inside ``[0, limit]`` when it fits."""
    start = centre - side / 2
    if side >= limit:
        return (limit - side) / 2
    return float(np.clip(start, 0.0, limit - side))


def crop_policy(face_share: float) -> str:
    """Name of the policy, as recorded with data and checkpoints; ``"fixed_box:0.5"`` by default."""
    return f"{POLICY}:{face_share:g}"


def policy_share(policy: str) -> float:
    """Inverse of :func:`crop_policy`.

    Raises:
        SpecError: Another policy than the fixed box.
    """
    match = re.fullmatch(rf"{POLICY}:(\d*\.?\d+)", policy)
    if match is None:
        raise SpecError(f"expected a crop policy like {crop_policy(FACE_SHARE)}, got {policy!r}.")
    return float(match[1])


def clip_box(landmarks: FloatArray, width: int, height: int, face_share: float = FACE_SHARE) -> Box:
    """The crop box of a clip.

    The side is the median face width over ``face_share``, or more if the head sweeps over more (2nd to 98th
    percentile of the box edges, so that single wrong frames do not count). The box is moved inside
    the picture, made smaller to fit if the face still has room, and else left to reach outside.

    Args:
        landmarks: Picture pixels, ``(T, 478, 3)``.
        width: Picture width in pixels.
        height: Picture height in pixels.
        face_share: Share of the box that the face's width takes; a tighter crop shows the lips of a small
            picture better and cuts hair and shoulders.

    Returns:
        The box in whole pixels.

    Raises:
        ShapeError: Landmarks of another shape, or no frame.
    """
    points = np.asarray(landmarks)
    if points.ndim != 3 or points.shape[0] == 0 or points.shape[2] != 3:
        raise ShapeError(f"expected landmarks (T, 478, 3), T >= 1, got {points.shape}.")
    boxes = face_boxes(points)
    low, high = np.percentile(boxes, [2, 98], axis=0)
    face_w = float(np.median(boxes[:, 2] - boxes[:, 0]))
    face_h = float(np.median(boxes[:, 3] - boxes[:, 1]))
    sweep = max(high[2] - low[0], high[3] - low[1])
    side = max(face_w / face_share, _MIN_MARGIN * sweep)
    tightest = max(min(_TIGHTEST, 1 / face_share) * face_w, _MIN_MARGIN * sweep)
    side = max(min(side, width, height), tightest)
    centre_x = (low[0] + high[2]) / 2
    centre_y = (low[1] + high[3]) / 2 - _UP * face_h
    pixels = max(2, round(side))
    return Box(
        round(_place(centre_x, pixels, width)), round(_place(centre_y, pixels, height)), pixels
    )


def crop_frame(frame: Picture, box: Box, size: int) -> Picture:
    """Cut a box out of a picture; what lies outside is mirrored.

    Args:
        frame: ``(H, W, 3)`` uint8.
        box: In pixels of ``frame``.
        size: Side of the result in pixels.

    Returns:
        ``(size, size, 3)`` uint8, shrunk by area averaging or enlarged by cubic interpolation.

    Raises:
        ShapeError: ``frame`` is not an RGB picture.
    """
    import cv2

    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ShapeError(f"expected a picture (H, W, 3), got {frame.shape}.")
    height, width = frame.shape[:2]
    left, top = max(0, -box.x), max(0, -box.y)
    right, bottom = max(0, box.x + box.side - width), max(0, box.y + box.side - height)
    cut = frame[max(0, box.y) : max(0, box.y + box.side), max(0, box.x) : max(0, box.x + box.side)]
    if left or top or right or bottom:
        cut = cv2.copyMakeBorder(cut, top, bottom, left, right, cv2.BORDER_REFLECT_101)
    if cut.shape[:2] == (size, size):
        return np.ascontiguousarray(cut, np.uint8)
    how = cv2.INTER_AREA if box.side > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cut, (size, size), interpolation=how), np.uint8)


def to_crop_units(landmarks: FloatArray, box: Box) -> NDArray[np.float32]:
    """Picture pixels to crop space (0 to 1 across the box, z in the same unit), ``(..., 3)``."""
    shifted = np.asarray(landmarks, np.float64) - (box.x, box.y, 0.0)
    return (shifted / box.side).astype(np.float32)


def to_pixels(landmarks: FloatArray, box: Box) -> NDArray[np.float32]:
    """Crop space to picture pixels; the inverse of :func:`to_crop_units`."""
    return (np.asarray(landmarks, np.float64) * box.side + (box.x, box.y, 0.0)).astype(np.float32)
