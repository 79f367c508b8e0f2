from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.rigid_tracks import N_RIGID, Frame, mirrored_tracks, rigid_tracks
from tests.talkhead.geometry.test_points68 import MIRROR
from tests.talkhead.metrics.landmark_faces import face, noisy, still


def shifted(steps: Tensor) -> Tensor:
    """The same face moved right by ``steps`` crop widths, one a frame."""
    points = still(len(steps))
    points[..., 0] += steps[:, None]
    return points


def test_31_points_without_lips_and_jaw() -> None:
    points = noisy(1, 5, seed=0)[0]
    base = rigid_tracks(points, frame="crop")
    assert base.shape == (5, 2 * N_RIGID) == (5, 62)
    assert torch.equal(base, points[:, 17:48, :2].flatten(1))
    points[:, :17], points[:, 48:] = 7.0, 7.0
    for frame in ("motion", "place", "crop"):
        assert torch.isfinite(rigid_tracks(points, frame=frame)).all()
    assert torch.equal(rigid_tracks(points, frame="crop"), base)


def test_motion_is_counted_in_eye_distances_from_where_a_point_usually_is() -> None:
    found = rigid_tracks(shifted(torch.tensor([0.0, 0.05, 0.1])))
    # The eyes of the test face are measured here by plain arithmetic.
    eyes = float((face()[45, :2] - face()[36, :2]).square().sum().sqrt())
    x, y = found.reshape(3, N_RIGID, 2).unbind(-1)
    assert x.mean(dim=1).tolist() == pytest.approx([-0.05 / eyes, 0.0, 0.05 / eyes])
    assert x.std(dim=1).tolist() == pytest.approx([0.0] * 3, abs=1e-12)
    assert y.abs().max() < 1e-12


def test_frames_of_reference() -> None:
    points = noisy(2, 9, seed=1)
    moved = 1.7 * points + torch.tensor([0.3, -0.2, 0.0])
    for frame in ("motion", "place"):
        torch.testing.assert_close(
            rigid_tracks(moved, frame=frame), rigid_tracks(points, frame=frame)
        )
    # Another shape of face: only "motion" does not see it.
    other = points.clone()
    other[..., 30, :2] += 0.1
    torch.testing.assert_close(rigid_tracks(other), rigid_tracks(points))
    assert not torch.allclose(
        rigid_tracks(other, frame="place"), rigid_tracks(points, frame="place")
    )
    assert not torch.allclose(rigid_tracks(moved, frame="crop"), rigid_tracks(points, frame="crop"))


def turned(yaw: Tensor) -> Tensor:
    """The face turned about the vertical axis through its middle, one angle a frame."""
    x, y, z = (face() - face().mean(dim=0)).unbind(-1)
    cos, sin = yaw.cos()[:, None], yaw.sin()[:, None]
    return torch.stack([cos * x + sin * z, y.expand(len(yaw), -1), -sin * x + cos * z], dim=-1)


def test_the_frontal_view_takes_yaw_out_and_keeps_the_rest() -> None:
    swing = turned(torch.linspace(-0.4, 0.4, 7, dtype=torch.float64))
    assert rigid_tracks(swing).abs().max() > 0.1
    assert rigid_tracks(swing, view="frontal").abs().max() < 1e-6
    nod = shifted(torch.tensor([0.0, 0.1]))
    torch.testing.assert_close(
        rigid_tracks(nod, view="frontal"), rigid_tracks(nod), atol=1e-3, rtol=1e-3
    )


def test_mirrored_tracks_are_the_tracks_of_the_mirrored_face() -> None:
    points = noisy(2, 6, seed=2)
    mirror = (points * torch.tensor([-1.0, 1.0, 1.0]) + torch.tensor([1.0, 0, 0]))[..., MIRROR, :]
    frames: tuple[Frame, ...] = ("motion", "place", "crop")
    for coordinates, frame in itertools.product((2, 3), frames):
        tracks = rigid_tracks(points, frame=frame, coordinates=coordinates)
        other = rigid_tracks(mirror, frame=frame, coordinates=coordinates)
        found = mirrored_tracks(tracks, frame=frame, coordinates=coordinates)
        torch.testing.assert_close(found, other)
        again = mirrored_tracks(found, frame=frame, coordinates=coordinates)
        torch.testing.assert_close(again, tracks)


def test_flat_points_do_for_two_coordinates() -> None:
    points = noisy(1, 4, seed=3)
    assert torch.equal(rigid_tracks(points[..., :2]), rigid_tracks(points))
    with pytest.raises(ShapeError, match="for 3 coordinates"):
        rigid_tracks(points[..., :2], coordinates=3)
    with pytest.raises(ShapeError, match="frontalisation needs depth"):
        rigid_tracks(points[..., :2], view="frontal")


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="convert mesh landmarks"):
        rigid_tracks(torch.zeros(4, 478, 3))
    with pytest.raises(ShapeError, match="at least one frame"):
        rigid_tracks(torch.zeros(0, 68, 3))
    with pytest.raises(ShapeError, match="eye corners at one place"):
        rigid_tracks(torch.zeros(4, 68, 3))
