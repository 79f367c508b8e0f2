from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from datamodules.base import TalkheadDataModule
from datamodules.features import ensure_features
from datamodules.shards import PreparedSet
from datamodules.speech_runs import SpeechRunDataset
from talkhead.batch import SPEECH, FeatureSource, SpeechRunBatch, SpeechRuns
from talkhead.errors import ConfigError, DataError
from talkhead.geometry.points68 import ibug_points
from tests.datamodules.fakes import make_prepared

NEED = SpeechRuns(3, frames=9, size=32, min_gap_frames=5)


class Count(nn.Module):
    """Number of each step in the clip, and its negative."""

    def forward(self, wave: Tensor) -> Tensor:
        steps = torch.arange(2.0 * (len(wave) // 640))
        return torch.stack([steps, -steps], dim=1).reshape(-1, 4)


SOURCE = {SPEECH: FeatureSource(SPEECH, "0" * 64, "wave", Count(), 4)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_prepared(tmp_path_factory.mktemp("runs"), frames=60, size=32)


def dataset(root: Path, need: SpeechRuns = NEED, resample: bool = True) -> SpeechRunDataset:
    prepared = PreparedSet(root)
    store = ensure_features(prepared, SOURCE)
    return SpeechRunDataset(
        prepared, prepared.rows("train"), need, store, seed=2, resample=resample
    )


def test_runs_carry_their_pictures_points_and_speech(root: Path) -> None:
    made = dataset(root)
    for item in range(6):
        sample = made[item]
        assert sample.frames.shape == (3, 9, 3, 32, 32)
        assert sample.points.shape == (3, 9, 68, 2)
        assert sample.speech.shape == (3, 18, 2)
        assert sample.frame_speech.shape == (3, 0, 18, 2)
        first = sample.frame_index
        assert (first.diff() >= 5).all()
        assert first.min() >= 0
        assert first.max() <= 60 - 9
        # Nine frames of 18 steps: the very steps of the run.
        assert torch.equal(sample.speech[:, :, 0], 2.0 * first[:, None] + torch.arange(18))
        assert torch.equal(sample.speech[..., 1], -sample.speech[..., 0])
        row = next(r for r in made.prepared.rows("train") if r.id == sample.clip[0])
        last = int(first[2]) + 8
        assert torch.equal(sample.frames[2, 8], made.prepared.frames(row, [last], 32)[0])
        points = torch.from_numpy(ibug_points(made.prepared.landmarks(row, [last])))
        assert torch.equal(sample.points[2, 8], points[0, :, :2])


def test_windows_of_every_frame_stay_in_the_clip(root: Path) -> None:
    need = SpeechRuns(2, frames=5, size=32, window=18, align="centre", every_frame=True)
    sample = dataset(root, need)[0]
    assert sample.frame_speech.shape == (2, 5, 18, 2)
    frames = sample.frame_index[:, None] + torch.arange(5)
    starts = (2 * frames - 8).clamp(0, 120 - 18).float()
    assert torch.equal(sample.frame_speech[..., 0, 0], starts)
    # A run's window is that of its middle frame.
    assert torch.equal(sample.speech, sample.frame_speech[:, 2])


def test_training_draws_anew_and_evaluation_repeats(root: Path) -> None:
    train, fixed = dataset(root), dataset(root, resample=False)
    assert torch.equal(train[4].frame_index, train[4].frame_index)
    epochs = [train[4 + k * len(train)].frame_index.tolist() for k in range(4)]
    assert len({tuple(x) for x in epochs}) > 1
    assert fixed[0].clip == fixed[0].clip
    assert torch.equal(fixed[0].frame_index, fixed[0].frame_index)


def test_the_datamodule_serves_batches(root: Path) -> None:
    module = TalkheadDataModule(str(root), batch_size=2, seed=1)
    module.attach(NEED, SOURCE)
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert isinstance(batch, SpeechRunBatch)
    assert batch.frames.shape == (2, 3, 9, 3, 32, 32)
    assert len(batch.clip) == 2


def test_missing_features_and_short_clips_are_refused(root: Path) -> None:
    prepared = PreparedSet(root)
    empty = ensure_features(prepared, {})
    with pytest.raises(ConfigError, match="expected the feature speech"):
        SpeechRunDataset(prepared, prepared.rows("train"), NEED, empty)
    store = ensure_features(prepared, SOURCE)
    # 3 runs 26 frames apart end with frame 2 * 26 + 9 = 61.
    with pytest.raises(DataError, match="at least 61 frames"):
        SpeechRunDataset(prepared, prepared.rows("train"), SpeechRuns(3, min_gap_frames=26), store)
    assert (
        len(
            SpeechRunDataset(
                prepared, prepared.rows("train"), SpeechRuns(3, min_gap_frames=25), store
            )
        )
        > 0
    )
