from __future__ import annotations

import pytest
import torch

from talkhead.batch import to_float
from talkhead.errors import ConfigError
from talkhead.stages.adapter_runs import Shares, check_shares, read_runs
from tests.talkhead.stages.test_audio2exp import batch


def test_runs_as_they_are() -> None:
    given = batch(runs=2)
    run = read_runs(given)
    assert torch.equal(run.pictures, to_float(given.frames.flatten(0, 1)))
    assert torch.equal(run.points, given.points.flatten(0, 1))
    assert torch.equal(run.windows, given.frame_speech.flatten(0, 1))
    assert torch.equal(run.heard, given.speech.flatten(0, 1))
    assert run.spoken is run.pictures


def test_still_runs_show_their_first_frame_and_keep_their_speech() -> None:
    given = batch(runs=2)
    run = read_runs(given, Shares(still=1.0))
    assert torch.equal(run.pictures, run.pictures[:, :1].expand_as(run.pictures))
    assert torch.equal(run.points, run.points[:, :1].expand_as(run.points))
    assert torch.equal(run.windows, given.frame_speech.flatten(0, 1))
    assert torch.equal(run.spoken, to_float(given.frames.flatten(0, 1)))


def test_foreign_runs_hear_the_other_run_of_their_clip() -> None:
    given = batch(runs=2)
    run = read_runs(given, Shares(foreign=1.0))
    assert torch.equal(run.heard.unflatten(0, (4, 2)), given.speech.flip(1))
    assert torch.equal(run.windows.unflatten(0, (4, 2)), given.frame_speech.flip(1))
    assert torch.equal(run.pictures, read_runs(given).pictures)
    assert torch.equal(run.spoken.unflatten(0, (4, 2)), to_float(given.frames.flip(1)))


def test_shares_are_met() -> None:
    torch.manual_seed(0)
    given = batch(rows=40, runs=10)
    run = read_runs(given, Shares(still=0.25))
    still = (run.pictures == run.pictures[:, :1]).flatten(1).all(1).float().mean()
    assert 0.18 < float(still) < 0.32


def test_what_cannot_work_is_refused() -> None:
    check_shares(Shares(0.0, 1.0, 0.0), 1)
    with pytest.raises(ConfigError, match="still_share: expected a number from 0 to 1"):
        check_shares(Shares(still=-0.1), 1)
    with pytest.raises(ConfigError, match="2 for speech of another run"):
        check_shares(Shares(foreign=0.5), 1)
    with pytest.raises(ConfigError, match="at least 1"):
        check_shares(Shares(), 0)
