from __future__ import annotations

import math

import pytest
import torch

from talkhead.errors import ShapeError
from talkhead.metrics.spectrum import ProcessDistance, SequenceMoments, process_distance

DECAY, NOISE = 0.8, 0.6
LAGS, FRAMES = 20, 200


def truth(mean: torch.Tensor) -> SequenceMoments:
    """Closed form of a stationary first-order process: ``c_l = q / (1 - a^2) a^l``."""
    lag = torch.arange(LAGS + 1, dtype=torch.float64)
    c = NOISE**2 / (1 - DECAY**2) * DECAY**lag
    return SequenceMoments(mean, c[:, None].expand(-1, 2))


def sample(mean: torch.Tensor, takes: int, decay: float = DECAY, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(takes, 2, generator=generator, dtype=torch.float64)
    x = x * NOISE / (1 - decay**2) ** 0.5
    out = []
    for _ in range(FRAMES):
        out.append(x)
        x = decay * x + NOISE * torch.randn(takes, 2, generator=generator, dtype=torch.float64)
    return torch.stack(out, dim=1) + mean


@pytest.fixture
def mean() -> torch.Tensor:
    t = torch.linspace(0, 6, FRAMES, dtype=torch.float64)
    return torch.stack([t.sin(), t.cos()], dim=1)


def test_estimates_match_the_closed_form(mean: torch.Tensor) -> None:
    estimate = SequenceMoments.from_takes(sample(mean, 400), LAGS)
    torch.testing.assert_close(estimate.mean, mean, atol=0.25, rtol=0)
    expected = truth(mean).autocovariance
    torch.testing.assert_close(estimate.autocovariance, expected, atol=0.06, rtol=0)


def test_spectrum_integrates_to_the_variance_and_is_positive(mean: torch.Tensor) -> None:
    power = truth(mean).spectrum(bins=2001)
    assert (power > 0).all()
    area = 2.0 * torch.trapezoid(power, dx=0.5 / 2000, dim=0)
    torch.testing.assert_close(area, truth(mean).autocovariance[0])


@pytest.mark.parametrize("takes", [6, 50])
def test_the_process_itself_scores_about_perfect(mean: torch.Tensor, takes: int) -> None:
    moments = SequenceMoments.from_takes(sample(mean, takes), LAGS)
    out = process_distance(moments, truth(mean))
    assert out["mean_error"] < 0.2
    assert out["variance_ratio"].item() == pytest.approx(1.0, abs=0.15)
    assert out["log_spectral_distance"] < 1.5
    assert out["autocorrelation_distance"] < 0.1


def test_each_distance_sees_its_own_fault(mean: torch.Tensor) -> None:
    x = sample(mean, 100)
    spread = NOISE / (1 - DECAY**2) ** 0.5

    def score(takes: torch.Tensor) -> dict[str, float]:
        moments = SequenceMoments.from_takes(takes, LAGS)
        return {k: v.item() for k, v in process_distance(moments, truth(mean)).items()}

    shifted = score(x + 2.0 * spread)
    assert shifted["mean_error"] == pytest.approx(2.0, abs=0.1)
    tame = score(mean + 0.5 * (x - mean))
    assert tame["variance_ratio"] == pytest.approx(0.25, abs=0.03)
    assert tame["log_spectral_distance"] == pytest.approx(6.02, abs=0.4)
    assert tame["autocorrelation_distance"] < 0.05
    shaky = score(sample(mean, 100, decay=0.2))
    expected = sum(DECAY**lag - 0.2**lag for lag in range(1, LAGS + 1)) / LAGS
    assert shaky["autocorrelation_distance"] == pytest.approx(expected, abs=0.02)


def test_moments_of_known_difference_by_hand(mean: torch.Tensor) -> None:
    true = truth(mean)
    spread = true.autocovariance[0].sqrt()
    perfect = process_distance(true, true)
    assert {k: v.item() for k, v in perfect.items()} == pytest.approx(
        dict.fromkeys(perfect, 0.0) | {"variance_ratio": 1.0}
    )
    shifted = process_distance(SequenceMoments(mean + 2.0 * spread, true.autocovariance), true)
    assert shifted["mean_error"].item() == pytest.approx(2.0)
    # One entry has a quarter of the power and one all of it: the geometric mean is a half.
    tame = SequenceMoments(mean, true.autocovariance * torch.tensor([0.25, 1.0]))
    found = process_distance(tame, true)
    assert found["variance_ratio"].item() == pytest.approx(0.5)
    assert found["log_spectral_distance"].item() == pytest.approx(10 * math.log10(4) / 2)
    assert found["autocorrelation_distance"].item() == pytest.approx(0.0, abs=1e-12)
    white = true.autocovariance.clone()
    white[1:] = 0.0
    found = process_distance(SequenceMoments(mean, white), true)
    expected = sum(DECAY**lag for lag in range(1, LAGS + 1)) / LAGS
    assert found["autocorrelation_distance"].item() == pytest.approx(expected)
    assert found["variance_ratio"].item() == pytest.approx(1.0)


def test_two_takes_by_hand() -> None:
    """Frames 0, 2, 4 and 2, 0, 2: the means are 1, 1 and 3, the deviations -1, 1, 1 and their opposite."""
    takes = torch.tensor([[0.0, 2.0, 4.0], [2.0, 0.0, 2.0]])[..., None]
    found = SequenceMoments.from_takes(takes, 2)
    assert found.mean.flatten().tolist() == [1.0, 1.0, 3.0]
    # Mean products 1; -1 and 1; -1; twice as much without the bias of two takes.
    assert found.autocovariance.flatten().tolist() == [2.0, 0.0, -2.0]


def test_frozen_entries_are_left_out_and_shapes_checked(mean: torch.Tensor) -> None:
    true = truth(mean)
    frozen = true.autocovariance.clone()
    frozen[:, 1] = 0.0
    moments = SequenceMoments.from_takes(sample(mean, 50), LAGS)
    out = process_distance(moments, SequenceMoments(mean, frozen))
    assert out["variance_ratio"].item() == pytest.approx(1.0, abs=0.2)
    with pytest.raises(ShapeError, match="same frames"):
        process_distance(moments, SequenceMoments(mean[:-1], frozen))
    with pytest.raises(ShapeError, match="at least 2 takes"):
        SequenceMoments.from_takes(sample(mean, 1), LAGS)
    with pytest.raises(ShapeError, match="variance_ratio"):
        ProcessDistance("speed")  # type: ignore[arg-type]  # the wrong name is the test


def test_metric_averages_over_clips(mean: torch.Tensor) -> None:
    takes = torch.stack([sample(mean, 20, seed=s) for s in range(2)])
    metric = ProcessDistance("variance_ratio", max_lag=LAGS)
    metric.update(takes, [truth(mean)] * 2, clip=["a", "b"])
    single = [
        process_distance(SequenceMoments.from_takes(t, LAGS), truth(mean))["variance_ratio"]
        for t in takes
    ]
    assert metric.compute().item() == pytest.approx(torch.stack(single).mean().item())
