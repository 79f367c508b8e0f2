"""Ten keypoints with affine frames read off the 68-point view of a face, to drive a learned renderer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.geometry.keypoints import N_KEYPOINTS, Keypoints
from talkhead.geometry.points68 import N_POINTS, ibug_points
from talkhead.networks.component import Component

FAINT = 0.005
"""Weight of the brow in the frame of an eye, so that a quarter of its height is left when it is shut."""


class Spot(NamedTuple):
    """A keypoint: the mean of ``points``, with a frame fitted to ``around`` and, faintly, to ``faint``."""

    points: tuple[int, ...]
    around: tuple[int, ...]
    faint: tuple[int, ...] = ()


SPOTS = (
    Spot((62,), (*range(48, 55), *range(60, 65))),  # upper lip
    Spot((66,), (48, *range(54, 60), 60, *range(64, 68))),  # lower lip
    Spot((48,), (48, 49, 59, 60, 61, 67)),  # corners of the mouth
    Spot((54,), (53, 54, 55, 63, 64, 65)),
    Spot((8,), (*range(6, 11), *range(56, 59))),  # chin, with the lower lip
    Spot((4,), (*range(2, 7), 31, 48)),  # jaw, with mouth corner and wing of the nose
    Spot((12,), (*range(10, 15), 35, 54)),
    Spot((30,), (*range(27, 36), 21, 22, 39, 42)),  # nose, with inner brows and eye corners
    Spot((37, 38), tuple(range(36, 42)), tuple(range(17, 22))),  # upper lids
    Spot((43, 44), tuple(range(42, 48)), tuple(range(22, 27))),
)
"""Picture-left before picture-right; numbers are those of :mod:`talkhead.geometry.points68`."""


class LandmarkKeypoints(Component):
    """Keypoints of 68 landmarks: each a point of the face and the affine frame that moves with it.

    Both are linear in the landmarks. A keypoint's Jacobian is the least-squares fit, in the picture
    plane, of the canonical face's points around it to the same points of the picture. Its unit is one
    outer-eye distance of the canonical face, so a neutral frontal face whose outer eye corners are ``e``
    apart (in [-1, 1]) has ``e * I`` everywhere. The lips have frames of their own, and the height of an
    eye's frame is the opening of the eye. All 68 points count in some keypoint but the ends of the jaw.

    There is nothing to train. The buffers are the linear maps themselves, so a checkpoint keeps the
    keypoints that its renderer was trained with.

    Source: ours. Paper 2 generates 68 landmarks and does not say how they become pictures (reference-facts
        5.2: a pluggable renderer); this gives them the layout that the keypoint renderer of
        ``keypoint_reenactment`` takes. :class:`~talkhead.networks.mesh_keypoints.MeshKeypoints` does the
        same with all 478 points and leaves out 31 of the 68.
    """

    places: Tensor
    fits: Tensor

    def __init__(self) -> None:
        """Fit the frames to the canonical face."""
        super().__init__()
        self.keypoints = N_KEYPOINTS
        places, fits = _maps()
        self.register_buffer("places", torch.from_numpy(places))
        self.register_buffer("fits", torch.from_numpy(fits))

    def forward(self, points: Tensor) -> Keypoints:
        """Keypoints of faces.

        Args:
            points: ``(n, 68, C)`` in crop units, (0, 0) the top left and (1, 1) the bottom right corner of
                the picture; of the ``C`` coordinates only x and y count.

        Returns:
            Points ``(n, 10, 2)`` in [-1, 1] and Jacobians ``(n, 10, 2, 2)``.

        Raises:
            ShapeError: Another shape.
        """
        if points.ndim != 3 or points.shape[1] != N_POINTS or points.shape[2] < 2:
            raise ShapeError(
                f"expected points (n, {N_POINTS}, 2) in crop units, got {tuple(points.shape)}; convert mesh "
                "landmarks with ibug_points."
            )
        plane = 2 * points[..., :2] - 1
        found = torch.einsum("kp,npd->nkd", self.places.to(plane.dtype), plane)
        # From (K, axis of the face, p) to columns: J[d, i] is how far d goes with axis i.
        jacobians = torch.einsum("kip,npd->nkdi", self.fits.to(plane.dtype), plane)
        return Keypoints(found, jacobians)

    def of_mesh(self, landmarks: Tensor) -> Keypoints:
        """As :meth:`forward`, of mesh landmarks ``(n, 478, 3)`` in crop units."""
        found: Keypoints = self(ibug_points(landmarks))
        return found


def _maps() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means ``(K, 68)`` and weighted least squares about the middle ``(K, 2, 68)``."""
    canonical = torch.from_numpy(canonical_landmarks().copy())
    face = ibug_points(canonical)[:, :2].numpy().astype(np.float64)
    places = np.zeros((N_KEYPOINTS, N_POINTS), np.float32)
    fits = np.zeros((N_KEYPOINTS, 2, N_POINTS), np.float32)
    for place, fit, spot in zip(places, fits, SPOTS, strict=True):
        place[list(spot.points)] = 1 / len(spot.points)
        weights = np.zeros(N_POINTS)
        weights[list(spot.faint)] = FAINT
        weights[list(spot.around)] = 1.0
        centred = face - weights @ face / weights.sum()
        fit[:] = np.linalg.solve(centred.T * weights @ centred, centred.T * weights)
    return places, fits
