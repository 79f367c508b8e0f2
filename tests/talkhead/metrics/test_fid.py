from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

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


def _pictures(n: int, seed: int) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) ** (1 + seed)


def test_is_the_distance_of_the_features_by_scipy_and_of_any_batches() -> None:
    ours, real = _pictures(60, 0), _pictures(80, 1)
    metric = FID(Means(), 6).train()
    for chunk in ours.split(7):
        metric.update(chunk, real=False)
    for chunk in real.split(33):
        metric.update(chunk, real=True)
    features = Means().eval()
    expected = frechet_sqrtm(features(ours).numpy(), features(real).numpy())
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-4, abs=1e-7)


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
