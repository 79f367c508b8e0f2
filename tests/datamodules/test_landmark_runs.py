from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.datasets import LandmarkRunDataset, collate
from datamodules.shards import PreparedSet
from talkhead.audio.filter_bank import log_filter_bank
from talkhead.batch import LandmarkBatch, LandmarkRuns
from talkhead.errors import DataError
from talkhead.geometry.points68 import MESH_INDEX
from tests.datamodules.splits import one_of_each_split
from tests.oracles.mfcc import log_filter_bank_step


@pytest.fixture
def prepared(shared_set: Path) -> PreparedSet:
    return PreparedSet(shared_set)


def test_evaluation_cuts_consecutive_whole_runs(prepared: PreparedSet) -> None:
    rows = prepared.rows("train")
    dataset = LandmarkRunDataset(prepared, rows, LandmarkRuns(25), resample=False)
    # Clips of 60 frames: two whole runs each, ten frames are left over.
    assert len(dataset) == 2 * len(rows) == 8
    for item, (row, start) in enumerate([(r, s) for r in rows for s in (0, 25)]):
        sample = dataset[item]
        assert sample.clip == [row.id]
        assert int(sample.start) == start
        mesh = prepared.landmarks(row)[start : start + 25]
        assert torch.equal(sample.points, torch.from_numpy(mesh[:, list(MESH_INDEX)]))
    batch = collate([dataset[0], dataset[3]])
    assert batch.points.shape == (2, 25, 68, 3)
    assert batch.filter_bank.shape == (2, 100, 26)
    assert batch.start.tolist() == [0, 25]
    assert batch.clip == [rows[0].id, rows[1].id]


def test_sound_is_that_of_the_run_alone(prepared: PreparedSet) -> None:
    row = prepared.rows("train")[1]
    dataset = LandmarkRunDataset(prepared, [row], LandmarkRuns(6), resample=False)
    sample = dataset[3]
    pcm = prepared.audio(row)[640 * 18 : 640 * 24]
    for step in (0, 13, 23):
        slow = log_filter_bank_step(pcm.astype(np.float64), step)
        assert sample.filter_bank[step].tolist() == pytest.approx(slow, abs=1e-3, rel=1e-4)
    assert torch.equal(sample.filter_bank, log_filter_bank(torch.from_numpy(pcm).float()))


def test_training_draws_anew_and_evaluation_does_not(prepared: PreparedSet) -> None:
    rows, need = prepared.rows("train"), LandmarkRuns(20)
    train = LandmarkRunDataset(prepared, rows, need, seed=1)
    n = len(train)
    drawn = [train[i] for i in range(4 * n)]
    assert drawn[3].clip == drawn[3 + n].clip
    starts = {int(sample.start) for sample in drawn}
    assert len(starts) > 20
    assert starts <= set(range(41))
    for sample in drawn[:3]:
        whole = prepared.landmarks(sample.clip[0])
        at = int(sample.start)
        assert torch.equal(sample.points[:, 8], torch.from_numpy(whole[at : at + 20, 152]))
    again = LandmarkRunDataset(prepared, rows, need, seed=1)
    assert torch.equal(train[3].filter_bank, again[3].filter_bank)
    evals = [LandmarkRunDataset(prepared, rows, need, seed=s, resample=False) for s in (1, 2)]
    assert all(torch.equal(evals[0][i].points, evals[1][i].points) for i in range(4))
    assert len(LandmarkRunDataset(prepared, rows, need, resample=False, items=2)) == 2
    assert len(LandmarkRunDataset(prepared, rows, need, items=50)) == 50


def test_short_clips_are_left_out(prepared: PreparedSet, caplog: pytest.LogCaptureFixture) -> None:
    rows = prepared.rows("train")
    assert int(LandmarkRunDataset(prepared, rows, LandmarkRuns(60))[0].start) == 0
    assert not caplog.records
    mixed = [replace(rows[0], frames=59), *rows[1:]]
    dataset = LandmarkRunDataset(prepared, mixed, LandmarkRuns(60), resample=False)
    assert {dataset[i].clip[0] for i in range(len(dataset))} == {row.id for row in rows[1:]}
    assert "1 of 4 clips are left out" in caplog.text
    with pytest.raises(DataError, match="at least 61 frames"):
        LandmarkRunDataset(prepared, rows, LandmarkRuns(61))


def test_the_datamodule_serves_the_need_in_every_split(shared_set: Path) -> None:
    for batch in one_of_each_split(shared_set, LandmarkRuns(30)):
        assert isinstance(batch, LandmarkBatch)
        assert batch.points.shape == (2, 30, 68, 3)
