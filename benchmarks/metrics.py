"""Cost of the Frechet distance against scipy's general matrix square root, as a ratio.

    python benchmarks/metrics.py          # about a minute on one core

Both get the same features of 2048 dimensions, as FID has; process CPU time counts, competitors take turns.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._race import race
from talkhead.metrics.frechet import frechet_distance
from tests.oracles.frechet import frechet_sqrtm

DIM = 2048


def main() -> None:
    """Print times, ratio and disagreement for few and for many rows."""
    torch.manual_seed(0)
    mix = torch.randn(DIM, DIM, dtype=torch.float64) / DIM**0.5
    print(f"{'rows':>6} {'ours, s':>9} {'scipy, s':>9} {'x':>6} {'relative difference':>20}")
    for rows in (300, 1000, 3000):
        a, b = (torch.randn(rows, DIM, dtype=torch.float64) @ mix for _ in range(2))
        compare(a, 1.1 * b + 0.05)


def compare(a: Tensor, b: Tensor) -> None:
    """Print one row."""
    found: dict[str, float] = {}

    def ours() -> None:
        found["ours"] = float(frechet_distance(a, b))

    def scipys() -> None:
        found["scipy"] = frechet_sqrtm(a.numpy(), b.numpy())

    taken = race({"ours": ours, "scipy": scipys}, rounds=1)
    apart = abs(found["ours"] - found["scipy"]) / found["scipy"]
    ratio = taken["scipy"] / taken["ours"]
    print(f"{len(a):6d} {taken['ours']:9.2f} {taken['scipy']:9.2f} {ratio:6.1f} {apart:20.1e}")


if __name__ == "__main__":
    main()
