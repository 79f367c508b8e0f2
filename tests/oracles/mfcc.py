"""Cepstral coefficients and filter-bank energies by plain loops over samples, bins, filters and cosines."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

EPS = 2.0**-52


def edges() -> list[int]:
    """FFT bins of the 28 corners of 26 triangles, evenly spaced in mel from 0 to 8 kHz."""
    top = 2595 * math.log10(1 + 8000 / 700)
    out = []
    for k in range(28):
        hertz = 700 * (math.pow(10, top * k / 27 / 2595) - 1)
        out.append(math.floor(513 * hertz / 16000))
    return out


def power_spectrum(samples: NDArray[np.float64]) -> list[float]:
    """``|X_k|^2 / 512`` of up to 400 samples, for the bins 0 to 256."""
    time = np.arange(len(samples))
    out = []
    for k in range(257):
        angle = 2 * math.pi * k * time / 512
        real = float((samples * np.cos(angle)).sum())
        imaginary = float((samples * np.sin(angle)).sum())
        out.append((real * real + imaginary * imaginary) / 512)
    return out


def emphasised_step(wave: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Up to 400 samples of a step after the pre-emphasis of the whole wave."""
    emphasised = [wave[0]] + [wave[t] - 0.97 * wave[t - 1] for t in range(1, len(wave))]
    return np.asarray(emphasised[160 * step : 160 * step + 400])


def log_bands(power: list[float]) -> list[float]:
    """Logarithms of the energies under 26 triangles."""
    corner = edges()
    logs = []
    for j in range(26):
        total = 0.0
        for i in range(corner[j], corner[j + 1]):
            total += power[i] * (i - corner[j]) / (corner[j + 1] - corner[j])
        for i in range(corner[j + 1], corner[j + 2]):
            total += power[i] * (corner[j + 2] - i) / (corner[j + 2] - corner[j + 1])
        logs.append(math.log(total or EPS))
    return logs


def log_filter_bank_step(wave: NDArray[np.float64], step: int) -> list[float]:
    """The 26 numbers of one step of whole frames, after mean and peak are taken off."""
    mean = sum(wave.tolist()) / len(wave)
    peak = max(abs(x - mean) for x in wave.tolist())
    return log_bands(power_spectrum(emphasised_step((wave - mean) / peak, step)))


def mfcc_step(pcm: NDArray[np.float64], step: int) -> list[float]:
    """The 13 numbers of one step of 16-bit samples."""
    power = power_spectrum(emphasised_step(pcm, step))
    logs = log_bands(power)
    out = [math.log(sum(power) or EPS)]
    for n in range(1, 13):
        cosines = [logs[j] * math.cos(math.pi * n * (2 * j + 1) / 52) for j in range(26)]
        out.append((1 + 11 * math.sin(math.pi * n / 22)) * math.sqrt(2 / 26) * sum(cosines))
    return out
