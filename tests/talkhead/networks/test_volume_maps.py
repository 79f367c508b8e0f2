from __future__ import annotations

import torch

from talkhead.networks.volume_maps import expected_voxels, volume_grid, volume_spots
from tests.oracles import vid2vid

SIZE = (3, 4, 5)


def test_grid_counts_from_the_first_slice_row_and_column() -> None:
    grid = volume_grid(*SIZE, like=torch.zeros(1))
    assert grid.shape == (*SIZE, 3)
    assert grid[0, 0, 0].tolist() == [-1, -1, -1]
    assert grid[-1, -1, -1].tolist() == [1, 1, 1]
    assert grid[0, 0, 2].tolist() == [0, -1, -1]  # x along the width
    assert grid[1, 0, 0].tolist() == [-1, -1, 0]  # z along the depth


def test_spots_are_those_of_a_loop() -> None:
    torch.manual_seed(0)
    points = torch.rand(2, 3, 3) * 2 - 1
    found = volume_spots(points, *SIZE, variance=0.1)
    torch.testing.assert_close(found, vid2vid.spots(points, SIZE, 0.1), atol=1e-6, rtol=1e-5)
    on_a_voxel = volume_grid(*SIZE, like=points)[1, 2, 3][None, None]
    assert float(volume_spots(on_a_voxel, *SIZE)[0, 0, 1, 2, 3]) == 1.0


def test_few_slices_show_every_point_and_many_are_as_published() -> None:
    depths = torch.linspace(-1, 1, 9)
    points = torch.stack([torch.zeros(9), torch.zeros(9), depths], dim=-1)[None]
    two = volume_spots(points, 2, 11, 11)[0, :, :, 5, 5]
    assert float(two.amax(dim=1).min()) > 0.6  # halfway: exp(-1 / 2)
    sixteen = volume_spots(points, 16, 11, 11)[0, :, :, 5, 5]
    expected = torch.exp(-(torch.linspace(-1, 1, 16) - depths[:, None]).square() / 0.02)
    torch.testing.assert_close(sixteen, expected)


def test_a_hot_voxel_is_found_and_two_are_averaged() -> None:
    heat = torch.zeros(1, 2, *SIZE)
    heat[0, 0, 2, 1, 4] = 1.0
    heat[0, 1, 0, 0, 0] = heat[0, 1, 2, 0, 2] = 0.5
    places = expected_voxels(heat)[0]
    grid = volume_grid(*SIZE, like=heat)
    torch.testing.assert_close(places[0], grid[2, 1, 4])
    torch.testing.assert_close(places[1], torch.tensor([-0.5, -1.0, 0.0]))
