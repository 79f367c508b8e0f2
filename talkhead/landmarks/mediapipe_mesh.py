"""The face mesh that ships inside the mediapipe wheel: 468 points and both irises, on the CPU."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np

from talkhead.errors import MissingDependencyError
from talkhead.geometry.face_topology import FACE_OVAL
from talkhead.landmarks.base import Landmarks, Picture
from talkhead.specs import N_LANDMARKS

# One landmark on the wire: a tag and a length byte, then x, y, z, each a tag byte and a float32.
_WIRE = np.dtype(
    {
        "names": ["x", "y", "z"],
        "formats": ["<f4", "<f4", "<f4"],
        "offsets": [3, 8, 13],
        "itemsize": 17,
    }
)
_MAX_FACES = 4


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere: MediaPipe's C++ log ignores Python's streams."""
    sys.stderr.flush()
    keep = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(keep, 2)
        os.close(keep)
        os.close(sink)


def _face_mesh_module() -> Any:
    """``mediapipe.solutions.face_mesh``, or an error that says what to install."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with quiet_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside mediapipe's own imports
            from mediapipe.python.solutions import face_mesh
    except ImportError as error:
        raise MissingDependencyError(
            "face tracking needs mediapipe with the bundled face mesh; install it with: "
            "pip install 'mediapipe>=0.10.18,<0.10.30'"
        ) from error
    return face_mesh


def _to_array(face: Any, width: int, height: int) -> Landmarks:
    """One protobuf landmark list as pixels; the wire format reads 10 times faster than fields."""
    data = face.SerializeToString()
    if len(data) == N_LANDMARKS * _WIRE.itemsize:
        wire = np.frombuffer(data, _WIRE)
        points = np.stack([wire["x"], wire["y"], wire["z"]], axis=1)
    else:
        points = np.array([(p.x, p.y, p.z) for p in face.landmark], np.float32)
    # MediaPipe's z has about the scale of x.
    return np.asarray(points * (width, height, width), np.float32)


def _face_width(points: Landmarks) -> float:
    """Width of the face oval in pixels."""
    return float(np.ptp(points[FACE_OVAL, 0]))


class MediaPipeMesh:
    """MediaPipe FaceMesh with refined irises.

    Args:
        min_confidence: Detection and tracking confidence below which a face counts as lost.

    Raises:
        MissingDependencyError: mediapipe is not installed or has no bundled face mesh.
    """

    def __init__(self, min_confidence: float = 0.5) -> None:
        """Import mediapipe; models are loaded when a clip starts."""
        self._module = _face_mesh_module()
        self._confidence = min_confidence
        self._detector: Any = None

    @property
    def name(self) -> str:
        """``mediapipe-face-mesh-refined <version>``."""
        return f"mediapipe-face-mesh-refined {version('mediapipe')}"

    def _mesh(self, *, static: bool, faces: int) -> Any:
        return self._module.FaceMesh(
            static_image_mode=static,
            max_num_faces=faces,
            refine_landmarks=True,
            min_detection_confidence=self._confidence,
            min_tracking_confidence=self._confidence,
        )

    def _start(self, frame: Picture, *, static: bool, faces: int) -> tuple[Any, list[Landmarks]]:
        """A new mesh and the faces of its first frame; its set-up messages come until then."""
        with quiet_stderr():
            mesh = self._mesh(static=static, faces=faces)
            return mesh, self._process(mesh, frame)

    @staticmethod
    def _process(mesh: Any, frame: Picture) -> list[Landmarks]:
        """Faces of one frame, in the order of the tracker."""
        height, width = frame.shape[:2]
        with warnings.catch_warnings():
            # mediapipe calls a protobuf function that its own protobuf version deprecates.
            warnings.filterwarnings("ignore", message=".*GetPrototype.*")
            found = mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
        return [_to_array(face, width, height) for face in found or []]

    def track(self, frames: Iterable[Picture]) -> Iterator[Landmarks | None]:
        """Follow one face through consecutive frames, see :class:`Landmarker`.

        A frame that is the same array as the one before (as
        :func:`talkhead.media.decode.iter_frames` repeats them) is not tracked again.
        """
        stream = iter(frames)
        before = next(stream, None)
        if before is None:
            return
        mesh, found = self._start(before, static=False, faces=1)
        try:
            yield found[0] if found else None
            for frame in stream:
                if frame is not before:
                    found = self._process(mesh, frame)
                    before = frame
                yield found[0] if found else None
        finally:
            mesh.close()

    def detect(self, frame: Picture) -> list[Landmarks]:
        """All faces of one picture, largest first (four at most)."""
        if self._detector is None:
            self._detector, found = self._start(frame, static=True, faces=_MAX_FACES)
        else:
            found = self._process(self._detector, frame)
        return sorted(found, key=_face_width, reverse=True)

    def close(self) -> None:
        """Free the still-picture detector."""
        if self._detector is not None:
            self._detector.close()
            self._detector = None
