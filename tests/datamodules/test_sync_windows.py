from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.datasets import SyncWindowDataset, collate
from datamodules.shards import PreparedSet
from talkhead.batch import SyncBatch, SyncWindows
from talkhead.errors import DataError
from tests.datamodules.splits import one_of_each_split
from tests.oracles.mfcc import mfcc_step


@pytest.fixture
def prepared(shared_set: Path) -> PreparedSet:
    return PreparedSet(shared_set)


def test_runs_are_consecutive_and_carry_their_own_sound(prepared: PreparedSet) -> None:
    need = SyncWindows(6, 16, min_gap_frames=3)
    dataset = SyncWindowDataset(prepared, prepared.rows("train"), need)
    assert len(dataset) == 4 * 10
    for item in range(4):
        sample = dataset[item]
        row = prepared.row(sample.clip[0])
        starts = sample.frame_index.tolist()
        assert min(np.diff(starts)) >= 3
        assert max(starts) <= row.frames - 6
        for run, start in zip(sample.frames, starts, strict=True):
            assert torch.equal(run, prepared.frames(row, range(start, start + 5), 16))
        cepstra = prepared.mfcc(row)
        for sound, start in zip(sample.mfcc, starts, strict=True):
            assert torch.equal(sound[0], cepstra[4 * start : 4 * start + 20].T)
    batch = collate([dataset[0], dataset[1]])
    assert batch.frames.shape == (2, 6, 5, 3, 16, 16)
    assert batch.mfcc.shape == (2, 6, 1, 13, 20)
    assert batch.frame_index.shape == (2, 6)
    assert len(batch.clip) == 2


def test_cepstra_of_a_clip_are_those_of_its_samples(prepared: PreparedSet) -> None:
    row = prepared.rows("train")[1]
    pcm = prepared.audio(row).astype(np.float64)
    cepstra = prepared.mfcc(row)
    assert cepstra.shape == (4 * row.frames - 1, 13)
    for step in (0, 101, len(cepstra) - 1):
        assert cepstra[step].tolist() == pytest.approx(mfcc_step(pcm, step), abs=1e-3, rel=1e-5)


def test_training_draws_anew_and_evaluation_does_not(prepared: PreparedSet) -> None:
    rows, need = prepared.rows("train"), SyncWindows(4, 8)
    train = SyncWindowDataset(prepared, rows, need, seed=1)
    n = len(train)
    assert train[3].clip == train[3 + n].clip
    assert train[3].frame_index.tolist() != train[3 + n].frame_index.tolist()
    again = SyncWindowDataset(prepared, rows, need, seed=1)
    assert torch.equal(train[3].frames, again[3].frames)
    assert torch.equal(train[3].mfcc, again[3].mfcc)
    evals = [SyncWindowDataset(prepared, rows, need, seed=s, resample=False) for s in (1, 2)]
    for i in range(3):
        assert torch.equal(evals[0][i].frame_index, evals[1][i].frame_index)
    assert len(SyncWindowDataset(prepared, rows, need, resample=False, items=2)) == 2


def test_short_clips_are_left_out_even_when_their_video_is_long(
    prepared: PreparedSet, caplog: pytest.LogCaptureFixture
) -> None:
    rows = prepared.rows("train")
    # 60 frames hold 55 windows, and no clip lends its frames to another.
    whole = SyncWindowDataset(prepared, rows, SyncWindows(55, 8))
    assert whole[0].frame_index.tolist() == list(range(55))
    assert not caplog.records
    mixed = [replace(rows[0], frames=59), *rows[1:]]
    assert (
        len({row.id for row in SyncWindowDataset(prepared, mixed, SyncWindows(55, 8)).slots}) == 3
    )
    assert "1 of 4 clips are left out" in caplog.text
    with pytest.raises(DataError, match="at least 61 frames"):
        SyncWindowDataset(prepared, rows, SyncWindows(56, 8))


def test_the_datamodule_serves_the_need_in_every_split(shared_set: Path) -> None:
    for batch in one_of_each_split(shared_set, SyncWindows(3, 16)):
        assert isinstance(batch, SyncBatch)
        assert batch.frames.shape == (2, 3, 5, 3, 16, 16)
