"""Prosody at 25 Hz: energy, pitch, voicing and pauses of a wave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import ShapeError
from talkhead.specs import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME

PROSODY_FEATURES = ("energy", "pitch", "voiced", "pause")
"""Columns of :attr:`Prosody.features`."""

ENERGY_FLOOR_DB = -60.0
_PITCH_HZ = (65.0, 420.0)
_WINDOW = 1024
_VOICED_STRENGTH = 0.5
_VOICED_DB = -42.0
_PAUSE_DB = -45.0
_PAUSE_FRAMES = 4
_BLOCK_FRAMES = 500
"""Frames whose spectra are in memory at a time."""


@dataclass(frozen=True)
class Prosody:
    """Prosody of ``T`` frames; every value is measured around the frame's centre.

    Attributes:
        energy_db: ``(T,)`` RMS level in dB of full scale, at least -60.
        pitch_hz: ``(T,)`` fundamental frequency, 0 where unvoiced.
        voiced: ``(T,)`` bool.
        pause: ``(T,)`` bool, part of a silence of at least 4 frames.
        features: ``(T, 4)`` the columns :data:`PROSODY_FEATURES`, z-scored over the clip; pitch as
            semitones, straight lines across unvoiced stretches; a constant column is 0.
    """

    energy_db: NDArray[np.float32]
    pitch_hz: NDArray[np.float32]
    voiced: NDArray[np.bool_]
    pause: NDArray[np.bool_]
    features: NDArray[np.float32]


def _window_blocks(wave: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    """Samples around every frame's centre, ``(t, 1024)``, zeros outside the wave; some frames at a time."""
    frames = len(wave) // SAMPLES_PER_FRAME
    margin = (_WINDOW - SAMPLES_PER_FRAME) // 2
    padded = np.pad(wave.astype(np.float64), (margin, margin + _WINDOW))
    views = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)
    rows = views[::SAMPLES_PER_FRAME][:frames]
    for start in range(0, frames, _BLOCK_FRAMES):
        yield rows[start : start + _BLOCK_FRAMES]


def _autocorrelation(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalised autocorrelation, corrected for the window's own, ``(T, lags)``."""
    hann = np.hanning(_WINDOW)
    spectrum = np.fft.rfft((windows - windows.mean(1, keepdims=True)) * hann, 2 * _WINDOW, axis=1)
    raw = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)
    own = np.fft.irfft(np.abs(np.fft.rfft(hann, 2 * _WINDOW)) ** 2)
    lags = round(SAMPLE_RATE_HZ / _PITCH_HZ[0]) + 2
    energy = np.maximum(raw[:, :1], 1e-9)
    return np.asarray(raw[:, :lags] / energy / (own[:lags] / own[0]))


def track_pitch(wave: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Fundamental frequency of every frame by windowed autocorrelation.

    The highest peak between 65 and 420 Hz of the autocorrelation of a 64 ms Hann window, divided by
    the window's autocorrelation; a small cost of 0.02 an octave prefers the shorter period, and a
    parabola through the peak refines the lag.

    Args:
        wave: ``(S,)`` at 16 kHz.

    Returns:
        Frequency in Hz and peak strength (1 = perfectly periodic), each ``(T,)``.

    Source: Boersma (1993), Accurate short-term analysis of the fundamental frequency; deviates: no
        search for the best path over time.
    """
    pitches = [_pitch(windows) for windows in _window_blocks(wave)]
    if not pitches:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    hz, strength = (np.concatenate(column) for column in zip(*pitches, strict=True))
    return hz, strength


def _pitch(
    windows: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Frequency and strength ``(t,)`` of windows ``(t, 1024)``."""
    correlation = _autocorrelation(windows)
    first = int(SAMPLE_RATE_HZ / _PITCH_HZ[1])
    last = correlation.shape[1] - 2
    lags = np.arange(first, last)
    inner = correlation[:, first:last]
    is_peak = (inner >= correlation[:, first - 1 : last - 1]) & (
        inner >= correlation[:, first + 1 : last + 1]
    )
    score = np.where(is_peak, inner - 0.02 * np.log2(lags / first), -np.inf)
    best = score.argmax(1)
    rows = np.arange(len(best))
    before, peak, after = (correlation[rows, first + best + k] for k in (-1, 0, 1))
    curve = before - 2 * peak + after
    shift = np.where(np.abs(curve) > 1e-12, 0.5 * (before - after) / np.where(curve, curve, 1), 0)
    lag = first + best + np.clip(shift, -0.5, 0.5)
    strength = np.where(is_peak[rows, best], np.clip(peak, 0.0, 1.0), 0.0)
    return (SAMPLE_RATE_HZ / lag).astype(np.float32), strength.astype(np.float32)


def _long_runs(flags: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    """Keep only runs of at least ``length`` true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    out = np.zeros_like(flags)
    for start, end in edges.reshape(-1, 2):
        out[start:end] = end - start >= length
    return out


def _z_scores(columns: NDArray[np.float64]) -> NDArray[np.float32]:
    """Zero mean and unit variance; a constant column becomes 0."""
    centred = columns - columns.mean(0)
    spread = centred.std(0)
    scaled = centred / np.where(spread > 1e-6, spread, 1.0)
    return np.asarray(np.where(spread > 1e-6, scaled, 0.0), dtype=np.float32)


def measure_prosody(wave: NDArray[np.float32]) -> Prosody:
    """Energy, pitch, voicing and pauses of a wave, one row for each 640 samples.

    Beside the samples, long speech takes no more memory than some seconds.

    Args:
        wave: ``(S,)`` float in [-1, 1] at 16 kHz, at least one frame long.

    Raises:
        ShapeError: Not one-dimensional or shorter than a frame.
    """
    if wave.ndim != 1 or len(wave) < SAMPLES_PER_FRAME:
        raise ShapeError(
            f"prosody needs (S,) samples, S >= {SAMPLES_PER_FRAME}, got {wave.shape}; "
            "mix down to mono."
        )
    hann = np.hanning(_WINDOW)
    powers = [(windows**2 * hann).sum(1) for windows in _window_blocks(wave)]
    power = np.concatenate(powers) / hann.sum()
    energy = np.maximum(10.0 * np.log10(power + 1e-12), ENERGY_FLOOR_DB)
    hz, strength = track_pitch(wave)
    voiced = (strength > _VOICED_STRENGTH) & (energy > _VOICED_DB)
    pause = _long_runs(energy < _PAUSE_DB, _PAUSE_FRAMES)
    semitones = np.zeros(len(energy))
    if voiced.any():
        known = np.flatnonzero(voiced)
        semitones = np.interp(np.arange(len(energy)), known, 12.0 * np.log2(hz[known]))
    columns = np.stack([energy, semitones, voiced.astype(float), pause.astype(float)], axis=1)
    return Prosody(
        energy_db=energy.astype(np.float32),
        pitch_hz=np.where(voiced, hz, 0.0).astype(np.float32),
        voiced=voiced,
        pause=pause,
        features=_z_scores(columns),
    )
