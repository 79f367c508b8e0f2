from __future__ import annotations

import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.geometry.face_topology import mirror_order
from talkhead.losses.landmark_guide import GUIDES, landmark_guide_loss


def test_keypoints_on_their_landmarks_cost_nothing_and_others_their_distance() -> None:
    torch.manual_seed(0)
    landmarks = torch.rand(2, 478, 3)
    points = torch.rand(2, 15, 3)
    points[:, : len(GUIDES), :2] = 2 * landmarks[:, list(GUIDES), :2] - 1
    assert float(landmark_guide_loss(points, landmarks)) < 1e-6  # whatever depth and further points
    points[1, 3, 0] += 0.4
    assert float(landmark_guide_loss(points, landmarks)) == pytest.approx(0.4 / (2 * 10 * 2))


def test_gradients_reach_guided_places_alone() -> None:
    points = torch.rand(1, 12, 3).requires_grad_()
    landmarks = torch.rand(1, 478, 3).requires_grad_()
    landmark_guide_loss(points, landmarks).backward()
    assert points.grad is not None
    assert bool(points.grad[:, :10, :2].all())
    assert not points.grad[:, :10, 2].any()
    assert not points.grad[:, 10:].any()
    assert landmarks.grad is None


def test_a_mirrored_face_has_the_same_guides() -> None:
    order = mirror_order()
    assert {int(order[i]) for i in GUIDES} == set(GUIDES)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"10 or more, 3\), got \(1, 9, 3\)"):
        landmark_guide_loss(torch.zeros(1, 9, 3), torch.zeros(1, 478, 3))
    with pytest.raises(ShapeError, match=r"landmarks \(1, 478, 3\)"):
        landmark_guide_loss(torch.zeros(1, 10, 3), torch.zeros(2, 478, 3))
