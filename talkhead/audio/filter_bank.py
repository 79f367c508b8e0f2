"""Log mel filter-bank energies as python_speech_features makes them, four steps a video frame."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchaudio.functional import preemphasis, spectrogram

from talkhead.errors import ShapeError
from talkhead.specs import AudioSpec, samples_to_frames

N_FILTERS = 26
N_FFT = 512
WINDOW_SAMPLES = 400
PRE_EMPHASIS = 0.97
ZERO_POWER = torch.finfo(torch.float64).eps
"""Stands for an energy of exactly 0, whose logarithm does not exist."""
SILENT_SHARE = 1e-9
"""A wave that moves less than this share of its largest value is constant but for rounding."""


def log_filter_bank(wave: Tensor, spec: AudioSpec | None = None) -> Tensor:
    """Logarithms of 26 mel energies, exactly four steps a video frame.

    The wave loses its mean and is divided by its largest absolute value, so loudness drops out; a
    constant wave counts as silence. Step ``m`` holds the samples ``[160 m, 160 m + 400)`` (25 ms, no
    window function) of the pre-emphasised wave ``x[t] - 0.97 x[t - 1]``, followed by 240 zeros so that
    the last step exists. From the power spectrum ``|X|^2 / 512``: natural logarithms of 26 triangular
    mel filters from 0 Hz to half the sample rate; an energy of 0 becomes -36.04. Frame ``f`` owns the
    steps ``4 f .. 4 f + 3``, the last of which ends 240 samples (15 ms) after the frame.

    Args:
        wave: Mono samples of any scale, ``(S,)``; those beyond the last whole frame are dropped.
        spec: Clock, by default :class:`AudioSpec`.

    Returns:
        ``(4 T, 26)`` float32 with ``T = S // 640``.

    Raises:
        ShapeError: Not one axis of floating-point samples.

    Source: MS-Sync sections 3 and 4.1 (26 numbers a step, window 400, hop 160), which calls them MFCC;
        its released code takes these energies (reference-facts 6.2), from python_speech_features with
        its defaults. Deviates: the zeros at the end, for want of which the clip is one step short and
        the released code resamples by 3.9943 steps a frame. Computed in float64.
    """
    spec = spec or AudioSpec()
    if wave.ndim != 1 or not wave.is_floating_point():
        raise ShapeError(
            f"expected float samples (S,), got {wave.dtype} {tuple(wave.shape)}; mix down to mono and "
            "convert integers to float."
        )
    frames = samples_to_frames(wave.shape[0], spec)
    if frames == 0:
        return wave.new_zeros(0, N_FILTERS, dtype=torch.float32)
    samples = wave[: frames * spec.samples_per_frame].double()
    samples = samples - samples.mean()
    peak = samples.abs().max()
    # Rounding leaves a constant wave beside its mean, and that must not become full scale.
    silent = peak <= SILENT_SHARE * wave.abs().max()
    samples = torch.zeros_like(samples) if silent else samples / peak
    power = power_spectra(preemphasis(samples, PRE_EMPHASIS), frames * spec.steps_per_frame, spec)
    return positive(power @ mel_triangles(spec.sample_rate_hz).to(power.device)).log().float()


def power_spectra(wave: Tensor, steps: int, spec: AudioSpec) -> Tensor:
    """Power spectra ``|X|^2 / 512`` of unwindowed steps of 25 ms, the end filled up with zeros.

    Args:
        wave: Samples ``(S,)``.
        steps: Number of steps ``M``, one every ``spec.hop`` samples.
        spec: Clock.

    Returns:
        ``(M, 257)``, type of ``wave``.
    """
    # torchaudio centres the 400 samples in its 512; where they lie does not change the power.
    lead = (N_FFT - WINDOW_SAMPLES) // 2
    tail = (steps - 1) * spec.hop + N_FFT - lead - wave.shape[0]
    power: Tensor = spectrogram(
        F.pad(wave, (lead, tail)),
        pad=0,
        window=wave.new_ones(WINDOW_SAMPLES),
        n_fft=N_FFT,
        hop_length=spec.hop,
        win_length=WINDOW_SAMPLES,
        power=2.0,
        normalized=False,
        center=False,
    )
    return power.T / N_FFT


def positive(values: Tensor) -> Tensor:
    """Energies with :data:`ZERO_POWER` in the place of zeros."""
    return torch.where(values == 0, ZERO_POWER, values)


@lru_cache(maxsize=4)
def mel_triangles(sample_rate_hz: int) -> Tensor:
    """Triangles ``(257, 26)`` between whole FFT bins, which no filter bank of torchaudio has."""
    # A tensor made under inference_mode would poison every later use that needs a gradient.
    with torch.inference_mode(False):
        top = 2595.0 * math.log10(1.0 + sample_rate_hz / 2 / 700.0)
        mel = torch.arange(N_FILTERS + 2, dtype=torch.float64) * top / (N_FILTERS + 1)
        hertz = 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
        edges = torch.floor((N_FFT + 1) * hertz / sample_rate_hz)
        left, middle, right = edges[:-2], edges[1:-1], edges[2:]
        bins = torch.arange(N_FFT // 2 + 1, dtype=torch.float64)[:, None]
        rising = (bins - left) / (middle - left)
        falling = (right - bins) / (right - middle)
        return torch.minimum(rising, falling).clamp_min(0.0)
