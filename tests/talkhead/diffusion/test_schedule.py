from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from talkhead.diffusion.schedule import NoiseSchedule
from talkhead.errors import ConfigError


@pytest.mark.parametrize("steps", [10, 100, 1000])
@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_tables_agree_with_each_other(kind: str, steps: int) -> None:
    schedule = NoiseSchedule(kind, steps)  # type: ignore[arg-type]  # parametrised literal
    assert schedule.betas.dtype == torch.float64
    assert schedule.betas.shape == (steps,)
    assert float(schedule.betas.max()) <= 0.999
    torch.testing.assert_close(schedule.alpha**2 + schedule.sigma**2, torch.ones(steps).double())
    assert bool((schedule.log_snr.diff() < 0).all())
    torch.testing.assert_close(
        schedule.log_snr, 0.5 * torch.log(schedule.alpha_bar / (1 - schedule.alpha_bar))
    )


def test_cosine_closed_form() -> None:
    schedule = NoiseSchedule()

    def level(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    for n in (0, 250, 700):
        assert float(schedule.alpha_bar[n]) == pytest.approx(
            level((n + 1) / 1000) / level(0), rel=1e-9
        )
    assert float(schedule.betas[-1]) == 0.999


def test_betas_match_diffusers() -> None:
    from diffusers import DDPMScheduler

    cosine = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").betas
    torch.testing.assert_close(NoiseSchedule().betas.float(), cosine)
    linear = DDPMScheduler(1000, beta_schedule="linear").betas
    torch.testing.assert_close(NoiseSchedule("linear").betas.float(), linear)


def test_noising_has_the_closed_form_mean_and_variance() -> None:
    schedule = NoiseSchedule()
    generator = torch.Generator().manual_seed(0)
    n = torch.tensor([0, 300, 999])
    x0 = torch.tensor([2.0, -1.0, 3.0])[:, None].expand(3, 40_000)
    x = schedule.noised(x0, n, torch.randn(3, 40_000, generator=generator))
    for row, step in enumerate(n.tolist()):
        mean, std = float(schedule.alpha[step]) * float(x0[row, 0]), float(schedule.sigma[step])
        assert float(x[row].mean()) == pytest.approx(mean, abs=4 * std / 200)
        assert float(x[row].std()) == pytest.approx(std, rel=0.02)


def test_one_step_noising_chain_reaches_the_same_marginal() -> None:
    schedule = NoiseSchedule("cosine", 20)
    mean, variance = 1.0, 0.0
    for beta in schedule.betas.tolist():  # eq. 6, step by step
        mean, variance = math.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    assert mean == pytest.approx(float(schedule.alpha[-1]))
    assert variance == pytest.approx(float(schedule.sigma[-1]) ** 2)


def test_coefficients_take_shape_and_type_of_the_data() -> None:
    like = torch.zeros(2, 3, 4, dtype=torch.bfloat16)
    alpha, sigma = NoiseSchedule().coefficients(torch.tensor([0, 999]), like)
    assert alpha.shape == (2, 1, 1)
    assert sigma.dtype == torch.bfloat16


def test_is_immutable_and_comparable() -> None:
    schedule = NoiseSchedule()
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.steps = 3  # type: ignore[misc]  # the point of the test
    assert schedule == NoiseSchedule("cosine", 1000)
    assert schedule != NoiseSchedule("cosine", 50)


def test_refuses_bad_settings() -> None:
    with pytest.raises(ConfigError, match="noise schedule"):
        NoiseSchedule("sigmoid")  # type: ignore[arg-type]  # what a YAML file could hold
    with pytest.raises(ConfigError, match="at least 2"):
        NoiseSchedule("cosine", 1)


def test_the_short_linear_schedule_stops_before_pure_noise() -> None:
    schedule = NoiseSchedule("short_linear", 100)
    assert float(schedule.betas[0]) == pytest.approx(1e-4)
    assert float(schedule.betas[-1]) == pytest.approx(0.06)
    assert float(schedule.alpha_bar[-1]) == pytest.approx(0.0465, abs=0.0005)
    # Another number of steps reaches about the same end.
    assert float(NoiseSchedule("short_linear", 20).alpha_bar[-1]) == pytest.approx(0.04, abs=0.01)
