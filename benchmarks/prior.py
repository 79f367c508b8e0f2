"""Cost of the motion priors: ratios measured side by side in one process.

    python benchmarks/prior.py            # a small network, about a minute on one core
    python benchmarks/prior.py --paper    # the paper's size, several minutes

Absolute times depend on the machine and its neighbours; the ratios hardly do. Competitors take
turns, process CPU time counts, the first round is dropped and the median of the others is reported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._race import race
from talkhead.diffusion.guidance import guided_denoiser
from talkhead.diffusion.sampler import ItemNoise, SamplerSettings, sample
from talkhead.diffusion.schedule import NoiseSchedule
from talkhead.networks.prior import PriorNetwork, roll_out

SMALL: dict[str, Any] = {"audio_dim": 128, "width": 128, "layers": 4, "feedforward": 256}
SAMPLERS = {
    "DPM-Solver++(2M), 12 log-SNR": SamplerSettings(),
    "DDIM, 50 uniform": SamplerSettings(kind="ddim", steps=50),
    "DDPM, 1000": SamplerSettings(kind="ddpm", steps=1000),
}


def pure_gemm(network: PriorNetwork, rows: int) -> Callable[[], None]:
    """The matrix products of one evaluation and nothing else."""
    frames, width, heads = network.max_length, network.width, network.heads
    hidden = int(network.spec["feedforward"])
    x, h = torch.randn(rows * frames, width), torch.randn(rows * frames, hidden)
    shapes = ((3 * width, x), (width, x), (hidden, x), (width, h))
    weights = [(torch.randn(out, into.shape[1]), into) for out, into in shapes]
    query = torch.randn(rows * heads, frames, width // heads)
    share = torch.randn(rows * heads, frames, frames)

    def products() -> None:
        for _ in network.blocks:
            for weight, into in weights:
                F.linear(into, weight)
            torch.bmm(query, query.transpose(1, 2))
            torch.bmm(share, query)

    return products


def naive_roll_out(network: PriorNetwork, audio: Tensor) -> Tensor:
    """Autoregressive generation that runs the whole prefix again for every frame."""
    fed = torch.zeros(audio.shape[0], 1, network.code_dim)
    given = torch.ones(audio.shape[:2], dtype=torch.bool)
    given[:, 0] = False
    for i in range(audio.shape[1]):
        answer = network(fed, None, audio[:, : i + 1], given=given[:, : i + 1])
        fed = torch.cat([fed, answer[:, -1:]], 1)
    return fed[:, 1:]


def evaluations(options: dict[str, Any], rounds: int) -> None:
    network = PriorNetwork(**options).eval()
    frames = network.max_length
    codes, audio = (
        torch.randn(2, frames, network.code_dim),
        torch.randn(2, frames, network.audio_dim),
    )
    step, condition = torch.tensor([500, 500]), network.project(audio)
    null = network.project(audio, torch.tensor([True, True]))
    guided = guided_denoiser(network.evaluate, (condition[:1],), (null[:1],), 2.5)

    def two_calls() -> Tensor:
        with_audio: Tensor = network(codes[:1], step[:1], audio[:1])
        without: Tensor = network(codes[:1], step[:1], audio[:1], drop=torch.tensor([True]))
        return 2.5 * with_audio - 1.5 * without

    times = race(
        {
            "pure GEMM, 1 row": pure_gemm(network, 1),
            "evaluation, 1 row": lambda: network.evaluate(codes[:1], step[:1], condition[:1]),
            "pure GEMM, 2 rows": pure_gemm(network, 2),
            "guided, one pass of 2 rows": lambda: guided(codes[:1], step[:1]),
            "guided, two passes": two_calls,
        },
        rounds,
    )
    base = times["pure GEMM, 1 row"]
    print(f"\none evaluation, {frames} frames{'':<18}ms   x pure GEMM of 1 row")
    for name, seconds in times.items():
        print(f"  {name:<34}{seconds * 1e3:9.2f}{seconds / base:9.2f}")


def samplers(options: dict[str, Any], rounds: int) -> None:
    network, schedule = PriorNetwork(**options).eval(), NoiseSchedule()
    frames = network.max_length
    audio = torch.randn(1, frames, network.audio_dim)
    rows: list[int] = []

    def predict(x: Tensor, n: Tensor, condition: Tensor) -> Tensor:
        rows.append(len(x))
        return network.evaluate(x, n, condition)

    def one_window(settings: SamplerSettings) -> Callable[[], Tensor]:
        def draw() -> Tensor:
            null = network.project(audio, torch.tensor([True]))
            denoise = guided_denoiser(
                predict, (network.project(audio),), (null,), settings.guidance
            )
            noise = ItemNoise([0], frames, network.code_dim)
            return sample(denoise, lambda: noise.draw(frames), schedule, settings)

        return draw

    tasks = {name: one_window(settings) for name, settings in SAMPLERS.items()}
    counts = {}
    for name, task in tasks.items():
        rows.clear()
        task()
        counts[name] = sum(rows)
    times = race(tasks, rounds)
    best = times["DPM-Solver++(2M), 12 log-SNR"]
    print(f"\none window of {frames} frames, guidance 2.5   rows evaluated    CPU s        x")
    for name, seconds in times.items():
        print(f"  {name:<34}{counts[name]:14d}{seconds:9.3f}{seconds / best:9.1f}")


def autoregression(options: dict[str, Any], rounds: int) -> None:
    network = PriorNetwork(**options, causal=True).eval()
    audio = torch.randn(1, network.max_length, network.audio_dim)
    condition = network.project(audio)
    gap = (roll_out(network, condition) - naive_roll_out(network, audio)).abs().max().item()
    times = race(
        {
            "with key/value cache": lambda: roll_out(network, condition),
            "whole prefix every frame": lambda: naive_roll_out(network, audio),
        },
        rounds,
    )
    base = times["with key/value cache"]
    print(
        f"\nautoregressive, {network.max_length} frames (largest difference {gap:.1e})  CPU s   x"
    )
    for name, seconds in times.items():
        print(f"  {name:<34}{seconds:20.3f}{seconds / base:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--paper", action="store_true", help="8 layers, width 512")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size: dict[str, Any] = {} if options.paper else SMALL
    with torch.no_grad():
        evaluations(size, 5 * options.rounds)
        autoregression(size, options.rounds)
        samplers(size, options.rounds)


if __name__ == "__main__":
    main()
