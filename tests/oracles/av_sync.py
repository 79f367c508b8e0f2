"""MS-Sync's InfoNCE and synchrony loss by plain loops."""

from __future__ import annotations

import math

from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two vectors."""
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    lengths = [math.sqrt(sum(float(x) ** 2 for x in v)) for v in (a, b)]
    return dot / (lengths[0] * lengths[1])


def info_nce_of_all(
    anchors: Tensor, candidates: Tensor, *, from_others: bool, scale: float, min_gap: int
) -> float:
    """Every window that may be a false candidate is one."""
    losses = []
    for b in range(anchors.shape[0]):
        for t in range(anchors.shape[1]):
            true = math.exp(scale * cosine(anchors[b, t], candidates[b, t]))
            mass = true
            for c in range(candidates.shape[0]):
                for u in range(candidates.shape[1]):
                    false = c != b if from_others else c == b and abs(u - t) >= min_gap
                    if false:
                        mass += math.exp(scale * cosine(anchors[b, t], candidates[c, u]))
            losses.append(-math.log(true / mass))
    return sum(losses) / len(losses)


def sync_terms(levels: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Negative mean cosine of each level."""
    terms = []
    for points, audio in levels:
        values = [
            cosine(p, a)
            for points_row, audio_row in zip(points, audio, strict=True)
            for p, a in zip(points_row, audio_row, strict=True)
        ]
        terms.append(-sum(values) / len(values))
    return terms
