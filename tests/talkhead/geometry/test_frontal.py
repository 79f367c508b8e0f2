from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.geometry.frontal import corner_yaw, frontalised
from talkhead.geometry.points68 import ibug_points
from talkhead.geometry.rotation import euler_to_matrix
from tests.oracles.landmarks import turned_to_front

FACE = torch.from_numpy(ibug_points(canonical_landmarks().astype(np.float64)))


def posed(pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> Tensor:
    return FACE @ torch.from_numpy(euler_to_matrix(np.array([pitch, yaw, roll]))).T


def centred(points: Tensor) -> Tensor:
    return points - points.mean(dim=-2, keepdim=True)


def test_corner_yaw_by_hand() -> None:
    points = torch.zeros(68, 3)
    points[54] = torch.tensor([1.0, 0.0, -1.0])
    assert float(corner_yaw(points)) == pytest.approx(math.pi / 4)
    points[54] = torch.tensor([3.0, 9.0, 0.0])
    assert float(corner_yaw(points)) == 0.0
    assert float(corner_yaw(torch.zeros(68, 3))) == 0.0


@pytest.mark.parametrize("yaw", [-1.2, -0.3, 0.0, 0.7, 1.4])
def test_a_turned_face_comes_back(yaw: float) -> None:
    """The yaw is that of the suite's rotations, and of scipy's."""
    turned = posed(yaw=yaw)
    assert float(corner_yaw(turned)) == pytest.approx(yaw, abs=1e-9)
    torch.testing.assert_close(centred(frontalised(turned)), centred(FACE))
    by_scipy = Rotation.from_euler("y", yaw).apply(FACE.numpy())
    torch.testing.assert_close(centred(frontalised(torch.from_numpy(by_scipy))), centred(FACE))


def test_pitch_and_roll_stay() -> None:
    nodding, tipped = posed(pitch=0.3), posed(roll=0.4)
    torch.testing.assert_close(frontalised(nodding), nodding)
    torch.testing.assert_close(frontalised(tipped), tipped)


def test_keeps_distances_heights_mean_and_corner_depth() -> None:
    points = torch.randn(2, 5, 68, 3, generator=torch.Generator().manual_seed(0)).double()
    out = frontalised(points)
    torch.testing.assert_close(torch.cdist(out, out), torch.cdist(points, points))
    torch.testing.assert_close(out[..., 1], points[..., 1])
    torch.testing.assert_close(out.mean(dim=-2), points.mean(dim=-2))
    torch.testing.assert_close(out[..., 48, 2], out[..., 54, 2])
    assert (out[..., 48, 0] < out[..., 54, 0]).all()
    torch.testing.assert_close(frontalised(out), out)


def test_agrees_with_plain_loops() -> None:
    points = torch.randn(4, 68, 3, generator=torch.Generator().manual_seed(1)).double()
    for ours, face in zip(frontalised(points), points.numpy(), strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(turned_to_front(face)))


def test_other_corners() -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -2.0]])
    expected = torch.tensor([[-1.0, 0.0, -1.0], [1.0, 0.0, -1.0]])
    torch.testing.assert_close(frontalised(points, corners=(0, 1)), expected)


def test_refuses_flat_or_too_few_points() -> None:
    for shape in ((68, 2), (54, 3), (3,)):
        with pytest.raises(ShapeError, match="depth"):
            frontalised(torch.zeros(shape))
