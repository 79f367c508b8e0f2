from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from talkhead.errors import ShapeError
from talkhead.metrics.fid import FID
from tests.oracles.frechet import frechet_sqrtm


class Means(nn.Module):
    """Six features of a picture: mean and root mean square of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, pictures: Tensor) -> Tensor:
        mean, power = pictures.mean((2, 3)), pictures.square().mean((2, 3)).sqrt()
        out: Tensor = self.drop(torch.cat([mean, power], 1))
        return out


class Channels(nn.Module):
    """Mean of every channel."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))


def _pictures(n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 8, 8, generator=generator, dtype=torch.float64) ** (1 + seed)


def _fid(ours: Tensor, real: Tensor) -> float:
    metric = FID(Channels(), 3)
    metric.update(ours, real=False)
    metric.update(real, real=True)
    return float(metric.compute())


def test_is_the_distance_by_scipy_and_torchmetrics_in_any_batches() -> None:
    ours, real = _pictures(60, 0), _pictures(80, 1)
    metric = FID(Means(), 6).train()
    theirs = FrechetInceptionDistance(Means().eval(), normalize=True)
    for chunk in ours.split(7):
        metric.update(chunk, real=False)
    for chunk in real.split(33):
        metric.update(chunk, real=True)
    theirs.update(ours, real=False)
    theirs.update(real, real=True)
    features = Means().eval()
    expected = frechet_sqrtm(features(ours).numpy(), features(real).numpy())
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)
    assert float(theirs.compute()) == pytest.approx(expected, rel=1e-6)


def test_four_grey_pictures_by_hand() -> None:
    """In each of the three features the means are 0.2 apart and the deviations 0.1 and 0.3."""
    ours, real = (
        (centre + torch.tensor([-size, size]).double() / 2**0.5).view(2, 1, 1, 1).expand(2, 3, 4, 4)
        for centre, size in ((0.5, 0.1), (0.7, 0.3))
    )
    assert _fid(ours, real) == pytest.approx(3 * (0.2**2 + (0.3 - 0.1) ** 2), rel=1e-6)


@pytest.mark.parametrize("step", [0.05, -0.1])
def test_brightness_and_gain_cost_what_they_move_the_features_by(step: float) -> None:
    real = _pictures(60, 1)
    assert _fid(real + step, real) == pytest.approx(3 * step**2, rel=1e-6)
    features = Channels()(real)
    power = features.mean(0).square().sum() + features.var(0).sum()
    assert _fid((1 + step) * real, real) == pytest.approx(step**2 * float(power), rel=1e-6)


def test_the_same_pictures_are_at_distance_zero_and_brighter_ones_further_away() -> None:
    real = _pictures(60, 1)
    values = []
    for gain in (1.0, 1.1, 1.3):
        metric = FID(Means(), 6)
        metric.update(real, real=True)
        metric.update((real * gain).clamp(0, 1), real=False)
        values.append(float(metric.compute()))
    assert values[0] == pytest.approx(0.0, abs=1e-6)
    assert values == sorted(values)


def test_network_stays_frozen_and_in_eval_mode() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Dropout(0.9))
    metric = FID(network, 4).train()
    assert not network.training
    assert not any(p.requires_grad for p in metric.parameters())


def test_refuses_other_pictures_and_widths() -> None:
    with pytest.raises(ShapeError, match="float pictures"):
        FID(Means(), 6).update(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), real=True)
    with pytest.raises(ShapeError, match=r"expected features \(2, 5\)"):
        FID(Means(), 5).update(_pictures(2, 0), real=True)
