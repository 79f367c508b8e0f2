"""A face tracker whose answer is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from talkhead.retracking import MARGIN, RENDER_SIZE


class Oracle:
    """A tracker that says the same landmarks whatever it is shown, and keeps what it was shown."""

    name = "oracle"

    def __init__(self, landmarks: NDArray[np.float32], lost: int = 0) -> None:
        self.landmarks, self.lost = landmarks, lost
        self.seen: list[NDArray[np.uint8]] = []

    def track(self, frames: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32] | None]:
        edge = MARGIN * RENDER_SIZE
        for i, frame in enumerate(frames):
            self.seen.append(frame)
            points = self.landmarks[i] * RENDER_SIZE + np.array([edge, edge, 0])
            yield None if i < self.lost else points.astype(np.float32)

    def detect(self, frame: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        raise AssertionError
