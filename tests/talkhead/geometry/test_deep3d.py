from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from talkhead.errors import DataError, MissingDependencyError, ShapeError
from talkhead.geometry.deep3d import (
    LAYOUT,
    MOTION_DIM,
    MOTION_LAYOUT,
    N_COEFFICIENTS,
    Deep3DTrack,
    read_deep3d,
)
from talkhead.geometry.rotation import euler_to_matrix
from talkhead.media.decode import iter_frames
from talkhead.metrics.correlation import best_lag, correlation


def rows(frames: int = 6, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.default_rng(seed)
    return (0.3 * random.standard_normal((frames, N_COEFFICIENTS))).astype(np.float32)


def write(path: Path, **arrays: Any) -> Path:
    savemat(path, arrays)
    return path


def by_axes(x: float, y: float, z: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The model's own rotation ``Rz Ry Rx``, in its axes: right, up, towards the viewer."""
    about = []
    for axis, angle in enumerate((x, y, z)):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.eye(3)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn[i, i], turn[i, j], turn[j, i], turn[j, j] = c, -s, s, c
        about.append(turn)
    return about[2] @ about[1] @ about[0]


def test_parts_tile_the_row_in_the_published_order() -> None:
    widths = {name: part.stop - part.start for name, part in LAYOUT.items()}
    assert list(widths.items()) == [
        ("identity", 80), ("expression", 64), ("texture", 80), ("angles", 3), ("lighting", 27),
        ("translation", 3),
    ]  # fmt: skip
    edges = [edge for part in LAYOUT.values() for edge in (part.start, part.stop)]
    assert edges == [0, 80, 80, 144, 144, 224, 224, 227, 227, 254, 254, 257]
    assert max(part.stop for part in MOTION_LAYOUT.values()) == MOTION_DIM


def test_rotation_is_the_models_own_seen_with_y_down_and_z_away() -> None:
    track = Deep3DTrack(rows())
    flip = np.diag([1.0, -1.0, -1.0])
    for raw, ours in zip(track.coefficients[:, LAYOUT["angles"]], track.rotation, strict=True):
        np.testing.assert_allclose(
            euler_to_matrix(ours), flip @ by_axes(*raw.tolist()) @ flip, atol=1e-6
        )


def test_a_nose_turned_by_hand() -> None:
    coefficients = np.zeros((3, N_COEFFICIENTS), np.float32)
    coefficients[:, LAYOUT["angles"]] = 0.2 * np.eye(3)
    nose = euler_to_matrix(Deep3DTrack(coefficients).rotation) @ np.array([0.0, 0.0, -1.0])
    # About the model's x (right): down. About its y (up): to the picture's right.
    np.testing.assert_allclose(nose[0], [0, np.sin(0.2), -np.cos(0.2)], atol=1e-6)
    np.testing.assert_allclose(nose[1], [np.sin(0.2), 0, -np.cos(0.2)], atol=1e-6)
    right = euler_to_matrix(Deep3DTrack(coefficients).rotation[2]) @ np.array([1.0, 0.0, 0.0])
    # About its z (towards the viewer): anticlockwise, so the picture's right side goes up.
    np.testing.assert_allclose(right, [np.cos(0.2), -np.sin(0.2), 0], atol=1e-6)


def test_motion_is_rotation_expression_and_translation() -> None:
    track = Deep3DTrack(rows())
    assert track.motion.shape == (6, MOTION_DIM)
    for name, columns in MOTION_LAYOUT.items():
        np.testing.assert_array_equal(track.motion[:, columns], getattr(track, name))
    np.testing.assert_array_equal(track.translation[:, 1], -track.coefficients[:, 255])
    assert track.identity.shape == (6, 80)


def test_place_by_hand() -> None:
    coefficients = np.zeros((1, N_COEFFICIENTS), np.float32)
    coefficients[0, 254:] = 0.4, 0.2, 2.0  # right, up, two of ten units nearer
    track = Deep3DTrack(coefficients, np.array([[640.0, 480.0, 0.5, 300.0, 200.0]], np.float32))
    pixels = 1015 / 8 / 0.5
    expected = [300 + 0.4 * pixels, 480 - 200 - 0.2 * pixels, pixels]
    np.testing.assert_allclose(track.place(), [expected], rtol=1e-6)
    with pytest.raises(ShapeError, match="transform_params"):
        Deep3DTrack(coefficients).place()


def test_reads_rows_and_parts_alike(tmp_path: Path) -> None:
    values, crop = rows(), np.ones((6, 5), np.float32)
    whole = read_deep3d(write(tmp_path / "a.mat", coeff=values, transform_params=crop))
    np.testing.assert_array_equal(whole.coefficients, values)
    assert whole.crop is not None
    np.testing.assert_array_equal(whole.crop, crop)
    keys = dict(zip(LAYOUT, ("id", "exp", "tex", "angle", "gamma", "trans"), strict=True))
    parts = {key: values[:, LAYOUT[name]] for name, key in keys.items()}
    lm68 = np.zeros((6, 68, 2))
    apart = read_deep3d(write(tmp_path / "b.mat", lm68=lm68, **parts))
    np.testing.assert_array_equal(apart.coefficients, values)
    assert apart.crop is None
    parts["exp"] = parts["exp"][:4]
    with pytest.raises(DataError, match="one length, got \\[4, 6\\]"):
        read_deep3d(write(tmp_path / "c.mat", **parts))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"coeff": np.zeros((3, 258))}, r"coeff \(T, 257\).*got float64 \(3, 258\)"),
        ({"coeff": np.zeros((0, 257))}, "at least one row"),
        ({"coeff": np.full((2, 257), "a")}, "of numbers"),
        ({"other": np.zeros(3)}, "got other"),
        ({"coeff": np.full((3, 257), 200.0)}, "in radians, got 200.0"),
        (
            {"coeff": np.zeros((3, 257)), "transform_params": np.zeros((2, 5))},
            "3 rows of transform",
        ),
    ],
)
def test_other_content_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_deep3d(write(tmp_path / "x.mat", **arrays))


