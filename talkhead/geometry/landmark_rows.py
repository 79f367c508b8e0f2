"""The 68 points of a face as one row of numbers, the form in which landmark motion is learned."""

from __future__ import annotations

from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.points68 import N_POINTS, check_points

LANDMARK_DIM = 2 * N_POINTS
"""Numbers in a row: x and y of point 0, of point 1, and so on."""
MIDDLE = 0.5
"""Crop coordinate that a row's 0 stands for; half floats are finest there."""


def landmark_rows(points: Tensor) -> Tensor:
    """Points in crop units to rows; any depth is left out.

    Example: a point in the middle of the crop gives 0, 0, one at its right edge 0.5.

    Args:
        points: ``(..., 68, C)`` in [0, 1], ``C`` of 2 or 3 (:mod:`talkhead.geometry.points68`).

    Returns:
        ``(..., 136)``.

    Raises:
        ShapeError: Not 68 points.
    """
    check_points(points)
    return (points[..., :2] - MIDDLE).flatten(-2)


def landmark_points(rows: Tensor) -> Tensor:
    """Rows ``(..., 136)`` to points ``(..., 68, 2)`` in crop units; undoes :func:`landmark_rows`.

    Raises:
        ShapeError: Another width.
    """
    if rows.ndim < 1 or rows.shape[-1] != LANDMARK_DIM:
        raise ShapeError(
            f"expected landmark rows (..., {LANDMARK_DIM}), got {tuple(rows.shape)}; make them with "
            "landmark_rows."
        )
    points: Tensor = rows.unflatten(-1, (N_POINTS, 2)) + MIDDLE
    return points
