from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from talkhead.diffusion.sampler import (
    CleanFrames,
    ItemNoise,
    SamplerKind,
    SamplerSettings,
    ddim_step,
    item_seed,
    sample,
    step_positions,
)
from talkhead.diffusion.schedule import NoiseSchedule
from talkhead.errors import ConfigError, ShapeError
from tests.oracles.gaussian_diffusion import gaussian_denoiser, point_denoiser

KINDS: tuple[SamplerKind, ...] = ("ddpm", "ddim", "dpmpp2m")
SCHEDULE = NoiseSchedule()
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
FACTOR = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.4, 0.3, 0.7]], dtype=torch.float64)
COVARIANCE = FACTOR @ FACTOR.T


class _Noise:
    """Unit noise in float64 from one generator; remembers nothing else."""

    def __init__(self, *shape: int, seed: int = 0) -> None:
        self.shape, self.generator = shape, torch.Generator().manual_seed(seed)

    def __call__(self) -> Tensor:
        return torch.randn(*self.shape, dtype=torch.float64, generator=self.generator)


@pytest.mark.parametrize("kind", KINDS)
def test_oracle_denoiser_gives_x0(kind: SamplerKind) -> None:
    x0 = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    got = sample(point_denoiser(x0), _Noise(2, 4, 3), SCHEDULE, SamplerSettings(kind=kind, steps=7))
    torch.testing.assert_close(got, x0)


@pytest.mark.parametrize("n", [1, 300, 999])
def test_one_ancestral_step_has_the_moments_of_the_posterior(n: int) -> None:
    x, x0, noise = _Noise(3, 2, 4, 3)()
    before, now = SCHEDULE.alpha_bar[n - 1], SCHEDULE.alpha_bar[n]
    beta = SCHEDULE.betas[n]
    mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - now)
    variance = beta * (1 - before) / (1 - now)
    torch.testing.assert_close(ddim_step(x, x0, SCHEDULE, n, n - 1, 1.0, None), mean)
    drawn = ddim_step(x, x0, SCHEDULE, n, n - 1, 1.0, noise)
    torch.testing.assert_close(drawn, mean + variance.sqrt() * noise)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        (SamplerSettings(kind="ddpm", steps=1000), 0.03),
        (SamplerSettings(kind="ddim", steps=100), 0.04),
        (SamplerSettings(kind="ddim", steps=200, eta=0.5), 0.04),
        (SamplerSettings(kind="dpmpp2m", steps=40), 0.04),
        # 12 steps inflate the variance of unit Gaussian data by 6-7 %: the price of the default
        (SamplerSettings(kind="dpmpp2m", steps=12), 0.1),
    ],
    ids=["ddpm-1000", "ddim-100", "ddim-200-eta", "dpmpp2m-40", "dpmpp2m-12"],
)
def test_gaussian_data_are_sampled_with_their_mean_and_covariance(
    settings: SamplerSettings, tolerance: float
) -> None:
    denoise = gaussian_denoiser(MEAN, COVARIANCE, SCHEDULE)
    rows = sample(denoise, _Noise(1, 20_000, 3), SCHEDULE, settings)[0]
    assert float((rows.mean(0) - MEAN).abs().max()) < tolerance
    assert float((torch.cov(rows.T) - COVARIANCE).abs().max()) < tolerance


def _flow_end(denoise: Any, noise: Tensor, settings: SamplerSettings) -> Tensor:
    return sample(denoise, lambda: noise, SCHEDULE, settings)


def test_twelve_log_snr_steps_follow_the_flow_better_than_uniform_ones() -> None:
    denoise, noise = gaussian_denoiser(MEAN, COVARIANCE, SCHEDULE), _Noise(1, 500, 3)()
    exact = _flow_end(denoise, noise, SamplerSettings(kind="ddim", steps=1000))

    def error(**options: Any) -> float:
        return float(
            (_flow_end(denoise, noise, SamplerSettings(**options)) - exact).square().mean()
        )

    log_snr = error(steps=12)
    assert log_snr < 0.2 * error(steps=12, spacing="uniform")
    assert log_snr < error(kind="ddim", steps=12)
    assert error(steps=40) < 0.2 * log_snr


def _referee(scheduler: Any, denoise: Any, start: Tensor, **options: Any) -> Tensor:
    x = start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own deprecations are not our subject
        for t in scheduler.timesteps:
            answer = denoise(x, t.long().reshape(1))
            x = scheduler.step(answer, t, x, **options).prev_sample
    return x


# Without clip_sample=False diffusers clips every prediction to [-1, 1]. Its own tables are float32, which
# costs digits where alpha is close to 0, so each scheduler gets ours; test_schedule compares the tables.
COMMON = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}
CLOSE = 1e-5


