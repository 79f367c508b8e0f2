"""What keeps 3-D keypoints, head pose and expression apart from each other (face-vid2vid)."""

from __future__ import annotations

import torch
from torch import Tensor

from talkhead.errors import ShapeError

LEAST_SQUARED_DISTANCE = 0.1
MEAN_DEPTH = 0.33


def keypoint_prior_loss(
    points: Tensor, least: float = LEAST_SQUARED_DISTANCE, depth: float = MEAN_DEPTH
) -> Tensor:
    r"""``sum_{i != j} max(0, D - |p_i - p_j|^2) + | mean_i z_i - Z |``, averaged over the batch.

    Points that come closer than ``sqrt(D)`` are driven apart, and their mean depth to ``Z``.

    Args:
        points: Keypoints of the driving pictures, ``(n, K, 3)`` as (x, y, z).
        least: ``D``, a squared distance.
        depth: ``Z``.

    Returns:
        Scalar. Two points 0.2 apart at the depth 0.33 give 2 (0.1 - 0.04) = 0.12: every pair counts from
        both sides.

    Raises:
        ShapeError: Not 3-D points.

    Source: face-vid2vid, eq. 7 (reference-facts 7.2). Deviates: its code also pairs every point with
        itself, which adds the constant ``D K`` (1.5 for 15 points) and no gradient.
    """
    if points.ndim != 3 or points.shape[-1] != 3:
        raise ShapeError(f"expected keypoints (n, K, 3), got {tuple(points.shape)}.")
    squares = (points[:, :, None] - points[:, None]).square().sum(-1)
    others = ~torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    crowded = ((least - squares).clamp_min(0) * others).sum(dim=(1, 2)).mean()
    return crowded + (points[..., 2].mean(1) - depth).abs().mean()


def head_pose_loss(degrees: Tensor, wanted: Tensor) -> Tensor:
    r"""``|yaw - yaw*| + |pitch - pitch*| + |roll - roll*|`` in degrees, averaged over the batch.

    Args:
        degrees: Angles of the head network, ``(n, 3)``.
        wanted: Labels in the same order and convention; no gradient goes there.

    Returns:
        Scalar in degrees; 3 when all three are 1 degree off.

    Raises:
        ShapeError: Not three angles each.

    Source: face-vid2vid, eq. 8 (reference-facts 7.2). Deviates: labels are of the suite's landmarks
        (:func:`talkhead.geometry.head_angles.angles_of_pose`) and not of Hopenet.
    """
    if degrees.shape != wanted.shape or degrees.ndim != 2 or degrees.shape[1] != 3:
        raise ShapeError(
            f"expected angles and labels (n, 3), got {tuple(degrees.shape)} and {tuple(wanted.shape)}."
        )
    return (degrees - wanted.detach()).abs().sum(1).mean()


def expression_loss(expression: Tensor) -> Tensor:
    r"""``sum_k |exp_k|_1``, averaged over the batch: what pose can explain is not expression.

    Args:
        expression: Deviations of the keypoints, ``(n, K, 3)``.

    Returns:
        Scalar; 45 for 15 points whose every coordinate deviates by 1.

    Raises:
        ShapeError: Not 3-D points.

    Source: face-vid2vid, eq. 9 (reference-facts 7.2).
    """
    if expression.ndim != 3 or expression.shape[-1] != 3:
        raise ShapeError(f"expected an expression (n, K, 3), got {tuple(expression.shape)}.")
    return expression.abs().sum(dim=(1, 2)).mean()
