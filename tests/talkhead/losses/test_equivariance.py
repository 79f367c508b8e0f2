"""A detector that follows every warp has no loss, one that is off has the loss computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.keypoints import Keypoints
from talkhead.geometry.thin_plate import ThinPlate, random_thin_plate
from talkhead.losses.equivariance import (
    jacobian_equivariance_loss,
    point_equivariance_loss,
    projected_equivariance_loss,
)

AFFINE = torch.tensor([[1.1, 0.1, 0.05], [-0.2, 0.9, 0.1]])


def _keypoints(n: int = 2, count: int = 4, seed: int = 0) -> Keypoints:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(n, count, 2, generator=generator) - 0.5
    return Keypoints(points, torch.eye(2) + 0.2 * torch.randn(n, count, 2, 2, generator=generator))


def _linear(n: int = 2) -> ThinPlate:
    return ThinPlate(AFFINE.repeat(n, 1, 1), torch.zeros(1, 2), torch.zeros(n, 1, 2))


def _followed(keypoints: Keypoints, warp: ThinPlate) -> Keypoints:
    """What an equivariant detector finds in the warped picture: solved by Newton's steps."""
    points = keypoints.points.clone()
    for _ in range(20):
        off = (warp.points(points) - keypoints.points)[..., None]
        points = points - torch.linalg.solve(warp.jacobians(points), off)[..., 0]
    return Keypoints(points, torch.linalg.solve(warp.jacobians(points), keypoints.jacobians))


def _spot(pictures: Tensor) -> Keypoints:
    """The centre of brightness and the second moments' root: follows affine warps by construction."""
    side = pictures.shape[-1]
    axis = torch.linspace(-1, 1, side)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    weight = pictures[:, 0] / pictures[:, 0].sum((1, 2), keepdim=True)
    points = torch.einsum("nyx,yxc->nc", weight, grid)
    apart = grid - points[:, None, None]
    moments = torch.einsum("nyx,nyxc,nyxd->ncd", weight, apart, apart)
    return Keypoints(points[:, None], torch.linalg.cholesky(moments)[:, None])


@pytest.mark.parametrize("bend", [0.0, 0.01])
def test_an_equivariant_detector_has_no_loss(bend: float) -> None:
    drawn = random_thin_plate(2, bend_sigma=bend, generator=torch.Generator().manual_seed(1))
    warp = ThinPlate(*(part.double() for part in drawn))
    keypoints = Keypoints(*(part.double() for part in _keypoints()))
    warped = _followed(keypoints, warp)
    assert (warped.points - keypoints.points).abs().max() > 0.02
    assert float(point_equivariance_loss(keypoints, warped, warp)) == pytest.approx(0, abs=1e-6)
    assert float(jacobian_equivariance_loss(keypoints, warped, warp)) == pytest.approx(0, abs=1e-5)


def test_the_centre_of_a_spot_follows_the_pictures() -> None:
    """Signs and direction of the warp, with the pictures themselves: w and not its inverse."""
    axis = torch.linspace(-1, 1, 65)
    x, y = torch.meshgrid(axis, axis, indexing="xy")
    picture = torch.exp(-((x - 0.1) ** 2 + (y + 0.2) ** 2) / 0.02)[None, None]
    warp = _linear(1)
    before, after = _spot(picture), _spot(warp.pictures(picture, align_corners=True))
    assert float(point_equivariance_loss(before, before, warp)) > 0.03
    assert float(point_equivariance_loss(before, after, warp)) == pytest.approx(0, abs=1e-4)
    # Moments go with the Jacobian: w' M' w'^T = M, whatever root of M is taken.
    there = warp.jacobians(after.points) @ after.jacobians
    torch.testing.assert_close(
        there @ there.mT, before.jacobians @ before.jacobians.mT, atol=3e-4, rtol=0
    )


