"""A face in a video: where it is, and its frames without an end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talkhead.generation.portrait import Picture, no_face
from talkhead.geometry.crop import Box, clip_box, crop_frame
from talkhead.landmarks.base import Landmarker
from talkhead.media.endless import End, Reader, count_frames, endless_frames

TRACKED_FRAMES = 128
"""About so many frames of a video are searched for the face, evenly spaced; at most twice as many."""


@dataclass(frozen=True)
class FaceVideo:
    """A face in a video, or in a picture, which is a video of one frame.

    Attributes:
        read: Gives frames by number.
        frames: How many there are.
        box: Where the face is, the same in all of them.
        end: What comes after the last frame.
    """

    read: Reader
    frames: int
    box: Box
    end: End = "ping_pong"

    def endless(self) -> Iterator[Picture]:
        """Whole frames, ``(H, W, 3)``, without an end."""
        return (picture for _, picture in endless_frames(self.read, self.frames, self.end))

    def crops(self, frames: Iterable[Picture], size: int) -> Iterator[Picture]:
        """The face of frames, ``(size, size, 3)``."""
        return (crop_frame(frame, self.box, size) for frame in frames)


class BoxFinder:
    """The one box of a video's face, from evenly spaced frames, in constant memory.

    While a video is read, every frame up to the 256th is searched, then every second one, every fourth, and
    so on; of the faces found, those of a kept spacing are remembered.
    """

    def __init__(self, landmarker: Landmarker) -> None:
        """Keep the tracker."""
        self._landmarker = landmarker
        self._step, self._size = 1, (0, 0)
        self._faces: dict[int, NDArray[np.float32] | None] = {}

    def __call__(self, number: int, picture: Picture) -> None:
        """Look at a frame, unless its number says it is left out."""
        self._size = (picture.shape[0], picture.shape[1])
        if number % self._step:
            return
        found = self._landmarker.detect(picture)
        self._faces[number] = found[0] if found else None
        if len(self._faces) >= 2 * TRACKED_FRAMES:
            self._step *= 2
            self._faces = {n: face for n, face in self._faces.items() if n % self._step == 0}

    def box(self, face_share: float, what: str) -> Box:
        """The box that holds the face in all frames.

        Raises:
            DataError: No frame shows a face.
        """
        faces = [face for face in self._faces.values() if face is not None]
        height, width = self._size
        if not faces:
            raise no_face(what, width, height)
        return clip_box(np.stack(faces), width, height, face_share)


def find_face(
    read: Reader, at_most: int, landmarker: Landmarker, face_share: float, what: str, end: End
) -> FaceVideo:
    """Read a video once: how long it is, and where its face is.

    Args:
        read: The video, or a picture as a video of one frame.
        at_most: Frames of it that are of use, those of the speech.
        landmarker: Face tracker.
        face_share: Share of the crop's width that the face takes, that of training.
        what: Name of the video, for messages.
        end: What comes after its last frame.

    Raises:
        DataError: No face, or no frame.
    """
    finder = BoxFinder(landmarker)
    frames = count_frames(read, at_most, finder)
    return FaceVideo(read, frames, finder.box(face_share, what), end)


def picture_reader(picture: Picture) -> Reader:
    """A picture as a video of one frame."""

    def read(start: int, stop: int) -> Iterator[Picture]:
        return iter([picture][start:stop])

    return read