def test_ddim_equals_diffusers() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(1000, clip_sample=False, timestep_spacing="trailing", **COMMON)
    scheduler.alphas_cumprod = SCHEDULE.alpha_bar
    scheduler.set_timesteps(20)
    denoise, start = gaussian_denoiser(MEAN, COVARIANCE, SCHEDULE), _Noise(1, 6, 3)()
    ours = sample(
        denoise,
        lambda: start,
        SCHEDULE,
        SamplerSettings(kind="ddim", steps=20),
        positions=scheduler.timesteps.tolist(),
    )
    torch.testing.assert_close(ours, _referee(scheduler, denoise, start), rtol=CLOSE, atol=CLOSE)


def test_ddpm_equals_diffusers_with_the_same_noise() -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(1000, clip_sample=False, variance_type="fixed_small", **COMMON)
    scheduler.alphas_cumprod = SCHEDULE.alpha_bar
    scheduler.set_timesteps(25)
    denoise, start = gaussian_denoiser(MEAN, COVARIANCE, SCHEDULE), _Noise(1, 6, 3)()
    ours = sample(
        denoise,
        _Replay(start, seed=11),
        SCHEDULE,
        SamplerSettings(kind="ddpm", steps=25),
        positions=scheduler.timesteps.tolist(),
    )
    generator = torch.Generator().manual_seed(11)
    theirs = _referee(scheduler, denoise, start, generator=generator)
    torch.testing.assert_close(ours, theirs, rtol=CLOSE, atol=CLOSE)


class _Replay:
    """The given start, then the draws diffusers would make from a generator."""

    def __init__(self, start: Tensor, seed: int) -> None:
        self.first: Tensor | None = start
        self.shape, self.generator = start.shape, torch.Generator().manual_seed(seed)

    def __call__(self) -> Tensor:
        if self.first is not None:
            start, self.first = self.first, None
            return start
        return torch.randn(self.shape, generator=self.generator, dtype=torch.float64)


@pytest.mark.parametrize("spacing", ["log_snr", "uniform"])
def test_dpm_solver_equals_diffusers(spacing: Any) -> None:
    from diffusers import DPMSolverMultistepScheduler

    settings = SamplerSettings(steps=12, spacing=spacing)
    path = step_positions(SCHEDULE, settings)
    scheduler = DPMSolverMultistepScheduler(1000, **COMMON)
    scheduler.set_timesteps(timesteps=path)
    scheduler.sigmas = torch.cat([(SCHEDULE.sigma / SCHEDULE.alpha)[path], torch.zeros(1)])
    denoise, start = gaussian_denoiser(MEAN, COVARIANCE, SCHEDULE), _Noise(1, 6, 3)()
    ours = sample(denoise, lambda: start, SCHEDULE, settings)
    torch.testing.assert_close(ours, _referee(scheduler, denoise, start), rtol=CLOSE, atol=CLOSE)


def test_log_snr_spacing_is_as_good_as_diffusers_lu_lambdas() -> None:
    from diffusers import DPMSolverMultistepScheduler

    denoise, start = gaussian_denoiser(MEAN, COVARIANCE, SCHEDULE), _Noise(1, 400, 3)()
    exact = _flow_end(denoise, start, SamplerSettings(kind="ddim", steps=1000))
    scheduler = DPMSolverMultistepScheduler(1000, use_lu_lambdas=True, **COMMON)
    scheduler.set_timesteps(12)
    theirs = float((_referee(scheduler, denoise, start) - exact).square().mean())
    ours = float((_flow_end(denoise, start, SamplerSettings(steps=12)) - exact).square().mean())
    assert ours <= 1.1 * theirs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 2, 12])
def test_evaluation_count(kind: SamplerKind, steps: int) -> None:
    calls: list[int] = []

    def denoise(x: Tensor, n: Tensor) -> Tensor:
        calls.append(int(n[0]))
        return x * 0

    sample(denoise, _Noise(2, 3, 1), SCHEDULE, SamplerSettings(kind=kind, steps=steps))
    assert len(calls) == steps
    assert calls == step_positions(SCHEDULE, SamplerSettings(kind=kind, steps=steps))


@pytest.mark.parametrize("spacing", ["log_snr", "uniform"])
@pytest.mark.parametrize("steps", [1, 2, 8, 12, 50, 333, 1000])
def test_positions_fall_from_last_to_first_step(spacing: Any, steps: int) -> None:
    path = step_positions(SCHEDULE, SamplerSettings(steps=steps, spacing=spacing))
    assert len(path) == steps
    assert path[0] == 999
    assert all(a > b >= 0 for a, b in itertools.pairwise(path))
    if steps > 1:
        assert path[-1] == 0


def test_log_snr_positions_are_even_in_log_snr() -> None:
    path = step_positions(SCHEDULE, SamplerSettings(steps=12))
    gaps = SCHEDULE.log_snr[path].diff()[1:]
    assert float(gaps.max() / gaps.min()) < 1.6
    uniform = step_positions(SCHEDULE, SamplerSettings(steps=12, spacing="uniform"))
    gaps = SCHEDULE.log_snr[uniform].diff()[1:]
    assert float(gaps.max() / gaps.min()) > 5


