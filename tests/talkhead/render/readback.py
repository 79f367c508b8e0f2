"""What a face tracker reads from drawn pictures, measured the same way on the truth."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from talkhead.corpus.state import FaceState
from talkhead.geometry import face_topology as ft
from talkhead.render.painted_face import PaintedFace

Array = NDArray[np.float64]


def smooth_state(frames: int, seed: int) -> FaceState:
    """Smooth random motion over the full range a drawn face supports, with blinks."""
    rng = np.random.default_rng(seed)

    def smooth(count: int, half_width: int) -> Array:
        noise = rng.normal(size=(frames + 8 * half_width, count))
        window = np.hanning(2 * half_width + 1)
        rows = [np.convolve(noise[:, k], window, "same") for k in range(count)]
        out = np.stack(rows, axis=1)[4 * half_width : 4 * half_width + frames]
        return np.asarray(np.clip((out - out.mean(0)) / (2.0 * out.std(0) + 1e-9), -1, 1))

    state = FaceState.neutral(frames)
    state.rotation[:] = smooth(3, 12) * [0.35, 0.5, 0.35]
    state.translation[:] = smooth(2, 15) * 0.06
    state.scale[:] = 1.0 + 0.15 * smooth(1, 20)[:, 0]
    state.brows[:] = smooth(2, 10)
    state.gaze[:] = smooth(2, 8) * 0.8
    state.jaw[:] = np.clip(0.3 + 0.7 * smooth(1, 4)[:, 0], 0, 1)
    state.width[:] = smooth(1, 5)[:, 0]
    state.pucker[:] = np.clip(smooth(1, 5)[:, 0], 0, 1)
    state.press[:] = np.clip(0.2 + 0.8 * smooth(1, 4)[:, 0], 0, 1)
    lids = 1.0 + 0.2 * smooth(1, 10).repeat(2, axis=1)
    start = int(rng.integers(5, 15))
    while start < frames - 8:
        lids[start : start + 7] *= np.array([0.6, 0.25, 0.0, 0.0, 0.2, 0.55, 0.85])[:, None]
        start += int(rng.integers(18, 35))
    state.lids[:] = lids
    return state


def face_mesh_tracks(pictures: Iterable[NDArray[np.uint8]]) -> list[Array | None]:
    """Landmarks ``(478, 3)`` of every picture, tracked as a video; None where no face was found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        face_mesh = importlib.import_module("mediapipe.python.solutions.face_mesh")
        with face_mesh.FaceMesh(static_image_mode=False, refine_landmarks=True) as tracker:
            found: list[Array | None] = []
            for picture in pictures:
                faces = tracker.process(picture).multi_face_landmarks
                points = [(p.x, p.y, p.z) for p in faces[0].landmark] if faces else None
                found.append(np.array(points) if points else None)
    return found


def measures(landmarks: Array) -> dict[str, Array]:
    """Pose, mouth opening, lids and gaze of ``(T, 478, 3)`` landmarks, ``(T,)`` each.

    Distances are taken in the picture plane: the depth a tracker guesses is too rough for lips and
    irises. Gaze is the mean iris offset along and across the eye, in half eye widths.
    """
    canonical = ft.canonical_landmarks()[ft.RIGID].astype(np.float64)
    canonical -= canonical.mean(0)
    points = landmarks[:, ft.RIGID] - landmarks[:, ft.RIGID].mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.einsum("tki,kj->tij", points, canonical))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    turn = u @ vt
    flat = landmarks[..., :2]

    def distance(a: int, b: int) -> Array:
        return np.asarray(np.linalg.norm(flat[:, a] - flat[:, b], axis=1))

    gaze = []
    for iris, left, right in ((468, 33, 133), (473, 362, 263)):
        axis = flat[:, right] - flat[:, left]
        half = np.linalg.norm(axis, axis=1) / 2
        axis = axis / (2 * half[:, None])
        offset = flat[:, iris] - (flat[:, left] + flat[:, right]) / 2
        across = offset[:, 1] * axis[:, 0] - offset[:, 0] * axis[:, 1]
        gaze.append(np.stack([(offset * axis).sum(1) / half, across / half], axis=1))
    return {
        "pitch": np.arctan2(turn[:, 2, 1], turn[:, 2, 2]),
        "yaw": np.arcsin(-turn[:, 2, 0]),
        "roll": np.arctan2(turn[:, 1, 0], turn[:, 0, 0]),
        "mouth": distance(13, 14) / distance(33, 263),
        "lid_left": distance(159, 145) / distance(33, 133),
        "lid_right": distance(386, 374) / distance(362, 263),
        "gaze_x": np.mean(gaze, axis=0)[:, 0],
        "gaze_y": np.mean(gaze, axis=0)[:, 1],
    }


def readback(face: PaintedFace, state: FaceState) -> tuple[float, dict[str, float]]:
    """Share of frames in which the face is found, and correlation of every measure with the truth.

    Gaze is compared in frames with at least half-open eyes: behind lids there is none to see.
    """
    found = face_mesh_tracks(face.draw(state, t) for t in range(state.frames))
    frames = [t for t, points in enumerate(found) if points is not None]
    read = measures(np.stack([points for points in found if points is not None]))
    true = measures(np.stack([face.landmarks(state, t) for t in frames]).astype(np.float64))
    seeing = state.lids[frames].min(axis=1) > 0.5
    correlation = {}
    for name in true:
        use = seeing if name.startswith("gaze") else np.ones(len(frames), bool)
        correlation[name] = float(np.corrcoef(true[name][use], read[name][use])[0, 1])
    return len(frames) / state.frames, correlation
