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


def balanced_offset(points: Tensor, audio: Tensor, max_shift: int) -> int:
    """Offset of late sound whose summed cosines exceed their expectation by most standard errors."""
    seen, heard = points.double().tolist(), audio.double().tolist()

    def cosine(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    expected = statistics.mean(cosine(p, a) for p in seen for a in heard)
    best, found = -math.inf, 0
    for shift in range(-max_shift, max_shift + 1):
        pairs = [(t, t + shift) for t in range(len(seen)) if 0 <= t + shift < len(heard)]
        excess = sum(cosine(seen[t], heard[u]) - expected for t, u in pairs) / math.sqrt(len(pairs))
        if excess > best:
            best, found = excess, shift
    return found
