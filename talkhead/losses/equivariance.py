"""Equivariance: keypoints of a warped picture, taken back through the warp, are those of the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.keypoints import Keypoints, guarded_inverse
from talkhead.geometry.thin_plate import ThinPlate


def point_equivariance_loss(keypoints: Keypoints, warped: Keypoints, warp: ThinPlate) -> Tensor:
    r"""``mean |p - w(p')|`` over pictures, keypoints and both axes.

    Args:
        keypoints: Of the pictures ``u``; points ``(n, K, 2)``.
        warped: Of the warped pictures ``u(w(z))``, as :meth:`ThinPlate.pictures` makes them.
        warp: The warps ``w``.

    Returns:
        Scalar; 0.1 when every point of the warped pictures is 0.1 off on both axes.

    Raises:
        ShapeError: Not as many keypoints of the warped pictures.

    Source: FOMM (reference-facts 6.1).
    """
    _check(keypoints, warped)
    return projected_equivariance_loss(keypoints.points, warped.points, warp)


def projected_equivariance_loss(points: Tensor, warped: Tensor, warp: ThinPlate) -> Tensor:
    r"""``mean |p - w(p')|`` of points seen in the picture: of 3-D points, x and y count.

    Args:
        points: Of the pictures ``u``, ``(n, K, 2 or 3)``.
        warped: Of the warped pictures ``u(w(z))``, the same shape.
        warp: The warps ``w``.

    Returns:
        Scalar.

    Raises:
        ShapeError: Not as many points of the warped pictures.

    Source: FOMM; face-vid2vid drops the depth (reference-facts 7.2).
    """
    if points.shape != warped.shape or points.ndim != 3 or points.shape[-1] not in (2, 3):
        raise ShapeError(
            "expected points (n, K, 2 or 3) of pictures and as many of warped ones, got "
            f"{tuple(points.shape)} and {tuple(warped.shape)}; detect both with one detector."
        )
    return (warp.points(warped[..., :2]) - points[..., :2]).abs().mean()


def jacobian_equivariance_loss(keypoints: Keypoints, warped: Keypoints, warp: ThinPlate) -> Tensor:
    r"""``mean |1 - J^{-1} w'(p') J'|`` over pictures, keypoints and the four entries.

    Args:
        keypoints: Of the pictures ``u``; Jacobians ``J`` ``(n, K, 2, 2)``.
        warped: Of the warped pictures ``u(w(z))``: points ``p'``, Jacobians ``J'``.
        warp: The warps ``w``, with the derivative ``w'``.

    Returns:
        Scalar; 0.5 when the Jacobians of the warped pictures are all twice what they should be, as the
        identity has two zeros.

    Raises:
        ShapeError: Not as many keypoints of the warped pictures.

    Source: FOMM (reference-facts 6.1). Deviates: a collapsing Jacobian is inverted with a guard
        (:func:`talkhead.geometry.keypoints.guarded_inverse`), so that the loss cannot explode.
    """
    _check(keypoints, warped)
    with torch.autocast(keypoints.points.device.type, enabled=False):
        slopes = warp.jacobians(warped.points)
        inverse = guarded_inverse(keypoints.jacobians.to(slopes))
        product = inverse @ slopes @ warped.jacobians.to(slopes)
        return (product - torch.eye(2).to(product)).abs().mean()


def _check(keypoints: Keypoints, warped: Keypoints) -> None:
    shapes = [tuple(part.shape) for part in (*keypoints, *warped)]
    points = shapes[0]
    if shapes != [points, (*points, 2)] * 2:
        raise ShapeError(
            "expected points (n, K, 2) and Jacobians (n, K, 2, 2) of pictures and as many of warped ones, "
            f"got {', '.join(map(str, shapes))}; detect both with one detector."
        )
