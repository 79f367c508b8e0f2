from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry import face_topology as ft
from talkhead.geometry.keypoints import JACOBIAN_FLOOR, unpack
from talkhead.geometry.points68 import MESH_INDEX, RIGID
from talkhead.networks.component import weights_digest
from talkhead.networks.mesh_keypoints import (
    EYES,
    LID_SURROUNDINGS,
    MESH_POINTS,
    PARTNER,
    MeshKeypoints,
)

SIZE = 0.3
UPPER_LIP, LOWER_LIP, LEFT_CORNER, RIGHT_CORNER, CHIN = range(5)
LEFT_LID, RIGHT_LID = 8, 9
JUDGED = list(MESH_INDEX[RIGID])


@pytest.fixture(scope="module")
def net() -> MeshKeypoints:
    return MeshKeypoints()


def face() -> Tensor:
    """The canonical face in the middle of the crop, outer eye corners 0.3 crop widths apart."""
    return torch.from_numpy(SIZE * ft.canonical_landmarks().astype(np.float64)) + torch.tensor(
        [0.5, 0.5, 0.0]
    )


def noisy(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return face() + 0.02 * torch.randn(n, 478, 3, generator=generator, dtype=torch.float64)


def moved(faces: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """An affine motion of the picture plane, in [-1, 1], applied to landmarks in crop units."""
    plane = 2 * faces[..., :2] - 1
    there = (plane @ matrix.T + shift + 1) / 2
    return torch.cat([there, faces[..., 2:]], dim=-1)


def test_the_neutral_face_has_frames_of_its_size(net: MeshKeypoints) -> None:
    rows = net(face()[None])
    assert rows.shape == (1, 60)
    points, jacobians = unpack(rows[0])
    torch.testing.assert_close(points, 2 * face()[list(MESH_POINTS), :2] - 1)
    wanted = (2 * SIZE * torch.eye(2).double()).expand(10, 2, 2)
    torch.testing.assert_close(jacobians, wanted, atol=1e-6, rtol=0)


def test_frames_turn_and_shear_with_the_picture(net: MeshKeypoints) -> None:
    turn = math.radians(30)
    matrices = torch.tensor([
        [[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]],
        [[0.8, 0.3], [-0.1, 1.2]],
    ]).double()  # fmt: skip
    for matrix in matrices:
        shift = torch.tensor([0.1, -0.2]).double()
        before, after = unpack(net(noisy(3))), unpack(net(moved(noisy(3), matrix, shift)))
        torch.testing.assert_close(after.points, before.points @ matrix.T + shift)
        torch.testing.assert_close(after.jacobians, matrix @ before.jacobians, atol=1e-6, rtol=1e-6)


def test_a_frame_is_the_best_affine_fit_of_its_neighbourhood(net: MeshKeypoints) -> None:
    faces = noisy(1, seed=4)
    plane = 2 * faces[0, :, :2] - 1
    flat = torch.from_numpy(ft.canonical_landmarks()[:, :2].astype(np.float64))
    jacobians = unpack(net(faces)[0]).jacobians
    for k, point in enumerate(MESH_POINTS):
        near = net.fits[k].abs().sum(dim=0).nonzero()[:, 0]
        assert int(point) in near.tolist()
        lids = torch.isin(near, torch.tensor([*EYES[159].tolist(), *EYES[386].tolist()]))
        weight = torch.where(lids | torch.tensor(k < LEFT_LID), 1.0, LID_SURROUNDINGS)
        root = weight[:, None].double().sqrt()
        design = torch.cat([flat[near], torch.ones(len(near), 1)], dim=1)
        found = torch.linalg.lstsq(root * design, root * plane[near]).solution
        torch.testing.assert_close(jacobians[k], found[:2].T, atol=1e-5, rtol=1e-5)


def test_what_the_rigid_syncer_judges_is_not_looked_at(net: MeshKeypoints) -> None:
    assert not set(MESH_POINTS) & set(JUDGED)
    faces = noisy(2)
    other = faces.clone()
    other[:, JUDGED] = 7.0
    other[..., 2] = -3.0
    assert torch.equal(net(other), net(faces))


def test_each_lip_and_lid_has_its_own_motion(net: MeshKeypoints) -> None:
    still, opened = face(), face()
    lower = [*ft.LIPS_INNER_LOWER[1:-1].tolist(), *ft.LIPS_OUTER_LOWER[1:-1].tolist()]
    opened[lower, 1] += 0.05
    before, after = unpack(net(still[None])[0]), unpack(net(opened[None])[0])
    travel = after.points - before.points
    assert travel[LOWER_LIP].tolist() == pytest.approx([0.0, 0.1])
    assert torch.equal(after.points[UPPER_LIP], before.points[UPPER_LIP])
    torch.testing.assert_close(after.jacobians[UPPER_LIP], before.jacobians[UPPER_LIP])
    assert after.jacobians[LEFT_CORNER, 1, 1] > before.jacobians[LEFT_CORNER, 1, 1] + 0.05
    torch.testing.assert_close(after.jacobians[LEFT_LID], before.jacobians[LEFT_LID])
    closed = face()
    for upper, bottom in zip(
        ft.PICTURE_LEFT_UPPER_LID[1:-1], ft.PICTURE_LEFT_LOWER_LID[1:-1], strict=True
    ):
        closed[upper] = closed[bottom]
    shut = unpack(net(closed[None])[0])
    assert shut.points[LEFT_LID, 1] > before.points[LEFT_LID, 1] + 0.03
    kept = shut.jacobians[LEFT_LID].diagonal() / before.jacobians[LEFT_LID].diagonal()
    assert kept.tolist() == pytest.approx([1.0, 0.25], abs=0.05)
    assert torch.linalg.svdvals(shut.jacobians).amin() > 2 * JACOBIAN_FLOOR
    torch.testing.assert_close(shut.points[RIGHT_LID], before.points[RIGHT_LID])


def test_mirrored_rows_are_those_of_the_mirrored_landmarks(net: MeshKeypoints) -> None:
    faces = noisy(4, seed=1)
    mirrored = faces[:, ft.mirror_order().copy()] * torch.tensor([-1.0, 1.0, 1.0])
    mirrored = mirrored + torch.tensor([1.0, 0.0, 0.0])
    rows = net(faces)
    torch.testing.assert_close(net.mirror(rows), net(mirrored), atol=1e-6, rtol=0)
    assert torch.equal(net.mirror(net.mirror(rows)), rows)
    order = ft.mirror_order()
    assert [int(order[point]) for point in MESH_POINTS] == [MESH_POINTS[k] for k in PARTNER]
    with pytest.raises(ShapeError, match=r"expected rows \(..., 60\), got \(4, 54\)"):
        net.mirror(rows[:, :54])


def test_no_motion_leaves_landmarks_bit_for_bit(net: MeshKeypoints) -> None:
    for dtype in (torch.float32, torch.float64):
        start = noisy(1, seed=2)[0].to(dtype)
        rows = net(start[None])
        assert torch.equal(net.warp_landmarks(start, rows[0], rows.expand(3, -1))[2], start)


def test_an_affine_motion_of_all_keypoints_moves_all_landmarks_by_it(net: MeshKeypoints) -> None:
    matrix, shift = torch.tensor([[0.9, -0.3], [0.4, 1.1]]).double(), torch.tensor([0.1, -0.3])
    start = noisy(1, seed=3)[0]
    there = moved(start, matrix, shift.double())
    rows = net(torch.stack([start, there]))
    found = net.warp_landmarks(start, rows[0], rows)
    torch.testing.assert_close(found[1], there, atol=2e-6, rtol=0)
    assert torch.equal(found[:, :, 2], start[:, 2].expand(2, -1))


def test_an_opening_mouth_is_followed(net: MeshKeypoints) -> None:
    start, opened = face(), face()
    # The lower lip and what is below it sink by up to 0.05, in the middle more than at the sides.
    lower = torch.tensor([*ft.LIPS_INNER_LOWER[1:-1], *ft.LIPS_OUTER_LOWER[1:-1]])
    below = (start[:, 1] > start[17, 1]) | torch.isin(torch.arange(478), lower)
    aside = (start[:, 0] - 0.5) / float(start[291, 0] - 0.5)
    opened[:, 1] += 0.05 * (1 - aside.square()).clamp_min(0) * below
    rows = net(torch.stack([start, opened]))
    found = net.warp_landmarks(start, rows[0], rows)[1]
    mouth = [*ft.LIPS_INNER[1:].tolist(), *ft.LIPS_OUTER[1:].tolist()]
    still = (start - opened)[mouth].norm(dim=-1).mean()
    assert (found - opened)[mouth].norm(dim=-1).mean() < 0.25 * still
    assert float(found[14, 1] - found[13, 1] - (start[14, 1] - start[13, 1])) == pytest.approx(
        0.05, rel=0.2
    )
    torch.testing.assert_close(found[468:], start[468:], atol=1e-4, rtol=0)


def test_a_collapsed_first_frame_stays_finite(net: MeshKeypoints) -> None:
    start = noisy(1)[0]
    rows = net(start[None]).expand(2, -1).clone()
    flat = rows[0].clone().unflatten(0, (10, 6))
    flat[:, 2:] = 0.0
    found = net.warp_landmarks(start, flat.flatten(), rows)
    torch.testing.assert_close(found[0], start)  # the points have not moved
    assert torch.isfinite(found).all()


def test_gradients_reach_landmarks_and_keypoints(net: MeshKeypoints) -> None:
    start = noisy(1)[0]
    rows = net(noisy(2, seed=5)).requires_grad_()
    net.warp_landmarks(start, net(start[None])[0], rows).square().sum().backward()
    assert rows.grad is not None
    assert bool((rows.grad.abs() > 0).any(dim=0).all())


def test_it_rebuilds_from_its_spec_and_has_no_parameters(net: MeshKeypoints) -> None:
    assert net.spec == {}
    assert not list(net.parameters())
    assert weights_digest(MeshKeypoints()) == weights_digest(net)
    torch.testing.assert_close(net.blend.sum(dim=1), torch.ones(478))
    assert net(torch.zeros(0, 478, 3)).shape == (0, 60)


def test_other_shapes_are_refused(net: MeshKeypoints) -> None:
    rows = net(face()[None])
    with pytest.raises(ShapeError, match=r"expected landmarks \(n, 478, 3\), got \(478, 3\)"):
        net(face())
    with pytest.raises(ShapeError, match=r"478, 3\), got \(1, 468, 3\)"):
        net(face()[None, :468])
    with pytest.raises(ShapeError, match=r"expected landmarks \(478, 3\), got \(1, 478, 3\)"):
        net.warp_landmarks(face()[None], rows[0], rows)
    with pytest.raises(ShapeError, match=r"expected keypoints \(60,\) and \(T, 60\)"):
        net.warp_landmarks(face(), rows, rows)
    with pytest.raises(ShapeError, match=r"rows \(..., 60\), got \(54,\)"):
        net.warp_landmarks(face(), rows[0, :54], rows)
