"""How a drawn face moves: from a :class:`FaceState` to the positions of its 478 landmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from talkhead.corpus.state import FaceState
from talkhead.geometry import face_topology as ft

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
LipMove = Callable[[FloatArray, FloatArray, FloatArray, float], tuple[float, ...]]

JAW_ANGLE_RAD = 0.44
"""Rotation of the jaw about the axis through the ears when ``jaw`` is 1."""
JAW_HINGE = (0.02, 0.50)
"""Height and depth of that axis in face space."""
SPREAD = 0.075
PROTRUSION = 0.09
BROW_RAISE = 0.085
GAZE_TRAVEL = (0.082, 0.118)
"""Iris shift in face-space units at gaze 1, horizontal and vertical."""
LID_FOLLOW = (0.86, 0.66)
"""Share of the vertical iris shift that the upper and the lower lid follow."""

_LIPS_UPPER = np.array(
    [
        [61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291],
        [76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306],
        [62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292],
        [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308],
    ]
)
_LIPS_LOWER = np.array(
    [
        [61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291],
        [76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306],
        [62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292],
        [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308],
    ]
)
_CHIN = [152, 148, 176, 149, 377, 400, 378, 175, 199, 200, 171, 396, 208, 428, 140, 369]
_NOSE = [1, 2, 4, 5, 6, 168, 197, 195, 98, 327, 97, 326, 94, 19, 64, 294, 48, 278, 129, 358]
_OVAL_UPPER = [10, 338, 297, 332, 284, 251, 389, 356, 454, 127, 162, 21, 54, 103, 67, 109, 234]
_OVAL_JAW = [323, 361, 288, 397, 365, 379, 93, 132, 58, 172, 136, 150]
_CHEEKS = [116, 117, 118, 50, 101, 36, 345, 346, 347, 280, 330, 266, 123, 352]


@lru_cache(maxsize=1)
def _laplacian() -> DoubleArray:
    """Graph Laplacian of the mesh, ``(468, 468)``, with eyes and mouth left open."""
    edges = ft.triangles()[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    for upper, lower in (
        (_LIPS_UPPER[-1, 1:-1], _LIPS_LOWER[-1, 1:-1]),
        (ft.PICTURE_LEFT_UPPER_LID[1:-1], ft.PICTURE_LEFT_LOWER_LID[1:-1]),
        (ft.PICTURE_RIGHT_UPPER_LID[1:-1], ft.PICTURE_RIGHT_LOWER_LID[1:-1]),
    ):
        above, below = np.isin(edges, upper), np.isin(edges, lower)
        edges = edges[~(above.any(axis=1) & below.any(axis=1))]
    adjacency = np.zeros((ft.N_MESH, ft.N_MESH))
    adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1.0
    return np.asarray(np.diag(adjacency.sum(axis=1)) - adjacency)


def spread_over_mesh(values: Mapping[int, tuple[float, ...]]) -> FloatArray:
    """Smoothest field on the mesh that takes given values at given points.

    Args:
        values: Mesh point -> value (all of one length ``K``).

    Returns:
        ``(468, K)`` float32, harmonic between the given points.
    """
    fixed = np.array(sorted(values), np.intp)
    given = np.array([values[int(i)] for i in fixed], np.float64)
    free = np.setdiff1d(np.arange(ft.N_MESH), fixed)
    laplacian = _laplacian()
    out = np.empty((ft.N_MESH, given.shape[1]))
    out[fixed] = given
    out[free] = np.linalg.solve(
        laplacian[np.ix_(free, free)], -laplacian[np.ix_(free, fixed)] @ given
    )
    return out.astype(np.float32)


@lru_cache(maxsize=1)
def jaw_weights() -> FloatArray:
    """How far each mesh point turns with the jaw, ``(468,)`` in ``[0, 1]``."""
    across = np.linspace(-1.0, 1.0, 11)
    weights: dict[int, tuple[float, ...]] = {}
    weights |= dict.fromkeys([*_NOSE, *_OVAL_UPPER, *_CHEEKS], (0.0,))
    weights |= dict.fromkeys(_CHIN, (1.0,))
    jaw_line = {288: 0.35, 361: 0.15, 323: 0.05, 397: 0.55, 365: 0.75, 379: 0.9}
    mirrored = {58: 0.35, 132: 0.15, 93: 0.05, 172: 0.55, 136: 0.75, 150: 0.9}
    weights |= {i: (w,) for i, w in (jaw_line | mirrored).items()}
    for ring in range(4):
        corner = 0.42 - 0.03 * ring
        lower = corner + (1.0 - corner) * (1.0 - np.abs(across) ** 2.4) ** 0.6
        upper = corner * np.abs(across) ** 2.2 - 0.05 * (1.0 - across**2)
        weights |= {int(i): (w,) for i, w in zip(_LIPS_LOWER[ring], lower, strict=True)}
        weights |= {int(i): (w,) for i, w in zip(_LIPS_UPPER[ring], upper, strict=True)}
    return spread_over_mesh(weights)[:, 0]


def close_mouth(mesh: FloatArray) -> FloatArray:
    """The same mesh with the inner lip edges brought together, ``(468, 3)``."""
    upper, lower = mesh[_LIPS_UPPER[-1]], mesh[_LIPS_LOWER[-1]]
    seam = 0.55 * upper + 0.45 * lower
    moves = {int(i): (0.0, 0.0, 0.0) for i in (*_LIPS_UPPER[0], *_LIPS_LOWER[0])}
    moves |= {int(i): (0.0, 0.0, 0.0) for i in (*_NOSE, *_CHIN, *_OVAL_UPPER, *_OVAL_JAW)}
    for row, now in ((_LIPS_UPPER[-1], upper), (_LIPS_LOWER[-1], lower)):
        moves |= {int(i): tuple(d) for i, d in zip(row, seam - now, strict=True)}
    return np.asarray(mesh + spread_over_mesh(moves), np.float32)


class FaceRig:
    """Poses the 478 landmarks of one neutral face.

    Args:
        neutral: ``(478, 3)`` landmarks at rest in face space, mouth closed, irises centred.
    """

    def __init__(self, neutral: FloatArray) -> None:
        """Compute the movement modes of this face."""
        self.neutral = np.asarray(neutral, np.float32)
        mesh = self.neutral[: ft.N_MESH]
        self._jaw = jaw_weights()
        self._modes = {
            "width": _mouth_mode(mesh, _spread_mode),
            "pucker": _mouth_mode(mesh, _pucker_mode),
            "press": _mouth_mode(mesh, _press_mode),
        }
        self._brows = [_brow_mode(ft.PICTURE_LEFT_BROW), _brow_mode(ft.PICTURE_RIGHT_BROW)]
        self._lid_follow = [
            _follow_mode(ft.PICTURE_LEFT_UPPER_LID, ft.PICTURE_LEFT_LOWER_LID),
            _follow_mode(ft.PICTURE_RIGHT_UPPER_LID, ft.PICTURE_RIGHT_LOWER_LID),
        ]
        self._lids = [
            _lid_mode(mesh, ft.PICTURE_LEFT_UPPER_LID, ft.PICTURE_LEFT_LOWER_LID),
            _lid_mode(mesh, ft.PICTURE_RIGHT_UPPER_LID, ft.PICTURE_RIGHT_LOWER_LID),
        ]

    def local(self, state: FaceState, t: int) -> FloatArray:
        """Landmarks of frame ``t`` in face space, before the head pose, ``(478, 3)``."""
        out = self.neutral.copy()
        mesh = out[: ft.N_MESH]
        for name, mode in self._modes.items():
            mesh += mode * float(getattr(state, name)[t])
        for side in range(2):
            mesh += self._brows[side] * float(state.brows[t, side])
            mesh += self._lids[side] * (1.0 - float(state.lids[t, side]))
        self._turn_jaw(mesh, float(state.jaw[t]))
        shift = state.gaze[t] * np.asarray(GAZE_TRAVEL, np.float32)
        out[ft.N_MESH :, :2] += shift
        for side in range(2):
            openness = min(1.0, float(state.lids[t, side]))
            mesh[:, 1] += self._lid_follow[side] * float(shift[1]) * openness
        return out

    def _turn_jaw(self, mesh: FloatArray, jaw: float) -> None:
        angle = JAW_ANGLE_RAD * jaw * self._jaw
        y, z = mesh[:, 1] - JAW_HINGE[0], mesh[:, 2] - JAW_HINGE[1]
        cos, sin = np.cos(angle), np.sin(angle)
        mesh[:, 1] = JAW_HINGE[0] + y * cos - z * sin
        mesh[:, 2] = JAW_HINGE[1] + y * sin + z * cos

    def jaw_rotated(self, points: FloatArray, jaw: float) -> FloatArray:
        """Points ``(N, 3)`` in face space that are fixed to the jaw bone, turned with it."""
        angle = JAW_ANGLE_RAD * jaw
        y, z = points[:, 1] - JAW_HINGE[0], points[:, 2] - JAW_HINGE[1]
        out = points.copy()
        out[:, 1] = JAW_HINGE[0] + y * np.cos(angle) - z * np.sin(angle)
        out[:, 2] = JAW_HINGE[1] + y * np.sin(angle) + z * np.cos(angle)
        return out


def rotation_matrix(rotation: FloatArray) -> FloatArray:
    """``Rz(roll) @ Ry(yaw) @ Rx(pitch)`` for ``rotation = (pitch, yaw, roll)`` in radians."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(rotation), np.sin(rotation)
    rx = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    ry = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    rz = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx, np.float32)


