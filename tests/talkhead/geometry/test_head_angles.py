from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.head_angles import (
    angles_of_pose,
    binned_degrees,
    head_angles,
    mirrored_angles,
    rotation_matrix,
    transform_keypoints,
)
from talkhead.geometry.rotation import euler_to_matrix
from tests.oracles import vid2vid

NOSE = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
"""Of a frontal face, z away from the viewer."""


def matrix(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> Tensor:
    return rotation_matrix(
        *(torch.tensor(angle, dtype=torch.float64) for angle in (yaw, pitch, roll))
    )


def angles(n: int = 20) -> Tensor:
    torch.manual_seed(0)
    return (torch.rand(n, 3, dtype=torch.float64) - 0.5) * 160.0


@pytest.mark.parametrize(("bin_", "degrees"), [(0, -99.0), (33, 0.0), (43, 30.0), (65, 96.0)])
def test_one_bin_alone_is_its_angle(bin_: int, degrees: float) -> None:
    logits = torch.full((2, 66), -1e4)
    logits[:, bin_] = 0.0
    assert binned_degrees(logits).tolist() == pytest.approx([degrees] * 2, abs=1e-4)


def test_bins_are_averaged_by_their_shares() -> None:
    assert float(binned_degrees(torch.zeros(66))) == pytest.approx(3 * 32.5 - 99)
    logits = torch.full((66,), -1e4)
    logits[33], logits[34] = 0.0, math.log(3.0)  # a quarter at 0, three quarters at 3 degrees
    assert float(binned_degrees(logits)) == pytest.approx(2.25, abs=1e-4)
    assert binned_degrees(logits.bfloat16()).dtype == torch.float32
    assert torch.autograd.gradcheck(
        binned_degrees, torch.randn(2, 66, dtype=torch.float64, requires_grad=True)
    )


def test_each_angle_turns_its_own_axis() -> None:
    for turned, wanted in (
        (matrix(yaw=90) @ NOSE, [-1.0, 0.0, 0.0]),  # the nose goes to the picture-left
        (matrix(pitch=90) @ NOSE, [0.0, 1.0, 0.0]),  # down
        (matrix(roll=90) @ torch.tensor([1.0, 0, 0], dtype=torch.float64), [0.0, 1.0, 0.0]),  # clockwise
    ):  # fmt: skip
        torch.testing.assert_close(turned, torch.tensor(wanted, dtype=torch.float64))


def test_rotation_is_three_matrices_multiplied() -> None:
    for yaw, pitch, roll in angles().tolist():
        torch.testing.assert_close(
            matrix(yaw, pitch, roll), vid2vid.rotation(yaw, pitch, roll), atol=1e-12, rtol=0
        )
    r = rotation_matrix(*angles().unbind(1))
    torch.testing.assert_close(r @ r.mT, torch.eye(3).double().expand(20, 3, 3))
    assert torch.linalg.det(r).tolist() == pytest.approx([1.0] * 20)


def test_rotation_has_the_derivative_of_finite_differences() -> None:
    free = [a.clone().requires_grad_() for a in angles(3).unbind(1)]
    assert torch.autograd.gradcheck(rotation_matrix, free)


def test_angles_come_back_from_the_matrix() -> None:
    found = head_angles(rotation_matrix(*angles().unbind(1)))
    torch.testing.assert_close(found, angles())


@pytest.mark.parametrize(
    ("pose", "geometric", "hopenet"),
    [
        ((0.0, math.pi / 6, 0.0), (30, 0, 0), (30, 0, 0)),
        ((math.pi / 18, 0.0, 0.0), (0, 10, 0), (0, -10, 0)),
        ((0.0, 0.0, -math.pi / 4), (0, 0, -45), (0, 0, -45)),
    ],
)
def test_signs_of_both_conventions_by_hand(
    pose: tuple[float, ...], geometric: tuple[float, ...], hopenet: tuple[float, ...]
) -> None:
    """The head turned to the picture-left, nodded down and tipped anticlockwise."""
    rows = torch.tensor([pose], dtype=torch.float64)
    assert angles_of_pose(rows)[0].tolist() == pytest.approx(geometric, abs=1e-9)
    assert angles_of_pose(rows, "hopenet")[0].tolist() == pytest.approx(hopenet, abs=1e-9)


def test_the_suites_pose_and_its_angles_are_one_rotation() -> None:
    pose = angles() / 180 * math.pi
    wanted = torch.from_numpy(euler_to_matrix(pose.numpy()))
    found = rotation_matrix(*angles_of_pose(pose).unbind(-1))
    torch.testing.assert_close(found, wanted)


def test_hopenet_axes_are_those_it_draws() -> None:
    """Its nose is drawn at (-sin(yaw), -cos(yaw) sin(pitch)) of the picture, x right and y down."""
    pose = angles() / 180 * math.pi
    nose = torch.from_numpy(euler_to_matrix(pose.numpy()) @ np.array([0.0, 0.0, -1.0]))
    yaw, pitch, _ = (angles_of_pose(pose, "hopenet") * math.pi / 180).unbind(-1)
    torch.testing.assert_close(nose[:, 0], -yaw.sin())
    torch.testing.assert_close(nose[:, 1], -yaw.cos() * pitch.sin())


def test_mirrored_angles_are_those_of_the_mirrored_head() -> None:
    flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    turned = rotation_matrix(*angles().unbind(1))
    torch.testing.assert_close(head_angles(flip @ turned @ flip), mirrored_angles(angles()))
    torch.testing.assert_close(mirrored_angles(mirrored_angles(angles())), angles())


def test_keypoints_are_turned_shifted_and_deformed() -> None:
    canonical = torch.tensor([[[0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]], dtype=torch.float64)
    shift = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)
    deformed = torch.tensor([[[0.0, 0.5, 0.0], [0.0, 0.0, 0.0]]], dtype=torch.float64)
    found = transform_keypoints(canonical, matrix(yaw=90)[None], shift, deformed)
    # The nose goes left, the point on the right towards the viewer; the expression is not turned.
    wanted = torch.tensor([[[-0.9, 0.7, 0.3], [0.1, 0.2, -0.7]]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted)


def test_one_identity_serves_many_heads_and_nothing_is_changed() -> None:
    torch.manual_seed(1)
    canonical, shift, deformed = torch.randn(1, 4, 3), torch.randn(5, 3), torch.randn(5, 4, 3)
    turned = rotation_matrix(*angles(5).float().unbind(1))
    before = [x.clone() for x in (canonical, turned, shift, deformed)]
    found = transform_keypoints(canonical, turned, shift, deformed)
    torch.testing.assert_close(
        found, transform_keypoints(canonical.expand(5, -1, -1), turned, shift, deformed)
    )
    for kept, now in zip(before, (canonical, turned, shift, deformed), strict=True):
        assert torch.equal(kept, now)
    still = transform_keypoints(canonical, torch.eye(3)[None], torch.zeros(1, 3), 0 * deformed[:1])
    assert torch.equal(still, canonical)


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match="expected logits of 66 bins"):
        binned_degrees(torch.zeros(3, 62))
    with pytest.raises(ShapeError, match="of one shape"):
        rotation_matrix(torch.zeros(2), torch.zeros(2), torch.zeros(3))
    with pytest.raises(ShapeError, match="expected rotation matrices"):
        head_angles(torch.zeros(3))
    with pytest.raises(ShapeError, match="as pitch, yaw, roll"):
        angles_of_pose(torch.zeros(2, 4))
    with pytest.raises(ConfigError, match="expected one of geometric, hopenet, got 'euler'"):
        angles_of_pose(torch.zeros(2, 3), "euler")
    good = (torch.zeros(2, 4, 3), torch.zeros(2, 3, 3), torch.zeros(2, 3), torch.zeros(2, 4, 3))
    for at, wrong in ((0, (3, 4, 3)), (1, (2, 3)), (2, (2, 4, 3)), (3, (2, 5, 3))):
        parts = list(good)
        parts[at] = torch.zeros(wrong)
        with pytest.raises(ShapeError, match="expected canonical keypoints"):
            transform_keypoints(*parts)
