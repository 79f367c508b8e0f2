"""Frames where the face was lost: bridge short gaps, find the usable run between long ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from talkhead.errors import DataError, ShapeError
from talkhead.landmarks.base import Landmarks


def longest_run(tracked: NDArray[np.bool_], limit: int) -> tuple[int, int]:
    """The longest stretch of frames whose gaps are at most ``limit`` frames.

    Gaps at the ends of a clip count as gaps too: up to ``limit`` frames are kept there.

    Args:
        tracked: Whether the face was found, ``(T,)``.
        limit: Longest gap to bridge, in frames.

    Returns:
        Start and end (exclusive); ``(0, 0)`` if no frame is tracked.
    """
    hits = np.flatnonzero(tracked)
    if len(hits) == 0:
        return 0, 0
    cuts = np.flatnonzero(np.diff(hits) - 1 > limit)
    starts = hits[np.concatenate([[0], cuts + 1])]
    ends = hits[np.concatenate([cuts, [len(hits) - 1]])] + 1
    # Short losses at the clip's ends are bridged by holding the nearest face.
    starts[0] = 0 if starts[0] <= limit else starts[0]
    ends[-1] = len(tracked) if len(tracked) - ends[-1] <= limit else ends[-1]
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best])


def bridge(faces: Sequence[Landmarks | None]) -> tuple[Landmarks, NDArray[np.bool_]]:
    """Fill lost frames by linear interpolation; the ends hold the nearest face.

    Args:
        faces: ``(P, 3)`` points for each frame, or None where the face was lost.

    Returns:
        Points ``(T, P, 3)`` float32 and the mask ``(T,)`` of frames that really were tracked.

    Raises:
        DataError: No frame has a face.
        ShapeError: There is no frame.
    """
    if not faces:
        raise ShapeError("expected at least one frame, got none.")
    tracked = np.array([face is not None for face in faces])
    hits = np.flatnonzero(tracked)
    if len(hits) == 0:
        raise DataError(f"no face in any of {len(faces)} frames; pass a clip that shows a face.")
    known = np.stack([face for face in faces if face is not None]).astype(np.float32)
    if len(hits) == len(faces):
        return known, tracked
    frames = np.arange(len(faces))
    after = np.clip(np.searchsorted(hits, frames), 0, len(hits) - 1)
    before = np.where(hits[after] > frames, np.maximum(after - 1, 0), after)
    span = np.maximum(hits[after] - hits[before], 1)
    share = np.clip((frames - hits[before]) / span, 0.0, 1.0).astype(np.float32)[:, None, None]
    return (1 - share) * known[before] + share * known[after], tracked