def _mouth_mode(mesh: FloatArray, move: LipMove) -> FloatArray:
    """Displacement ``(468, 3)`` of a lip movement that fades out over cheeks and chin."""
    still = (*_NOSE, *_OVAL_UPPER, *_OVAL_JAW, *_CHEEKS)
    moves: dict[int, tuple[float, ...]] = {int(i): (0.0, 0.0, 0.0) for i in still}
    moves |= dict.fromkeys((152, 148, 377, 176, 400, 175, 199), (0.0, 0.0, 0.0))
    centre = mesh[_LIPS_UPPER[-1, 5]]
    for rows in (_LIPS_UPPER, _LIPS_LOWER):
        for row in rows:
            for column, index in enumerate(row):
                across = (column - 5) / 5.0
                seam = mesh[rows[-1, column]]
                moves[int(index)] = move(mesh[index], centre, seam, across)
    return spread_over_mesh(moves)


def _spread_mode(
    point: FloatArray, centre: FloatArray, seam: FloatArray, across: float
) -> tuple[float, ...]:
    return (SPREAD * across, -0.012 * across**2, 0.035 * abs(across))


def _pucker_mode(
    point: FloatArray, centre: FloatArray, seam: FloatArray, across: float
) -> tuple[float, ...]:
    return (
        -0.40 * float(point[0] - centre[0]),
        0.10 * float(point[1] - seam[1]),
        -PROTRUSION * (1.0 - 0.4 * across**2),
    )


