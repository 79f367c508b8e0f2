"""The index map against the canonical face, whose shape knows nothing of the 68-point order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.geometry import face_topology as ft
from talkhead.geometry import points68 as p68
from talkhead.geometry.points68 import MESH_INDEX, ibug_points, inter_ocular

FACE = ibug_points(ft.canonical_landmarks().astype(np.float64))
X, Y, Z = FACE.T

MIRROR = [
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
]
"""Where each point of the mark-up lands when the face is seen in a mirror."""


def test_every_point_is_another_vertex_of_the_mesh() -> None:
    assert len(MESH_INDEX) == len(set(MESH_INDEX)) == p68.N_POINTS
    assert max(MESH_INDEX) < ft.N_MESH


def test_mirror_pairs_are_mirror_points() -> None:
    assert sorted(MIRROR) == list(range(68))
    np.testing.assert_allclose(FACE[MIRROR], FACE * (-1.0, 1.0, 1.0), atol=2e-3)
    own = [i for i, j in enumerate(MIRROR) if i == j]
    assert own == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    np.testing.assert_allclose(X[own], 0.0, atol=2e-3)


def test_the_first_half_is_the_picture_left_and_so_the_persons_right() -> None:
    for left, right in ((0, 16), (17, 26), (31, 35), (36, 45), (39, 42), (48, 54), (60, 64)):
        assert X[left] < 0 < X[right]
    # The nose points at the viewer (-z) and up is -y, so the person's right hand is at
    # forward x up = (-1, 0, 0): the picture's left.
    forward, up = np.array([0.0, 0.0, -1.0]), np.array([0.0, -1.0, 0.0])
    assert FACE[30] @ forward > FACE[[0, 16]].max(axis=0) @ forward
    assert FACE[36] @ np.cross(forward, up) > 0 > FACE[45] @ np.cross(forward, up)
    assert (X[p68.PICTURE_LEFT_EYE] < 0).all()
    assert (X[p68.PICTURE_RIGHT_EYE] > 0).all()


def test_the_jaw_runs_from_ear_to_chin_to_ear() -> None:
    assert set(MESH_INDEX[p68.JAW]) <= set(ft.FACE_OVAL.tolist())
    assert (np.diff(Y[:9]) > 0).all()
    assert Y.argmax() == 8
    assert X[:17].argmin() in (0, 1)  # the jaw is widest at the ear
    assert (np.diff(X[2:15]) > 0).all()
    # As in the mark-up, it starts at the height of the eyes.
    assert Y[17] < Y[0] < Y[30]


def test_brows_run_across_the_picture_above_the_eyes() -> None:
    for brow, ring in (
        (slice(17, 22), ft.PICTURE_LEFT_BROW),
        (slice(22, 27), ft.PICTURE_RIGHT_BROW),
    ):
        assert set(MESH_INDEX[brow]) == set(ring[:5].tolist())  # the upper edge
        assert (np.diff(X[brow]) > 0).all()
        assert Y[brow].max() < Y[p68.EYES].min()


def test_the_nose_runs_down_and_its_base_across() -> None:
    assert (np.diff(Y[27:31]) > 0).all()
    assert Z.argmin() == 30  # the tip is nearest to the viewer
    assert Y[27] < Y[[39, 42]].min() + 0.02
    assert (np.diff(X[31:36]) > 0).all()
    assert Y[30] < Y[31:36].min() <= Y[31:36].max() < Y[p68.MOUTH].min()
    assert Y[33] == Y[31:36].max()


@pytest.mark.parametrize("first", [36, 42])
def test_eyes_go_corner_upper_corner_lower(first: int) -> None:
    eye = FACE[first : first + 6, :2]
    assert (eye[[1, 2], 1].max() < eye[[4, 5], 1]).all()  # y grows downwards
    assert eye[0, 0] < eye[1, 0] < eye[2, 0] < eye[3, 0]
    assert eye[3, 0] > eye[4, 0] > eye[5, 0] > eye[0, 0]
    ring = ft.PICTURE_LEFT_EYE if first == 36 else ft.PICTURE_RIGHT_EYE
    assert set(MESH_INDEX[first : first + 6]) <= set(ring.tolist())


def test_eye_corners_are_those_of_the_mesh() -> None:
    assert [MESH_INDEX[i] for i in p68.EYE_OUTER] == ft.EYE_OUTER.tolist()
    assert [MESH_INDEX[i] for i in p68.EYE_INNER] == ft.EYE_INNER.tolist()
    assert [MESH_INDEX[i] for i in p68.MOUTH_CORNERS] == ft.MOUTH_CORNERS.tolist()


def test_lips_go_round_from_the_left_corner_along_the_upper_edge() -> None:
    for ring, upper, lower, tables in (
        (
            slice(48, 60),
            slice(48, 55),
            [48, *range(59, 53, -1)],
            (ft.LIPS_OUTER_UPPER, ft.LIPS_OUTER_LOWER),
        ),
        (
            slice(60, 68),
            slice(60, 65),
            [60, *range(67, 63, -1)],
            (ft.LIPS_INNER_UPPER, ft.LIPS_INNER_LOWER),
        ),
    ):
        assert set(MESH_INDEX[upper]) <= set(tables[0].tolist())
        assert {MESH_INDEX[i] for i in lower} <= set(tables[1].tolist())
        assert (np.diff(X[upper]) > 0).all()
        assert (np.diff(X[lower]) > 0).all()
        x, y = X[ring], Y[ring]
        area = 0.5 * (np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
        assert area > 0  # clockwise where y points down
    # Cupid's bow: the dip in the middle of the upper lip lies lower than the peaks beside it.
    assert Y[51] > max(Y[50], Y[52])
    assert [MESH_INDEX[62], MESH_INDEX[66]] == ft.INNER_LIP_PAIR.tolist()


@pytest.mark.parametrize(
    ("contour", "tolerance"),
    [
        ([*range(9)], 0.1),  # jaw to chin in eighths
        ([17, 18, 19, 20, 21], 0.03),  # brow in quarters
        ([36, 37, 38, 39], 0.03),  # lids in thirds
        ([36, 41, 40, 39], 0.03),
    ],
)
def test_points_divide_contours_evenly(contour: list[int], tolerance: float) -> None:
    length = np.linalg.norm(np.diff(FACE[contour], axis=0), axis=1).cumsum()
    even = np.arange(1, len(contour)) / (len(contour) - 1)
    np.testing.assert_allclose(length / length[-1], even, atol=tolerance)


@pytest.mark.parametrize("column", [(50, 58, 61, 67), (51, 57, 62, 66), (49, 59)])
def test_lip_points_stand_above_each_other(column: tuple[int, ...]) -> None:
    width = X[54] - X[48]
    assert np.ptp(X[list(column)]) < 0.05 * width


def test_parts_cover_the_face_and_the_rigid_set_is_what_ms_sync_counts() -> None:
    covered = [
        i for part in (p68.JAW, p68.BROWS, p68.NOSE, p68.EYES, p68.MOUTH) for i in range(68)[part]
    ]
    assert covered == list(range(68))
    assert list(range(68)[p68.RIGID]) == list(range(17, 48))
    assert len(range(68)[p68.RIGID]) == 31
    assert not set(MESH_INDEX[p68.RIGID]) & {*ft.LIPS_OUTER.tolist(), *ft.FACE_OVAL.tolist()}


def test_tensors_and_arrays_of_any_leading_shape() -> None:
    mesh = torch.arange(478.0)[:, None].expand(2, 3, 478, 2)
    got = ibug_points(mesh)
    assert got.shape == (2, 3, 68, 2)
    assert got[1, 2, :, 0].tolist() == [float(i) for i in MESH_INDEX]
    np.testing.assert_array_equal(ibug_points(mesh.numpy()), got.numpy())
    with pytest.raises(ShapeError, match="478"):
        ibug_points(torch.zeros(3, 468, 3))


def test_inter_ocular_by_hand() -> None:
    points = torch.zeros(2, 68, 3)
    points[0, 45] = torch.tensor([3.0, 4.0, 0.0])
    points[1, 36] = torch.tensor([1.0, 2.0, 2.0])
    assert inter_ocular(points).tolist() == [5.0, 3.0]
    # Face space has this distance as its unit.
    assert float(inter_ocular(torch.from_numpy(FACE))) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ShapeError, match="ibug_points"):
        inter_ocular(torch.zeros(478, 3))
