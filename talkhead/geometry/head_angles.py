"""Head pose as three angles in degrees, and canonical keypoints brought into it (face-vid2vid).

Angles are always in the order (yaw, pitch, roll) and ``R = Rx(pitch) @ Ry(yaw) @ Rz(roll)`` with the
usual right-handed matrices. The suite's own pose (:mod:`talkhead.geometry.rotation`) is
``Rz(roll) @ Ry(yaw) @ Rx(pitch)`` in radians, ordered (pitch, yaw, roll). Both act on x right, y down.

Two conventions say what the angles of a face are (:data:`CONVENTIONS`):

- ``"geometric"``: z away from the viewer, as in the suite, so that ``R`` is the very rotation of the head.
  yaw > 0: the nose goes to the picture-left; pitch > 0: the nose goes down; roll > 0: the head tips
  clockwise.
- ``"hopenet"``: as Hopenet labels pictures, which the published networks were trained with. There the nose
  points along +z, towards the viewer, and the pose is ``Rx(pitch) @ Ry(-yaw) @ Rz(roll)``. With
  ``S = diag(1, 1, -1)`` it is ``S R S`` of the geometric ``R``, so yaw and roll are the same and
  **pitch has the other sign**: pitch > 0 lifts the nose.

A head that is nodded down by 10 degrees is (0, 10, 0) in the first and (0, -10, 0) in the second.

Source: face-vid2vid, eq. 1 and section 3.1; its unofficial code and NetEase's (reference-facts 7.1). The
    reading of Hopenet's signs is derived from the axes that its own drawing function draws. Deviates: pi
    is exact, where both codes write 3.14; nothing is changed in place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError

N_BINS = 66
BIN_DEGREES = 3.0
LOWEST_DEGREES = -99.0
"""Angle of the first of 66 bins."""
CONVENTIONS = ("geometric", "hopenet")


def binned_degrees(logits: Tensor) -> Tensor:
    """Expected angle under a softmax over bins: ``3 sum_i i softmax(logits)_i - 99``.

    Bin 0 alone is -99 degrees, bin 33 alone 0, bin 65 alone 96; equal logits are -1.5.

    Args:
        logits: ``(..., 66)``.

    Returns:
        Degrees ``(...)``, in single precision at least.

    Raises:
        ShapeError: Not 66 bins.

    Source: reference-facts 7.1.
    """
    if logits.ndim == 0 or logits.shape[-1] != N_BINS:
        raise ShapeError(
            f"expected logits of {N_BINS} bins in the last axis, got {tuple(logits.shape)}."
        )
    full = torch.promote_types(logits.dtype, torch.float32)
    shares = torch.softmax(logits, -1, dtype=full)
    bins = torch.arange(N_BINS, device=logits.device, dtype=full)
    return BIN_DEGREES * (shares * bins).sum(-1) + LOWEST_DEGREES


def rotation_matrix(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """``Rx(pitch) @ Ry(yaw) @ Rz(roll)`` of angles in degrees.

    ``rotation_matrix(90, 0, 0) @ (0, 0, -1) == (-1, 0, 0)``; pitch 90 takes (0, 0, -1) to (0, 1, 0), and
    roll 90 takes (1, 0, 0) to (0, 1, 0).

    Args:
        yaw: Degrees, ``(...)``.
        pitch: Degrees, the same shape.
        roll: Degrees, the same shape.

    Returns:
        ``(..., 3, 3)``, differentiable.

    Raises:
        ShapeError: The shapes differ.

    Source: reference-facts 7.1.
    """
    if not yaw.shape == pitch.shape == roll.shape:
        raise ShapeError(
            f"expected yaw, pitch and roll of one shape, got {tuple(yaw.shape)}, "
            f"{tuple(pitch.shape)} and {tuple(roll.shape)}."
        )
    angles = torch.stack([pitch, yaw, roll]) * (math.pi / 180.0)
    (sp, sy, sr), (cp, cy, cr) = angles.sin().unbind(), angles.cos().unbind()
    rows = (
        (cy * cr, -cy * sr, sy),
        (cp * sr + sp * sy * cr, cp * cr - sp * sy * sr, -sp * cy),
        (sp * sr - cp * sy * cr, sp * cr + cp * sy * sr, cp * cy),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def head_angles(rotation: Tensor) -> Tensor:
    """(yaw, pitch, roll) of rotation matrices; the inverse of :func:`rotation_matrix`.

    Args:
        rotation: ``(..., 3, 3)``.

    Returns:
        Degrees ``(..., 3)``; yaw lies in [-90, 90].

    Raises:
        ShapeError: Not 3 x 3 matrices.
    """
    if rotation.ndim < 2 or rotation.shape[-2:] != (3, 3):
        raise ShapeError(f"expected rotation matrices (..., 3, 3), got {tuple(rotation.shape)}.")
    r = rotation
    yaw = torch.atan2(r[..., 0, 2], torch.hypot(r[..., 0, 0], r[..., 0, 1]))
    pitch = torch.atan2(-r[..., 1, 2], r[..., 2, 2])
    roll = torch.atan2(-r[..., 0, 1], r[..., 0, 0])
    return torch.stack([yaw, pitch, roll], dim=-1) * (180.0 / math.pi)


def angles_of_pose(pose: Tensor, convention: str = "geometric") -> Tensor:
    """Angles of the suite's landmark-based head pose.

    The pose (pitch, yaw, roll) = (0, pi/6, 0) is (30, 0, 0) in both conventions, (pi/18, 0, 0) is
    (0, 10, 0) or, as Hopenet labels it, (0, -10, 0). With several angles at once the order of rotations
    matters, and all three differ a little.

    Args:
        pose: Pitch, yaw and roll in radians, ``(..., 3)``, as descriptors have them in their first columns
            (:mod:`talkhead.geometry.motion`).
        convention: One of :data:`CONVENTIONS`.

    Returns:
        Yaw, pitch and roll in degrees, ``(..., 3)``.

    Raises:
        ShapeError: The last axis is not 3.
        ConfigError: Another convention.
    """
    if pose.ndim == 0 or pose.shape[-1] != 3:
        raise ShapeError(f"expected poses (..., 3) as pitch, yaw, roll, got {tuple(pose.shape)}.")
    check_convention(convention)
    # Rz(r) Ry(y) Rx(p) is the transpose of Rx(-p) Ry(-y) Rz(-r).
    pitch, yaw, roll = (pose * (-180.0 / math.pi)).unbind(-1)
    angles = head_angles(rotation_matrix(yaw, pitch, roll).transpose(-1, -2))
    return angles * angles.new_tensor([1.0, -1.0, 1.0]) if convention == "hopenet" else angles


def mirrored_angles(angles: Tensor) -> Tensor:
    """Angles ``(..., 3)`` of the mirrored picture: yaw and roll change their sign."""
    return angles * angles.new_tensor([-1.0, 1.0, -1.0])


def transform_keypoints(
    canonical: Tensor, rotation: Tensor, translation: Tensor, expression: Tensor
) -> Tensor:
    """``R kc + t + exp``: keypoints of a face in a pose and an expression.

    The expression is added after the rotation and not turned by it. With the identity, no translation and
    no expression the canonical keypoints come back.

    Args:
        canonical: Canonical keypoints as (x, y, z), ``(1 or n, K, 3)``.
        rotation: ``(n, 3, 3)``.
        translation: ``(n, 3)``.
        expression: ``(n, K, 3)``.

    Returns:
        New keypoints ``(n, K, 3)``.

    Raises:
        ShapeError: Shapes that do not belong together.

    Source: paper 4, eq. 1; face-vid2vid, eq. 1 (reference-facts 7.1).
    """
    n = len(rotation)
    points = canonical.shape[1:]
    fits = canonical.ndim == 3 and canonical.shape[0] in (1, n) and points[-1] == 3
    if not fits or (rotation.shape, translation.shape, expression.shape) != (
        (n, 3, 3),
        (n, 3),
        (n, *points),
    ):
        raise ShapeError(
            "expected canonical keypoints (1 or n, K, 3), rotation (n, 3, 3), translation (n, 3) and "
            f"expression (n, K, 3), got {tuple(canonical.shape)}, {tuple(rotation.shape)}, "
            f"{tuple(translation.shape)} and {tuple(expression.shape)}."
        )
    # Written out, as a matrix product would run in half precision under autocast.
    turned = (rotation[:, None] * canonical[:, :, None, :]).sum(dim=-1)
    return turned + translation[:, None] + expression


def check_convention(convention: str) -> None:
    """Refuse what is none of :data:`CONVENTIONS`.

    Raises:
        ConfigError: Another convention.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(
            f"convention: expected one of {', '.join(CONVENTIONS)}, got {convention!r}."
        )
