"""Frames in a grid, as one PNG: a video at a glance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import DataError, MissingDependencyError, ShapeError
from talkhead.media.encode import write_png

Picture = NDArray[np.uint8]

SHEET_FRAMES = 16
"""Frames shown at most."""


def frame_grid(frames: Picture, columns: int, gap: int = 2) -> Picture:
    """Frames ``(N, H, W, 3)`` uint8 row by row on white, ``(rows H + gaps, columns W + gaps, 3)``.

    Raises:
        ShapeError: Not RGB bytes, no frames, or no columns.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ShapeError(
            f"expected frames (N, H, W, 3) uint8, got {frames.dtype} {frames.shape}; "
            "convert pictures with talkhead.batch.to_bytes and put channels last."
        )
    if columns < 1:
        raise ShapeError(f"expected at least 1 column, got {columns}.")
    n, h, w = frames.shape[:3]
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, np.uint8)
    for i, frame in enumerate(frames):
        y, x = (i // columns) * (h + gap), (i % columns) * (w + gap)
        sheet[y : y + h, x : x + w] = frame
    return sheet


def evenly(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` frame numbers spread evenly over ``count``, first and last included."""
    if count <= wanted:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, wanted).round()]


def video_frames(path: Path | str, wanted: int) -> Picture:
    """Evenly spread frames ``(n, H, W, 3)`` of a video file, decoded one at a time.

    Raises:
        MissingDependencyError: PyAV is not installed.
        DataError: No readable video in the file.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError("reading videos needs PyAV; pip install av.") from error
    try:
        with av.open(str(path)) as container:
            total = sum(1 for _ in container.decode(video=0))
        keep = set(evenly(total, wanted))
        with av.open(str(path)) as container:
            kept = [
                frame.to_ndarray(format="rgb24")
                for i, frame in enumerate(container.decode(video=0))
                if i in keep
            ]
    except (av.FFmpegError, IndexError) as error:
        raise DataError(f"{path} holds no readable video ({error}); write it again.") from error
    if not kept:
        raise DataError(f"{path} holds no video frames; write it again.")
    out: Picture = np.stack(kept)
    return out


def contact_sheet(
    source: Picture | Sequence[Picture] | Path | str,
    path: Path | str,
    *,
    count: int = SHEET_FRAMES,
    columns: int = 8,
) -> Path:
    """Write a grid of evenly spread frames.

    Args:
        source: Frames ``(N, H, W, 3)`` uint8 RGB, or a video file.
        path: PNG to write.
        count: Frames shown at most.
        columns: Frames in a row.

    Returns:
        The path.
    """
    if isinstance(source, Path | str):
        frames = video_frames(source, count)
    else:
        stacked = np.asarray(source)
        frames = stacked[evenly(len(stacked), count)]
    return write_png(path, frame_grid(frames, min(columns, len(frames))))
