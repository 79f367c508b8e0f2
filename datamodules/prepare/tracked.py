"""A whole video after one decoding and one tracking, with crops of any box: what scoring works on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from datamodules.prepare.clip import first_pass
from datamodules.prepare.layouts import RawClip
from datamodules.prepare.options import ClipOptions
from datamodules.prepare.spool import FrameSpool
from talkhead.geometry.crop import FACE_SHARE, Box, crop_frame
from talkhead.landmarks.base import Landmarker, Picture
from talkhead.landmarks.gaps import bridge
from talkhead.media.decode import MediaInfo, iter_frames, probe

_KEPT_SIZE = 2048
"""Crop side that frames are kept for: only faces beyond it are shrunk before the box is known."""


class TrackedVideo:
    """Frames at 25 a second, the face in each, and crops; use it as a context manager.

    The neighbourhood of the head is kept while the video is decoded, so that crops need no second
    decoding. A box that leaves it makes the video be decoded once more, whole; only one that fills the
    store (:data:`datamodules.prepare.spool.DISK_BYTES`) is decoded for every crop.

    Attributes:
        info: What the file's header says.
        width: Width of the pictures in pixels.
        height: Height of the pictures in pixels.
        points: Landmarks in picture pixels, ``(T, 478, 3)`` float32, lost frames bridged.
        tracked: Whether the face was found, ``(T,)`` bool.
        most_faces: Most faces seen at once in the frames looked at.
    """

    def __init__(self, path: Path, landmarker: Landmarker, scratch: Path | None = None) -> None:
        """Decode and track.

        Args:
            path: Video file.
            landmarker: Face tracker; it starts anew.
            scratch: Folder for frames that do not fit in memory.

        Raises:
            DataError: A file that cannot be decoded, or no face in any frame.
        """
        self.path = path
        self.info: MediaInfo = probe(path)
        raw = RawClip(path.stem, path, path.name, "", "")
        options = ClipOptions(size=_KEPT_SIZE, face_share=FACE_SHARE)
        tracking, self._spool = first_pass(raw, options, landmarker, scratch)
        self._scratch, self._kept_whole = scratch, False
        try:
            self.points, self.tracked = bridge(tracking.faces)
        except BaseException:
            self._close()
            raise
        self.width, self.height = tracking.width, tracking.height
        self.most_faces = tracking.most_faces

    def __enter__(self) -> TrackedVideo:
        """Use as a context manager: kept frames are deleted at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Delete the kept frames."""
        self._close()

    def crops(self, box: Box, size: int, frames: int) -> Iterator[Picture]:
        """The first frames, cut to a box of picture pixels and scaled.

        Args:
            box: What to cut out; what lies outside the picture is mirrored.
            size: Side of the crops in pixels.
            frames: How many frames.

        Yields:
            ``(size, size, 3)`` uint8 RGB.
        """
        if not self._spool.covers(box) and not self._kept_whole:
            self._keep_whole()
        spool = self._spool
        if spool.covers(box):
            source, place = spool.read(), spool.local(spool.snapped(box))
        else:
            source, place = iter_frames(self.path), box
        for frame in itertools.islice(source, frames):
            yield crop_frame(frame, place, size)

    def _keep_whole(self) -> None:
        """Decode again and keep whole pictures in place of the neighbourhood of the head."""
        whole = Box(0, 0, max(self.width, self.height))
        spool = FrameSpool(whole, self.width, self.height, _KEPT_SIZE, self._scratch)
        self._close()
        self._spool, self._kept_whole = spool, True
        for frame in iter_frames(self.path):
            spool.write(frame)

    def _close(self) -> None:
        self._spool.__exit__(None, None, None)
