from __future__ import annotations

import pytest
import torch

from talkhead.networks.keypoint_maps import corner_grid, expected_places, keypoint_spots
from tests.oracles import fomm


def test_grid_has_x_first_and_ends_at_the_corner_pixels() -> None:
    grid = corner_grid(3, 5, torch.zeros((), dtype=torch.float64))
    assert grid.shape == (3, 5, 2)
    assert grid.dtype == torch.float64
    assert grid[0, :, 0].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert grid[:, 0, 1].tolist() == [-1.0, 0.0, 1.0]
    assert grid[2, 1].tolist() == [-0.5, 1.0]


def test_spots_equal_the_loop_and_peak_at_their_point() -> None:
    points = torch.tensor([[[0.5, -1.0], [0.1, 0.3]]])
    found = keypoint_spots(points, 7, 9, variance=0.02)
    torch.testing.assert_close(found, fomm.spots(points, 7, 9, 0.02))
    assert found[0, 0, 0, 6] == 1.0  # x = 0.5 is the seventh of nine columns, y = -1 the first row


def test_soft_argmax_finds_the_middle_of_a_drawn_spot() -> None:
    points = torch.tensor([[[0.25, -0.4], [-0.31, 0.17], [0.0, 0.0]]])
    spots = keypoint_spots(points, 58, 64, variance=0.01)
    heat = spots / spots.sum(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(expected_places(heat), points, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("row", "column", "where"), [(0, 0, (-1.0, -1.0)), (4, 0, (-1.0, 1.0)), (2, 6, (1.0, 0.0))]
)
def test_all_heat_on_one_pixel_is_its_place(
    row: int, column: int, where: tuple[float, float]
) -> None:
    heat = torch.zeros(1, 1, 5, 7)
    heat[0, 0, row, column] = 1.0
    assert tuple(expected_places(heat)[0, 0].tolist()) == pytest.approx(where, abs=1e-6)
