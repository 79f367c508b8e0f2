"""The face mesh carried along by its own 68 points."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry import face_topology as ft
from talkhead.geometry.points68 import MESH_INDEX, N_POINTS, RIGID, ibug_points
from talkhead.geometry.thin_plate import thin_plate_weights
from talkhead.specs import N_LANDMARKS

_UPPER_LIP = (*range(49, 54), *range(61, 64))
_LOWER_LIP = (*range(55, 60), *range(65, 68))
SOFT = 0.02
"""Weight of mouth and jaw in the motion of the whole head, beside 1 of brows, nose and eyes."""


class MeshOfPoints:
    """Moves the 478 landmarks of one face as its 68 points move.

    First the head: the affine map of space to the picture that explains the motion of the 68 points best
    (brows, nose and eyes count, mouth and jaw hardly) moves all landmarks, so that turning, nodding and
    coming closer need no bending. What the 68 points do besides, their expression, is spread over the
    mesh by thin plates, which are laid over the canonical face and therefore the same for every portrait.
    There are two, one that does not know the lower lip and one that does not know the upper one; a
    landmark takes their mean by its distance to both lips along the skin. So an opening mouth tears the
    mesh between the lips and nowhere else, also in a portrait whose lips touch.

    The 68 points go exactly where they are told to. Points at rest leave the landmarks bit for bit where
    they are, and an affine motion of the points is that motion of all landmarks. Depth turns with the
    head.

    Source: ours; paper 2 does not name a renderer (reference-facts 5.2).
    """

    def __init__(self, landmarks: Tensor) -> None:
        """Keep the face at rest.

        Args:
            landmarks: ``(478, 3)`` in crop units.

        Raises:
            ShapeError: Another shape.
        """
        if landmarks.shape != (N_LANDMARKS, 3):
            raise ShapeError(
                f"expected landmarks ({N_LANDMARKS}, 3), got {tuple(landmarks.shape)}; pass one face."
            )
        self._landmarks = landmarks
        centred = landmarks.double() - ibug_points(landmarks.double()).mean(0)
        self._centred = centred
        self._own = ibug_points(landmarks)[:, :2]
        self._head = _affine_fit(ibug_points(centred))
        ones = centred.new_ones(N_LANDMARKS, 1)
        whole = torch.cat([centred, ones], dim=1) @ self._head
        spread = _spread().to(whole.device)
        # What the head's motion leaves of the 68 points' motion, and the head's motion itself.
        self._moves = whole + spread @ (
            torch.eye(N_POINTS, device=whole.device) - whole[list(MESH_INDEX)]
        )

    def __call__(self, points: Tensor) -> Tensor:
        """Landmarks of frames.

        Args:
            points: The 68 points at other places, ``(T, 68, 2)`` in crop units.

        Returns:
            ``(T, 478, 3)`` in crop units.

        Raises:
            ShapeError: Another shape.
        """
        if points.ndim != 3 or points.shape[1:] != (N_POINTS, 2):
            raise ShapeError(
                f"expected points (T, {N_POINTS}, 2), got {tuple(points.shape)}; leave depth out."
            )
        moved = (points - self._own).double()
        places = self._landmarks[:, :2].double() + self._moves @ moved
        depth = self._landmarks[:, 2].double() + self._depth_change(self._head[:3] @ moved)
        landmarks: Tensor = torch.cat([places, depth[..., None]], dim=-1).to(self._landmarks.dtype)
        return landmarks

    def _depth_change(self, change: Tensor) -> Tensor:
        """Change of depth ``(T, 478)`` when the map of space to the picture changes by ``(T, 3, 2)``.

        The third axis of a turned and scaled head is at right angles to the other two and as long.
        """
        axes = change.mT + torch.eye(2, 3, dtype=change.dtype, device=change.device)
        lengths = axes.norm(dim=-1)
        third = torch.linalg.cross(axes[:, 0], axes[:, 1]) / lengths.prod(-1).sqrt()[:, None]
        third = third - third.new_tensor([0.0, 0.0, 1.0])
        return torch.einsum("ti,pi->tp", third, self._centred)


def _affine_fit(points: Tensor) -> Tensor:
    """Weighted least squares ``(4, 68)`` from places of the 68 points to a map ``(x, y, z, 1) -> place``."""
    roots = points.new_full((N_POINTS, 1), SOFT**0.5)
    roots[RIGID] = 1.0
    design = torch.cat([points, points.new_ones(N_POINTS, 1)], dim=1)
    # A face without depth has no motion along it: the pseudo-inverse leaves that at 0.
    fit: Tensor = torch.linalg.pinv(roots * design, rtol=1e-6) * roots.T
    return fit


@lru_cache(maxsize=1)
def _spread() -> Tensor:
    """Linear map ``(478, 68)`` from the motion of the 68 points to that of all landmarks."""
    # A tensor made under inference_mode would poison every later use that needs a gradient.
    with torch.inference_mode(False):
        face = torch.from_numpy(ft.canonical_landmarks().copy()).double()[:, :2]
        controls = face[list(MESH_INDEX)]
        upper = _without(_LOWER_LIP, controls, face)
        lower = _without(_UPPER_LIP, controls, face)
        share = _upper_share()[:, None]
        return share * upper + (1 - share) * lower


def _without(left_out: tuple[int, ...], controls: Tensor, face: Tensor) -> Tensor:
    """The thin plate through all controls but some, ``(478, 68)`` with zeros for those."""
    kept = [i for i in range(N_POINTS) if i not in left_out]
    weights = face.new_zeros(N_LANDMARKS, N_POINTS)
    weights[:, kept] = thin_plate_weights(controls[kept], face)
    return weights


def _upper_share() -> Tensor:
    """How much each landmark belongs to the upper side of the mouth, ``(478,)``: 1 on the upper lip."""
    index = torch.tensor(MESH_INDEX)
    near, far = (
        torch.from_numpy(ft.along_the_skin(index[list(lip)].tolist())).square()
        for lip in (_UPPER_LIP, _LOWER_LIP)
    )
    share = far / (near + far)
    # Irises lie on no skin; both plates agree on the eyes.
    return torch.cat([share, share.new_ones(N_LANDMARKS - ft.N_MESH)])
