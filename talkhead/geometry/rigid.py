"""Fit of a rigid pose with scale: the similarity that best carries points onto others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import ShapeError

FloatArray = NDArray[np.floating[Any]]
Float64Array = NDArray[np.float64]


def fit_similarity(
    shape: FloatArray, points: FloatArray, weights: FloatArray | None = None
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Rotation, scale and translation with the least weighted squared error.

    Minimises ``sum_i w_i |points_i - (scale R shape_i + translation)|^2`` for each frame. Moving
    all points rigidly changes the result by just that motion, also when the shapes differ, so the
    error of a wrong face shape is a constant of the pose-free face and not a function of the pose.

    Args:
        shape: Reference points, ``(P, 3)``.
        points: Observed points, ``(T, P, 3)``.
        weights: One weight >= 0 for each point, ``(P,)``; equal if None.

    Returns:
        Rotations ``(T, 3, 3)``, scales ``(T,)`` and translations ``(T, 3)``.

    Raises:
        ShapeError: The shapes do not belong together or there are fewer than three points.

    Source: Umeyama (1991), least-squares estimation of transformation parameters.
    """
    x = np.asarray(shape, np.float64)
    y = np.asarray(points, np.float64)
    if x.ndim != 2 or x.shape[1] != 3 or len(x) < 3 or y.shape[1:] != x.shape:
        raise ShapeError(f"expected points (P, 3) and (T, P, 3), P >= 3, got {x.shape}, {y.shape}.")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.sum()
    x_mean, y_mean = w @ x, np.einsum("p,tpc->tc", w, y)
    x_centred, y_centred = x - x_mean, y - y_mean[:, None]
    covariance = np.einsum("p,tpi,pj->tij", w, y_centred, x_centred)
    u, singular, vt = np.linalg.svd(covariance)
    flip = np.ones_like(singular)
    flip[:, 2] = np.sign(np.linalg.det(u @ vt))  # a reflection is no head pose
    rotation = (u * flip[:, None]) @ vt
    scale = (singular * flip).sum(axis=1) / (w @ (x_centred**2).sum(axis=1))
    translation = y_mean - scale[:, None] * np.einsum("tij,j->ti", rotation, x_mean)
    return rotation, scale, translation
