"""Mel spectrogram by plain loops: a sum over samples per bin, triangles by definition."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def hertz_to_mel(hertz: float) -> float:
    """Slaney's scale: linear below 1 kHz (15 mel at 1000 Hz), logarithmic above."""
    if hertz < 1000.0:
        return 3.0 * hertz / 200.0
    return 15.0 + 27.0 * math.log(hertz / 1000.0) / math.log(6.4)


def mel_to_hertz(mel: float) -> float:
    if mel < 15.0:
        return 200.0 * mel / 3.0
    return 1000.0 * math.pow(6.4, (mel - 15.0) / 27.0)


def mel_step(wave: NDArray[np.float64], centre: int, bins: list[int]) -> list[float]:
    """Values of some of the 80 mel bins of the 1280-sample window centred on a sample."""
    rms = math.sqrt(sum(float(x) ** 2 for x in wave) / len(wave))
    gain = 0.1 / max(rms, 1e-4)
    samples = []
    for k in range(1280):
        at = centre - 640 + k
        value = float(wave[at]) * gain if 0 <= at < len(wave) else 0.0
        samples.append(value * (0.5 - 0.5 * math.cos(2 * math.pi * k / 1280)))
    numbers = np.asarray(samples)
    magnitude = []
    for n in range(641):
        angle = 2 * math.pi * n * np.arange(1280) / 1280
        magnitude.append(
            math.hypot((numbers * np.cos(angle)).sum(), (numbers * np.sin(angle)).sum())
        )
    low, high = hertz_to_mel(125.0), hertz_to_mel(7600.0)
    edges = [mel_to_hertz(low + (high - low) * i / 81) for i in range(82)]
    out = []
    for b in bins:
        left, middle, right = edges[b : b + 3]
        total = 0.0
        for n, value in enumerate(magnitude):
            hertz = n * 16000 / 1280
            weight = max(
                0.0, min((hertz - left) / (middle - left), (right - hertz) / (right - middle))
            )
            total += weight * 2.0 / (right - left) * value
        decibel = 20 * math.log10(max(1e-5, total)) - 20
        out.append(min(1.0, max(0.0, (decibel + 100) / 100)))
    return out
