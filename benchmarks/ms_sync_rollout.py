"""Cost of the multi-scale generator: its training roll-out against recomputation, and a long stream.

    python benchmarks/ms_sync_rollout.py                      # a small network, seconds on one core
    python benchmarks/ms_sync_rollout.py --paper              # the paper's size, about a minute
    python benchmarks/ms_sync_rollout.py --paper --rows 32    # a batch that fills the core, minutes

Absolute times depend on the machine and its neighbours; the ratios hardly do. Competitors take
turns, process CPU time counts, the first round is dropped and the median of the others is reported.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._race import cpu_s, race
from talkhead.networks.motion_generator import MotionGenerator
from talkhead.networks.transformer import PostNormBlock

SMALL: dict[str, Any] = {
    "layers": 2,
    "width": 128,
    "feedforward": 256,
    "hidden": 32,
    "inner": 64,
}
OBSERVED, FRAMES = 3, 43
LATE, NEIGHBOURS = 1000, 64


def naive_roll_out(network: MotionGenerator, observed: Tensor, audio: Tensor) -> Tensor:
    """Training roll-out that runs the whole prefix through the transformer for every frame."""
    heard = network.branches.heard(network.audio_features(audio))
    fed, embedded = observed, network.embed(observed)
    while fed.shape[1] < heard.shape[1]:
        x = embedded
        for block in network.blocks:
            assert isinstance(block, PostNormBlock)
            x, _ = block.continued(x, None, network.context)
        if fed.shape[1] == OBSERVED:  # teacher forcing
            seen = torch.cat([network.summary(x), embedded], -1)
            known = fed + network.branches(seen, heard[:, 1 : OBSERVED + 1])[0]
            fed, new = torch.cat([fed, known[:, -1:]], 1), known[:, -1:]
            first = torch.cat([observed[:, :1], known[:, :-1]], 1)
        else:
            now = fed.shape[1]
            seen = torch.cat([network.summary(x[:, -1:]), embedded[:, -1:]], -1)
            new = fed[:, -1:] + network.branches(seen, heard[:, now : now + 1])[0]
            fed = torch.cat([fed, new], 1)
        embedded = torch.cat([embedded, network.embed(new)], 1)
    return torch.cat([first, fed[:, OBSERVED:]], 1)


def training(options: dict[str, Any], runs: int, rounds: int) -> None:
    network = MotionGenerator(**options)
    observed, audio = torch.randn(runs, OBSERVED, 60), torch.randn(runs, 4 * FRAMES, 26)

    def step(roll_out: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        network.zero_grad()
        out = roll_out(observed, audio)
        out.square().mean().backward()
        return out.detach(), torch.cat([p.grad.flatten() for p in network.parameters()])

    tasks = {
        "keys and values kept": lambda: step(network),
        "whole prefix every frame": lambda: step(lambda *x: naive_roll_out(network, *x)),
    }
    (ours, gradient), (theirs, other) = (task() for task in tasks.values())
    gap = (ours - theirs).abs().max().item()
    slope = ((gradient - other).norm() / other.norm()).item()
    times = race(tasks, rounds)
    base = times["keys and values kept"]
    print(
        f"\ntraining roll-out, forward and backward, {runs} runs of {FRAMES} frames "
        f"(apart by {gap:.1e}, gradients by {slope:.1e})\n{'':<36}  CPU s        x"
    )
    for name, seconds in times.items():
        print(f"  {name:<34}{seconds:7.3f}{seconds / base:9.1f}")


def streaming(options: dict[str, Any]) -> None:
    """Median cost of frames around the 10th and the 1000th, without that of the sound's features."""
    network = MotionGenerator(**options).eval()

    def sound() -> Iterator[Tensor]:
        while True:
            yield torch.randn(1, 4 * 64, 26)

    rows = network.stream(torch.randn(1, 60), sound())
    marks = [cpu_s()]
    marks.extend(cpu_s() for _ in islice(rows, LATE + NEIGHBOURS))
    # The features of a block are paid by its first frame; the median leaves that out.
    taken = [after - before for before, after in pairwise(marks)]
    early, late = median(taken[8:13]), median(taken[LATE - 2 : LATE + NEIGHBOURS])
    whole = sum(taken) / len(taken)
    print(f"\nstream, one frame{'':<22}CPU ms        x")
    for name, seconds in (
        ("around frame 10", early),
        (f"around frame {LATE}", late),
        ("mean, with the sound's features", whole),
    ):
        print(f"  {name:<34}{seconds * 1e3:9.2f}{seconds / early:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--paper", action="store_true", help="4 layers, width 512")
    parser.add_argument("--rows", type=int, default=4, help="runs in a training batch")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size: dict[str, Any] = {} if options.paper else SMALL
    training(size, options.rows, options.rounds)
    streaming(size)


if __name__ == "__main__":
    main()