def test_broken_values_are_counted_and_placed(tmp_path: Path) -> None:
    values = rows()
    values[2, 7], values[4, 100] = np.nan, np.inf
    with pytest.raises(DataError, match="in 2 of 6 rows, first in row 2"):
        read_deep3d(write(tmp_path / "x.mat", coeff=values))


def test_unreadable_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no coefficient file"):
        read_deep3d(tmp_path / "absent.mat")
    contents = (b"", b"no MATLAB file at all", b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.mat"
        path.write_bytes(content)
        with pytest.raises(DataError, match="up to version 7"):
            read_deep3d(path)
    whole = write(tmp_path / "cut.mat", coeff=rows(50)).read_bytes()
    (tmp_path / "cut.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="up to version 7"):
        read_deep3d(tmp_path / "cut.mat")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingDependencyError, match="pip install scipy"):
        read_deep3d(tmp_path / "cut.mat")


def counting(frames: int) -> Deep3DTrack:
    """A track whose first coefficient is the number of its row."""
    values = np.zeros((frames, N_COEFFICIENTS), np.float32)
    values[:, 0] = np.arange(frames)
    return Deep3DTrack(values, np.ones((frames, 5), np.float32))


@pytest.mark.parametrize("fps", [12.0, 23.976, 25.0, 29.97, 30.0, 60.0])
def test_rows_follow_the_clock_frame_by_frame(fps: float) -> None:
    track = counting(200)
    for start_s in (0.0, 0.52):
        found = track.on_clock(60, fps, start_s).coefficients[:, 0]
        for t in range(60):
            shown = max(r for r in range(200) if r / fps <= start_s + (t + 0.5) / 25 + 1e-9)
            assert found[t] == shown


def test_lag_and_ends() -> None:
    track = counting(30)
    assert track.on_clock(25, 30.0, lag_rows=2).coefficients[:4, 0].tolist() == [0, 0, 1, 2]
    held = track.on_clock(30, 25.0, 0.08)  # two frames past the end
    assert held.coefficients[-3:, 0].tolist() == [29, 29, 29]
    assert held.crop is not None
    assert len(held.crop) == 30
    with pytest.raises(DataError, match=r"rows 10 to 39 for 30 frames.*got 30 rows"):
        track.on_clock(30, 25.0, 0.4)
    with pytest.raises(DataError, match="rows -20 to 9"):
        track.on_clock(30, 25.0, lag_rows=20)


def test_agrees_with_the_mesh_on_a_real_clip(shared_data: Path) -> None:
    """A clip that turns: the angles have the right sign, order and frame."""
    from talkhead.geometry.motion import pose_free
    from talkhead.landmarks.gaps import bridge
    from talkhead.landmarks.mediapipe_mesh import MediaPipeMesh

    track = read_deep3d(shared_data / "motion" / "motion_043.mat")
    faces = list(MediaPipeMesh().track(iter_frames(shared_data / "clips" / "clip_043.mp4")))
    _, rotation, place, _ = pose_free(bridge(faces)[0])
    assert track.frames == len(rotation)
    ours, theirs = torch.from_numpy(rotation), torch.from_numpy(track.rotation)
    pitch, yaw, roll = correlation(ours, theirs).tolist()
    assert pitch > 0.8
    assert yaw > 0.95
    assert roll > 0.94
    assert best_lag(theirs, ours)[0] == 0
    seen = torch.from_numpy(track.place()[:, :2])
    assert correlation(torch.from_numpy(place), seen).min() > 0.85
