"""The windows of speech of every frame while the speech is still being read, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from talkhead.audio.speech_windows import WINDOW_STEPS, Align, speech_windows, window_starts
from talkhead.errors import ShapeError


def stream_windows(
    chunks: Iterable[Tensor],
    frames: int,
    *,
    length: int = WINDOW_STEPS,
    align: Align = "start",
) -> Iterator[Tensor]:
    """What :func:`~talkhead.audio.speech_windows.speech_windows` gives of the joined chunks, piece by piece.

    A piece is given as soon as all its windows have been read; only the steps that later windows still
    need are kept. The last windows, which would leave the file, are moved inside once its end is known.

    Args:
        chunks: Features ``(s, D)`` at 50 Hz, one after the other.
        frames: Number of video frames.
        length: Steps ``L`` of a window.
        align: How windows lie about a frame.

    Yields:
        Windows ``(t, L, D)`` of consecutive frames, ``frames`` in all.

    Raises:
        ShapeError: There is no step, or as :func:`~talkhead.audio.speech_windows.speech_windows`.
    """
    if length < 1:
        raise ShapeError(f"expected windows of at least one step, got {length}.")
    starts = window_starts(torch.arange(frames), length=length, align=align).clamp_min(0)
    kept: Tensor | None = None
    first, done = 0, 0  # number of the first kept step, and of the next frame
    for chunk in chunks:
        kept = chunk if kept is None else torch.cat([kept, chunk])
        ready = int((starts + length <= first + len(kept)).sum())
        if ready > done:
            yield _cut(kept, starts[done:ready] - first, length)
            done = ready
        drop = min(int(starts[done]) if done < frames else first, first + len(kept) - length)
        if drop > first:
            kept, first = kept[drop - first :], drop
    if kept is None:
        raise ShapeError("expected speech features, got none; give speech of at least one frame.")
    if done < frames:
        end = max(first + len(kept) - length, 0)
        yield _cut(kept, starts[done:].clamp_max(end) - first, length)


def _cut(steps: Tensor, starts: Tensor, length: int) -> Tensor:
    """Windows from given steps on; the last step is repeated where there are fewer than a window."""
    if len(steps) < length:
        return speech_windows(steps, torch.zeros_like(starts), length=length)
    index = starts[:, None] + torch.arange(length)
    return steps[index.to(steps.device)]
