"""Animated portraits, with a drawn face as the portrait."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.corpus.state import FaceState
from talkhead.errors import ShapeError
from talkhead.geometry import face_topology as ft
from talkhead.render.painted_face import IDENTITY_SEEDS, Identity, PaintedFace
from talkhead.render.portrait import PortraitAnimator
from tests.talkhead.render.readback import face_mesh_tracks, measures

Portrait = tuple[NDArray[np.uint8], NDArray[np.float32], PortraitAnimator]
FACE = PaintedFace(Identity.from_seed(IDENTITY_SEEDS[5]), 256)


@pytest.fixture(scope="module")
def portrait() -> Portrait:
    rest = FaceState.neutral()
    image, points = FACE.draw(rest, 0), FACE.landmarks(rest, 0)
    return image, points, PortraitAnimator(image, points)


def _moved(**values: object) -> NDArray[np.float32]:
    state = FaceState.neutral()
    for name, value in values.items():
        getattr(state, name)[:] = value
    return FACE.landmarks(state, 0)


def test_unchanged_landmarks_return_the_portrait(portrait: Portrait) -> None:
    image, points, animator = portrait
    error = np.abs(animator.draw(points).astype(int) - image)
    assert error.mean() < 0.3
    assert np.percentile(error, 99) <= 4


def test_every_pixel_is_filled_and_the_border_stays(portrait: Portrait) -> None:
    _, points, _ = portrait
    image = np.full((256, 256, 3), 90, np.uint8)
    animator = PortraitAnimator(image, points)
    closed_mouth = {"rotation": (0.2, 0.4, -0.3), "translation": (0.05, -0.04), "scale": 1.1}
    drawn = animator.draw(_moved(**closed_mouth))
    assert np.abs(drawn.astype(int) - 90).max() <= 1
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (256, 256, 3)).copy()
    drawn = PortraitAnimator(ramp, points).draw(_moved(**closed_mouth))
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert np.abs(drawn[edge].astype(int) - ramp[edge]).max() <= 12


def test_moved_landmarks_are_read_back_as_moved(portrait: Portrait) -> None:
    _, _, animator = portrait
    steps = np.linspace(0.0, 1.0, 12)
    truth = np.stack(
        [
            _moved(
                rotation=(0.15 * np.sin(5 * s), 0.35 * (2 * s - 1), 0.2 * np.cos(4 * s)),
                jaw=abs(np.sin(6 * s)),
                lids=1.0,
            )
            for s in steps
        ]
    )
    found = face_mesh_tracks(animator.draw(points) for points in truth)
    read = [points for points in found if points is not None]
    assert len(read) == len(truth)
    true, got = measures(truth.astype(np.float64)), measures(np.stack(read))
    for name in ("yaw", "roll", "mouth"):
        assert np.corrcoef(true[name], got[name])[0, 1] > 0.95, name
    unit = np.linalg.norm(truth[:, 263, :2] - truth[:, 33, :2], axis=1).mean()
    error = np.linalg.norm((np.stack(read) - truth)[..., :2], axis=-1).mean()
    assert error / unit < 0.08


def test_an_opened_mouth_is_painted_dark(portrait: Portrait) -> None:
    image, _, animator = portrait
    moved = _moved(jaw=0.9)
    x, y = (moved[ft.INNER_LIP_PAIR, :2].mean(axis=0) * 256).round().astype(int)
    assert animator.draw(moved)[y + 2, x].mean() < image[y + 2, x].mean() - 40


def test_irises_move_inside_the_eye_and_lids_cover_them(portrait: Portrait) -> None:
    image, points, animator = portrait
    eye = points[ft.PICTURE_LEFT_EYE, :2] * 256
    left, right = eye[:, 0].min(), eye[:, 0].max()
    rows = slice(int(eye[:, 1].mean()) - 2, int(eye[:, 1].mean()) + 3)

    def darkest(picture: NDArray[np.uint8]) -> float:
        strip = picture[rows, int(left) + 4 : int(right) - 3].astype(float).mean(axis=(0, 2))
        weight = np.clip(strip.mean() - strip, 0, None)
        return float((weight * np.arange(len(strip))).sum() / weight.sum())

    shift = darkest(animator.draw(_moved(gaze=(0.8, 0.0)))) - darkest(animator.draw(points))
    assert shift > 1.5
    shut = animator.draw(_moved(lids=0.0))
    region = shut[rows, int(left) + 4 : int(right) - 3].astype(float)
    assert region.std() < image[rows, int(left) + 4 : int(right) - 3].astype(float).std()


def test_an_open_mouth_keeps_its_own_teeth() -> None:
    state = FaceState.neutral()
    state.jaw[:] = 0.45
    animator = PortraitAnimator(FACE.draw(state, 0), FACE.landmarks(state, 0))
    same = animator.draw(FACE.landmarks(state, 0))
    assert np.abs(same.astype(int) - FACE.draw(state, 0)).mean() < 0.3
    wide = _moved(jaw=1.0)
    drawn = animator.draw(wide)
    x, y = (wide[14, :2] * 256).round().astype(int)
    assert drawn[y - 5, x].mean() < 90  # dark above the lower lip, no stretched teeth


def test_size_and_arguments(portrait: Portrait) -> None:
    image, points, _ = portrait
    assert PortraitAnimator(image, points, size=112).draw(points).shape == (112, 112, 3)
    with pytest.raises(ShapeError, match="square crop"):
        PortraitAnimator(image[:200], points)
    with pytest.raises(ShapeError, match="uint8"):
        PortraitAnimator(image.astype(np.float32), points)
    with pytest.raises(ShapeError, match="expected \\(478, 3\\)"):
        PortraitAnimator(image, points[:468])
