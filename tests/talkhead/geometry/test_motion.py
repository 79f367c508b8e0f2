from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from talkhead.errors import DataError, ShapeError
from talkhead.geometry import face_topology as topology
from talkhead.geometry.motion import (
    MotionModel,
    apply_pose,
    eye_opening,
    gaze,
    mouth_opening,
    neutral_face,
    pose_free,
)
from talkhead.geometry.rigid import fit_similarity
from talkhead.geometry.rotation import euler_to_matrix

Array = NDArray[np.floating[Any]]
FRAMES = 90


def _directions() -> Array:
    """Three smooth expression directions that leave the rigid points and irises alone."""
    canonical = topology.canonical_landmarks()
    jaw = np.zeros((478, 3))
    jaw[topology.LIPS_INNER_LOWER, 1] = 0.04
    jaw[topology.LIPS_OUTER_LOWER, 1] = 0.04
    smile = np.zeros((478, 3))
    smile[topology.LIPS_OUTER, 0] = 0.05 * np.sign(canonical[topology.LIPS_OUTER, 0])
    brows = np.zeros((478, 3))
    brows[topology.PICTURE_LEFT_BROW, 1] = brows[topology.PICTURE_RIGHT_BROW, 1] = -0.03
    out = np.stack([jaw, smile, brows])
    out[:, topology.RIGID] = 0
    return out


def _clip(seed: int, frames: int = FRAMES) -> tuple[Array, Array, dict[str, Array]]:
    """Posed faces with known pose and expression: landmarks, face-space shapes, truth."""
    rng = np.random.default_rng(seed)
    amounts = rng.standard_normal((frames, 3))
    shapes = topology.canonical_landmarks() + np.einsum("te,epc->tpc", amounts, _directions())
    truth = {
        "rotation": rng.normal(0, 0.25, (frames, 3)),
        "translation": 0.5 + rng.normal(0, 0.05, (frames, 2)),
        "scale": 0.3 + rng.normal(0, 0.01, frames),
    }
    return (
        apply_pose(shapes, truth["rotation"], truth["translation"], truth["scale"]),
        shapes,
        truth,
    )


@pytest.fixture(scope="module")
def model() -> MotionModel:
    return MotionModel.fit([_clip(1)[0], _clip(2)[0]], n_expression=4)


def test_similarity_against_a_plain_construction() -> None:
    rng = np.random.default_rng(0)
    shape = rng.standard_normal((12, 3))
    rotation = euler_to_matrix(rng.uniform(-1, 1, (6, 3)))
    scale, shift = rng.uniform(0.1, 3, 6), rng.standard_normal((6, 3))
    points = np.stack([s * shape @ r.T + t for r, s, t in zip(rotation, scale, shift, strict=True)])
    got = fit_similarity(shape, points, rng.uniform(0.1, 1, 12))
    assert got[0] == pytest.approx(rotation)
    assert got[1] == pytest.approx(scale)
    assert got[2] == pytest.approx(shift)


def test_similarity_never_mirrors() -> None:
    shape = np.random.default_rng(0).standard_normal((12, 3))
    rotation, _, _ = fit_similarity(shape, shape[None] * (-1, 1, 1))
    assert np.linalg.det(rotation[0]) == pytest.approx(1.0)


def test_similarity_against_scipy() -> None:
    rng = np.random.default_rng(4)
    for _ in range(5):
        shape, points = rng.standard_normal((8, 3)), rng.standard_normal((1, 8, 3))
        weights = rng.uniform(0.1, 1, 8)
        rotation, scale, shift = fit_similarity(shape, points, weights)
        share = (weights / weights.sum())[:, None]
        x, y = shape - (share * shape).sum(0), points[0] - (share * points[0]).sum(0)
        # The best rotation does not depend on the scale; given it, scale is plain regression.
        reference = Rotation.align_vectors(y, x, weights=weights)[0].as_matrix()
        assert rotation[0] == pytest.approx(reference, abs=1e-6)
        turned = x @ reference.T
        assert scale[0] == pytest.approx((share * turned * y).sum() / (share * turned**2).sum())
        left = points[0] - scale[0] * shape @ rotation[0].T
        assert shift[0] == pytest.approx((share * left).sum(0))


def test_pose_of_a_posed_mesh_is_read_back() -> None:
    landmarks, shapes, truth = _clip(3)
    got, rotation, translation, scale = pose_free(landmarks)
    assert np.abs(got - shapes).max() < 1e-5
    assert np.abs(rotation - truth["rotation"]).max() < 1e-5
    assert np.abs(translation - truth["translation"]).max() < 1e-5
    assert np.abs(scale - truth["scale"]).max() < 1e-5


