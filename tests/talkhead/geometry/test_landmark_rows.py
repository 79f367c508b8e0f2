from __future__ import annotations

import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.geometry.landmark_rows import LANDMARK_DIM, landmark_points, landmark_rows


def test_rows_by_hand_and_back() -> None:
    points = torch.rand(3, 68, 3, generator=torch.Generator().manual_seed(0))
    points[0, 1] = torch.tensor([0.5, 1.0, 9.0])
    rows = landmark_rows(points)
    assert rows.shape == (3, LANDMARK_DIM)
    assert rows[0, 2:4].tolist() == [0.0, 0.5]
    torch.testing.assert_close(landmark_points(rows), points[..., :2])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="68"):
        landmark_rows(torch.zeros(478, 3))
    with pytest.raises(ShapeError, match=r"\(\.\.\., 136\)"):
        landmark_points(torch.zeros(2, 60))
