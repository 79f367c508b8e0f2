"""The box around mouth and chin that a lip-sync expert sees, and its differentiable crop."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.points68 import JAW, MOUTH_CORNERS, check_points

MIDDLE_OF_NOSE = 29
"""Third point of the bridge of the nose, the upper edge of the box."""
WIDENING = 1.1
HALF_WIDTH, HEIGHT = 1.25, 2.25
"""Half width and height of the box, in radii."""
SIDE = 128

Boxes = Literal["run", "frame"]
"""Whether the frames of a run share one box or each has its own."""


def mouth_boxes(points: Tensor, *, limit: float | None = 1.0) -> Tensor:
    """Boxes from the middle of the nose to below the chin.

    With ``r = 1.1 / 2 * max(y_jaw - y_29, x_54 - x_48)``, ``y_jaw`` the lowest jaw point: ``x`` from
    ``c - 1.25 r`` to ``c + 1.25 r`` about the middle ``c`` of the mouth corners, ``y`` from ``y_29`` to
    ``y_29 + 2.25 r``. Corners at 0.4 and 0.6, nose at 0.5, chin at 0.9: ``r = 0.22``, the box is
    (0.225, 0.5, 0.775, 0.995).

    The mouth's width is its distance along x, and the jaw drops with the mouth, so the height of the box
    itself tells a little of the opening: :func:`run_boxes` shares one over a run.

    Args:
        points: 68 points ``(..., 68, C)``, the first two coordinates x to the right and y down, in crop
            units (or pixels, with ``limit=None``).
        limit: Bounds are clamped to ``[0, limit]``; None leaves them.

    Returns:
        ``(..., 4)`` as left, top, right, bottom, in the points' unit.

    Raises:
        ShapeError: Not 68 points.

    Source: ControlTalk's released code (reference-facts 7.6). Deviates: no rounding to whole pixels, and
        bounds inside the picture.
    """
    check_points(points)
    left, right = (points[..., corner, 0] for corner in MOUTH_CORNERS)
    top = points[..., MIDDLE_OF_NOSE, 1]
    reach = torch.maximum(points[..., JAW, 1].amax(-1) - top, (right - left).abs())
    radius, centre = WIDENING / 2 * reach, (left + right) / 2
    boxes = torch.stack(
        [centre - HALF_WIDTH * radius, top, centre + HALF_WIDTH * radius, top + HEIGHT * radius], -1
    )
    return boxes if limit is None else boxes.clamp(0.0, limit)


def run_boxes(points: Tensor, boxes: Boxes = "run", *, limit: float | None = 1.0) -> Tensor:
    """:func:`mouth_boxes` of runs of frames; ``run`` gives all frames of a run the mean of theirs.

    Args:
        points: ``(..., T, 68, C)``.
        boxes: See above; ``frame`` is the released code.
        limit: As there.

    Returns:
        ``(..., T, 4)``.

    Raises:
        ShapeError: Not runs of 68 points.
    """
    check_points(points, "..., T")
    found = mouth_boxes(points, limit=limit)
    return found if boxes == "frame" else found.mean(-2, keepdim=True).expand_as(found)


def crop_mouth(pictures: Tensor, boxes: Tensor, side: int = SIDE) -> Tensor:
    """Boxes cut out and scaled to squares, bilinear, differentiable in pictures and boxes.

    The corner pixels of the result lie on those of the box: on their centres, half a pixel of the picture
    inside its edges. Boxes less than a pixel wide are sampled at their middle; outside the picture its
    edge goes on.

    Args:
        pictures: ``(n, C, H, W)``.
        boxes: ``(n, 4)`` in crop units: left, top, right, bottom.
        side: Pixels of a side of the result.

    Returns:
        ``(n, C, side, side)``, in the pictures' type.

    Raises:
        ShapeError: Not as many boxes as pictures, or another shape.

    Source: ControlTalk's released code, bilinear with aligned corners (reference-facts 7.6).
    """
    if pictures.ndim != 4 or boxes.shape != (len(pictures), 4) or side < 1:
        raise ShapeError(
            f"expected pictures (n, C, H, W) and boxes (n, 4), got {tuple(pictures.shape)} and "
            f"{tuple(boxes.shape)} for {side} pixels; flatten runs of frames first."
        )
    height, width = pictures.shape[-2:]
    left, top, right, bottom = boxes.to(pictures).unbind(-1)
    share = torch.linspace(0, 1, side, device=pictures.device, dtype=pictures.dtype)
    x = _between(left, right, share, 1.0 / width)
    y = _between(top, bottom, share, 1.0 / height)
    grid = torch.stack(
        [x[:, None].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], dim=-1
    )
    out: Tensor = F.grid_sample(
        pictures, 2 * grid - 1, mode="bilinear", padding_mode="border", align_corners=False
    )
    return out


def _between(low: Tensor, high: Tensor, share: Tensor, pixel: float) -> Tensor:
    """Sampling places ``(n, side)`` from the centre of a box's first pixel to that of its last."""
    middle, reach = (low + high) / 2, ((high - low - pixel) / 2).clamp_min(0.0)
    return middle[:, None] + reach[:, None] * (2 * share - 1)
