"""Slow referees of the Frechet distance and the per-video metrics: scipy and plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Array = NDArray[Any]


def frechet_sqrtm(a: Array, b: Array) -> float:
    """Textbook form with a general matrix square root."""
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(ca @ cb)
    difference = a.mean(0) - b.mean(0)
    return float(difference @ difference + np.trace(ca + cb - 2 * np.real(root)))


def snd_loop(generated: Array, real: Array) -> float:
    """SND of one clip with scipy."""
    steps = frechet_sqrtm(np.diff(generated, axis=0), np.diff(real, axis=0))
    return frechet_sqrtm(generated, real) + steps


def pairwise_loop(takes: Array) -> float:
    """Mean distance over pairs of takes with four nested loops."""
    distances = []
    for i in range(len(takes)):
        for j in range(i + 1, len(takes)):
            frames = [
                np.sqrt(sum((x - y) ** 2 for x, y in zip(takes[i][t], takes[j][t], strict=True)))
                for t in range(takes.shape[1])
            ]
            distances.append(float(np.mean(frames)))
    return float(np.mean(distances))
