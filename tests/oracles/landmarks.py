"""Slow referees of the landmark metrics: plain loops over frames and points."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def turned_to_front(face: Array) -> Array:
    """One face ``(68, 3)`` turned about the vertical axis until points 48 and 54 are equally deep."""
    dx, dz = face[54][0] - face[48][0], face[54][2] - face[48][2]
    along = math.sqrt(dx * dx + dz * dz)
    middle = [sum(p[c] for p in face) / len(face) for c in range(3)]
    out = np.zeros_like(face)
    for i, (x, y, z) in enumerate(face):
        right, away = x - middle[0], z - middle[2]
        # Components along and across the corners' line, seen from above.
        out[i][0] = middle[0] + (right * dx + away * dz) / along
        out[i][1] = y
        out[i][2] = middle[2] + (away * dx - right * dz) / along
    return out


def lmd_loop(
    generated: Array,
    real: Array,
    first: int,
    last: int,
    *,
    frontal: bool = False,
    centred: bool = True,
    by_eyes: bool = False,
) -> float:
    """Mean distance of points ``first`` to ``last - 1`` of one clip ``(T, 68, 3)``."""
    total = 0.0
    for ours, theirs in zip(generated, real, strict=True):
        g, r = (turned_to_front(f) if frontal else f[:, :2] for f in (ours, theirs))
        axes = range(3 if frontal else 2)
        count = last - first
        shift = [0.0] * len(axes)
        if centred:
            for i in range(first, last):
                for c in axes:
                    shift[c] += (g[i][c] - r[i][c]) / count
        frame = 0.0
        for i in range(first, last):
            frame += math.sqrt(sum((g[i][c] - r[i][c] - shift[c]) ** 2 for c in axes)) / count
        size = math.sqrt(sum((r[45][c] - r[36][c]) ** 2 for c in axes)) if by_eyes else 1 / 256
        total += frame / size
    return total / len(real)


def nme_loop(generated: Array, real: Array, points: tuple[int, ...]) -> float:
    """NME of some of 478 points of one clip ``(T, 478, 2)`` by the real outer eye corners 33 and 263."""
    total, count = 0.0, 0
    for ours, theirs in zip(generated, real, strict=True):
        size = math.hypot(*(theirs[263] - theirs[33]))
        for i in points:
            total += math.hypot(*(ours[i] - theirs[i])) / size
            count += 1
    return total / count


def jitter_loop(track: Array, points: tuple[int, ...]) -> float:
    """Deviation of the tremble of one clip ``(T, 68, 2)`` in crop widths."""
    squares = []
    for t in range(len(track) - 3):
        for i in points:
            for c in range(2):
                a, b, d, e = (track[t + k][i][c] for k in range(4))
                squares.append((e - 3 * d + 3 * b - a) ** 2 / 20)
    return math.sqrt(sum(squares) / len(squares))


def mouth_speed_loop(track: Array, fps: int) -> list[float]:
    """Speed of the mouth of one clip ``(T, 68, 2)``, every frame turned and scaled by a matrix."""
    shapes = []
    for face in track:
        line = face[45] - face[36]
        size = math.hypot(*line)
        angle = math.atan2(line[1], line[0])
        back = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        mouth = np.stack([back @ (p - face[36]) / size for p in face[48:68]])
        shapes.append(mouth - mouth.mean(axis=0))
    return [fps * float(np.mean([math.hypot(*d) for d in b - a])) for a, b in pairwise(shapes)]
