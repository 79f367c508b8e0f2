from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.losses.head_motion import expression_loss, head_pose_loss, keypoint_prior_loss


def apart(distance: float, depth: float = 0.33) -> Tensor:
    """Two points at one depth."""
    return torch.tensor([[[0.0, 0.0, depth], [distance, 0.0, depth]]])


@pytest.mark.parametrize(
    ("distance", "depth", "wanted"),
    [(0.2, 0.33, 0.12), (0.0, 0.33, 0.2), (0.5, 0.33, 0.0), (0.5, -0.17, 0.5), (0.2, 0.43, 0.22)],
)
def test_prior_by_hand(distance: float, depth: float, wanted: float) -> None:
    """Twice the hinge of the pair, and how far the depth is off."""
    assert float(keypoint_prior_loss(apart(distance, depth))) == pytest.approx(wanted, abs=1e-6)


def test_prior_is_that_of_a_loop() -> None:
    torch.manual_seed(0)
    points = 0.5 * torch.rand(3, 6, 3)
    total = 0.0
    for cloud in points:
        for i in range(6):
            for j in range(6):
                if i != j:
                    total += max(0.0, 0.1 - float((cloud[i] - cloud[j]).square().sum())) / 3
        total += abs(float(cloud[:, 2].mean()) - 0.33) / 3
    assert float(keypoint_prior_loss(points)) == pytest.approx(total, rel=1e-5)
    order = torch.randperm(6)
    assert float(keypoint_prior_loss(points[:, order])) == pytest.approx(total, rel=1e-5)


def test_prior_drives_crowded_points_apart() -> None:
    points = apart(0.1).requires_grad_()
    keypoint_prior_loss(points).backward()
    assert points.grad is not None
    assert points.grad[0, 1, 0] < 0 < points.grad[0, 0, 0]


def test_pose_and_expression_by_hand() -> None:
    degrees = torch.tensor([[10.0, 0.0, -5.0], [0.0, 0.0, 0.0]])
    wanted = torch.tensor([[11.0, -1.0, -4.0], [0.0, 0.0, 6.0]])
    assert float(head_pose_loss(degrees, wanted)) == pytest.approx((3 + 6) / 2)
    assert float(head_pose_loss(wanted, wanted)) == 0
    assert float(expression_loss(torch.full((2, 15, 3), -1.0))) == 45
    assert float(expression_loss(torch.zeros(2, 15, 3))) == 0


def test_labels_get_no_gradient() -> None:
    degrees, wanted = (torch.randn(2, 3, requires_grad=True) for _ in range(2))
    head_pose_loss(degrees, wanted).backward()
    assert degrees.grad is not None
    assert wanted.grad is None


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(1)
    points = (0.4 * torch.rand(2, 4, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(keypoint_prior_loss, points)
    degrees = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: head_pose_loss(x, labels), degrees)
    assert torch.autograd.gradcheck(expression_loss, points)


def test_finite_in_bfloat16() -> None:
    points = torch.rand(2, 15, 3).bfloat16()
    for loss in (keypoint_prior_loss(points), expression_loss(points)):
        assert torch.isfinite(loss)


def test_shapes_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"expected keypoints \(n, K, 3\)"):
        keypoint_prior_loss(torch.zeros(2, 4, 2))
    with pytest.raises(ShapeError, match="expected angles and labels"):
        head_pose_loss(torch.zeros(2, 3), torch.zeros(3, 3))
    with pytest.raises(ShapeError, match="expected an expression"):
        expression_loss(torch.zeros(2, 45))
