"""What the sound of a clip tells about it: loudness, clipping, and a fingerprint."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import loudness

from talkhead.errors import ShapeError
from talkhead.specs import FPS, SAMPLE_RATE_HZ, AudioSpec

WORDS_PER_SECOND = FPS * AudioSpec().steps_per_frame
SILENT_WORD = 0
"""Word of a step in which nothing changes."""
_BANDS = 33
_BINS_PER_BAND = 2
_BLOCK_SAMPLES = int(0.4 * SAMPLE_RATE_HZ)
_HEADROOM = 0.5
"""torchaudio's filters clip at full scale, and the K weighting adds up to 4 dB."""
_FULL_SCALE = 32_767
_SHORTEST_PLATEAU = 3


def loudness_lufs(wave: Tensor) -> float | None:
    """Gated loudness of mono sound in LUFS; speech is usually made at -30 to -16.

    A 997 Hz sine of full scale has -3.0 LUFS.

    Args:
        wave: ``(S,)`` in [-1, 1] at 16 kHz.

    Returns:
        The loudness, None for silence and for less than 0.4 s.

    Raises:
        ShapeError: Not one axis.

    Source: ITU-R BS.1770-4 as in torchaudio, whose filters are right within 0.1 dB at 16 kHz.
        Deviates: the absolute gate lies at -64 instead of -70 LUFS.
    """
    if wave.ndim != 1:
        raise ShapeError(f"expected samples (S,), got {tuple(wave.shape)}; mix down to mono.")
    if len(wave) < _BLOCK_SAMPLES:
        return None
    value = float(loudness(_HEADROOM * wave[None].float(), SAMPLE_RATE_HZ))
    value -= 20.0 * math.log10(_HEADROOM)
    return value if math.isfinite(value) else None


def clipped_share(samples: NDArray[np.int16]) -> float:
    """Share of samples in plateaus: three or more equal ones in a row at the clip's own peak.

    The peak counts if it is within 1 dB of full scale, so that sound that was clipped and then
    scaled down a little is still found.

    Args:
        samples: ``(S,)`` int16.
    """
    level = np.abs(samples.astype(np.int32))
    peak = int(level.max(initial=0))
    if peak < _FULL_SCALE * 10 ** (-1 / 20):
        return 0.0
    at_peak = np.concatenate([[0], (level >= peak - 1).astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(at_peak)).reshape(-1, 2)
    runs = edges[:, 1] - edges[:, 0]
    return float(runs[runs >= _SHORTEST_PLATEAU].sum()) / len(samples)


def sound_words(mel: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Fingerprint: a 32-bit word for every mel step, of what rises and falls.

    With ``E[n, m]`` the level of band ``m`` (33 pairs of mel bins from 125 Hz) at step ``n``, bit
    ``m`` of word ``n`` says whether ``E[n, m] - E[n, m + 1]`` is larger than two frames earlier. Level,
    equaliser and codec change few of the bits; two different sounds differ in half of them.

    Args:
        mel: Log-mel ``(4T, 80)``.

    Returns:
        ``(4T,)`` uint32; 0 where nothing sounds (:data:`SILENT_WORD`).

    Raises:
        ShapeError: Not such a mel.

    Source: Haitsma & Kalker (2002), "A Highly Robust Audio Fingerprinting System"; deviates: mel
        bands, logarithms, and 10 ms between words.
    """
    if mel.ndim != 2 or mel.shape[1] < _BANDS * _BINS_PER_BAND:
        raise ShapeError(f"expected a mel (4T, {AudioSpec().n_mels}), got {mel.shape}.")
    bands = mel[:, : _BANDS * _BINS_PER_BAND].astype(np.float64)
    bands = bands.reshape(len(mel), _BANDS, _BINS_PER_BAND).mean(axis=2)
    slope = bands[:, :-1] - bands[:, 1:]
    lag = 2 * AudioSpec().steps_per_frame
    before = np.concatenate([np.repeat(slope[:1], lag, axis=0), slope])[: len(slope)]
    bits = slope > before
    return np.packbits(bits, axis=1).view(">u4")[:, 0].astype(np.uint32)


def wave_of(samples: NDArray[np.int16]) -> Tensor:
    """16-bit samples as float32 in [-1, 1]."""
    return torch.from_numpy(samples.astype(np.float32) / _FULL_SCALE)
