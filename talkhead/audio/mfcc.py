"""Cepstral coefficients for SyncNet: four steps a video frame, as python_speech_features makes them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchaudio.functional import create_dct, preemphasis

from talkhead.audio.filter_bank import (
    N_FILTERS,
    PRE_EMPHASIS,
    WINDOW_SAMPLES,
    mel_triangles,
    positive,
    power_spectra,
)
from talkhead.errors import ShapeError
from talkhead.specs import AudioSpec

N_COEFFICIENTS = 13
LIFTER = 22
FULL_SCALE = 32_768.0
"""The log energy in coefficient 0 is that of 16-bit samples."""


def mfcc(wave: Tensor, spec: AudioSpec | None = None) -> Tensor:
    """Cepstral coefficients of a clip, 100 a second.

    Step ``m`` holds the samples ``[160 m, 160 m + 400)`` (25 ms, no window function) of the
    pre-emphasised wave ``x[t] - 0.97 x[t - 1]``, padded with zeros after its end. From the power
    spectrum ``|X|^2 / 512``: logarithms of 26 triangular mel filters from 0 Hz to half the sample
    rate, the orthonormal DCT-II, coefficient ``n`` times ``1 + 11 sin(pi n / 22)``; coefficient 0 is
    the logarithm of the step's total power instead. A louder wave changes coefficient 0 only.

    Args:
        wave: Mono samples in [-1, 1], ``(S,)``.
        spec: Clock, by default :class:`AudioSpec`.

    Returns:
        ``(M, 13)`` float32 with ``M = 1 + ceil((S - 400) / 160)``, at least 1. A clip of ``T`` whole
        video frames gives ``4 T - 1`` steps, one fewer than the frames would hold. No samples give no
        steps.

    Raises:
        ShapeError: Not one axis of floating-point samples.

    Source: python_speech_features with its defaults, as called by SyncNet's evaluation
        (reference-facts 8.1); computed in float64.
    """
    spec = spec or AudioSpec()
    if wave.ndim != 1 or not wave.is_floating_point():
        raise ShapeError(
            f"expected float samples (S,) in [-1, 1], got {wave.dtype} {tuple(wave.shape)}; "
            "mix down to mono and divide 16-bit samples by 32768."
        )
    if wave.numel() == 0:
        return wave.new_zeros(0, N_COEFFICIENTS, dtype=torch.float32)
    steps = 1 + max(0, math.ceil((wave.shape[0] - WINDOW_SAMPLES) / spec.hop))
    power = power_spectra(preemphasis(wave.double() * FULL_SCALE, PRE_EMPHASIS), steps, spec)
    energy = positive(power.sum(1))
    bands = positive(power @ mel_triangles(spec.sample_rate_hz).to(power.device)).log()
    cepstra = bands @ create_dct(N_COEFFICIENTS, N_FILTERS, norm="ortho").to(bands)
    order = torch.arange(N_COEFFICIENTS, device=bands.device)
    cepstra = cepstra * (1.0 + LIFTER / 2 * torch.sin(math.pi * order / LIFTER))
    return torch.cat([energy.log()[:, None], cepstra[:, 1:]], dim=1).float()


def mfcc_window_count(frames: int, spec: AudioSpec | None = None) -> int:
    """Whole 0.2 s windows in a clip of ``frames`` video frames: ``frames - 5``, at least 0.

    Five frames would fit ``frames - 4`` times, but the last cepstral step of a clip is missing
    (:func:`mfcc`), and with it the last window. SyncNet's code leaves it out, too.
    """
    return max(0, frames - (spec or AudioSpec()).window_frames)


def mfcc_windows(features: Tensor, starts: Tensor, spec: AudioSpec | None = None) -> Tensor:
    """The 0.2 s of sound that belong to five frames each.

    Window ``i`` starts with video frame ``i``: it holds the steps ``[4 i, 4 i + 20)`` and goes with
    the pictures ``i .. i + 4``.

    Args:
        features: Coefficients of the whole clip, ``(M, 13)``.
        starts: First frames ``(n,)``, integers.
        spec: Clock, by default :class:`AudioSpec`.

    Returns:
        ``(n, 1, 13, 20)``, same type as ``features``.

    Raises:
        ShapeError: ``features`` has not two axes, ``starts`` not one axis of integers, or a window
            leaves the clip.
    """
    spec = spec or AudioSpec()
    if features.ndim != 2:
        raise ShapeError(
            f"expected coefficients (M, {N_COEFFICIENTS}), got {tuple(features.shape)}; pass one clip."
        )
    if starts.ndim != 1 or starts.is_floating_point():
        raise ShapeError(
            f"expected frame numbers (n,) of an integer type, got {starts.dtype} "
            f"{tuple(starts.shape)}."
        )
    first = spec.steps_per_frame * starts.to(features.device)
    steps = first[:, None] + torch.arange(spec.window_steps, device=features.device)
    if steps.numel() and (int(steps.min()) < 0 or int(steps.max()) >= features.shape[0]):
        raise ShapeError(
            f"expected windows within the clip's {features.shape[0]} steps, got frames "
            f"{int(starts.min())} to {int(starts.max())}; start below mfcc_window_count(frames)."
        )
    return features[steps].transpose(1, 2).unsqueeze(1)
