from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.face_topology import canonical_landmarks, mirror_order
from talkhead.geometry.points68 import MESH_INDEX, ibug_points
from talkhead.networks.component import weights_digest
from talkhead.networks.landmark_keypoints import FAINT, SPOTS, LandmarkKeypoints

SIZE = 0.3
UPPER_LIP, LOWER_LIP, LEFT_CORNER, RIGHT_CORNER, CHIN, LEFT_JAW, RIGHT_JAW, NOSE = range(8)
LEFT_LID, RIGHT_LID = 8, 9
PARTNER = [0, 1, 3, 2, 4, 6, 5, 7, 9, 8]


@pytest.fixture(scope="module")
def net() -> LandmarkKeypoints:
    return LandmarkKeypoints()


def mesh() -> Tensor:
    """The canonical face in the middle of the crop, outer eye corners 0.3 crop widths apart."""
    face = torch.from_numpy(SIZE * canonical_landmarks().astype(np.float64))
    return face + torch.tensor([0.5, 0.5, 0.0])


def face() -> Tensor:
    return ibug_points(mesh())[:, :2]


def test_the_neutral_face_has_frames_of_its_size(net: LandmarkKeypoints) -> None:
    points, jacobians = net(face()[None])
    assert points.shape == (1, 10, 2)
    plane = 2 * face() - 1
    torch.testing.assert_close(points[0, UPPER_LIP], plane[62], atol=1e-6, rtol=0)
    torch.testing.assert_close(points[0, LEFT_LID], plane[37:39].mean(0), atol=1e-6, rtol=0)
    wanted = (2 * SIZE * torch.eye(2).double()).expand(1, 10, 2, 2)
    torch.testing.assert_close(jacobians, wanted, atol=1e-5, rtol=0)


def test_frames_turn_and_shear_with_the_picture(net: LandmarkKeypoints) -> None:
    turn = math.radians(20)
    matrix = torch.tensor(
        [[1.1 * math.cos(turn), -math.sin(turn)], [math.sin(turn), 0.8 * math.cos(turn)]]
    ).double()
    shift = torch.tensor([0.1, -0.05]).double()
    before, after = net(face()[None]), net((((2 * face() - 1) @ matrix.T + shift + 1) / 2)[None])
    torch.testing.assert_close(after.points, before.points @ matrix.T + shift, atol=1e-6, rtol=0)
    torch.testing.assert_close(after.jacobians, matrix @ before.jacobians, atol=1e-5, rtol=0)


def test_a_frame_is_the_best_affine_fit_of_the_points_around(net: LandmarkKeypoints) -> None:
    """Weighted least squares by the library, point set by point set."""
    noise = torch.randn(68, 2, generator=torch.Generator().manual_seed(0)).double()
    points = face() + 0.02 * noise
    neutral = ((face() - 0.5) / SIZE).numpy()
    _, jacobians = net(points[None])
    for found, spot in zip(jacobians[0], SPOTS, strict=True):
        rows = [*spot.around, *spot.faint]
        roots = np.sqrt([1.0] * len(spot.around) + [FAINT] * len(spot.faint))[:, None]
        design = roots * np.column_stack([neutral[rows], np.ones(len(rows))])
        target = roots * (2 * points[rows].numpy() - 1)
        solved = np.linalg.lstsq(design, target, rcond=None)[0]
        torch.testing.assert_close(found, torch.from_numpy(solved[:2].T), atol=1e-5, rtol=0)


def test_lips_and_lids_have_frames_of_their_own(net: LandmarkKeypoints) -> None:
    opened = face()
    opened[[55, 56, 57, 58, 59, 65, 66, 67], 1] += 0.05
    before, after = net(face()[None]), net(opened[None])
    apart = (after.points - before.points)[0, :, 1]
    assert apart[LOWER_LIP] == pytest.approx(0.1)
    assert apart[UPPER_LIP] == 0
    height = (after.jacobians - before.jacobians)[0, :, 1, 1]
    assert height[UPPER_LIP].abs() < 1e-6
    assert height[LOWER_LIP] > 0.1
    shut = face()
    shut[[37, 38], 1] = shut[[41, 40], 1]
    frames = net(shut[None]).jacobians[0]
    assert 0.15 < frames[LEFT_LID, 1, 1] / frames[RIGHT_LID, 1, 1] < 0.3


def test_the_mirrored_face_has_mirrored_keypoints(net: LandmarkKeypoints) -> None:
    noise = torch.randn(478, 3, generator=torch.Generator().manual_seed(1)).double()
    landmarks = mesh() + 0.01 * noise
    mirrored = landmarks[mirror_order().tolist()]
    mirrored[:, 0] = 1 - mirrored[:, 0]
    plain, other = net.of_mesh(landmarks[None]), net.of_mesh(mirrored[None])
    across = torch.tensor([-1.0, 1.0]).double()
    torch.testing.assert_close(other.points, plain.points[:, PARTNER] * across)
    turn = across[:, None] * across
    torch.testing.assert_close(
        other.jacobians, plain.jacobians[:, PARTNER] * turn, atol=1e-5, rtol=0
    )


def test_mesh_and_points_agree_and_almost_all_points_count(net: LandmarkKeypoints) -> None:
    landmarks = mesh()[None]
    of_mesh, of_points = net.of_mesh(landmarks), net(landmarks[:, list(MESH_INDEX)])
    assert torch.equal(of_mesh.points, of_points.points)
    assert torch.equal(of_mesh.jacobians, of_points.jacobians)
    unused = (net.fits == 0).all(0).all(0).nonzero()[:, 0].tolist()
    assert unused == [0, 1, 15, 16]


def test_gradients_reach_the_landmarks(net: LandmarkKeypoints) -> None:
    points = face()[None].requires_grad_(True)
    assert torch.autograd.gradcheck(lambda p: tuple(net(p)), points)


def test_it_rebuilds_from_its_spec_and_has_no_parameters(net: LandmarkKeypoints) -> None:
    assert net.spec == {}
    assert not list(net.parameters())
    assert weights_digest(LandmarkKeypoints()) == weights_digest(net)
    assert net(face()[None].float()).jacobians.dtype == torch.float32


@pytest.mark.parametrize("shape", [(68, 2), (1, 478, 3), (1, 68, 1)])
def test_other_shapes_are_refused(net: LandmarkKeypoints, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected points \(n, 68, 2\)"):
        net(torch.zeros(shape))
