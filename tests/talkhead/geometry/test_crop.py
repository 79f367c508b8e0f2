from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.errors import ShapeError, SpecError
from talkhead.geometry import face_topology as topology
from talkhead.geometry.crop import (
    Box,
    clip_box,
    crop_frame,
    crop_policy,
    face_boxes,
    policy_share,
    to_crop_units,
    to_pixels,
)


def _faces(centres: NDArray[np.float64], width: float) -> NDArray[np.float32]:
    """Frontal faces of a given width at given places, ``(T, 478, 3)`` px."""
    face = topology.canonical_landmarks()
    scale = width / np.ptp(face[topology.FACE_OVAL, 0])
    out = np.repeat(face[None] * scale, len(centres), axis=0)
    out[..., :2] += centres[:, None]
    return out.astype(np.float32)


def test_face_takes_half_the_width_and_all_of_it_is_inside() -> None:
    faces = _faces(np.full((10, 2), 500.0), 120.0)
    box = clip_box(faces, 1000, 1000)
    assert box.side == pytest.approx(240, abs=2)
    edges = face_boxes(faces)[0]
    assert box.x < edges[0]
    assert box.y < edges[1]
    assert box.x + box.side > edges[2]
    assert box.y + box.side > edges[3]
    # There is more room above the hairline than below the chin.
    assert edges[1] - box.y > box.y + box.side - edges[3]


def test_box_grows_with_the_motion_but_not_with_one_wrong_frame() -> None:
    still = np.full((100, 2), 500.0)
    moving = still.copy()
    moving[:, 0] += np.linspace(-150, 150, 100)
    glitch = still.copy()
    glitch[50] = (20.0, 20.0)
    sides = [clip_box(_faces(c, 120.0), 1000, 1000).side for c in (still, moving, glitch)]
    assert sides[1] > 1.5 * sides[0]
    assert sides[2] == sides[0]


def test_box_stays_inside_when_it_can() -> None:
    box = clip_box(_faces(np.full((5, 2), 130.0), 120.0), 640, 480)
    assert (box.x, box.y) == (10, 0) or (box.x >= 0 and box.y == 0)
    # A face that fills the picture: the box shrinks to the picture.
    box = clip_box(_faces(np.full((5, 2), 112.0), 130.0), 224, 224)
    assert box == Box(0, 0, 224)
    # No room at all: the box reaches outside evenly.
    box = clip_box(_faces(np.full((5, 2), 100.0), 180.0), 200, 200)
    assert box.side > 200
    assert box.x == pytest.approx((200 - box.side) / 2, abs=1)


def test_crop_is_a_plain_cut_at_the_same_size() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (50, 60, 3)).astype(np.uint8)
    assert np.array_equal(crop_frame(picture, Box(7, 5, 32), 32), picture[5:37, 7:39])


def test_shrinking_averages_areas() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    expected = picture.reshape(16, 4, 16, 4, 3).mean(axis=(1, 3))
    got = crop_frame(picture, Box(0, 0, 64), 16)
    assert np.abs(got - expected).max() <= 1.0


def test_outside_is_mirrored() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8)
    got = crop_frame(picture, Box(-4, -3, 26), 26)
    padded = np.pad(picture, ((3, 3), (4, 2), (0, 0)), mode="reflect")
    assert np.array_equal(got, padded)


def test_landmarks_follow_the_pixels() -> None:
    # A dot at a known place is found at its landmark's place in the crop.
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[100:104, 150:154] = 255
    point = np.array([[152.0, 102.0, 8.0]])
    box = Box(100, 60, 80)
    crop = crop_frame(picture, box, 160)
    seen = np.argwhere(crop[..., 0] > 127).mean(axis=0) + 0.5
    unit = to_crop_units(point, box)
    assert unit[0, :2] * 160 == pytest.approx(seen[::-1], abs=0.3)
    assert unit[0, 2] == pytest.approx(0.1)
    assert to_pixels(unit, box) == pytest.approx(point)


def test_snapped_box_lies_on_the_grid() -> None:
    box = Box(103, 57, 250).snapped(10, 20, 4)
    assert ((box.x - 10) % 4, (box.y - 20) % 4, box.side % 4) == (0, 0, 0)
    assert box.side <= 250
    assert abs(box.x - 103) < 4


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="landmarks"):
        clip_box(np.zeros((0, 478, 3)), 10, 10)
    with pytest.raises(ShapeError, match="picture"):
        crop_frame(np.zeros((4, 4), np.uint8), Box(0, 0, 4), 4)


@pytest.mark.parametrize("share", [0.35, 0.5, 0.7])
def test_face_takes_the_share_it_was_asked_to(share: float) -> None:
    faces = _faces(np.full((10, 2), 500.0), 120.0)
    assert clip_box(faces, 1000, 1000, share).side == pytest.approx(
        max(120 / share, 1.1 * np.ptp(face_boxes(faces)[0][[1, 3]])), abs=2
    )


def test_policy_names_round_trip_and_others_are_refused() -> None:
    assert crop_policy(0.5) == "fixed_box:0.5"
    for share in (0.35, 0.5, 0.7):
        assert policy_share(crop_policy(share)) == share
    for wrong in ("fixed_box", "fixed_box:wide", "moving_box:0.5", ""):
        with pytest.raises(SpecError, match=r"expected a crop policy like fixed_box:0\.5"):
            policy_share(wrong)
