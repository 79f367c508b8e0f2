"""MS-Sync's keypoints read off the face mesh, in place of a learned detector."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry import face_topology as ft
from talkhead.geometry.face_topology import along_the_skin
from talkhead.geometry.keypoints import (
    N_KEYPOINTS,
    ROW_DIM,
    Keypoints,
    guarded_inverse,
    pack,
    unpack,
)
from talkhead.geometry.points68 import MESH_INDEX, RIGID
from talkhead.networks.component import Component
from talkhead.specs import N_LANDMARKS

MESH_POINTS = (13, 14, 61, 291, 152, 187, 411, 151, 159, 386)
"""Inner lips (upper, lower), mouth corners, chin, lower cheeks, forehead, upper lids; left before right."""
PARTNER = (0, 1, 3, 2, 4, 6, 5, 7, 9, 8)
"""For each keypoint the one on its place in the mirrored picture."""
EYES = {159: ft.PICTURE_LEFT_EYE, 386: ft.PICTURE_RIGHT_EYE}
"""Lids of the keypoints whose frame is that of an eye."""
REACH = 0.25
"""Radius of the neighbourhood a frame is fitted to, along the skin, in outer-eye distances."""
LID_REACH = 0.06
"""The same around the lids of an eye."""
LID_SURROUNDINGS = 0.05
"""Weight of the skin around the lids: enough to keep the frame of a shut eye from being singular."""
SIGMAS = (0.15, 0.15, 0.15, 0.15, 0.15, 0.25, 0.25, 0.25, 0.12, 0.12)
"""Widths of the Gaussians :meth:`MeshKeypoints.warp_landmarks` blends with, in the unit of ``REACH``."""


class MeshKeypoints(Component):
    """Ten mesh points and, around each, the affine frame that carries the neutral face to this one.

    A keypoint's Jacobian is the least-squares fit, in the picture plane, of the canonical face's
    neighbourhood to the same mesh points of the picture. Its unit is one outer-eye distance of the
    canonical face, so a neutral frontal face whose outer eye corners are ``e`` apart (in [-1, 1]) has
    ``e * I`` everywhere; turning the head, closing an eye or pulling a mouth corner changes it.
    Neighbourhoods are measured along the skin with the mouth cut open, so the two lips have frames of
    their own. Those of the eyes are both lids with little of what is around them, so their height is the
    opening of the eye (a quarter is left when it is shut). Neither these nor the points are among the 31
    that the rigid syncer judges (:data:`~talkhead.geometry.points68.RIGID`).

    There is nothing to train. The buffers are the fits themselves: a checkpoint keeps the keypoints it was
    made with, and cached features of other fits are not taken for these.

    Source: ours. MS-Sync takes the keypoints of a trained FOMM (reference-facts 6.1); these have the same
        layout and need no weights, and no picture.
    """

    fits: Tensor
    blend: Tensor

    def __init__(self) -> None:
        """Fit the frames to the canonical face."""
        super().__init__()
        distances = np.stack([along_the_skin([point]) for point in MESH_POINTS])
        self.register_buffer("fits", torch.from_numpy(_fits(distances)))
        self.register_buffer("blend", torch.from_numpy(_blend(distances)))

    def forward(self, landmarks: Tensor) -> Tensor:
        """Keypoints of faces.

        Args:
            landmarks: ``(n, 478, 3)`` in crop units, (0, 0) the top left and (1, 1) the bottom right
                corner of the picture; depth is not used.

        Returns:
            Rows ``(n, 60)`` of :func:`~talkhead.geometry.keypoints.pack`.

        Raises:
            ShapeError: Another shape.
        """
        if landmarks.ndim != 3:
            raise _not_landmarks(landmarks, "n, ")
        places = _picture_plane(landmarks)
        # From (K, axis of the face, p) to columns: J[d, i] is how far d goes with axis i.
        jacobians = torch.einsum("kip,npd->nkdi", self.fits.to(places.dtype), places)
        return pack(places[:, list(MESH_POINTS)], jacobians)

    def mirror(self, rows: Tensor) -> Tensor:
        """Keypoints of the mirrored picture: partners change places, and all that points along x its sign.

        Args:
            rows: ``(..., 60)``.

        Returns:
            As ``rows``; twice is the identity.

        Raises:
            ShapeError: Not 60 numbers.
        """
        points, jacobians = _ten(rows)
        across = points.new_tensor([-1.0, 1.0])
        # Seen in the mirror both the picture and the face change sides, so only j01 and j10 turn.
        turn = across[:, None] * across
        order = list(PARTNER)
        return pack(points[..., order, :] * across, jacobians[..., order, :, :] * turn)

    def warp_landmarks(self, landmarks0: Tensor, keypoints0: Tensor, keypoints: Tensor) -> Tensor:
        """A face's landmarks carried along by its keypoints.

        Around keypoint ``k`` the motion is affine, ``p -> J_tk J_0k^-1 (p - p_0k) + p_tk``; a landmark takes
        the mean of all ten with Gaussian weights of its distance to them on the canonical face. Keypoints
        that do not move leave the landmarks bit for bit where they are, and an affine motion of all
        keypoints is that motion of all landmarks.

        Args:
            landmarks0: Landmarks of one frame in crop units, ``(478, 3)``.
            keypoints0: Keypoints of that frame, ``(60,)``.
            keypoints: Keypoints of other frames, ``(T, 60)``.

        Returns:
            ``(T, 478, 3)`` in crop units, depth as in ``landmarks0``.

        Raises:
            ShapeError: Other shapes.
        """
        if landmarks0.ndim != 2:
            raise _not_landmarks(landmarks0, "")
        if keypoints0.ndim != 1 or keypoints.ndim != 2:
            raise ShapeError(
                f"expected keypoints ({ROW_DIM},) and (T, {ROW_DIM}), got {tuple(keypoints0.shape)} and "
                f"{tuple(keypoints.shape)}; warp one face at a time."
            )
        start, there = _ten(keypoints0), _ten(keypoints)
        offsets = _picture_plane(landmarks0) - start.points[:, None]
        # Less the identity, so that no motion is exactly zero.
        change = (there.jacobians - start.jacobians) @ guarded_inverse(start.jacobians)
        moved = (there.points - start.points)[:, :, None] + offsets @ change.transpose(-1, -2)
        shifts = torch.einsum("pk,tkpd->tpd", self.blend.to(moved.dtype), moved) / 2
        depth = landmarks0[:, 2:].expand(len(keypoints), -1, -1)
        return torch.cat([landmarks0[:, :2] + shifts, depth], dim=-1)


def _not_landmarks(landmarks: Tensor, lead: str) -> ShapeError:
    """The error about landmarks of another shape."""
    return ShapeError(
        f"expected landmarks ({lead}{N_LANDMARKS}, 3), got {tuple(landmarks.shape)}; pass what the face "
        "mesh returned, in crop units."
    )


def _picture_plane(landmarks: Tensor) -> Tensor:
    """Places in the picture of ``(..., 478, 3)`` in [-1, 1], ``(..., 478, 2)``."""
    if landmarks.shape[-2:] != (N_LANDMARKS, 3):
        raise _not_landmarks(landmarks, "..., ")
    return 2 * landmarks[..., :2] - 1


def _ten(rows: Tensor) -> Keypoints:
    """Unpacked rows of ten keypoints."""
    if rows.ndim == 0 or rows.shape[-1] != ROW_DIM:
        raise ShapeError(
            f"expected rows (..., {ROW_DIM}), got {tuple(rows.shape)}; mesh keypoints are "
            f"{N_KEYPOINTS} times x, y and the Jacobian."
        )
    return unpack(rows)


def _fits(distances: NDArray[np.float64]) -> NDArray[np.float32]:
    """Linear maps ``(K, 2, 478)`` from places to frames: weighted least squares about the middle."""
    face = ft.canonical_vertices()[:, :2].astype(np.float64)
    fits = np.zeros((N_KEYPOINTS, 2, N_LANDMARKS), np.float32)
    for fit, point, distance in zip(fits, MESH_POINTS, distances, strict=True):
        weights = _neighbourhood(point, distance)
        centred = face - weights @ face / weights.sum()
        fit[:, : ft.N_MESH] = np.linalg.solve(centred.T * weights @ centred, centred.T * weights)
    return fits


def _neighbourhood(point: int, distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of every vertex in the fit of a keypoint's frame, ``(468,)``."""
    weights = (distance <= REACH).astype(np.float64)
    if point in EYES:
        weights = LID_SURROUNDINGS * (along_the_skin(EYES[point]) <= LID_REACH)
        weights[EYES[point]] = 1.0
    weights[list(MESH_INDEX[RIGID])] = 0.0
    return weights


def _blend(distances: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights ``(478, K)`` of the keypoints' motions, each row summing to 1."""
    # Irises move as their lids do on average.
    eyes = [distances[:, eye].mean(axis=1) for eye in (ft.PICTURE_LEFT_EYE, ft.PICTURE_RIGHT_EYE)]
    irises = [np.repeat(eye[:, None], 5, axis=1) for eye in eyes]
    exponents = -0.5 * (np.concatenate([distances, *irises], axis=1).T / np.asarray(SIGMAS)) ** 2
    weights = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    blend: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return blend
