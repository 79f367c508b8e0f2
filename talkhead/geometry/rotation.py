"""Euler angles and rotation matrices in the picture frame: x right, y down, z away from the viewer.

``R = Rz(roll) @ Ry(yaw) @ Rx(pitch)``, all angles in radians, in the order (pitch, yaw, roll).

Signs, seen by the viewer (the tip of the nose of a frontal face points along ``-z``):

- pitch > 0: the nose goes down. ``R @ (0, 0, -1) = (0, sin(pitch), -cos(pitch))``.
- yaw > 0: the nose goes to the picture-left. ``R @ (0, 0, -1) = (-sin(yaw), 0, -cos(yaw))``.
- roll > 0: the head tips clockwise. ``R @ (1, 0, 0) = (cos(roll), sin(roll), 0)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import ShapeError

FloatArray = NDArray[np.floating[Any]]


def euler_to_matrix(angles: FloatArray) -> NDArray[np.float64]:
    """Rotation matrices of (pitch, yaw, roll).

    ``euler_to_matrix([0, 0, pi/2]) @ (1, 0, 0) == (0, 1, 0)``: a quarter turn clockwise.

    Args:
        angles: Radians, ``(..., 3)``.

    Returns:
        ``(..., 3, 3)`` float64.

    Raises:
        ShapeError: The last axis is not 3.
    """
    values = np.asarray(angles, np.float64)
    if values.ndim == 0 or values.shape[-1] != 3:
        raise ShapeError(f"expected angles (..., 3) as pitch, yaw, roll, got {values.shape}.")
    (cp, cy, cr), (sp, sy, sr) = (np.moveaxis(f(values), -1, 0) for f in (np.cos, np.sin))
    rows = (
        (cr * cy, cr * sy * sp - sr * cp, cr * sy * cp + sr * sp),
        (sr * cy, sr * sy * sp + cr * cp, sr * sy * cp - cr * sp),
        (-sy, cy * sp, cy * cp),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_euler(rotation: FloatArray) -> NDArray[np.float64]:
    """(pitch, yaw, roll) of rotation matrices; the inverse of :func:`euler_to_matrix`.

    Yaw lies in ``[-pi/2, pi/2]``. At exactly a quarter turn of yaw pitch and roll are not
    separable; roll is 0 then.

    Args:
        rotation: ``(..., 3, 3)``.

    Returns:
        Radians, ``(..., 3)`` float64.

    Raises:
        ShapeError: The last two axes are not 3 x 3.
    """
    r = np.asarray(rotation, np.float64)
    if r.shape[-2:] != (3, 3):
        raise ShapeError(f"expected rotation matrices (..., 3, 3), got {r.shape}.")
    cosine = np.hypot(r[..., 0, 0], r[..., 1, 0])
    yaw = np.arctan2(-r[..., 2, 0], cosine)
    locked = cosine < 1e-9
    pitch = np.where(
        locked,
        np.arctan2(-r[..., 1, 2], r[..., 1, 1]),
        np.arctan2(r[..., 2, 1], r[..., 2, 2]),
    )
    roll = np.where(locked, 0.0, np.arctan2(r[..., 1, 0], r[..., 0, 0]))
    return np.stack([pitch, yaw, roll], axis=-1)
