from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datamodules.features import ensure_features
from datamodules.shards import PreparedSet
from talkhead.audio.filter_bank import log_filter_bank
from talkhead.batch import SequenceBatch, to_float
from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import smoothed, unpack
from talkhead.networks.component import Component, weights_digest
from talkhead.networks.landmark_keypoints import LandmarkKeypoints
from talkhead.networks.mesh_keypoints import MeshKeypoints
from talkhead.stages.keypoint_features import (
    augmented,
    keypoint_sources,
    read_run,
    resolve_landmark_renderer,
)
from tests.datamodules.fakes import make_prepared

STILL = {"scale": (1.0, 1.0), "shift": 0.0, "level": 0.0}


class Corner(Component):
    """Sixty times the mean of a picture's left half, scaled."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def describe(self, pictures: Tensor) -> Tensor:
        left = pictures[..., : pictures.shape[-1] // 2].mean(dim=(1, 2, 3))
        return self.weight * left[:, None].expand(-1, 60)


def batch(count: int, frames: int = 6, seed: int = 0) -> SequenceBatch:
    generator = torch.Generator().manual_seed(seed)
    widths = {"keypoints": 60, "keypoints_mirrored": 60, "filter_bank": 104}
    features = {
        name: torch.randn(count, frames, dim, generator=generator) for name, dim in widths.items()
    }
    return SequenceBatch(
        features=features,
        motion=torch.zeros(count, frames, 1),
        valid=torch.ones(count, frames, dtype=torch.bool),
        start=torch.zeros(count, dtype=torch.long),
    )


def test_a_landmark_renderer_comes_whole_or_not_at_all() -> None:
    small: dict[str, Any] = {"width": 4, "max_width": 8, "residual_blocks": 1, "motion_width": 4,
             "motion_max_width": 8, "motion_blocks": 2}  # fmt: skip
    detector, renderer = resolve_landmark_renderer({}, small)
    assert isinstance(detector, LandmarkKeypoints)
    assert renderer is not None
    assert not any(p.requires_grad for p in renderer.parameters())
    assert resolve_landmark_renderer(None, None) == (None, None)
    for given in (True, False):
        with pytest.raises(ConfigError, match="give both the same checkpoint"):
            resolve_landmark_renderer({} if given else None, None if given else small)


def flipped(made: SequenceBatch) -> Tensor:
    """Which runs of one draw are mirrored; each must be one or the other, as a whole."""
    found = augmented(made, smooth=False, **STILL).keypoints  # type: ignore[arg-type]  # one dict, two types
    mirrored = (found == made.features["keypoints_mirrored"]).all(dim=(1, 2))
    straight = (found == made.features["keypoints"]).all(dim=(1, 2))
    assert (mirrored ^ straight).all()
    return mirrored


def test_cached_features_of_the_mesh(tmp_path: Path) -> None:
    prepared = PreparedSet(make_prepared(tmp_path, speakers=1, clips=1, frames=20))
    net = MeshKeypoints()
    sources = keypoint_sources(net)
    assert {name: (s.kind, s.dim) for name, s in sources.items()} == {
        "keypoints": ("landmarks", 60),
        "keypoints_mirrored": ("landmarks", 60),
        "filter_bank": ("wave", 104),
    }
    store = ensure_features(prepared, sources, batch_size=8)
    row = prepared.all_rows[0]
    rows = net(torch.from_numpy(prepared.landmarks(row)))
    torch.testing.assert_close(store.window("keypoints", row), rows, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        store.window("keypoints_mirrored", row), net.mirror(rows), atol=1e-3, rtol=1e-3
    )
    made = SequenceBatch(
        features={name: store.window(name, row)[None] for name in sources},
        motion=torch.zeros(1, 20, 1),
        valid=torch.ones(1, 20, dtype=torch.bool),
        start=torch.zeros(1),
    )
    run = read_run(made, smooth=False)
    assert run.keypoints.shape == (1, 20, 60)
    energies = log_filter_bank(torch.from_numpy(prepared.audio(row)).float())
    torch.testing.assert_close(run.audio[0], energies, atol=0.02, rtol=1e-3)


def test_a_detector_sees_the_picture_and_its_mirror_image(tmp_path: Path) -> None:
    prepared = PreparedSet(make_prepared(tmp_path, speakers=1, clips=1, frames=4))
    sources = keypoint_sources(Corner(), size=32)
    assert [s.kind for s in sources.values()] == ["frames", "frames", "wave"]
    store = ensure_features(prepared, sources)
    row = prepared.all_rows[0]
    pictures = to_float(prepared.frames(row, range(4)))
    for name, half in (
        ("keypoints", pictures[..., :16]),
        ("keypoints_mirrored", pictures[..., 16:]),
    ):
        wanted = half.mean(dim=(1, 2, 3))[:, None].expand(-1, 60)
        torch.testing.assert_close(store.window(name, row), wanted, atol=1e-3, rtol=1e-3)


def test_digests_tell_detectors_apart() -> None:
    one, other = keypoint_sources(Corner()), keypoint_sources(Corner(2.0))
    assert one["keypoints"].digest == weights_digest(Corner())
    assert one["keypoints"].digest != other["keypoints"].digest
    assert one["filter_bank"].digest == other["filter_bank"].digest
    assert keypoint_sources(Corner(), size=128)["keypoints"].size == 128


def test_sound_and_smoothing_of_a_run() -> None:
    made = batch(2)
    run = read_run(made, smooth=True)
    torch.testing.assert_close(run.keypoints, smoothed(made.features["keypoints"]))
    assert run.audio.shape == (2, 24, 26)
    # Frame 3 owns the steps 12 to 15.
    assert torch.equal(run.audio[1, 14], made.features["filter_bank"][1, 3, 52:78])
    plain = augmented(made, smooth=True, flip=False, **STILL)  # type: ignore[arg-type]  # as above
    assert torch.equal(plain.keypoints, run.keypoints)
    assert torch.equal(plain.audio, run.audio)
    both = augmented(made, smooth=True, **STILL)  # type: ignore[arg-type]  # as above
    assert torch.equal(both.audio, run.audio)
    known = torch.stack([run.keypoints, smoothed(made.features["keypoints_mirrored"])])
    assert (known == both.keypoints).all(dim=(2, 3)).any(dim=0).all()


def test_every_run_is_mirrored_or_not_by_a_fresh_draw() -> None:
    # The released code keeps mirroring once it has begun: here a run says nothing about the next.
    torch.manual_seed(0)
    drawn = torch.stack([flipped(batch(4)) for _ in range(400)]).float()
    shares = drawn.mean(dim=0)
    assert (shares - 0.5).abs().max() < 0.1
    within = torch.corrcoef(drawn.T)
    assert (within - torch.eye(4)).abs().max() < 0.2
    between = torch.corrcoef(torch.stack([drawn[:-1].flatten(), drawn[1:].flatten()]))[0, 1]
    assert between.abs() < 0.1
    back = (drawn[:-1] == 1) & (drawn[1:] == 0)
    assert back.float().mean() == pytest.approx(0.25, abs=0.05)


def test_scale_and_shift_are_constant_over_a_run_and_fill_their_range() -> None:
    torch.manual_seed(1)
    made = batch(500)
    before = unpack(made.features["keypoints"])
    after = unpack(augmented(made, smooth=False, flip=False).keypoints)
    scale = (after.jacobians / before.jacobians).flatten(1)
    torch.testing.assert_close(scale, scale[:, :1].expand_as(scale), rtol=1e-3, atol=0)
    assert 0.9 <= scale.min() < 0.902
    assert 1.098 < scale.max() <= 1.1001
    assert float(scale.mean()) == pytest.approx(1.0, abs=0.01)
    shift = (after.points - before.points * scale[:, :1, None, None]).flatten(1, 2)
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), rtol=1e-3, atol=1e-4)
    for axis in range(2):
        assert float(shift[..., axis].amin()) == pytest.approx(-0.16, abs=2e-3)
        assert float(shift[..., axis].amax()) == pytest.approx(0.16, abs=2e-3)
    assert abs(float(torch.corrcoef(shift[:, 0].T)[0, 1])) < 0.15


def test_the_level_moves_all_energies_by_one_number() -> None:
    torch.manual_seed(2)
    made = batch(500)
    before = read_run(made, smooth=False).audio
    offset = augmented(made, smooth=False).audio - before
    torch.testing.assert_close(offset, offset[:, :1, :1].expand_as(offset), atol=1e-5, rtol=0)
    share = offset[:, 0, 0] / (before.amax(dim=(1, 2)) - before.amin(dim=(1, 2)))
    assert float(share.min()) == pytest.approx(-0.1, abs=2e-3)
    assert float(share.max()) == pytest.approx(0.1, abs=2e-3)


def test_draws_follow_the_global_seed() -> None:
    made = batch(3)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(augmented(made, smooth=False))
    assert torch.equal(runs[0].keypoints, runs[1].keypoints)
    assert torch.equal(runs[0].audio, runs[1].audio)
    assert not torch.equal(runs[0].keypoints, runs[2].keypoints)


def test_bad_requests_are_named() -> None:
    with pytest.raises(ConfigError, match="got Plain; pass a keypoint detector"):
        keypoint_sources(Plain())
    made = batch(1)
    del made.features["keypoints_mirrored"]  # type: ignore[attr-defined]  # a dict here
    read_run(made, smooth=False)
    with pytest.raises(ShapeError, match=r"expected feature keypoints_mirrored \(B, T, 60\), got"):
        augmented(made, smooth=False)
    with pytest.raises(ConfigError, match=r"scale \(1.1, 0.9\)"):
        augmented(made, smooth=False, scale=(1.1, 0.9))
    with pytest.raises(ConfigError, match="shift -1"):
        augmented(made, smooth=False, shift=-1.0)


class Plain(Component):
    def __init__(self) -> None:
        super().__init__()
