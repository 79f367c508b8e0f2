"""Which of the 478 face landmarks is what, and the neutral shape they are measured against.

The landmark order is MediaPipe's: 468 mesh points, then five points for each iris. "Left" and
"right" are those of the picture, never of the person. All index constants are read-only integer
arrays, so they index landmark arrays of any leading shape: ``landmarks[..., LIPS_OUTER, :]``.

Face space: x right, y down, z away from the viewer, centred on the mean of the 468 mesh points,
unit = distance between the outer eye corners of the canonical face.

Source: MediaPipe canonical face model (Apache-2.0), re-oriented.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.intp]

N_MESH = 468
IRIS_RADIUS = 0.066
"""Iris radius in face-space units: 11.7 mm across against 89 mm between the outer eye corners."""


def _indices(*values: int) -> IndexArray:
    out = np.asarray(values, np.intp)
    out.setflags(write=False)
    return out


# Rings start at the picture-left corner, run along the upper edge to the picture-right corner and
# return along the lower edge. The first point is not repeated.
LIPS_OUTER_UPPER = _indices(61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291)
LIPS_OUTER_LOWER = _indices(61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291)
LIPS_INNER_UPPER = _indices(78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LIPS_INNER_LOWER = _indices(78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
PICTURE_LEFT_UPPER_LID = _indices(33, 246, 161, 160, 159, 158, 157, 173, 133)
PICTURE_LEFT_LOWER_LID = _indices(33, 7, 163, 144, 145, 153, 154, 155, 133)
PICTURE_RIGHT_UPPER_LID = _indices(362, 398, 384, 385, 386, 387, 388, 466, 263)
PICTURE_RIGHT_LOWER_LID = _indices(362, 382, 381, 380, 374, 373, 390, 249, 263)


def _ring(upper: IndexArray, lower: IndexArray) -> IndexArray:
    return _indices(*upper.tolist(), *lower[-2:0:-1].tolist())


LIPS_OUTER = _ring(LIPS_OUTER_UPPER, LIPS_OUTER_LOWER)
LIPS_INNER = _ring(LIPS_INNER_UPPER, LIPS_INNER_LOWER)
PICTURE_LEFT_EYE = _ring(PICTURE_LEFT_UPPER_LID, PICTURE_LEFT_LOWER_LID)
PICTURE_RIGHT_EYE = _ring(PICTURE_RIGHT_UPPER_LID, PICTURE_RIGHT_LOWER_LID)

# Irises: centre, then its right, top, left and bottom rim point (of the picture).
PICTURE_LEFT_IRIS = _indices(468, 469, 470, 471, 472)
PICTURE_RIGHT_IRIS = _indices(473, 474, 475, 476, 477)

# Brows: upper edge from the outer to the inner end, lower edge back from the inner to the outer.
PICTURE_LEFT_BROW = _indices(70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
PICTURE_RIGHT_BROW = _indices(300, 293, 334, 296, 336, 285, 295, 282, 283, 276)

# Clockwise from the top of the forehead.
FACE_OVAL = _indices(
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)

MOUTH_CORNERS = _indices(61, 291)
INNER_LIP_PAIR = _indices(13, 14)
"""Middle of the upper and of the lower inner lip: their distance is the mouth opening."""
EYE_OUTER = _indices(33, 263)
"""Outer eye corners: their distance is the unit of face space."""
EYE_INNER = _indices(133, 362)
LID_PAIRS = np.stack([_indices(159, 145), _indices(386, 374)])
"""Middle of the upper and lower lid of the picture-left and picture-right eye, ``(2, 2)``."""
LID_PAIRS.setflags(write=False)

RIGID = _indices(
    *(10, 338, 297, 332, 284, 251, 389, 356, 127, 162, 21, 54, 103, 67, 109),  # upper oval
    *(151, 108, 337, 69, 299, 104, 333, 68, 298),  # forehead
    *(168, 6, 197, 195, 5, 4, 1, 122, 351, 196, 419),  # nose bridge and tip
    *(33, 133, 362, 263),  # eye corners
)
"""Points that move with the head only, whatever the face says or feels."""


@lru_cache(maxsize=1)
def _canonical() -> tuple[FloatArray, FloatArray, IndexArray]:
    """Vertices ``(468, 3)`` in face space, texture coordinates and triangles, all read-only."""
    path = resources.files("talkhead.geometry").joinpath("canonical_face.npz")
    with path.open("rb") as handle, np.load(handle) as data:
        raw = data["vertices"].astype(np.float64) * (1.0, -1.0, -1.0)
        uv = data["uv"].astype(np.float32)
        triangles = data["triangles"].astype(np.intp)
    unit = float(np.linalg.norm(raw[EYE_OUTER[1]] - raw[EYE_OUTER[0]]))
    vertices = ((raw - raw.mean(axis=0)) / unit).astype(np.float32)
    for array in (vertices, uv, triangles):
        array.setflags(write=False)
    return vertices, uv, triangles


def canonical_vertices() -> FloatArray:
    """The neutral mesh in face space, ``(468, 3)`` float32, read-only."""
    return _canonical()[0]


def canonical_uv() -> FloatArray:
    """Texture coordinates of the mesh in ``[0, 1]``, v down, ``(468, 2)`` float32, read-only."""
    return _canonical()[1]


def triangles() -> IndexArray:
    """Mesh triangles as indices into the 468 mesh points, ``(898, 3)``, read-only.

    The eye openings and the mouth are closed by triangles as well.
    """
    return _canonical()[2]


@lru_cache(maxsize=1)
def canonical_landmarks() -> FloatArray:
    """The neutral mesh with both irises at the middle of their eye, ``(478, 3)``, read-only."""
    mesh = canonical_vertices()
    rim = np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0], [-1, 0, 0], [0, 1, 0]], np.float32)
    irises = [
        mesh[eye].mean(axis=0) + IRIS_RADIUS * rim for eye in (PICTURE_LEFT_EYE, PICTURE_RIGHT_EYE)
    ]
    out: FloatArray = np.concatenate([mesh, *irises]).astype(np.float32)
    out.setflags(write=False)
    return out


@lru_cache(maxsize=1)
def mirror_order() -> IndexArray:
    """For each landmark the one on its place in the mirrored face, ``(478,)``, read-only.

    ``landmarks[..., mirror_order(), :]`` with ``x`` mirrored are the landmarks of the mirrored picture, in
    the mesh's own order; twice is the identity.
    """
    face = canonical_landmarks()
    mirrored = face * np.array([-1, 1, 1], np.float32)
    squares = (face[None] - mirrored[:, None]) ** 2
    order: IndexArray = squares.sum(axis=-1).argmin(axis=1).astype(np.intp)
    order.setflags(write=False)
    return order


def along_the_skin(sources: Iterable[int]) -> NDArray[np.float64]:
    """Shortest way from any of some mesh points to every one, never across the open mouth.

    Args:
        sources: Indices below 468.

    Returns:
        Length along the edges of the canonical mesh, ``(468,)`` in face-space units; 0 at the sources.
    """
    mesh = canonical_vertices().astype(np.float64)
    upper, lower = ({*lip[1:-1].tolist()} for lip in (LIPS_INNER_UPPER, LIPS_INNER_LOWER))
    neighbours: list[set[int]] = [set() for _ in range(N_MESH)]
    for a, b, c in triangles().tolist():
        for one, other in ((a, b), (b, c), (c, a)):
            pair = {one, other}
            if not (pair & upper and pair & lower):
                neighbours[one].add(other)
                neighbours[other].add(one)
    distance = np.full(N_MESH, np.inf)
    queue = [(0.0, source) for source in sources]
    for _, source in queue:
        distance[source] = 0.0
    while queue:
        so_far, here = heapq.heappop(queue)
        for there in neighbours[here]:
            total = so_far + float(np.linalg.norm(mesh[there] - mesh[here]))
            if total < distance[there]:
                distance[there] = total
                heapq.heappush(queue, (total, there))
    return distance
