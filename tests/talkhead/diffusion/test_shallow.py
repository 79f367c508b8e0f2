"""The boundary rule against Monte-Carlo estimates, and shallow starts on data whose law is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from talkhead.diffusion.sampler import ItemNoise, SamplerSettings, sample, step_positions
from talkhead.diffusion.schedule import NoiseSchedule
from talkhead.diffusion.shallow import (
    BoundaryCalibration,
    boundary_step,
    diffused_kl,
    squares,
    terminal_kl,
)
from talkhead.errors import ConfigError, ShapeError
from tests.oracles.gaussian_diffusion import gaussian_denoiser
from tests.oracles.shallow_boundary import boundary_by_search

SCHEDULE = NoiseSchedule("short_linear", 100)
RANDOM = 11


def _normal_log_density(x: Tensor, mean: Tensor, variance: float) -> Tensor:
    dim = x.shape[-1]
    apart = (x - mean).square().sum(-1) / variance
    return -0.5 * (apart + dim * math.log(2 * math.pi * variance))


def test_both_divergences_agree_with_monte_carlo() -> None:
    random = torch.Generator().manual_seed(RANDOM)
    truth = torch.randn(6, dtype=torch.float64, generator=random)
    coarse = truth + 0.4 * torch.randn(6, dtype=torch.float64, generator=random)
    half = torch.randn(200_000, 6, dtype=torch.float64, generator=random)
    noise = torch.cat([half, -half])  # pairs, so that the estimates of small divergences settle
    found = diffused_kl((truth - coarse).square().sum(), SCHEDULE)
    for n in (20, 50, 99):
        alpha, sigma = SCHEDULE.alpha[n], SCHEDULE.sigma[n]
        x = alpha * truth + sigma * noise
        variance = float(sigma**2)
        ratio = _normal_log_density(x, alpha * truth, variance) - _normal_log_density(
            x, alpha * coarse, variance
        )
        assert float(found[n]) == pytest.approx(float(ratio.mean()), rel=0.02)
    last = SCHEDULE.alpha[-1] * truth + SCHEDULE.sigma[-1] * noise
    ratio = _normal_log_density(
        last, SCHEDULE.alpha[-1] * truth, float(SCHEDULE.sigma[-1] ** 2)
    ) - _normal_log_density(last, torch.zeros(6, dtype=torch.float64), 1.0)
    power = truth.square().sum()
    assert float(terminal_kl(power, 6, SCHEDULE)) == pytest.approx(float(ratio.mean()), rel=0.02)


def test_the_boundary_by_hand() -> None:
    two = NoiseSchedule("linear", 50)
    distance, power = torch.tensor([0.0, 1e-7, 1.0, 50.0]), torch.full((4,), 10.0)
    found = boundary_step(distance, power, 10, two)
    allowed = float(terminal_kl(power[0], 10, two))
    by_hand = []
    for d in distance.tolist():
        kept = two.alpha_bar.tolist()
        steps = [n for n, a in enumerate(kept) if a / (2 * (1 - a)) * d <= allowed]
        by_hand.append(steps[0] + 1 if steps else 50)
    assert found.tolist() == by_hand
    assert found[0] == 1
    assert found[3] == 50


def test_the_boundary_is_that_of_a_plain_search() -> None:
    random = torch.Generator().manual_seed(3)
    real = torch.randn(40, 5, 3, generator=random)
    scale = torch.logspace(-3, 0.5, 40)[:, None, None]
    coarse = real + scale * torch.randn(real.shape, generator=random)
    found = boundary_step(*squares(coarse, real), 15, SCHEDULE)
    assert found.tolist() == boundary_by_search(coarse, real, SCHEDULE.alpha_bar.tolist())
    assert found.min() < 20
    assert found.max() == 100


def test_a_better_prediction_starts_later_and_scale_does_not_matter_without_noise_floor() -> None:
    power = torch.full((60,), 136.0)
    steps = boundary_step(136 * torch.logspace(-6, 0.5, 60), power, 136, SCHEDULE)
    assert bool((steps.diff() >= 0).all())
    looser = boundary_step(136 * torch.logspace(-6, 0.5, 60), power, 136, SCHEDULE, tolerance=0.05)
    assert bool((looser <= steps).all())
    assert int(looser.sum()) < int(steps.sum())


def test_it_does_not_saturate_as_a_comparison_of_noised_samples_does() -> None:
    """Samples noised by different draws are far apart at every step, and that rule answers ``N``."""
    random = torch.Generator().manual_seed(5)
    real = torch.randn(64, 32, dtype=torch.float64, generator=random)
    coarse = real + 0.1 * torch.randn(real.shape, dtype=torch.float64, generator=random)
    distance, power = squares(coarse, real)
    own = boundary_step(distance.mean(), power.mean(), 32, SCHEDULE)
    noised = []
    for n in range(100):
        alpha, sigma = SCHEDULE.alpha[n], SCHEDULE.sigma[n]
        both = [
            alpha * x + sigma * torch.randn(x.shape, dtype=x.dtype, generator=random)
            for x in (real, coarse)
        ]
        apart = float((both[0] - both[1]).square().sum(1).mean())
        kept = float(SCHEDULE.alpha_bar[n])
        noised.append(kept / (2 * (1 - kept)) * apart)
    allowed = float(terminal_kl(power.mean(), 32, SCHEDULE))
    assert all(value > allowed for value in noised)  # the saturated rule: no step will do
    assert int(own) < 60


def test_calibration_is_the_boundary_of_means_however_batches_and_ranks_are_cut() -> None:
    random = torch.Generator().manual_seed(7)
    real = torch.randn(30, 8, 4, generator=random)
    coarse = real + 0.3 * torch.randn(real.shape, generator=random)
    whole, first, second = (BoundaryCalibration() for _ in range(3))
    whole.update(coarse, real)
    for part in (slice(0, 7), slice(7, 12)):
        first.update(coarse[part], real[part])
    second.update(coarse[12:], real[12:])
    distance, power = squares(coarse, real)
    wanted = int(boundary_step(distance.mean(), power.mean(), 32, SCHEDULE))
    assert whole.step(SCHEDULE) == wanted
    assert BoundaryCalibration.joined([first.sums, second.sums]).step(SCHEDULE) == wanted
    assert BoundaryCalibration().step(SCHEDULE) is None


@pytest.mark.parametrize("kind", ["ddpm", "ddim"])
def test_a_shallow_start_reaches_the_law_of_the_full_chain_in_fewer_steps(kind: str) -> None:
    """Data around means that the coarse prediction knows, with a spread that it does not."""
    dim, rows = 3, 4000
    random = torch.Generator().manual_seed(9)
    mean = torch.tensor([1.0, -0.5, 0.8], dtype=torch.float64)
    factor = 0.25 * torch.tensor(
        [[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.4, 0.3, 0.7]], dtype=torch.float64
    )
    covariance = factor @ factor.T
    real = mean + torch.randn(rows, dim, dtype=torch.float64, generator=random) @ factor.T
    coarse = mean.expand(rows, dim)
    distance, power = squares(coarse, real)
    start = int(boundary_step(distance.mean(), power.mean(), dim, SCHEDULE))
    settings = SamplerSettings(kind=kind, steps=100, guidance=1.0)  # type: ignore[arg-type]  # a parameter
    denoise = gaussian_denoiser(mean, covariance, SCHEDULE)

    def moments(step: int | None) -> tuple[Tensor, Tensor]:
        noise = ItemNoise([1], rows, dim)
        drawn = sample(
            denoise, lambda: noise.draw(rows).double(), SCHEDULE, settings,
            positions=step_positions(SCHEDULE, settings, step),
            coarse=None if step is None else coarse[None],
        )[0]  # fmt: skip
        return drawn.mean(0), torch.cov(drawn.T)

    assert start <= 60
    assert len(step_positions(SCHEDULE, settings, start)) == start
    scale = covariance.diagonal().sqrt()
    full_mean, full_covariance = moments(None)
    own_mean, own_covariance = moments(start)
    assert float(((own_mean - mean) / scale).abs().max()) < 0.06
    own = (own_covariance - covariance) / (scale[:, None] * scale)
    full = (full_covariance - covariance) / (scale[:, None] * scale)
    assert float(own.abs().max()) < 0.13  # the start lacks what is left of the spread at step K
    assert float(own.abs().max()) < float(full.abs().max()) + 0.1
    # Far below the boundary the spread is lost, which is what the rule is for.
    _, early = moments(5)
    assert float(early.diagonal().sum()) < 0.6 * float(covariance.diagonal().sum())
    assert float(((full_mean - mean) / scale).abs().max()) < 0.3


def test_bad_input_is_refused() -> None:
    one = torch.ones(1)
    with pytest.raises(ShapeError, match="one squared norm"):
        boundary_step(one, torch.ones(2), 1, SCHEDULE)
    with pytest.raises(ShapeError, match="finite squared distances"):
        boundary_step(-one, one, 1, SCHEDULE)
    with pytest.raises(ShapeError, match="finite squared norms"):
        boundary_step(one, one * float("nan"), 1, SCHEDULE)
    with pytest.raises(ConfigError, match="tolerance"):
        boundary_step(one, one, 1, SCHEDULE, tolerance=-1.0)
    with pytest.raises(ShapeError, match="a prediction for every"):
        BoundaryCalibration().update(torch.ones(2, 3), torch.ones(2, 4))
