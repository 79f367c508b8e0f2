"""How far eyes, irises, expression and pose of generated faces are from the real ones (paper 1, Table 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.face_topology import (
    EYE_OUTER,
    LIPS_INNER,
    LIPS_OUTER,
    PICTURE_LEFT_EYE,
    PICTURE_LEFT_IRIS,
    PICTURE_RIGHT_EYE,
    PICTURE_RIGHT_IRIS,
)
from talkhead.specs import N_LANDMARKS

EYES = (*PICTURE_LEFT_EYE.tolist(), *PICTURE_RIGHT_EYE.tolist())
IRISES = (*PICTURE_LEFT_IRIS.tolist(), *PICTURE_RIGHT_IRIS.tolist())
MOUTH = (*LIPS_OUTER.tolist(), *LIPS_INNER.tolist())


def normalised_mean_error(generated: Tensor, real: Tensor, points: tuple[int, ...]) -> Tensor:
    """Mean distance of some landmarks, in units of the real face's distance of outer eye corners.

    ``NME = mean_{t,i} |g_ti - r_ti| / |r_t,left - r_t,right|``, in the picture plane.

    Args:
        generated: ``(T, 478, 2 or 3)``, any unit, the same as ``real``'s.
        real: The same frames of the real video.
        points: Landmarks compared, such as :data:`EYES`.

    Returns:
        Scalar float64.

    Raises:
        ShapeError: Shapes differ or are not of 478 landmarks.
    """
    if generated.shape != real.shape or real.ndim != 3 or real.shape[1] != N_LANDMARKS:
        raise ShapeError(
            f"expected two tracks (T, {N_LANDMARKS}, 3), got {tuple(generated.shape)} and "
            f"{tuple(real.shape)}; track the same frames of both videos."
        )
    flat_generated, flat_real = generated[..., :2].double(), real[..., :2].double()
    left, right = EYE_OUTER.tolist()
    unit = (flat_real[:, left] - flat_real[:, right]).norm(dim=-1).clamp_min(1e-9)
    index = torch.tensor(points, device=real.device)
    apart = (flat_generated[:, index] - flat_real[:, index]).norm(dim=-1)
    error: Tensor = (apart / unit[:, None]).mean()
    return error


def blink_distance(generated: Tensor, real: Tensor) -> Tensor:
    """``B_d``: :func:`normalised_mean_error` of the 32 lid points; lower is better, 0 is perfect.

    Source: paper 1 Table 4; reference-facts 8.6. Deviates: lid contours of the 478-point mesh.
    """
    return normalised_mean_error(generated, real, EYES)


def gaze_distance(generated: Tensor, real: Tensor) -> Tensor:
    """``G_d``: :func:`normalised_mean_error` of the 10 iris points; lower is better, 0 is perfect.

    Source: paper 1 Table 4; reference-facts 8.6, which leave the iris points open.
    """
    return normalised_mean_error(generated, real, IRISES)


def mouth_distance(generated: Tensor, real: Tensor) -> Tensor:
    """:func:`normalised_mean_error` of the 40 lip points; lower is better, 0 is perfect."""
    return normalised_mean_error(generated, real, MOUTH)


def descriptor_distance(generated: Tensor, real: Tensor) -> Tensor:
    """``E_d`` or ``P_d``: mean over frames of the Euclidean distance of some descriptors.

    Args:
        generated: ``(T, D)``, for instance the expression columns.
        real: The same frames of the real video.

    Returns:
        Scalar float64, lower is better.

    Raises:
        ShapeError: Shapes differ.

    Source: paper 1 Table 4; reference-facts 8.6. Deviates: on the suite's descriptors instead of 3DMM
        coefficients, so values do not compare with the paper's.
    """
    if generated.shape != real.shape or real.ndim != 2:
        raise ShapeError(
            f"expected two sequences (T, D), got {tuple(generated.shape)} and {tuple(real.shape)}."
        )
    distance: Tensor = (generated.double() - real.double()).norm(dim=-1).mean()
    return distance


def motion_share(generated: Tensor, real: Tensor) -> Tensor:
    """How much moves, relative to the real video: ratio of the standard deviations over time.

    Args:
        generated: ``(T, D)``.
        real: ``(T, D)``.

    Returns:
        Scalar float64: root of the ratio of the variances summed over ``D``; 0 is still, 1 as lively as
        the real video.

    Raises:
        ShapeError: Not two sequences of the same width and at least two frames.
    """
    if generated.ndim != 2 or real.ndim != 2 or generated.shape[1] != real.shape[1]:
        raise ShapeError(
            f"expected two sequences (T, D), got {tuple(generated.shape)} and {tuple(real.shape)}."
        )
    if min(len(generated), len(real)) < 2:
        raise ShapeError(
            "expected at least 2 frames to see motion in, got fewer; use longer clips."
        )
    spread = real.double().var(0).sum().clamp_min(1e-12)
    return (generated.double().var(0).sum() / spread).sqrt()
