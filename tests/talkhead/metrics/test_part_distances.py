from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.face_topology import EYE_OUTER, canonical_landmarks
from talkhead.metrics.part_distances import (
    EYES,
    IRISES,
    MOUTH,
    blink_distance,
    descriptor_distance,
    gaze_distance,
    motion_share,
    mouth_distance,
)

DISTANCES = [(blink_distance, EYES, 32), (gaze_distance, IRISES, 10), (mouth_distance, MOUTH, 40)]


def track(frames: int = 3) -> Tensor:
    return torch.from_numpy(np.array(canonical_landmarks())).expand(frames, -1, -1).clone()


@pytest.mark.parametrize(("distance", "points", "count"), DISTANCES)
def test_moving_its_points_by_a_known_share_of_the_eye_distance(
    distance: object, points: tuple[int, ...], count: int
) -> None:
    assert callable(distance)
    assert len(points) == count
    real = 3.0 * track()
    unit = (real[0, EYE_OUTER[0], :2] - real[0, EYE_OUTER[1], :2]).norm()
    moved = real.clone()
    moved[0, list(points), 0] += 0.3 * unit
    moved[0, list(points), 1] += 0.4 * unit
    moved[..., 2] += 7.0  # depth does not count
    assert float(distance(real, real)) == 0.0
    assert float(distance(moved, real)) == pytest.approx(0.5 / 3, rel=1e-5)
    others = real.clone()
    others[:, [i for i in range(478) if i not in points]] += 1.0
    assert float(distance(others, real)) == 0.0


def test_descriptor_distance_by_hand() -> None:
    real = torch.zeros(2, 2)
    assert float(descriptor_distance(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), real)) == 3.0


def test_motion_share_by_hand() -> None:
    real = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert float(motion_share(real, real)) == pytest.approx(1.0)
    assert float(motion_share(real / 2, real)) == pytest.approx(0.5)
    assert float(motion_share(torch.ones(5, 2), real)) == 0.0


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="same frames"):
        blink_distance(track(3), track(2))
    with pytest.raises(ShapeError, match=r"\(T, D\)"):
        descriptor_distance(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"\(T, D\)"):
        motion_share(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ShapeError, match="2 frames"):
        motion_share(torch.zeros(1, 3), torch.zeros(4, 3))
