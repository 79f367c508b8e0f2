from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datamodules.base import TalkheadDataModule
from datamodules.datasets import (
    FramePairDataset,
    SequenceDataset,
    VideoPool,
    WindowDataset,
    collate,
    draw_apart,
)
from datamodules.features import ensure_features
from datamodules.shards import PreparedSet
from talkhead.batch import FeatureSource, FramePairs, Sequences, Windows
from talkhead.errors import DataError


@pytest.fixture
def prepared(shared_set: Path) -> PreparedSet:
    return PreparedSet(shared_set)


class Channels(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1))


def test_frame_pairs_hold_the_target_out(prepared: PreparedSet) -> None:
    rows = prepared.rows("train")
    dataset = FramePairDataset(prepared, rows, FramePairs(6, 32), seed=1)
    assert len(dataset) == 4 * (60 // 25)
    for item in range(12):
        sample = dataset[item]
        assert sample.identity.shape == (6, 3, 32, 32)
        row = prepared.row(sample.clip[0])
        at = [
            i
            for i in range(60)
            if torch.equal(torch.from_numpy(prepared.landmarks(row, [i])[0]), sample.landmarks)
        ]
        assert len(at) == 1
        torch.testing.assert_close(prepared.frames(row, at)[0], sample.target)
        # Identity frames are different pictures of the same video.
        video = torch.cat([prepared.frames(r, range(60)) for r in rows if r.video == row.video])
        for picture in sample.identity:
            assert (video == picture).flatten(1).all(dim=1).any()
    batch = collate([dataset[0], dataset[1]])
    assert batch.identity.shape == (2, 6, 3, 32, 32)
    assert len(batch.clip) == 2


def test_extra_frames_come_with_their_own_motion(prepared: PreparedSet) -> None:
    rows = prepared.rows("train")
    need = FramePairs(1, 32, extra_frames=5)
    dataset = FramePairDataset(prepared, rows, need, seed=1)
    sample = dataset[3]
    video = prepared.row(sample.clip[0]).video
    clips = [row for row in rows if row.video == video]
    pictures = torch.cat([prepared.frames(row, range(60)) for row in clips])
    motion = torch.cat([torch.from_numpy(prepared.motion(row)) for row in clips])
    assert sample.extra.shape == (5, 3, 32, 32)
    places = []
    for picture, moved in zip(sample.extra, sample.extra_motion, strict=True):
        (at,) = (motion == moved).all(1).nonzero()[:, 0].tolist()
        assert torch.equal(pictures[at], picture)
        places.append(at)
    assert len(set(places)) == 5
    none = FramePairDataset(prepared, rows, FramePairs(1, 32), seed=1)[3]
    assert none.extra.shape == (0, 3, 32, 32)
    assert none.extra_motion.shape == (0, prepared.motion_dim)
    assert torch.equal(none.target, sample.target)


def test_identity_frames_come_with_their_landmarks_when_asked(prepared: PreparedSet) -> None:
    rows = prepared.rows("train")
    plain = FramePairDataset(prepared, rows, FramePairs(3, 32), seed=1)[5]
    assert plain.identity_landmarks.shape == (0, 478, 3)
    need = FramePairs(3, 32, identity_landmarks=True)
    sample = FramePairDataset(prepared, rows, need, seed=1)[5]
    assert torch.equal(sample.identity, plain.identity)
    video = prepared.row(sample.clip[0]).video
    clips = [row for row in rows if row.video == video]
    pictures = torch.cat([prepared.frames(row, range(60)) for row in clips])
    landmarks = torch.cat([torch.from_numpy(prepared.landmarks(row)) for row in clips])
    for picture, points in zip(sample.identity, sample.identity_landmarks, strict=True):
        (at,) = (landmarks == points).flatten(1).all(1).nonzero()[:, 0].tolist()
        assert torch.equal(pictures[at], picture)
    assert collate([sample, sample]).identity_landmarks.shape == (2, 3, 478, 3)


def test_places_never_repeat_the_target_nor_each_other(prepared: PreparedSet) -> None:
    dataset = FramePairDataset(prepared, prepared.rows("train"), FramePairs(119, 8), seed=1)
    seen: list[tuple[str, int]] = []
    original = prepared.frames

    def spy(clip: object, indices: list[int], size: int | None = None) -> Tensor:
        seen.extend((clip.id, int(i)) for i in indices)  # type: ignore[attr-defined]
        return original(clip, indices, size)  # type: ignore[arg-type]

    prepared.frames = spy  # type: ignore[method-assign,assignment]
    dataset[0]
    # A video has two clips of 60 frames: 119 identity frames and the target are all of them.
    assert len(seen) == len(set(seen)) == 120


def test_training_draws_anew_and_evaluation_does_not(prepared: PreparedSet) -> None:
    rows = prepared.rows("train")
    need = FramePairs(2, 8)
    train = FramePairDataset(prepared, rows, need, seed=1)
    again = FramePairDataset(prepared, rows, need, seed=1)
    n = len(train)
    first, later = train[3], train[3 + n]
    assert first.clip == later.clip
    assert not torch.equal(first.landmarks, later.landmarks)
    torch.testing.assert_close(first.identity, again[3].identity)
    torch.testing.assert_close(first.landmarks, again[3].landmarks)
    evals = [FramePairDataset(prepared, rows, need, seed=s, resample=False) for s in (1, 2)]
    for i in range(n):
        torch.testing.assert_close(evals[0][i].landmarks, evals[1][i].landmarks)
    few = FramePairDataset(prepared, rows, need, resample=False, items=2)
    assert [few[i].clip for i in range(len(few))] == [["s00/v0/c00"], ["s01/v0/c01"]]


def test_short_epochs_visit_every_clip_over_time(prepared: PreparedSet) -> None:
    rows = prepared.rows("train")
    dataset = FramePairDataset(prepared, rows, FramePairs(1, 8), items=2)
    assert len(dataset) == 2
    visited = [dataset._draw(item)[0].id for item in range(8)]
    assert {name: visited.count(name) for name in set(visited)} == {row.id: 2 for row in rows}


def test_windows_are_aligned_and_of_one_clip(prepared: PreparedSet) -> None:
    need = Windows(10, 16, min_gap_frames=3, identity_frames=2)
    dataset = WindowDataset(prepared, prepared.rows("train"), need)
    assert len(dataset) == 4 * 6
    for item in range(5):
        sample = dataset[item]
        row = prepared.row(sample.clip[0])
        frames = sample.frame_index.tolist()
        assert min(np.diff(frames)) >= 3
        torch.testing.assert_close(sample.frames, prepared.frames(row, frames, 16))
        torch.testing.assert_close(sample.mel, prepared.mel_windows(row, frames))
        expected = torch.from_numpy(prepared.landmarks(row, frames))
        torch.testing.assert_close(sample.landmarks, expected)
        assert sample.identity.shape == (2, 3, 16, 16)
    batch = collate([dataset[0], dataset[1], dataset[2]])
    assert batch.mel.shape == (3, 10, 1, 80, 20)
    without = WindowDataset(prepared, prepared.rows("train"), Windows(4, 16))
    assert without[0].identity.shape == (0, 3, 16, 16)


def test_short_clips_borrow_from_their_video_or_are_left_out(
    prepared: PreparedSet, caplog: pytest.LogCaptureFixture
) -> None:
    rows = prepared.rows("train")
    dataset = WindowDataset(prepared, rows, Windows(100, 8))
    sample = dataset[0]
    assert sample.frames.shape[0] == 100
    assert not caplog.records
    # 100 of the 120 frames of two clips, in order: the numbers fall back once.
    assert (np.diff(sample.frame_index.numpy()) < 0).sum() == 1
    mixed = [replace(rows[0], video="alone"), *rows[1:]]
    assert len(WindowDataset(prepared, mixed, Windows(100, 8)).slots) == 2
    assert "2 of 4 clips are left out" in caplog.text
    with pytest.raises(DataError, match="at least 121 frames"):
        WindowDataset(prepared, rows, Windows(121, 8))


def test_draw_apart_is_uniform_over_all_sets() -> None:
    rng = np.random.default_rng(0)
    # Pairs out of 5 with a gap of at least 3: (0,3) (0,4) (1,4).
    drawn = [tuple(draw_apart(rng, 5, 2, 3).tolist()) for _ in range(3000)]
    counts = {pair: drawn.count(pair) for pair in set(drawn)}
    assert set(counts) == {(0, 3), (0, 4), (1, 4)}
    assert all(abs(count - 1000) < 130 for count in counts.values())
    assert draw_apart(rng, 7, 3, 3).tolist() == [0, 3, 6]


def test_pool_locates_frames_of_several_clips(prepared: PreparedSet) -> None:
    rows = prepared.rows("train")[:2]
    pool = VideoPool(rows)
    assert pool.locate(np.asarray([0, 59, 60, 119])) == [
        (rows[0], 0),
        (rows[0], 59),
        (rows[1], 0),
        (rows[1], 59),
    ]
    assert pool.first(rows[1]) == 60


def _sequences(root: Path, need: Sequences, *, resample: bool) -> SequenceDataset:
    prepared = PreparedSet(root)
    sources = {"v": FeatureSource("v", "0" * 12, "frames", Channels(), 3, 32)}
    store = ensure_features(prepared, sources)
    return SequenceDataset(prepared, prepared.rows("train"), need, store, resample=resample)


def test_evaluation_runs_cover_every_clip_once(own_set: Path) -> None:
    dataset = _sequences(own_set, Sequences(25), resample=False)
    batch = dataset.__getitems__(list(range(len(dataset))))
    assert batch.start.tolist() == [0, 25, 50] * 4
    assert batch.valid.sum(dim=1).tolist() == [25, 25, 10] * 4
    prepared = dataset.prepared
    for clip in {*batch.clip}:
        mine = [i for i, name in enumerate(batch.clip) if name == clip]
        motion = batch.motion[mine][batch.valid[mine]]
        np.testing.assert_array_equal(motion.numpy(), prepared.motion(clip))
        features = batch.features["v"][mine][batch.valid[mine]]
        torch.testing.assert_close(features, dataset.store.window("v", prepared.row(clip)))
    assert batch.motion[~batch.valid].abs().max() == 0
    assert batch.features["v"].dtype == torch.float32


def test_training_runs_start_anywhere(own_set: Path) -> None:
    dataset = _sequences(own_set, Sequences(40), resample=True)
    assert len(dataset) == 4 * 2
    batch = dataset.__getitems__(list(range(400)))
    assert sorted(set(batch.start.tolist())) == list(range(21))
    assert batch.valid.all()
    prepared = dataset.prepared
    for b in (0, 17):
        start = int(batch.start[b])
        expected = prepared.motion(batch.clip[b], slice(start, start + 40))
        np.testing.assert_array_equal(batch.motion[b].numpy(), expected)
    torch.testing.assert_close(dataset[17].motion[0], batch.motion[17])


def test_runs_longer_than_the_clip_are_padded(own_set: Path) -> None:
    dataset = _sequences(own_set, Sequences(64), resample=True)
    batch = dataset.__getitems__([0, 1])
    assert batch.start.tolist() == [0, 0]
    assert batch.valid.sum(dim=1).tolist() == [60, 60]


def test_whole_runs_leave_out_what_would_be_padded(
    own_set: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = _sequences(own_set, Sequences(25, whole=True), resample=False)
    batch = dataset.__getitems__(list(range(len(dataset))))
    assert batch.start.tolist() == [0, 25] * 4
    assert batch.valid.all()
    overlapping = _sequences(own_set, Sequences(25, stride=10, whole=True), resample=False)
    starts = [int(overlapping[i].start) for i in range(len(overlapping))]
    assert starts == [0, 10, 20, 30] * 4
    prepared, store = dataset.prepared, dataset.store
    rows = prepared.rows("train")
    mixed = [replace(rows[0], frames=24), *rows[1:]]
    assert not caplog.records
    for resample in (False, True):
        caplog.clear()
        left = SequenceDataset(prepared, mixed, Sequences(25, whole=True), store, resample=resample)
        drawn = left.__getitems__(list(range(len(left))))
        assert set(drawn.clip) == {row.id for row in rows[1:]}
        assert drawn.valid.all()
        assert "1 of 4 clips are left out" in caplog.text
    with pytest.raises(DataError, match="at least 61 frames, got none among 4 clips"):
        SequenceDataset(prepared, rows, Sequences(61, whole=True), store)


def test_an_evaluation_length_keeps_runs_whole(own_set: Path) -> None:
    data = TalkheadDataModule(str(own_set), batch_size=2, eval_length=25, feature_device="cpu")
    source = FeatureSource("v", "0" * 12, "frames", Channels(), 3, 32)
    for whole, runs in ((True, 4), (False, 6)):
        data.attach(Sequences(40, whole=whole), {"v": source})
        data.setup("test")
        batches = list(data.test_dataloader())
        assert sum(len(batch.clip) for batch in batches) == runs
        assert all(bool(batch.valid.all()) for batch in batches) == whole


def test_overlapping_runs_reach_the_end(own_set: Path) -> None:
    dataset = _sequences(own_set, Sequences(25, stride=10), resample=False)
    batch = dataset.__getitems__(list(range(5)))
    assert batch.start.tolist() == [0, 10, 20, 30, 40]
    assert int(batch.valid[4].sum()) == 20
