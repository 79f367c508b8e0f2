"""Holds the part of each frame that the final crop will need, until the crop box is known.

The box of a clip is known only after its last frame, and decoding HD video twice costs more than
all other steps of preparation together. So the neighbourhood of the first frames' box is kept,
shrunk by a whole factor, in memory or on disk; a head that leaves it makes the clip be decoded a
second time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from talkhead.geometry.crop import Box

Picture = NDArray[np.uint8]

_ROOM = 1.25
"""Side of the kept square over the side of the first frames' box."""
_OVERSAMPLE = 1.25
"""The kept box has at least this many times the final crop's side, if the source has it."""
MEMORY_BYTES = 48 << 20
DISK_BYTES = 3 << 29


class FrameSpool:
    """First in, first out store of cut and shrunk frames.

    Args:
        guess: Box of the first frames, or None to keep nothing.
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        size: Side of the final crop in pixels.
        folder: Where to put what does not fit in memory.
    """

    def __init__(
        self, guess: Box | None, width: int, height: int, size: int, folder: Path | None = None
    ) -> None:
        """Choose what to keep of each frame."""
        self.left = self.top = 0
        right, bottom = width, height
        self.grid = 1
        self._size = size
        if guess is not None:
            self.grid = max(1, int(guess.side / (_OVERSAMPLE * size)))
            extra = (_ROOM - 1) / 2 * guess.side
            self.left = max(0, int(guess.x - extra))
            self.top = max(0, int(guess.y - extra))
            right = min(width, int(guess.x + guess.side + extra))
            bottom = min(height, int(guess.y + guess.side + extra))
        self._whole = (width, height)
        self.width = max(1, (right - self.left) // self.grid) * self.grid
        self.height = max(1, (bottom - self.top) // self.grid) * self.grid
        self.frames = 0
        self.full = guess is None
        self._shape = (self.height // self.grid, self.width // self.grid, 3)
        place = None if folder is None else str(folder)
        # Closed by __exit__, together with the spool.
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES, dir=place)  # noqa: SIM115

    def __enter__(self) -> FrameSpool:
        """Use as a context manager: the store is deleted at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Delete the store."""
        self._file.close()

    def write(self, frame: Picture) -> None:
        """Keep the neighbourhood of one frame; once the disk limit is reached nothing is kept."""
        import cv2

        self.frames += 1
        if self.full:
            return
        cut = frame[self.top : self.top + self.height, self.left : self.left + self.width]
        if self.grid > 1:
            shape = (self._shape[1], self._shape[0])
            cut = np.asarray(cv2.resize(cut, shape, interpolation=cv2.INTER_AREA), np.uint8)
        if self._file.tell() + cut.nbytes > DISK_BYTES:
            self.full = True
            return
        # tobytes() of a cut copies pixel by pixel, 10 times slower than row by row.
        self._file.write(np.ascontiguousarray(cut).data)

    def covers(self, box: Box) -> bool:
        """Whether everything the crop of ``box`` needs was kept, at sufficient resolution."""
        if self.full or (self.grid > 1 and box.side // self.grid < self._size):
            return False
        width, height = self._whole
        slack = self.grid  # the last incomplete cell of the grid was cut off
        return (
            self.left <= max(0, box.x)
            and self.top <= max(0, box.y)
            and self.left + self.width + slack > min(width, box.x + box.side)
            and self.top + self.height + slack > min(height, box.y + box.side)
        )

    def snapped(self, box: Box) -> Box:
        """The box on the grid of kept pixels."""
        return box.snapped(self.left, self.top, self.grid)

    def local(self, box: Box) -> Box:
        """A snapped box in pixels of the kept pictures."""
        g = self.grid
        return Box((box.x - self.left) // g, (box.y - self.top) // g, box.side // g)

    def read(self) -> Iterator[Picture]:
        """All kept pictures in order."""
        self._file.seek(0)
        size = int(np.prod(self._shape))
        for _ in range(self.frames):
            yield np.frombuffer(self._file.read(size), np.uint8).reshape(self._shape)