def test_a_shifted_detector_by_hand() -> None:
    """Off by (0.1, 0): the affine part carries it to (1.1, -0.2) times 0.1."""
    keypoints, warp = _keypoints(), _linear()
    right = _followed(keypoints, warp)
    off = Keypoints(right.points + torch.tensor([0.1, 0.0]), right.jacobians)
    assert float(point_equivariance_loss(keypoints, off, warp)) == pytest.approx(0.13 / 2, rel=1e-4)
    # An affine warp has the same derivative there, so Jacobians are none the worse.
    assert float(jacobian_equivariance_loss(keypoints, off, warp)) == pytest.approx(0, abs=1e-5)


def test_jacobians_of_another_scale_by_hand() -> None:
    keypoints, warp = _keypoints(), _linear()
    right = _followed(keypoints, warp)
    double = Keypoints(right.points, 2 * right.jacobians)
    assert float(jacobian_equivariance_loss(keypoints, double, warp)) == pytest.approx(0.5)
    assert float(point_equivariance_loss(keypoints, double, warp)) == pytest.approx(0, abs=1e-6)


def test_detectors_that_ignore_the_picture_pay_for_it() -> None:
    keypoints, warp = _keypoints(), _linear()
    expected = (warp.points(keypoints.points) - keypoints.points).abs().mean()
    found = point_equivariance_loss(keypoints, keypoints, warp)
    assert float(found) == pytest.approx(float(expected))
    assert float(jacobian_equivariance_loss(keypoints, keypoints, warp)) > 0.05


def test_gradients_reach_both_sides_and_stay_finite_at_a_collapse() -> None:
    parts = [part.requires_grad_(True) for seed in (0, 1) for part in _keypoints(seed=seed)]
    warp = random_thin_plate(2, generator=torch.Generator().manual_seed(0))
    keypoints, warped = Keypoints(*parts[:2]), Keypoints(*parts[2:])
    total = point_equivariance_loss(keypoints, warped, warp)
    total = total + jacobian_equivariance_loss(keypoints, warped, warp)
    total.backward()
    assert all(part.grad is not None and bool((part.grad != 0).any()) for part in parts)
    flat = torch.zeros(2, 4, 2, 2, requires_grad=True)
    lost = jacobian_equivariance_loss(Keypoints(keypoints.points, flat), warped, warp)
    lost.backward()
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())
    assert lost.item() == pytest.approx(0.5)  # the guarded inverse of nothing is nothing


def test_bfloat16_keypoints() -> None:
    keypoints, warp = _keypoints(), _linear()
    half = Keypoints(*(part.bfloat16() for part in keypoints))
    for loss in (point_equivariance_loss, jacobian_equivariance_loss):
        found = loss(half, half, warp)
        assert found.dtype == torch.float32
        assert float(found) == pytest.approx(float(loss(keypoints, keypoints, warp)), abs=0.02)


def test_errors() -> None:
    keypoints, warp = _keypoints(), _linear()
    for loss in (point_equivariance_loss, jacobian_equivariance_loss):
        with pytest.raises(ShapeError, match="one detector"):
            loss(keypoints, _keypoints(count=5), warp)
        with pytest.raises(ShapeError, match="draw as many warps"):
            loss(keypoints, keypoints, _linear(3))


def test_of_points_with_depth_the_view_from_the_front_counts() -> None:
    keypoints, warped, warp = _keypoints(), _keypoints(seed=1), _linear()
    flat = point_equivariance_loss(keypoints, warped, warp)
    deep, other = (torch.cat([k.points, torch.rand(2, 4, 1)], -1) for k in (keypoints, warped))
    assert float(projected_equivariance_loss(deep, other, warp)) == pytest.approx(float(flat))
    assert float(projected_equivariance_loss(keypoints.points, warped.points, warp)) == float(flat)
    with pytest.raises(ShapeError, match=r"expected points \(n, K, 2 or 3\)"):
        projected_equivariance_loss(deep, other[:, :3], warp)
