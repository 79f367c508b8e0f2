"""Contrastive losses by plain loops over videos, windows and candidates."""

from __future__ import annotations

import math

from torch import Tensor


def _cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / (
        math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b))
    )


def _one_way(query: Tensor, keys: Tensor, scale: float, frames: Tensor, min_gap: int) -> float:
    total = 0.0
    for i in range(len(query)):
        mass = 0.0
        for j in range(len(keys)):
            near = abs(int(frames[i]) - int(frames[j])) < min_gap
            if i == j or not near:
                mass += math.exp(scale * _cosine(query[i], keys[j]))
        total += math.log(mass) - scale * _cosine(query[i], keys[i])
    return total / len(query)


def symmetric_info_nce(
    audio: Tensor, visual: Tensor, scale: float, frames: Tensor, min_gap: int
) -> float:
    losses = []
    for a, v, f in zip(audio, visual, frames, strict=True):
        losses.append((_one_way(a, v, scale, f, min_gap) + _one_way(v, a, scale, f, min_gap)) / 2)
    return sum(losses) / len(losses)


def inverse_distance(query: Tensor, keys: Tensor) -> float:
    """One direction: every query against all keys of its video, logit = 1 / distance."""
    total, count = 0.0, 0
    for q, k in zip(query, keys, strict=True):
        for i in range(len(q)):
            logits = [1 / math.sqrt(2 - 2 * _cosine(q[i], k[j])) for j in range(len(k))]
            total += math.log(sum(math.exp(x) for x in logits)) - logits[i]
            count += 1
    return total / count


def _euclidean(a: Tensor, b: Tensor) -> float:
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)))


def distance_info_nce(audio: Tensor, visual: Tensor, frames: Tensor, min_gap: int) -> float:
    """Symmetric InfoNCE whose logits are negative Euclidean distances."""
    total, count = 0.0, 0
    for one, other in ((audio, visual), (visual, audio)):
        for query, keys, f in zip(one, other, frames, strict=True):
            for i in range(len(query)):
                mass = 0.0
                for j in range(len(keys)):
                    if i == j or abs(int(f[i]) - int(f[j])) >= min_gap:
                        mass += math.exp(-_euclidean(query[i], keys[j]))
                total += math.log(mass) + _euclidean(query[i], keys[i])
                count += 1
    return total / count


def margin_contrast(
    audio: Tensor, visual: Tensor, frames: Tensor, margin: float, min_gap: int
) -> float:
    """Half the mean squared distance of true pairs plus half the mean squared shortfall of false ones."""
    together, apart = [], []
    for a, v, f in zip(audio, visual, frames, strict=True):
        for i in range(len(a)):
            for j in range(len(v)):
                d = _euclidean(a[i], v[j])
                if i == j:
                    together.append(d * d)
                elif abs(int(f[i]) - int(f[j])) >= min_gap:
                    apart.append(max(margin - d, 0.0) ** 2)
    return (sum(together) / len(together) + sum(apart) / len(apart)) / 2


def triplets(
    audio: Tensor, visual: Tensor, frames: Tensor, margin: float, mining: str, gaps: tuple[int, int]
) -> float:
    """Mean over anchors of both kinds; false partners lie ``gaps[0]`` to ``gaps[1]`` frames away."""
    costs = []
    for anchors, partners in ((audio, visual), (visual, audio)):
        for a, v, f in zip(anchors, partners, frames, strict=True):
            for i in range(len(a)):
                true = _euclidean(a[i], v[i])
                false = [
                    _euclidean(a[i], v[j])
                    for j in range(len(v))
                    if i != j and gaps[0] <= abs(int(f[i]) - int(f[j])) <= gaps[1]
                ]
                if mining == "hard":
                    false = [min(false)]
                elif mining == "semi_hard":
                    false = [min((d for d in false if d > true), default=max(false))]
                costs.append(sum(max(margin + true - d, 0.0) for d in false) / len(false))
    return sum(costs) / len(costs)