@pytest.mark.parametrize("kind", KINDS)
def test_clean_frames_are_exact_and_fed_un_noised(kind: SamplerKind) -> None:
    codes = torch.full((2, 5, 3), 7.0, dtype=torch.float64)
    mask = torch.tensor([[True, False, False, True, False]] * 2)
    inputs: list[Tensor] = []

    def denoise(x: Tensor, n: Tensor) -> Tensor:
        inputs.append(x.clone())
        return torch.zeros_like(x)

    got = sample(
        denoise,
        _Noise(2, 5, 3),
        SCHEDULE,
        SamplerSettings(kind=kind, steps=6),
        clean=CleanFrames(codes, mask),
    )
    assert bool((got[mask] == 7).all())
    assert bool((got[~mask] == 0).all())
    assert all(bool((x[mask] == 7).all()) for x in inputs)


def test_prediction_editing_noises_the_clean_frames() -> None:
    codes = torch.full((1, 4, 2), 3.0, dtype=torch.float64)
    mask = torch.tensor([[True, False, False, False]])
    inputs: list[Tensor] = []

    def denoise(x: Tensor, n: Tensor) -> Tensor:
        inputs.append(x.clone())
        return torch.zeros_like(x)

    got = sample(
        denoise,
        _Noise(1, 4, 2),
        SCHEDULE,
        SamplerSettings(kind="ddim", steps=10),
        clean=CleanFrames(codes, mask),
        edit_mode="prediction",
    )
    assert bool((got[mask] == 3).all())
    assert float((inputs[0][mask] - 3).abs().max()) > 0.1
    # the overwritten answer pulls the state towards the clean code as the noise goes
    assert float((inputs[-1][mask] - 3).abs().max()) < 0.2


def test_item_noise_does_not_depend_on_the_batch() -> None:
    alone = ItemNoise([5], 16, 3)
    batch = ItemNoise([4, 5, 6], 16, 3)
    for _ in range(2):
        torch.testing.assert_close(alone.draw(16)[0], batch.draw(16)[1], rtol=0, atol=0)
    short, long = ItemNoise([9], 128, 42).draw(37), ItemNoise([9], 128, 42).draw(128)
    torch.testing.assert_close(short, long[:, :37], rtol=0, atol=0)
    with pytest.raises(ShapeError, match="at most 16 frames"):
        alone.draw(17)


def test_item_seeds_differ_by_seed_take_and_key() -> None:
    seeds = {item_seed(s, k, t) for s in (0, 1) for k in ("a", "b") for t in (0, 1)}
    assert len(seeds) == 8
    assert item_seed(3, "clip", 1) == item_seed(3, "clip", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "euler"}, "sampler kind"),
        ({"spacing": "karras"}, "sampler spacing"),
        ({"steps": 0}, "at least 1"),
        ({"eta": 0.5}, "only with kind ddim"),
        ({"kind": "ddim", "eta": 1.5}, "eta in"),
        ({"overlap": 0}, "overlap"),
        ({"guidance": float("nan")}, "finite"),
    ],
)
def test_refuses_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplerSettings(**options)


def test_refuses_more_evaluations_than_steps() -> None:
    with pytest.raises(ConfigError, match="at most 10"):
        step_positions(NoiseSchedule("cosine", 10), SamplerSettings(steps=11))


def test_refuses_a_mask_that_does_not_fit() -> None:
    with pytest.raises(ShapeError, match="bool mask"):
        CleanFrames(torch.zeros(1, 4, 2), torch.zeros(1, 3, dtype=torch.bool))


def test_a_shallow_start_keeps_the_lower_evaluations_of_the_full_chain() -> None:
    settings = SamplerSettings(steps=12)
    full = step_positions(SCHEDULE, settings)
    entered = step_positions(SCHEDULE, settings, 300)
    assert entered[0] == 299
    assert entered[1:] == [n for n in full if n < 299]
    assert step_positions(SCHEDULE, settings, 1) == [0]
    assert step_positions(SCHEDULE, settings, 1000) == full
    for wrong in (0, 1001):
        with pytest.raises(ConfigError, match="start step of 1 to 1000"):
            step_positions(SCHEDULE, settings, wrong)


def test_a_coarse_sample_is_diffused_to_the_first_position() -> None:
    seen: list[Tensor] = []
    coarse, draw = _Noise(2, 4, 3, seed=1)(), _Noise(2, 4, 3, seed=2)()

    def denoise(x: Tensor, n: Tensor) -> Tensor:
        seen.append(x)
        return x

    settings = SamplerSettings(kind="ddim", steps=10)
    sample(denoise, lambda: draw, SCHEDULE, settings, positions=[200, 0], coarse=coarse)
    torch.testing.assert_close(seen[0], SCHEDULE.alpha[200] * coarse + SCHEDULE.sigma[200] * draw)


def test_noise_may_be_drawn_for_some_rows() -> None:
    alone, both = ItemNoise([4], 6, 2), ItemNoise([3, 4], 6, 2)
    both.draw(6, [0])
    torch.testing.assert_close(both.draw(5, [1]), alone.draw(5))
