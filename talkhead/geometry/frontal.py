"""Turn a face to the front about the vertical axis, as MS-Sync does before it compares mouths."""

from __future__ import annotations

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.points68 import MOUTH_CORNERS


def corner_yaw(points: Tensor, corners: tuple[int, int] = MOUTH_CORNERS) -> Tensor:
    """Yaw that two points show, which a frontal face has at equal depth.

    ``atan2(-(z_r - z_l), x_r - x_l)`` in the axes and with the sign of
    :mod:`talkhead.geometry.rotation`: above 0 the nose points to the picture-left. Corners at
    ``(0, 0, 0)`` and ``(1, 0, -1)`` give ``+pi/4``. A crooked smile reads as a little yaw.

    Args:
        points: ``(..., P, 3)``; x right, y down, z away from the viewer, all in one unit.
        corners: Picture-left and picture-right point; by default the mouth corners of 68 points.

    Returns:
        Radians in ``[-pi, pi]``, shape ``(...)``.

    Raises:
        ShapeError: Points without depth, or too few for the corners.
    """
    left, right = corners
    if points.ndim < 2 or points.shape[-1] != 3 or points.shape[-2] <= max(corners):
        raise ShapeError(
            f"expected points (..., P, 3) with P > {max(corners)}, got {tuple(points.shape)}; "
            "frontalisation needs depth, use a tracker that gives it."
        )
    across = points[..., right, :] - points[..., left, :]
    return torch.atan2(-across[..., 2], across[..., 0])


def frontalised(points: Tensor, corners: tuple[int, int] = MOUTH_CORNERS) -> Tensor:
    """Points turned about the vertical axis until two of them are equally deep.

    ``p' = c + R_y(-yaw) (p - c)`` with the yaw of :func:`corner_yaw` and ``c`` the mean of the
    points, so that their mean stays where it is. Pitch and roll stay as they are.

    Args:
        points: ``(..., P, 3)``, axes as in :func:`corner_yaw`; each leading index is turned alone.
        corners: Picture-left and picture-right point; the left one stays left.

    Returns:
        ``(..., P, 3)``.

    Raises:
        ShapeError: See :func:`corner_yaw`.

    Source: MS-Sync section 4.2 ("rotating each frame to a canonical pose") and its released code,
        which rotates about the vertical axis until the mouth corners have equal depth. Open there
        and set here: the axis goes through the mean.
    """
    yaw = corner_yaw(points, corners)[..., None]
    centre = points.mean(dim=-2, keepdim=True)
    x, y, z = (points - centre).unbind(dim=-1)
    turned = torch.stack([yaw.cos() * x - yaw.sin() * z, y, yaw.sin() * x + yaw.cos() * z], dim=-1)
    return turned + centre
