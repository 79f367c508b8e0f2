"""SyncNet's distances by plain loops over windows, shifts and dimensions."""

from __future__ import annotations

import math
import statistics

from torch import Tensor


def distance(a: list[float], b: list[float]) -> float:
    """Euclidean distance of two embeddings, each difference enlarged by 1e-6."""
    return math.sqrt(sum((x - y + 1e-6) ** 2 for x, y in zip(a, b, strict=True)))


def mean_distances(visual: Tensor, audio: Tensor, max_shift: int) -> list[float]:
    """Mean over all windows of the distance to the sound ``shift`` windows later, zeros outside."""
    seen, heard = visual.double().tolist(), audio.double().tolist()
    silence = [0.0] * visual.shape[1]
    out = []
    for shift in range(-max_shift, max_shift + 1):
        total = 0.0
        for t, picture in enumerate(seen):
            partner = heard[t + shift] if 0 <= t + shift < len(heard) else silence
            total += distance(picture, partner)
        out.append(total / len(seen))
    return out


def scores(distances: list[float]) -> tuple[int, float, float]:
    """Offset, smallest distance, and median minus smallest."""
    smallest = min(distances)
    middle = (len(distances) - 1) // 2
    return (
        middle - distances.index(smallest),
        smallest,
        statistics.median(distances) - smallest,
    )
