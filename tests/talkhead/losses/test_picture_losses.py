"""Feature matching, perceptual, gaze and region losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.face_topology import FACE_OVAL, LIPS_OUTER, PICTURE_LEFT_EYE
from talkhead.losses.feature_matching import feature_matching_loss
from talkhead.losses.foreground import foreground_mask, without_background
from talkhead.losses.gaze import gaze_loss
from talkhead.losses.perceptual import (
    LAYER_WEIGHTS,
    multi_scale_perceptual_loss,
    perceptual_loss,
    reduced,
)
from talkhead.losses.region import region_loss, region_mask
from talkhead.networks.discriminator import PatchDiscriminator
from tests.oracles.regions import inside_convex, weighted_difference


def _pictures(n: int = 2, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, size, size, generator=generator), torch.rand(
        n, 3, size, size, generator=generator
    )


def _landmarks(n: int = 2) -> Tensor:
    """All points at the forehead, mouth around (0.5, 0.7), picture-left eye around (0.3, 0.4)."""
    points = torch.full((n, 478, 3), 0.1)
    circle = torch.linspace(0, 2 * torch.pi, 21)[:-1]
    points[:, LIPS_OUTER.copy(), 0] = 0.5 + 0.15 * circle.cos()
    points[:, LIPS_OUTER.copy(), 1] = 0.7 + 0.05 * circle.sin()
    points[:, PICTURE_LEFT_EYE.copy(), 0] = 0.3
    points[:, PICTURE_LEFT_EYE.copy(), 1] = 0.4
    return points


# -- feature matching
# --------------------------------------------------------------------------------


def test_feature_matching_by_hand() -> None:
    real = [[torch.zeros(1, 2), torch.zeros(1, 4)], [torch.zeros(1, 2), torch.zeros(1, 4)]]
    fake = [
        [torch.tensor([[1.0, 3.0]]), torch.ones(1, 4)],
        [torch.zeros(1, 2), torch.full((1, 4), -3.0)],
    ]
    # Layers: 2 and 1 at the first scale, 0 and 3 at the second; half of their sum.
    assert feature_matching_loss(real, fake).item() == pytest.approx(3.0)


def test_feature_matching_is_zero_at_home_and_only_moves_the_generator() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(width=4, layers=2).eval()
    real, fake = _pictures(size=32)
    real.requires_grad_(True)
    fake.requires_grad_(True)
    features = lambda x: [f for _, f in discriminator(x)]  # noqa: E731
    assert feature_matching_loss(features(real), features(real)).item() == 0
    loss = feature_matching_loss(features(real), features(fake))
    loss.backward()
    assert real.grad is None
    assert fake.grad is not None
    # The first feature is the picture: the loss is at least half its pixel difference.
    assert loss > (real - fake).abs().mean() / 2


def test_feature_matching_gradcheck_and_bfloat16() -> None:
    real = [[torch.randn(2, 3, dtype=torch.float64)]]
    fake = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: feature_matching_loss(real, [[f]]), (fake,))
    half = [[x.to(torch.bfloat16) for x in layers] for layers in real]
    assert torch.isfinite(feature_matching_loss(half, [[fake.to(torch.bfloat16)]]))


def test_feature_matching_errors() -> None:
    a, b = torch.zeros(1, 2), torch.zeros(1, 3)
    for real, fake in [([], []), ([[a]], [[a, a]]), ([[a]], [])]:
        with pytest.raises(ShapeError, match="same scales and layers"):
            feature_matching_loss(real, fake)
    with pytest.raises(ShapeError, match="same size"):
        feature_matching_loss([[a]], [[b]])


# -- perceptual
# --------------------------------------------------------------------------------------


def _taps(x: Tensor) -> list[Tensor]:
    return [x, 2 * x, 3 * x, x.square(), x[..., :1]]


def test_perceptual_by_hand() -> None:
    real, fake = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 2.0)
    expected = 2 / 32 + 4 / 16 + 6 / 8 + 4 / 4 + 2
    assert perceptual_loss(_taps, fake, real).item() == pytest.approx(expected)
    assert perceptual_loss(_taps, real, real).item() == 0
    assert sum(LAYER_WEIGHTS) == 1.46875


def test_perceptual_gradient_goes_to_the_generated_picture_only() -> None:
    real, fake = (x.double().requires_grad_(True) for x in _pictures(1, 2))
    assert torch.autograd.gradcheck(lambda f: perceptual_loss(_taps, f, real), (fake,))
    perceptual_loss(_taps, fake, real).backward()
    assert real.grad is None
    assert torch.isfinite(perceptual_loss(_taps, fake.to(torch.bfloat16), real.to(torch.bfloat16)))


def test_perceptual_errors() -> None:
    real, fake = _pictures()
    with pytest.raises(ShapeError, match="pictures of one shape"):
        perceptual_loss(_taps, fake[:1], real)
    with pytest.raises(ShapeError, match="expected 2 activations"):
        perceptual_loss(_taps, fake, real, weights=(1.0, 1.0))


def test_reduced_is_a_separable_gaussian() -> None:
    """Against the sum over all pixels, one by one."""
    picture = torch.rand(1, 2, 7, 9, dtype=torch.float64)
    for factor, reach in ((2, 2), (4, 6)):
        found = reduced(picture, factor)
        assert found.shape == (1, 2, -(-7 // factor), -(-9 // factor))
        sigma = (factor - 1) / 2
        for row, column in ((0, 0), (1, 1), (found.shape[2] - 1, found.shape[3] - 1)):
            total = weight = 0.0
            for y in range(-reach, reach + 1):
                for x in range(-reach, reach + 1):
                    w = math.exp(-(x * x + y * y) / (2 * sigma**2))
                    at_y = min(max(row * factor + y, 0), 6)
                    at_x = min(max(column * factor + x, 0), 8)
                    total += w * float(picture[0, 1, at_y, at_x])
                    weight += w
            assert float(found[0, 1, row, column]) == pytest.approx(total / weight)
    assert torch.equal(reduced(picture, 1), picture)


def test_multi_scale_perceptual_by_hand() -> None:
    real, fake = torch.zeros(1, 3, 64, 64), torch.full((1, 3, 64, 64), 2.0)
    # Even pictures stay even when they are reduced, so all scales have the same terms.
    once = 2 + 4 + 6 + 4 + 2
    for scales in (1, 2, 3):
        loss = multi_scale_perceptual_loss(_taps, fake, real, scales)
        assert loss.item() == pytest.approx(scales * once)
    assert multi_scale_perceptual_loss(_taps, real, real, 3).item() == 0
    weights = (1.0, 0.0, 0.0, 0.0, 0.0)
    found = multi_scale_perceptual_loss(_taps, fake, real, 2, weights)
    assert found.item() == pytest.approx(4)


def test_multi_scale_perceptual_is_the_sum_over_pictures_of_each_size() -> None:
    real, fake = (x.double().requires_grad_(True) for x in _pictures(1, 32))
    loss = multi_scale_perceptual_loss(_taps, fake, real, 2)
    slow = sum(
        perceptual_loss(_taps, reduced(fake, f), reduced(real, f), (1.0,) * 5) for f in (1, 2)
    )
    assert isinstance(slow, Tensor)
    assert loss.item() == pytest.approx(slow.item())
    loss.backward()
    assert real.grad is None
    assert fake.grad is not None
    assert bool(fake.grad.isfinite().all())


def test_multi_scale_perceptual_errors() -> None:
    real, fake = _pictures(1, 64)
    multi_scale_perceptual_loss(_taps, fake, real, 3)
    for scales in (0, 4):
        with pytest.raises(ConfigError, match="use fewer scales"):
            multi_scale_perceptual_loss(_taps, fake, real, scales)
    with pytest.raises(ShapeError, match="pictures of one shape"):
        multi_scale_perceptual_loss(_taps, fake, _pictures(2, 64)[0], 1)


# -- gaze
# --------------------------------------------------------------------------------------------


def _gaze(x: Tensor, landmarks: Tensor | None) -> Tensor:
    scale = 1.0 if landmarks is None else landmarks.mean()
    return scale * x.mean((2, 3))


def test_gaze_by_hand_and_gradient() -> None:
    real, fake = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    assert gaze_loss(_gaze, fake, real).item() == pytest.approx(0.5)
    assert gaze_loss(_gaze, fake, real, torch.full((1, 478, 3), 0.2)).item() == pytest.approx(0.1)
    assert gaze_loss(_gaze, real, real).item() == 0
    r, f = (x.double().requires_grad_(True) for x in _pictures(1, 2))
    assert torch.autograd.gradcheck(lambda x: gaze_loss(_gaze, x, r), (f,))
    gaze_loss(_gaze, f, r).backward()
    assert r.grad is None
    assert torch.isfinite(gaze_loss(_gaze, f.to(torch.bfloat16), r.to(torch.bfloat16)))
    with pytest.raises(ShapeError, match="pictures of one shape"):
        gaze_loss(_gaze, fake[..., :1], real)


# -- region
# ------------------------------------------------------------------------------------------


def test_mask_is_one_on_the_mouth_and_zero_far_from_it() -> None:
    mask = region_mask(_landmarks(), 64, 64)
    assert mask.shape == (2, 1, 64, 64)
    assert mask[0, 0, 44, 32] > 0.99  # (x, y) = (0.5, 0.7)
    assert mask[0, 0, 25, 19] > 0.9  # the shut eye at (0.3, 0.4) keeps a least size
    assert mask[0, 0, 60, 32] < 1e-3
    assert mask[0, 0, 20, 45] < 1e-3
    assert 0 <= mask.min() <= mask.max() <= 1


def test_mask_follows_the_face_and_ignores_other_points() -> None:
    landmarks = _landmarks()
    moved = landmarks.clone()
    moved[..., 0] += 4 / 64
    assert torch.allclose(
        region_mask(moved, 64, 64)[..., 8:], region_mask(landmarks, 64, 64)[..., 4:-4], atol=1e-4
    )
    other = landmarks.clone()
    other[:, FACE_OVAL.copy()] = 0.9
    assert torch.equal(region_mask(other, 64, 64), region_mask(landmarks, 64, 64))


def test_region_loss_matches_the_slow_loop() -> None:
    real, fake = _pictures()
    landmarks = _landmarks()
    slow = weighted_difference(fake, real, region_mask(landmarks, 16, 16))
    assert region_loss(fake, real, landmarks).item() == pytest.approx(slow, rel=1e-5)
    assert region_loss(real + 0.25, real, landmarks).item() == pytest.approx(0.25, rel=1e-5)


def test_region_loss_sees_the_mouth_more_than_the_background() -> None:
    real, _ = _pictures(size=64)
    mouth, background = real.clone(), real.clone()
    mouth[..., 42:47, 28:36] += 0.5
    background[..., 55:60, 28:36] += 0.5
    landmarks = _landmarks()
    assert region_loss(mouth, real, landmarks) > 100 * region_loss(background, real, landmarks)


def test_region_gradcheck_bfloat16_and_face_outside_the_crop() -> None:
    real, fake = (x.double() for x in _pictures(1, 4))
    fake.requires_grad_(True)
    landmarks = _landmarks(1)
    assert torch.autograd.gradcheck(lambda f: region_loss(f, real, landmarks.double()), (fake,))
    half = region_loss(fake.to(torch.bfloat16), real.to(torch.bfloat16), landmarks)
    assert torch.isfinite(half)
    assert region_loss(fake, real, landmarks.double() + 50).item() == pytest.approx(0, abs=1e-6)


def test_region_errors() -> None:
    real, fake = _pictures()
    with pytest.raises(ShapeError, match="478"):
        region_mask(torch.zeros(2, 68, 3), 8, 8)
    with pytest.raises(ShapeError, match="as many landmark sets"):
        region_loss(fake, real, _landmarks(3))


# -- foreground
# --------------------------------------------------------------------------------


def _oval(n: int, x: float, y: float, a: float, b: float) -> Tensor:
    """Faces with an elliptic oval of half axes ``a`` and ``b``."""
    points = torch.full((n, 478, 3), 0.5, dtype=torch.float64)
    angle = torch.linspace(0, 2 * torch.pi, len(FACE_OVAL) + 1, dtype=torch.float64)[:-1]
    points[:, FACE_OVAL.copy(), 0] = x + a * angle.sin()
    points[:, FACE_OVAL.copy(), 1] = y - b * angle.cos()
    return points


def test_the_foreground_is_the_grown_oval_pixel_by_pixel() -> None:
    landmarks = _oval(2, 0.45, 0.55, 0.2, 0.3)
    landmarks[1, :, 0] += 0.3  # partly outside of the picture
    mask = foreground_mask(landmarks, 20, 30, margin=1.2)
    grown = _oval(1, 0.45, 0.55, 0.24, 0.36)[0, FACE_OVAL.copy(), :2].tolist()
    for k, shift in enumerate((0.0, 0.3)):
        corners = [(x + shift, y) for x, y in grown]
        for row in range(20):
            for column in range(30):
                expected = inside_convex(corners, (column + 0.5) / 30, (row + 0.5) / 20)
                assert bool(mask[k, 0, row, column]) == expected, (k, row, column)


def test_the_foreground_has_the_area_of_the_oval() -> None:
    mask = foreground_mask(_oval(1, 0.5, 0.5, 0.2, 0.3), 200, 200, margin=1.3)
    assert float(mask.mean()) == pytest.approx(torch.pi * 0.2 * 0.3 * 1.3**2, rel=0.01)


def test_the_background_turns_black() -> None:
    pictures = _pictures()[0]
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, 4:8, 5] = 1.0
    shown = without_background(pictures, mask)
    torch.testing.assert_close(shown[:, :, 4:8, 5], pictures[:, :, 4:8, 5])
    assert int((shown == -1).sum()) == 2 * 3 * (256 - 4)
    with pytest.raises(ShapeError, match="expected landmarks"):
        foreground_mask(torch.zeros(2, 68, 3), 16, 16)
