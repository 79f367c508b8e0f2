"""Speech at 50 steps a second, two a video frame, and the window of it that belongs to a frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from talkhead.audio.mel import mel_spectrogram
from talkhead.errors import ShapeError
from talkhead.specs import FPS, AudioSpec, samples_to_frames

RATE_HZ = 50
"""Steps of speech features in a second, those of HuBERT."""
STEPS_PER_FRAME = RATE_HZ // FPS
WINDOW_STEPS = 18
"""Steps of a window, 0.36 s: nine video frames."""
MEL_DIM = AudioSpec().n_mels * AudioSpec().steps_per_frame // STEPS_PER_FRAME
"""Width of :func:`mel_speech`: two mel steps side by side."""
CHUNK_FRAMES = 500
MEL_CONTEXT_FRAMES = 1
"""A mel step reads less than one frame beyond its own samples on either side."""

Align = Literal["start", "centre"]


def speech_windows(
    features: Tensor,
    frames: int | Tensor,
    *,
    length: int = WINDOW_STEPS,
    align: Align = "start",
    fps: int = FPS,
) -> Tensor:
    """The window of speech of every video frame.

    The window of frame ``i`` starts with step ``int(50 i / fps)`` (``start``, the released code), or has
    the middle of the frame's own steps as its middle (``centre``: at 25 fps and length 18 it holds the
    steps ``2 i - 8 .. 2 i + 9``). A window that would leave the file is moved to lie inside, so that every
    frame has one; where the file is shorter than a window, its last step is repeated.

    Args:
        features: Steps at 50 Hz, ``(S, D)`` or ``(B, S, D)``.
        frames: Number ``T`` of frames from the first on, or their numbers, ``(T,)`` integers.
        length: Steps ``L`` of a window.
        align: See above.
        fps: Frame rate of the video.

    Returns:
        ``(T, L, D)`` or ``(B, T, L, D)``.

    Raises:
        ShapeError: Features without steps or of another shape, windows without steps, negative frames.

    Source: ControlTalk's released inference (reference-facts 7.3). Deviates: there generation ends with
        the first window that reaches the end, so its video is about 8 steps shorter than the sound.
    """
    if features.ndim not in (2, 3) or features.shape[-2] == 0 or length < 1:
        raise ShapeError(
            f"expected speech features (S, D) or (B, S, D) and windows of at least one step, got "
            f"{tuple(features.shape)} and {length}; pass the features of a whole file."
        )
    at = torch.arange(frames) if isinstance(frames, int) else frames
    if at.ndim != 1 or at.is_floating_point() or (len(at) and int(at.min()) < 0):
        raise ShapeError(
            f"expected frame numbers (T,), integers from 0 on, got {at.dtype} {tuple(at.shape)}."
        )
    steps = features.shape[-2]
    first = window_starts(at, length=length, align=align, fps=fps).clamp(0, max(steps - length, 0))
    index = (first[:, None] + torch.arange(length)).clamp_max(steps - 1).to(features.device)
    return features[..., index, :]


def window_starts(
    frames: Tensor, *, length: int = WINDOW_STEPS, align: Align = "start", fps: int = FPS
) -> Tensor:
    """First step of the window of each frame ``(T,)``, not yet moved inside the file: can be negative.

    Frame 10 starts at step 20; centred, its window of 18 steps starts at step 12.
    """
    own = (frames.cpu().long() * RATE_HZ) // fps
    return own if align == "start" else own + RATE_HZ // fps // 2 - length // 2


def run_frame(first: Tensor, frames: int, align: Align) -> Tensor:
    """The frame whose window covers a run of ``frames`` frames: its first, or the one in its middle.

    With 9 frames and 18 steps both windows are the same 0.36 s that the run itself takes.
    """
    return first if align == "start" else first + frames // 2


def mel_speech(wave: Tensor) -> Tensor:
    """Log-mel speech features on the clock of HuBERT, which need no weights.

    Args:
        wave: Mono samples in [-1, 1], ``(S,)``, at 16 kHz.

    Returns:
        ``(2 T, 160)`` in [0, 1], ``T = S // 640``: each step holds two mel steps of 80 bands, one after
        the other.

    Raises:
        ShapeError: Not one axis of floating-point samples.

    Source: ours, an alternative to HuBERT; bands and level as :func:`talkhead.audio.mel.mel_spectrogram`.
    """
    return mel_spectrogram(wave).reshape(-1, MEL_DIM)


def mel_speech_chunks(wave: Tensor, chunk_frames: int = CHUNK_FRAMES) -> Iterator[Tensor]:
    """:func:`mel_speech` of a long file, piece by piece in constant memory; joined, the same numbers.

    Args:
        wave: ``(S,)``.
        chunk_frames: Video frames of a piece.

    Yields:
        ``(2 t, 160)`` with ``t <= chunk_frames``.
    """
    spec = AudioSpec()
    count, size = samples_to_frames(wave.shape[0]), spec.samples_per_frame
    rms = float(wave[: count * size].float().square().mean().sqrt()) if count else 0.0
    for start in range(0, count, chunk_frames):
        stop = min(start + chunk_frames, count)
        low = max(start - MEL_CONTEXT_FRAMES, 0)
        high = min(stop + MEL_CONTEXT_FRAMES, count)
        mel = mel_spectrogram(wave[low * size : high * size], rms=rms)
        own = mel[spec.steps_per_frame * (start - low) :][: spec.steps_per_frame * (stop - start)]
        yield own.reshape(-1, MEL_DIM)
