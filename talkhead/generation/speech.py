"""Speech as the systems hear it: its level and its mel spectrogram, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.audio.mel import mel_spectrogram
from talkhead.errors import DataError
from talkhead.specs import SAMPLES_PER_FRAME, samples_to_frames

SILENCE_RMS = 1e-4
BLOCK_FRAMES = 125
"""Frames of sound encoded at a time (5 s)."""
CONTEXT_FRAMES = 8
"""Frames of sound on either side of a block, more than a mel window reaches."""


def speech_frames(wave: NDArray[np.float32]) -> int:
    """Whole video frames in a recording.

    Raises:
        DataError: The sound is shorter than a frame.
    """
    frames = samples_to_frames(len(wave))
    if frames < 1:
        raise DataError(
            f"the speech has {len(wave)} samples; expected at least {SAMPLES_PER_FRAME} (40 ms)."
        )
    return frames


def speech_level(wave: NDArray[np.float32]) -> float:
    """RMS of a recording, in full scale.

    Raises:
        DataError: The sound is shorter than a frame or silent.
    """
    speech_frames(wave)
    rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    if rms < SILENCE_RMS:
        raise DataError(
            f"the speech is silent (RMS {rms:.1e} of full scale, expected at least {SILENCE_RMS:.0e}); "
            "give a recording with speech in it."
        )
    return rms


def mel_pieces(wave: NDArray[np.float32]) -> Iterator[tuple[Tensor, slice]]:
    """Mel spectrogram of speech piece by piece, at the level of the whole track.

    Yields:
        Steps ``(4 t, F)`` of some frames with what is around them, and which of the ``t`` frames have not
        been in a piece before. These are as they are in the spectrogram of the whole track.

    Raises:
        DataError: The sound is shorter than a frame or silent.
    """
    frames = samples_to_frames(len(wave))
    rms = speech_level(wave)
    for start in range(0, frames, BLOCK_FRAMES):
        stop = min(start + BLOCK_FRAMES, frames)
        first, last = max(0, start - CONTEXT_FRAMES), min(frames, stop + CONTEXT_FRAMES)
        piece = torch.from_numpy(wave[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME])
        yield mel_spectrogram(piece, rms=rms), slice(start - first, stop - first)