def test_another_face_keeps_its_shape_over_all_poses() -> None:
    # A face that differs from the canonical one also at its rigid points.
    rng = np.random.default_rng(5)
    face = topology.canonical_landmarks() * (1.1, 0.95, 1.2) + rng.normal(0, 0.01, (478, 3))
    posed = apply_pose(
        np.repeat(face[None], 20, axis=0),
        rng.normal(0, 0.4, (20, 3)),
        rng.normal(0.5, 0.1, (20, 2)),
        rng.uniform(0.2, 0.4, 20),
    )
    shapes = pose_free(posed)[0]
    assert np.ptp(shapes, axis=0).max() < 1e-5


def test_depth_of_the_whole_head_does_not_matter() -> None:
    landmarks, _, _ = _clip(6, 10)
    moved = landmarks + np.array([0, 0, 0.7], np.float32)
    for a, b in zip(pose_free(landmarks), pose_free(moved), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_pose_survives_noisy_depth() -> None:
    landmarks, _, truth = _clip(7)
    noise = np.random.default_rng(0).normal(0, [0.002, 0.002, 0.008], landmarks.shape)
    _, rotation, _, _ = pose_free((landmarks + noise).astype(np.float32))
    error = np.degrees(np.abs(rotation - truth["rotation"]))
    assert error.mean() < 1.0


def test_encode_and_decode_are_inverse(model: MotionModel) -> None:
    landmarks, _, truth = _clip(8)
    neutral = model.neutral_face(landmarks)
    motion = model.encode(landmarks, neutral)
    assert motion.shape == (FRAMES, model.dim)
    assert motion.dtype == np.float32
    assert np.abs(model.decode(motion, neutral) - landmarks).max() < 1e-3
    assert np.abs(motion[:, model.layout["rotation"]] - truth["rotation"]).max() < 1e-3
    # The default neutral is the clip's median.
    assert model.encode(landmarks) == pytest.approx(motion, abs=1e-5)


def test_descriptors_survive_a_round_trip_on_another_face(model: MotionModel) -> None:
    motion = model.encode(_clip(9)[0])
    rng = np.random.default_rng(1)
    other = topology.canonical_landmarks() + rng.normal(0, 0.004, (478, 3))
    neutral = pose_free(other[None].astype(np.float32))[0][0]
    back = model.encode(model.decode(motion, neutral), neutral)
    names = ("rotation", "translation", "scale", "gaze", "mouth", "eyes")
    for name in names:
        part = model.layout[name]
        assert np.abs(back[:, part] - motion[:, part]).max() < 2e-3, name


def test_expression_has_unit_variance_and_rank_of_the_data(model: MotionModel) -> None:
    rows = np.concatenate([model.encode(_clip(s)[0]) for s in (1, 2)])
    deviation = rows[:, model.layout["expression"]].std(axis=0)
    assert deviation[:3] == pytest.approx(1.0, abs=0.02)
    # There are three directions of expression, so the fourth component is empty.
    assert deviation[3] == pytest.approx(0.0, abs=0.05)


def test_principal_components_against_a_singular_value_decomposition(model: MotionModel) -> None:
    shapes = [pose_free(_clip(s)[0])[0].astype(np.float64) for s in (1, 2)]
    # No iris moves in these clips, so the residual is used as it is.
    rows = np.concatenate([(s - np.median(s, axis=0)).reshape(FRAMES, -1) for s in shapes])
    _, singular, directions = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    scale = np.linalg.norm(model.expression_basis, axis=1)[:3]
    overlap = (model.expression_basis[:3] / scale[:, None] * directions[:3]).sum(axis=1)
    assert np.abs(overlap) == pytest.approx(1.0, abs=1e-3)
    assert scale == pytest.approx(singular[:3] / np.sqrt(len(rows)), rel=1e-3)


def test_gaze_is_not_expression(model: MotionModel) -> None:
    landmarks, shapes, truth = _clip(13, 30)
    looking = shapes.copy()
    for iris in (topology.PICTURE_LEFT_IRIS, topology.PICTURE_RIGHT_IRIS):
        looking[:, iris, 0] += 0.04
    moved = apply_pose(looking, truth["rotation"], truth["translation"], truth["scale"])
    neutral = neutral_face(landmarks)
    before, after = model.encode(landmarks, neutral), model.encode(moved, neutral)
    part = model.layout["expression"]
    assert after[:, part] == pytest.approx(before[:, part], abs=1e-3)
    shift = (after - before)[:, model.layout["gaze"]]
    assert (shift[:, 0] > 0.2).all()
    assert np.abs(shift[:, 1]).max() < 1e-4


def test_openings_by_hand() -> None:
    face = topology.canonical_landmarks()[None].astype(np.float64).copy()
    upper, lower = topology.INNER_LIP_PAIR
    face[0, lower, 1] = face[0, upper, 1] + 0.5
    assert mouth_opening(face) == pytest.approx([0.5], abs=1e-6)  # outer-eye distance is 1
    lids = topology.LID_PAIRS[0]
    corners = face[0, [topology.EYE_OUTER[0], topology.EYE_INNER[0]]]
    face[0, lids[1], 1] = face[0, lids[0], 1] + 0.3 * np.linalg.norm(corners[1] - corners[0])
    assert eye_opening(face)[0, 0] == pytest.approx(0.3)
    assert gaze(face)[0, 0] == pytest.approx(0.0, abs=0.05)


def test_decode_sets_lids_lips_and_irises_exactly(model: MotionModel) -> None:
    landmarks, _, _ = _clip(14, 12)
    neutral = neutral_face(landmarks)
    motion = model.encode(landmarks, neutral)
    motion[:, model.layout["eyes"]] = (0.05, 0.30)
    motion[:, model.layout["gaze"]] = (0.3, -0.2)
    motion[:, model.layout["mouth"]] = 0.25
    shapes = pose_free(model.decode(motion, neutral))[0]
    assert eye_opening(shapes) == pytest.approx(np.tile([0.05, 0.30], (12, 1)), abs=2e-3)
    assert gaze(shapes) == pytest.approx(np.tile([0.3, -0.2], (12, 1)), abs=2e-3)
    assert mouth_opening(shapes) == pytest.approx(np.full(12, 0.25), abs=2e-3)


def test_missing_openings_leave_the_expression_alone(model: MotionModel) -> None:
    landmarks, _, _ = _clip(15, 6)
    neutral = neutral_face(landmarks)
    motion = model.encode(landmarks, neutral)
    open_motion = motion.copy()
    for name in ("eyes", "gaze", "mouth"):
        open_motion[:, model.layout[name]] = np.nan
    assert model.decode(open_motion, neutral) == pytest.approx(landmarks, abs=1e-3)


def test_layout_and_dim(model: MotionModel) -> None:
    layout = model.layout
    assert list(layout) == [
        "rotation", "translation", "scale", "expression", "eyes", "gaze", "mouth",
    ]  # fmt: skip
    covered = np.concatenate([np.arange(model.dim)[s] for s in layout.values()])
    assert np.array_equal(covered, np.arange(11 + 4))


def test_save_and_load(model: MotionModel, tmp_path: Path) -> None:
    path = tmp_path / "motion_model.npz"
    model.save(path)
    again = MotionModel.load(path)
    landmarks = _clip(16, 5)[0]
    assert np.array_equal(again.encode(landmarks), model.encode(landmarks))
    assert [p.name for p in tmp_path.iterdir()] == ["motion_model.npz"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot read"):
        MotionModel.load(path)
    with pytest.raises(DataError, match="cannot read"):
        MotionModel.load(tmp_path / "absent.npz")


def test_bad_input_is_refused(model: MotionModel) -> None:
    landmarks = _clip(17, 3)[0]
    with pytest.raises(ShapeError, match="478"):
        model.encode(landmarks[:, :468])
    broken = landmarks.copy()
    broken[1, 4, 0] = np.nan
    with pytest.raises(ShapeError, match="NaN"):
        model.encode(broken)
    with pytest.raises(ShapeError, match="motion"):
        model.decode(np.zeros((3, 5)), topology.canonical_landmarks())
    with pytest.raises(ShapeError, match="neutral"):
        model.decode(np.zeros((3, model.dim)), landmarks)
    with pytest.raises(ShapeError, match="n_expression"):
        MotionModel(np.zeros(1434), np.zeros((2, 1434)), 3)
    with pytest.raises(DataError, match="no clip"):
        MotionModel.fit([])
    with pytest.raises(DataError, match="never move"):
        MotionModel.fit([np.repeat(landmarks[:1], 5, axis=0)])
