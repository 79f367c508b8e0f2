"""Thin plate splines against hand-computed values, differences and pictures that move by whole pixels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.thin_plate import ThinPlate, random_thin_plate, thin_plate_weights


def _one_bend(x: float, y: float) -> ThinPlate:
    """The identity, bent at the centre."""
    return ThinPlate(
        torch.eye(2, 3, dtype=torch.float64)[None],
        torch.zeros(1, 2, dtype=torch.float64),
        torch.tensor([[[x, y]]], dtype=torch.float64),
    )


def _shift(x: float, y: float, n: int = 1) -> ThinPlate:
    affine = torch.eye(2, 3).repeat(n, 1, 1)
    affine[:, :, 2] = torch.tensor([x, y])
    return ThinPlate(affine, torch.zeros(1, 2), torch.zeros(n, 1, 2))


def _points(n: int, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(n, count, 2, generator=generator, dtype=torch.float64) - 1


def _double(warp: ThinPlate) -> ThinPlate:
    return ThinPlate(*(x.double() for x in warp))


def test_one_bend_by_hand() -> None:
    warp = _one_bend(2.0, -1.0)
    points = torch.tensor([[[0.5, 0.0], [0.6, 0.8], [0.0, 0.0]]], dtype=torch.float64)
    u = 0.25 * math.log(0.5)  # r^2 ln r at r = 0.5; at r = 1 it is 0
    expected = [[0.5 + 2 * u, -u], [0.6, 0.8], [0.0, 0.0]]
    assert warp.points(points)[0].tolist() == [pytest.approx(row) for row in expected]
    slope = 0.5 * (2 * math.log(0.5) + 1)  # of U along x at (0.5, 0)
    jacobians = warp.jacobians(points)[0].tolist()
    assert jacobians[0] == [pytest.approx([1 + 2 * slope, 0.0]), pytest.approx([-slope, 1.0])]
    # At r = 1 the slope is the direction itself.
    assert jacobians[1] == [pytest.approx([1 + 2 * 0.6, 2 * 0.8]), pytest.approx([-0.6, 1 - 0.8])]
    assert jacobians[2] == [[1.0, 0.0], [0.0, 1.0]]


def test_an_affine_warp_by_hand() -> None:
    affine = torch.tensor([[[1.0, 0.2, 0.1], [0.0, 2.0, -0.5]]])
    warp = ThinPlate(affine, torch.zeros(1, 2), torch.zeros(1, 1, 2))
    points = torch.tensor([[[0.5, 1.0]]])
    torch.testing.assert_close(warp.points(points), torch.tensor([[[0.8, 1.5]]]))
    torch.testing.assert_close(warp.jacobians(points), affine[:, None, :, :2])


def test_jacobians_are_the_derivatives_of_the_points() -> None:
    warp = _double(random_thin_plate(3, bend_sigma=0.3, generator=torch.Generator().manual_seed(1)))
    points = torch.cat([_points(3, 4), warp.controls[None, :1].expand(3, 1, 2)], dim=1)
    found = warp.jacobians(points)
    for n in range(3):
        one = ThinPlate(warp.affine[n : n + 1], warp.controls, warp.bends[n : n + 1])
        for p in range(5):
            slow = torch.autograd.functional.jacobian(
                lambda z, one=one: one.points(z[None, None])[0, 0], points[n, p]
            )
            torch.testing.assert_close(found[n, p], slow)
    moving = points.requires_grad_(True)
    assert torch.autograd.gradcheck(warp.jacobians, (moving[:, :4],))


def test_one_warp_serves_all_rows_and_rows_have_their_own() -> None:
    points = _points(2, 5)
    warps = _double(random_thin_plate(2, generator=torch.Generator().manual_seed(2)))
    first = ThinPlate(warps.affine[:1], warps.controls, warps.bends[:1])
    for method in ("points", "jacobians"):
        together, alone = getattr(warps, method)(points), getattr(first, method)(points)
        torch.testing.assert_close(together[0], alone[0])
        torch.testing.assert_close(alone[1:], getattr(first, method)(points[1:]))
        assert not torch.allclose(together[1], alone[1])


@pytest.mark.parametrize(("align", "step"), [(True, 2 / 8), (False, 2 / 9)])
def test_pictures_show_at_z_what_was_at_the_warped_z(align: bool, step: float) -> None:
    pictures = torch.rand(2, 3, 9, 9)
    moved = _shift(2 * step, -step, n=2).pictures(pictures, align_corners=align)
    torch.testing.assert_close(moved[:, :, 1:, :-2], pictures[:, :, :-1, 2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("align", [True, False])
def test_a_spot_of_the_warped_picture_lies_where_the_warp_takes_it(align: bool) -> None:
    side = 65
    warp = random_thin_plate(1, bend_sigma=0.05, generator=torch.Generator().manual_seed(3))
    still = torch.eye(2, 3)[None]
    grid = torch.nn.functional.affine_grid(still, [1, 1, side, side], align_corners=align)
    spot = torch.tensor([0.2, -0.3])
    picture = torch.exp(-(grid - spot).square().sum(-1) / 0.01)[:, None]
    seen = warp.pictures(picture, align_corners=align)[0, 0]
    brightest = grid[0].flatten(0, 1)[seen.flatten().argmax()]
    assert (warp.points(brightest[None, None])[0, 0] - spot).abs().max() < 1.5 * 2 / side
    assert (brightest - spot).abs().max() > 2 / side  # it did move


def test_the_identity_changes_nothing() -> None:
    warp = random_thin_plate(2, affine_sigma=0.0, bend_sigma=0.0)
    points, pictures = _points(2, 4).float(), torch.rand(2, 3, 8, 8)
    assert torch.equal(warp.points(points), points)
    assert torch.equal(warp.jacobians(points), torch.eye(2).expand(2, 4, 2, 2))
    for align in (True, False):
        torch.testing.assert_close(warp.pictures(pictures, align_corners=align), pictures)


def test_draws_have_the_stated_deviations_and_follow_the_generator() -> None:
    make = lambda seed: random_thin_plate(4000, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    warp = make(0)
    off = warp.affine - torch.eye(2, 3)
    assert off.std(0).flatten().tolist() == pytest.approx([0.05] * 6, rel=0.05)
    assert off.mean(0).abs().max() < 0.005
    assert float(warp.bends.std()) == pytest.approx(0.005, rel=0.02)
    assert warp.controls.shape == (25, 2)
    assert warp.controls[:2].tolist() == [[-1.0, -1.0], [-0.5, -1.0]]  # x runs first
    assert torch.equal(make(0).bends, warp.bends)
    assert not torch.equal(make(1).bends, warp.bends)


def test_bfloat16_pictures_and_points_keep_the_precision_of_the_warp() -> None:
    warp = random_thin_plate(1, generator=torch.Generator().manual_seed(0))
    points = torch.full((1, 1, 2), 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        found = warp.points(points.bfloat16())
        slopes = warp.jacobians(points.bfloat16())
    torch.testing.assert_close(found, warp.points(points))
    torch.testing.assert_close(slopes, warp.jacobians(points))
    pictures = torch.rand(1, 3, 8, 8)
    assert warp.pictures(pictures.bfloat16(), align_corners=True).dtype == torch.bfloat16


def admissible(seed: int) -> tuple[ThinPlate, torch.Tensor]:
    """A warp that bends least among those through its own targets, and 30 points."""
    g = torch.Generator().manual_seed(seed)
    controls, points = (2 * torch.rand(n, 2, generator=g).double() - 1 for n in (9, 30))
    affine = torch.eye(2, 3).double()[None] + 0.2 * torch.randn(1, 2, 3, generator=g).double()
    side = torch.cat([controls, torch.ones(9, 1).double()], 1)
    bends = 0.3 * torch.randn(9, 2, generator=g).double()
    bends = bends - side @ torch.linalg.pinv(side) @ bends
    return ThinPlate(affine, controls, bends[None]), points


def test_weights_find_the_warp_again_from_where_its_controls_went() -> None:
    warp, points = admissible(0)
    weights = thin_plate_weights(warp.controls, points)
    assert weights.shape == (30, 9)
    found = weights @ warp.points(warp.controls[None])[0]
    torch.testing.assert_close(found, warp.points(points[None])[0])


def test_weights_by_hand() -> None:
    """In the middle of a square whose one corner moves by 1 the warp moves by a quarter."""
    square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    weights = thin_plate_weights(square, torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    assert weights[0].tolist() == pytest.approx([0.25] * 4)
    assert weights[1].tolist() == pytest.approx([0.0, 1.0, 0.0, 0.0], abs=1e-9)


def test_smoothing_ends_in_the_best_affine_motion() -> None:
    warp, points = admissible(1)
    targets = warp.points(warp.controls[None])[0]
    design = torch.cat([warp.controls, torch.ones(9, 1).double()], 1)
    best = torch.linalg.lstsq(design, targets).solution
    wanted = torch.cat([points, torch.ones(30, 1).double()], 1) @ best
    stiff = thin_plate_weights(warp.controls, points, smoothing=1e4) @ targets
    torch.testing.assert_close(stiff, wanted, atol=1e-3, rtol=0)
    missed = [
        (thin_plate_weights(warp.controls, warp.controls, smoothing=s) @ targets - targets).norm()
        for s in (0.0, 0.1, 1.0)
    ]
    assert missed[0] < 1e-9 < missed[1] < missed[2]
    # Affine motions survive any smoothing.
    moved = points @ torch.tensor([[1.1, 0.2], [-0.3, 0.9]]).double() + 0.4
    weights = thin_plate_weights(points[:9], points, smoothing=0.5)
    torch.testing.assert_close(weights @ moved[:9], moved)


def test_controls_that_settle_no_warp_are_refused() -> None:
    line = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    with pytest.raises(ConfigError, match="leave some controls out"):
        thin_plate_weights(line, line)
    twice = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    with pytest.raises(ConfigError, match="apart from each other"):
        thin_plate_weights(twice, line)
    with pytest.raises(ConfigError, match="smoothing of at least 0"):
        thin_plate_weights(twice[:3], line, smoothing=-1.0)
    with pytest.raises(ShapeError, match=r"three or more controls \(M, 2\)"):
        thin_plate_weights(line[:2], line)


def test_errors() -> None:
    with pytest.raises(ShapeError, match=r"expected points \(n, P, 2\) for 2 warps"):
        random_thin_plate(2).points(torch.zeros(3, 4, 2))
    with pytest.raises(ShapeError, match="draw as many warps"):
        random_thin_plate(2).jacobians(torch.zeros(2, 4, 3))
    with pytest.raises(ShapeError, match=r"expected pictures \(n, C, H, W\)"):
        random_thin_plate(1).pictures(torch.zeros(3, 8, 8), align_corners=True)
    with pytest.raises(ConfigError, match="two or more control points"):
        random_thin_plate(1, side=1)
    with pytest.raises(ConfigError, match="at least 0"):
        random_thin_plate(1, bend_sigma=-0.1)
