"""A video that goes on for as long as the speech does: forwards and backwards, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import ConfigError, DataError
from talkhead.media.decode import iter_frames
from talkhead.specs import FPS

Picture = NDArray[np.uint8]
End = Literal["ping_pong", "hold"]
"""What comes after the last frame: the frames backwards and so on, or the last frame for ever."""
BLOCK_FRAMES = 50
"""Frames held at a time while a video is read backwards (2 s)."""


class Reader(Protocol):
    """Reads frames from a number on, in order (:func:`frames_from`)."""

    def __call__(self, start: int, stop: int) -> Iterator[Picture]:
        """Frames ``start`` to ``stop - 1``."""
        ...


def frames_from(path: Path | str) -> Reader:
    """A reader of a video file at 25 frames a second."""
    return partial(_read, path)


def _read(path: Path | str, start: int, stop: int) -> Iterator[Picture]:
    # The file is opened anew and sought for each piece; nothing of it stays in memory between them.
    frames = iter_frames(path, start_s=start / FPS, end_s=stop / FPS if stop > start else None)
    return islice(frames, stop - start)


def endless_frames(
    read: Reader, frames: int, end: End = "ping_pong"
) -> Iterator[tuple[int, Picture]]:
    """Numbers and pictures of a video of ``frames`` frames that never ends.

    With ``ping_pong`` the order is ``0 1 … n-1 n-2 … 1 0 1 …``: neighbours are always neighbours in the
    video, so nothing jumps. Backwards, pieces of 50 frames are read and turned round; no more than one
    piece is in memory, whatever the video's length.

    Args:
        read: Gives pieces of the video.
        frames: Number of its frames.
        end: What follows the last frame.

    Yields:
        Frame number in the video, and the picture.

    Raises:
        ConfigError: No frame, or an unknown ``end``.
        DataError: The video holds fewer frames than it was said to.
    """
    if frames < 1 or end not in ("ping_pong", "hold"):
        raise ConfigError(
            f"expected at least 1 frame and an end of ping_pong or hold, got {frames} and {end!r}."
        )
    last: Picture | None = None
    for number, picture in _piece(read, 0, frames):
        last = picture
        yield number, picture
    assert last is not None  # at least one frame was read
    while frames == 1 or end == "hold":
        yield frames - 1, last
    while True:
        yield from _backwards(read, frames - 1)
        yield from _piece(read, 1, frames)


def count_frames(read: Reader, at_most: int, seen: Callable[[int, Picture], None]) -> int:
    """Number of frames of a video, at most so many; every one is shown to ``seen`` on the way."""
    number = 0
    for picture in read(0, at_most):
        seen(number, picture)
        number += 1
    return number


def _piece(read: Reader, start: int, stop: int) -> Iterator[tuple[int, Picture]]:
    number = start
    for picture in read(start, stop):
        yield number, picture
        number += 1
    if number < stop:
        raise DataError(
            f"expected frames {start} to {stop - 1} of the video, it ends after frame {number - 1}; the file "
            "was cut off or changed while it was read. Give a complete file."
        )


def _backwards(read: Reader, below: int) -> Iterator[tuple[int, Picture]]:
    """Frames ``below - 1`` down to 0."""
    for stop in range(below, 0, -BLOCK_FRAMES):
        block = list(_piece(read, max(0, stop - BLOCK_FRAMES), stop))
        while block:
            yield block.pop()
