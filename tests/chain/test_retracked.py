"""Scores through rendered and re-tracked frames, with a tracker whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from callbacks.retracked_motion import RetrackedMotion
from datamodules.base import TalkheadDataModule
from talkhead.errors import ConfigError
from talkhead.generation.prior import TalkingHead
from talkhead.retracking import MARGIN, RENDER_SIZE, RetrackedScores
from talkhead.stages.motion_evaluation import ClipSample
from tests.chain.recipes import run
from tests.chain.trackers import Oracle

FRAMES = 20


@pytest.fixture(scope="module")
def data(chain: dict[str, Path]) -> TalkheadDataModule:
    return TalkheadDataModule(root=str(chain["data"]))


def sample_of(data: TalkheadDataModule, start: int = 0, **changes: Any) -> ClipSample:
    row = data.prepared.rows("test")[0]
    torch.manual_seed(start)
    values: dict[str, Any] = {
        "generated": torch.randn(2, FRAMES, 6), "real": torch.randn(FRAMES, 6),
        "audio": torch.randn(FRAMES, 16), **changes,
    }  # fmt: skip
    return ClipSample(row.id, start, **values)


def scores_of(
    chain: dict[str, Path],
    data: TalkheadDataModule,
    tracker: Any,
    renderer: Any = "mesh",
    clips: int = 1,
    frames: int | None = None,
) -> RetrackedScores:
    stage = TalkingHead.load(chain["40"]).stage
    return RetrackedScores(stage, data, renderer, tracker, clips, frames)


@pytest.mark.parametrize("renderer", ["mesh", "generator"])
def test_landmarks_of_the_clip_itself_score_zero(
    chain: dict[str, Path],
    data: TalkheadDataModule,
    renderer: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = sample_of(data)
    truth = np.asarray(data.prepared.landmarks(sample.clip), np.float32)
    tracker = Oracle(truth[:FRAMES])
    # The toy set's motion is not what encoding its landmarks gives; a tracked set's is.
    motion = data.motion_model.encode(truth[:FRAMES])
    monkeypatch.setattr(data.prepared, "motion", lambda clip: motion)
    found = scores_of(chain, data, tracker, renderer)(sample)
    assert {name.partition("[")[2] for name in found} == {f"retracked:{renderer}]"}
    assert found[f"found[retracked:{renderer}]"] == 1.0
    assert found[f"snd[retracked:{renderer}]"] == pytest.approx(0.0, abs=1e-4)
    assert found[f"var[retracked:{renderer}]"] > 0
    side = round(RENDER_SIZE * (1 + 2 * MARGIN))
    assert {frame.shape for frame in tracker.seen} == {(side, side, 3)}
    assert len(tracker.seen) == FRAMES


def test_motion_that_differs_scores_worse(chain: dict[str, Path], data: TalkheadDataModule) -> None:
    sample = sample_of(data)
    truth = np.asarray(data.prepared.landmarks(sample.clip), np.float32)
    still = Oracle(np.repeat(truth[:1], FRAMES, 0))
    same = Oracle(truth[:FRAMES])
    name = "snd[retracked:mesh]"
    assert scores_of(chain, data, still)(sample)[name] > scores_of(chain, data, same)(sample)[name]


def test_lost_faces_are_counted_and_bridged(
    chain: dict[str, Path], data: TalkheadDataModule
) -> None:
    sample = sample_of(data)
    truth = np.asarray(data.prepared.landmarks(sample.clip), np.float32)
    some = scores_of(chain, data, Oracle(truth[:FRAMES], lost=5))(sample)
    assert some["found[retracked:mesh]"] == 0.75
    assert np.isfinite(some["snd[retracked:mesh]"])
    none = scores_of(chain, data, Oracle(truth[:FRAMES], lost=FRAMES))(sample)
    assert none == {"found[retracked:mesh]": 0.0}


def test_only_some_clips_and_variants_are_rendered(
    chain: dict[str, Path], data: TalkheadDataModule
) -> None:
    first = sample_of(data)
    truth = np.asarray(data.prepared.landmarks(first.clip), np.float32)
    scores = scores_of(chain, data, Oracle(truth), clips=1)
    assert scores(first)
    assert scores(sample_of(data, start=20)) == {}
    assert scores(sample_of(data, variant="gt", generated=first.real[None]))
    assert scores(sample_of(data, variant="floor")) == {}


def test_only_the_first_frames_are_rendered_on_request(
    chain: dict[str, Path], data: TalkheadDataModule
) -> None:
    sample = sample_of(data)
    truth = np.asarray(data.prepared.landmarks(sample.clip), np.float32)
    tracker = Oracle(truth[:FRAMES])
    some = scores_of(chain, data, tracker, frames=12)(sample)
    assert len(tracker.seen) == 12
    short = sample_of(
        data,
        **{name: getattr(sample, name)[:12] for name in ("real", "audio")},
        generated=sample.generated[:, :12],
    )
    assert some == pytest.approx(scores_of(chain, data, Oracle(truth[:12]))(short))
    with pytest.raises(ConfigError, match="at least 8 frames"):
        RetrackedMotion(frames=7)


def test_callback_adds_its_scores_to_the_metrics(chain: dict[str, Path], tmp_path: Path) -> None:
    run(
        "test", "MotionDiffusionStage", tmp_path, chain["data"], f"--ckpt_path={chain['40']}",
        "--trainer.callbacks+=RetrackedMotion", "--trainer.callbacks.clips=1",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    # The flat faces of the toy data are no faces to the real tracker, which is said and is no error.
    assert metrics["found[retracked:mesh]"] == 0.0
    assert metrics["gt/found[retracked:generator]"] == 0.0


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="among mesh, generator, got hologram"):
        RetrackedMotion(renderers=["hologram"])
    with pytest.raises(ConfigError, match="at least 1 clip"):
        RetrackedMotion(clips=0)
