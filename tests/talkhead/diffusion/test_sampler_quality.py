"""Do few steps keep the distribution? On Gaussians, whose best denoiser is known, and on a toy process."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from talkhead.diffusion.sampler import ItemNoise, SamplerSettings, sample
from talkhead.diffusion.schedule import NoiseSchedule
from talkhead.metrics.snd import snd_pooled
from tests.oracles.toy_motion import CODE_DIM, FRAMES, toy_motion, train_toy_prior

ROWS, SEEDS = 640, (5, 6, 7)


def test_twelve_log_snr_steps_keep_the_spread_of_gaussians_and_uniform_ones_do_not() -> None:
    schedule = NoiseSchedule()
    spread = torch.tensor([0.05, 0.1, 0.2, 0.5, 1.0, 1.5])

    def denoise(x: Tensor, n: Tensor) -> Tensor:
        """``E[x0 | x]`` of ``x0 ~ N(0, spread^2)``."""
        kept = schedule.alpha_bar[n].view(-1, 1, 1).to(x)
        power = spread.square().to(x)
        return kept.sqrt() * power / (kept * power + 1 - kept) * x

    def error(**options: object) -> float:
        noise = ItemNoise(list(range(400)), 8, len(spread))
        settings = SamplerSettings(guidance=1.0, **options)  # type: ignore[arg-type]  # test table
        codes = sample(denoise, lambda: noise.draw(8), schedule, settings)
        return float((codes.flatten(0, 1).std(0) / spread).log().abs().mean())

    few = error(kind="dpmpp2m", steps=12)
    assert few < 0.05
    assert few < error(kind="ddim", steps=50)
    assert error(kind="dpmpp2m", steps=12, spacing="uniform") > 3 * few


@pytest.mark.slow
def test_twelve_steps_are_as_good_as_fifty_and_a_thousand_on_a_trained_network() -> None:
    network = train_toy_prior(steps=1500)
    schedule = NoiseSchedule()
    audio, _ = toy_motion(ROWS, 123)
    _, reference = toy_motion(4000, 99)
    condition = network.project(audio)

    def distance(settings: SamplerSettings, seed: int) -> float:
        noise = ItemNoise([1000 * seed + i for i in range(ROWS)], FRAMES, CODE_DIM)
        codes = sample(
            lambda x, n: network.evaluate(x, n, condition),
            lambda: noise.draw(FRAMES),
            schedule,
            settings,
        )
        generated = network.restore(codes).flatten(0, 1)[None]
        return float(snd_pooled(generated, reference.flatten(0, 1)[None]))

    def mean(seeds: tuple[int, ...] = SEEDS, **options: object) -> float:
        settings = SamplerSettings(guidance=1.0, **options)  # type: ignore[arg-type]  # test table
        return sum(distance(settings, seed) for seed in seeds) / len(seeds)

    few = mean(kind="dpmpp2m", steps=12)
    fifty = mean(kind="ddim", steps=50)
    ancestral = mean(seeds=SEEDS[:1], kind="ddpm", steps=1000)
    same_seed = mean(seeds=SEEDS[:1], kind="dpmpp2m", steps=12)
    report = f"log-SNR {few:.3f} {same_seed:.3f}, DDIM-50 {fifty:.3f}, DDPM {ancestral:.3f}"
    assert few <= 1.15 * fifty, report
    assert same_seed <= 1.15 * ancestral, report  # one seed: 640 000 evaluations
    assert torch.isfinite(torch.tensor([few, fifty, ancestral])).all(), report
