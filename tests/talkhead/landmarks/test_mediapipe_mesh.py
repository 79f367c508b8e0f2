from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.corpus.state import FaceState
from talkhead.geometry.motion import mouth_opening, pose_free
from talkhead.landmarks.mediapipe_mesh import MediaPipeMesh

painted = pytest.importorskip("talkhead.render.painted_face")
pytest.importorskip("mediapipe")

SIZE = 224
Frames = NDArray[np.uint8]


@pytest.fixture(scope="module")
def mesh() -> Any:
    tracker = MediaPipeMesh()
    yield tracker
    tracker.close()


@pytest.fixture(scope="module")
def clip() -> tuple[list[Frames], FaceState, NDArray[np.float32]]:
    """A drawn face that turns, nods and opens its mouth, its state and its true landmarks."""
    time = np.linspace(0, 2 * np.pi, 24, dtype=np.float32)
    state = replace(
        FaceState.neutral(24),
        rotation=np.stack([0.12 * np.sin(time), 0.3 * np.cos(time), 0.1 * np.sin(2 * time)], 1),
        jaw=(0.4 + 0.4 * np.sin(3 * time)).astype(np.float32),
    )
    face = painted.PaintedFace(painted.Identity.from_seed(0), SIZE)
    frames = [face.draw(state, t) for t in range(24)]
    return frames, state, np.stack([face.landmarks(state, t) for t in range(24)])


def test_drawn_face_is_found_where_it_is(mesh: Any, clip: Any) -> None:
    frames, state, truth = clip
    faces = list(mesh.track(frames))
    assert all(face is not None for face in faces)
    points = np.stack(faces) / SIZE
    assert points.shape == (24, 478, 3)
    assert points.dtype == np.float32
    # Eyes and mouth corners within a twentieth of the picture.
    marks = [33, 263, 61, 291, 1]
    assert np.abs(points[:, marks, :2] - truth[:, marks, :2]).max() < 0.05
    shapes, rotation, _, _ = pose_free(points)
    for axis in range(3):
        assert np.corrcoef(rotation[:, axis], state.rotation[:, axis])[0, 1] > 0.9
    assert np.corrcoef(mouth_opening(shapes), state.jaw)[0, 1] > 0.85


def test_every_clip_starts_anew(mesh: Any, clip: Any) -> None:
    frames = clip[0][:6]
    first = list(mesh.track(frames))
    list(mesh.track(clip[0][12:18]))
    again = list(mesh.track(frames))
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a, b)


def test_repeated_frames_are_not_tracked_again(mesh: Any, clip: Any) -> None:
    frame = clip[0][0]
    first, same, copied = mesh.track([frame, frame, frame.copy()])
    assert first is same
    assert copied is not first


def test_no_face_no_landmarks(mesh: Any) -> None:
    blank = np.full((SIZE, SIZE, 3), 90, np.uint8)
    assert list(mesh.track([blank, blank.copy()])) == [None, None]
    assert mesh.detect(blank) == []
    assert list(mesh.track([])) == []


def test_faces_of_a_picture_come_largest_first(mesh: Any, clip: Any) -> None:
    frame = clip[0][0]
    wide = np.full((SIZE, 2 * SIZE, 3), 90, np.uint8)
    wide[:, :SIZE] = frame
    (face,) = mesh.detect(wide)[:1]
    assert face[1, 0] < SIZE
    assert mesh.name.startswith("mediapipe-face-mesh")


def test_nothing_is_logged(clip: Any, capfd: pytest.CaptureFixture[str]) -> None:
    list(MediaPipeMesh().track(clip[0][:3]))
    assert capfd.readouterr().err == ""
