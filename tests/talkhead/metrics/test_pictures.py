from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.metrics.pictures import PSNR, SSIM, psnr, ssim


def _clip(frames: int = 3, seed: int = 0) -> Tensor:
    return torch.rand(frames, 3, 24, 20, generator=torch.Generator().manual_seed(seed))


def test_a_constant_error_by_hand() -> None:
    real = torch.full((2, 3, 16, 16), 0.5)
    assert float(psnr(real + 0.1, real)) == pytest.approx(20.0, abs=1e-5)
    halves = real.clone()
    halves[1] += 0.01
    halves[0] += 0.1
    assert float(psnr(halves, real)) == pytest.approx((20.0 + 40.0) / 2, abs=1e-4)  # frame by frame


def test_perfect_clips() -> None:
    assert float(psnr(_clip(), _clip())) == 100.0
    assert float(ssim(_clip(), _clip())) == pytest.approx(1.0, abs=1e-9)


def test_scikit_image_finds_the_same() -> None:
    real, generated = _clip(), (_clip() + 0.2 * _clip(seed=1)).clamp(0, 1)
    pairs = [
        (g.permute(1, 2, 0).double().numpy(), r.permute(1, 2, 0).double().numpy())
        for g, r in zip(generated, real, strict=True)
    ]
    ours = float(psnr(generated, real))
    theirs = [peak_signal_noise_ratio(r, g, data_range=1.0) for g, r in pairs]
    assert ours == pytest.approx(math.fsum(theirs) / len(theirs), rel=1e-9)
    theirs = [
        structural_similarity(
            r, g, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for g, r in pairs
    ]  # fmt: skip
    assert float(ssim(generated, real)) == pytest.approx(math.fsum(theirs) / len(theirs), abs=1e-6)


def test_more_noise_scores_lower() -> None:
    real, noise = _clip(), _clip(seed=2) - 0.5
    worse = [(real + share * noise).clamp(0, 1) for share in (0.05, 0.1, 0.2, 0.4)]
    for score in (psnr, ssim):
        values = [float(score(clip, real)) for clip in worse]
        assert values == sorted(values, reverse=True)


def test_twice_the_error_costs_six_decibels() -> None:
    real, noise = _clip(), 0.1 * (_clip(seed=2) - 0.5)
    lost = psnr(real + noise, real) - psnr(real + 2 * noise, real)
    assert float(lost) == pytest.approx(20 * math.log10(2), abs=1e-5)


@pytest.mark.parametrize("level", [0.1, 0.4, 0.9])
def test_brightness_of_flat_pictures_by_hand(level: float) -> None:
    real, ours = torch.full((2, 3, 16, 14), 0.5), torch.full((2, 3, 16, 14), level)
    expected = (2 * 0.5 * level + 1e-4) / (0.25 + level**2 + 1e-4)
    assert float(ssim(ours, real)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("contrast", [1.0, 0.5, 0.0, -1.0])
def test_contrast_of_a_checkerboard_by_hand(contrast: float) -> None:
    """The window's mean over the board is grey, its variance the square of the board's height."""
    board = 0.2 * (1.0 - 2.0 * ((torch.arange(20)[:, None] + torch.arange(18)) % 2)).double()
    real, ours = (0.5 + size * board.expand(1, 3, -1, -1) for size in (1.0, contrast))
    expected = (2 * contrast * 0.04 + 9e-4) / ((1 + contrast**2) * 0.04 + 9e-4)
    assert float(ssim(ours, real)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("kind", "function"), [(PSNR, psnr), (SSIM, ssim)])
def test_mean_over_clips_counts_each_clip_once(
    kind: type[PSNR] | type[SSIM], function: object
) -> None:
    assert callable(function)
    clips = {name: (_clip(n, n), _clip(n, n + 10)) for name, n in (("a", 2), ("b", 5))}
    metric = kind()
    for name in ("a", "b", "a"):
        metric.update(*clips[name], clip=name)
    expected = [float(function(*pair)) for pair in clips.values()]
    assert float(metric.compute()) == pytest.approx(sum(expected) / 2, rel=1e-9)


def test_refuses_what_is_no_pair_of_clips() -> None:
    with pytest.raises(ShapeError, match="the same frames of both"):
        psnr(_clip(3), _clip(2))
    with pytest.raises(ShapeError, match="float pictures"):
        ssim((_clip() * 255).to(torch.uint8), _clip())
    with pytest.raises(ShapeError, match="at least 11 pixels"):
        ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
