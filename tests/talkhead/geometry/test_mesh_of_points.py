from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry import face_topology as ft
from talkhead.geometry.mesh_of_points import MeshOfPoints
from talkhead.geometry.points68 import ibug_points

CHIN, UPPER, LOWER = 152, 13, 14
LOWER_LIP = [*range(55, 60), *range(65, 68)]
JAW_DROP = {4: 0.2, 5: 0.5, 6: 0.8, 7: 1.0, 8: 1.0, 9: 1.0, 10: 0.8, 11: 0.5, 12: 0.2}


def face() -> Tensor:
    """The canonical face in the middle of the crop, outer eye corners 0.3 crop widths apart."""
    return 0.3 * torch.from_numpy(ft.canonical_landmarks().copy()) + torch.tensor([0.5, 0.5, 0.1])


def points(landmarks: Tensor) -> Tensor:
    return ibug_points(landmarks)[..., :2]


def opened(own: Tensor, by: float) -> Tensor:
    out = own.clone()
    out[LOWER_LIP, 1] += 0.8 * by
    for point, share in JAW_DROP.items():
        out[point, 1] += share * by
    return out


def test_points_at_rest_leave_landmarks_bit_for_bit() -> None:
    landmarks = face() + 0.01 * torch.randn(478, 3, generator=torch.Generator().manual_seed(0))
    moved = MeshOfPoints(landmarks)(points(landmarks).expand(3, -1, -1))
    assert torch.equal(moved, landmarks.expand(3, -1, -1))


def test_the_68_points_go_where_they_are_told() -> None:
    landmarks = face()
    g = torch.Generator().manual_seed(1)
    there = points(landmarks) + 0.03 * torch.randn(5, 68, 2, generator=g)
    moved = MeshOfPoints(landmarks)(there)
    assert moved.shape == (5, 478, 3)
    torch.testing.assert_close(points(moved), there, atol=1e-6, rtol=0)


def test_an_affine_motion_of_the_points_is_that_of_all_landmarks() -> None:
    landmarks = face() + 0.01 * torch.randn(478, 3, generator=torch.Generator().manual_seed(2))
    matrix, shift = torch.tensor([[1.1, 0.2], [-0.1, 0.9]]), torch.tensor([-0.05, 0.02])
    wanted = landmarks[:, :2] @ matrix.T + shift
    moved = MeshOfPoints(landmarks)((points(landmarks) @ matrix.T + shift)[None])[0]
    torch.testing.assert_close(moved[:, :2], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", ["yaw", "pitch"])
def test_a_turning_head_turns_the_whole_mesh_with_its_depth(axis: str) -> None:
    """Out of 68 points without depth, the landmarks of the turned face, farther or nearer by a constant."""
    c, s = math.cos(0.3), math.sin(0.3)
    turns = {
        "yaw": torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "pitch": torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]]),
    }
    landmarks = face()
    turned = 1.2 * (landmarks - 0.5) @ turns[axis].T + 0.5
    moved = MeshOfPoints(landmarks)(points(turned)[None])[0]
    torch.testing.assert_close(moved[:, :2], turned[:, :2], atol=1e-5, rtol=0)
    farther = moved[:, 2] - turned[:, 2]
    assert farther.std() < 1e-5


def test_an_opening_mouth_tears_the_mesh_between_the_lips_only() -> None:
    landmarks = face()
    landmarks[ft.LIPS_INNER_LOWER.tolist(), 1] = landmarks[ft.LIPS_INNER_UPPER.tolist(), 1] + 1e-4
    own = points(landmarks)
    change = (MeshOfPoints(landmarks)(opened(own, 0.05)[None])[0] - landmarks)[:, 1]
    assert change[LOWER] == pytest.approx(0.04, abs=1e-6)
    assert change[UPPER] == pytest.approx(0.0, abs=1e-6)
    assert change[CHIN] == pytest.approx(0.05, abs=1e-6)
    lower, upper = ft.LIPS_INNER_LOWER[2:-2].tolist(), ft.LIPS_INNER_UPPER[2:-2].tolist()
    assert change[lower].min() > 0.02
    assert change[upper].abs().max() < 0.004
    forehead = [10, 151, 67, 297, 109, 338]
    eyes = [*ft.PICTURE_LEFT_EYE.tolist(), *ft.PICTURE_RIGHT_EYE.tolist(), 468, 473]
    assert change[forehead].abs().max() < 0.003
    assert change[eyes].abs().max() < 0.001


def test_neighbours_move_alike_away_from_the_mouth_corners() -> None:
    """Skin between a jaw that drops and a nose that does not is stretched evenly."""
    landmarks = face()
    change = MeshOfPoints(landmarks)(opened(points(landmarks), 0.05)[None])[0] - landmarks
    far = (ft.along_the_skin([61, 291]) > 0.15) & (ft.along_the_skin([13, 14]) > 0.15)
    edges = ft.triangles()[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    edges = edges[far[edges].all(1)]
    apart = (change[edges[:, 0], :2] - change[edges[:, 1], :2]).norm(dim=-1)
    length = (landmarks[edges[:, 0], :2] - landmarks[edges[:, 1], :2]).norm(dim=-1)
    assert (apart / length.clamp_min(0.005)).max() < 0.7


def test_a_face_without_depth_can_be_moved() -> None:
    landmarks = face()
    landmarks[:, 2] = 0.0
    moved = MeshOfPoints(landmarks)((points(landmarks) + 0.1)[None])[0]
    torch.testing.assert_close(moved[:, :2], landmarks[:, :2] + 0.1, atol=1e-6, rtol=0)
    assert moved[:, 2].abs().max() < 1e-6


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected landmarks \(478, 3\)"):
        MeshOfPoints(torch.zeros(468, 3))
    with pytest.raises(ShapeError, match="leave depth out"):
        MeshOfPoints(face())(torch.zeros(2, 68, 3))