def _press_mode(
    point: FloatArray, centre: FloatArray, seam: FloatArray, across: float
) -> tuple[float, ...]:
    return (0.0, -0.32 * float(point[1] - seam[1]), 0.02 * (1.0 - across**2))


def _brow_mode(brow: NDArray[np.intp]) -> FloatArray:
    still = (*_OVAL_UPPER, *_NOSE, *_CHEEKS, *ft.PICTURE_LEFT_EYE, *ft.PICTURE_RIGHT_EYE)
    moves: dict[int, tuple[float, ...]] = {int(i): (0.0,) for i in still}
    other = ft.PICTURE_RIGHT_BROW if brow is ft.PICTURE_LEFT_BROW else ft.PICTURE_LEFT_BROW
    moves |= {int(i): (0.0,) for i in other}
    profile = (0.8, 1.0, 1.0, 0.95, 0.85, 0.85, 0.95, 1.0, 1.0, 0.8)
    moves |= {int(i): (w,) for i, w in zip(brow, profile, strict=True)}
    out = np.zeros((ft.N_MESH, 3), np.float32)
    out[:, 1] = -BROW_RAISE * spread_over_mesh(moves)[:, 0]
    return out


def _follow_mode(upper: NDArray[np.intp], lower: NDArray[np.intp]) -> FloatArray:
    """How far each mesh point goes up and down with the gaze, as lids do, ``(468,)``."""
    still = (*_OVAL_UPPER, *_NOSE, *_CHEEKS, *ft.PICTURE_LEFT_BROW, *ft.PICTURE_RIGHT_BROW)
    moves: dict[int, tuple[float, ...]] = {int(i): (0.0,) for i in still}
    profile = np.sin(np.linspace(0.0, np.pi, len(upper)))
    for row, share in ((upper, LID_FOLLOW[0]), (lower, LID_FOLLOW[1])):
        moves |= {int(i): (share * w,) for i, w in zip(row, profile, strict=True)}
    return spread_over_mesh(moves)[:, 0]


def _lid_mode(mesh: FloatArray, upper: NDArray[np.intp], lower: NDArray[np.intp]) -> FloatArray:
    """Displacement of the lids from open to shut: the upper one does most of the way."""
    top, bottom = mesh[upper], mesh[lower]
    shut = top + 0.80 * (bottom - top)
    shut[:, 2] = np.minimum(top[:, 2], bottom[:, 2]) - 0.004
    still = (*_OVAL_UPPER, *_NOSE, *_CHEEKS, *ft.PICTURE_LEFT_BROW, *ft.PICTURE_RIGHT_BROW)
    moves: dict[int, tuple[float, ...]] = {int(i): (0.0, 0.0, 0.0) for i in still}
    for row, now in ((upper, top), (lower, bottom)):
        moves |= {int(i): tuple(d) for i, d in zip(row, shut - now, strict=True)}
    return spread_over_mesh(moves)
