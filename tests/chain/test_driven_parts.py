"""What each code moves, with a tracker whose answer is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from callbacks.driven_parts import DrivenParts
from datamodules.base import TalkheadDataModule
from talkhead.driving import MODES, DrivingScores
from talkhead.errors import ConfigError
from talkhead.stages.lip_disentangle import LipDisentangleStage
from tests.chain.recipes import run
from tests.chain.trackers import Oracle

FRAMES = 20


@pytest.fixture(scope="module")
def data(chain: dict[str, Path]) -> TalkheadDataModule:
    return TalkheadDataModule(root=str(chain["data"]))


@pytest.fixture(scope="module")
def stage(chain: dict[str, Path]) -> LipDisentangleStage:
    loaded = LipDisentangleStage.load_from_checkpoint(chain["30"], weights_only=True)
    return loaded.eval()


def test_landmarks_of_the_clip_itself_are_perfect(
    stage: LipDisentangleStage, data: TalkheadDataModule
) -> None:
    row = data.prepared.rows("test")[0]
    truth = np.asarray(data.prepared.landmarks(row), np.float32)[:FRAMES]
    found = DrivingScores(stage, data, Oracle(truth), frames=FRAMES)(row)
    assert len(found) == 9 * len(MODES)
    for name, value in found.items():
        best = 0.0 if "distance" in name else 1.0
        assert value == pytest.approx(best, abs=1e-4), name
        assert name.partition("/")[0] in MODES
        assert name.endswith("[retracked:generator]")


def test_a_face_that_stands_still_has_no_motion(
    stage: LipDisentangleStage, data: TalkheadDataModule
) -> None:
    row = data.prepared.rows("test")[0]
    truth = np.asarray(data.prepared.landmarks(row), np.float32)[:1]
    found = DrivingScores(stage, data, Oracle(truth.repeat(FRAMES, 0)), frames=FRAMES)(row)
    assert found["lip_only/mouth_motion[retracked:generator]"] == pytest.approx(0.0, abs=1e-5)
    assert found["both/head_motion[retracked:generator]"] == pytest.approx(0.0, abs=1e-5)
    assert found["both/mouth_correlation[retracked:generator]"] == pytest.approx(0.0, abs=1e-5)
    assert found["nonlip_only/pose_distance[retracked:generator]"] > 0.1


@pytest.mark.parametrize("still", ["first", "zero"])
def test_one_code_drives_and_the_other_stands_still(
    stage: LipDisentangleStage,
    data: TalkheadDataModule,
    still: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drives: list[tuple[Tensor, Tensor]] = []

    class Recorder:
        def __init__(self, *_: Any) -> None:
            pass

        def __call__(self, nonlip: Tensor, lip: Tensor) -> Iterator[Any]:
            drives.append((nonlip, lip))
            return iter(np.zeros((len(lip), 256, 256, 3), np.uint8))

    monkeypatch.setattr("talkhead.driving.GeneratorRenderer", Recorder)
    row = data.prepared.rows("test")[0]
    truth = np.asarray(data.prepared.landmarks(row), np.float32)
    found = DrivingScores(stage, data, Oracle(truth, lost=FRAMES), still, FRAMES)(row)
    assert found == {f"{mode}/found[retracked:generator]": 0.0 for mode in MODES}
    (nonlip, lip), lip_only, nonlip_only = drives
    assert nonlip.shape == (FRAMES, 6)
    assert torch.equal(lip_only[1], lip)
    assert torch.equal(nonlip_only[0], nonlip)
    for stopped, code in ((lip_only[0], nonlip), (nonlip_only[1], lip)):
        value = code[:1] if still == "first" else torch.zeros_like(code[:1])
        assert torch.equal(stopped, value.expand_as(code))


def test_callback_adds_its_scores_to_the_metrics(chain: dict[str, Path], tmp_path: Path) -> None:
    run(
        "test", "LipDisentangleStage", tmp_path, chain["data"], f"--ckpt_path={chain['30']}",
        "--trainer.callbacks+=DrivenParts", "--trainer.callbacks.clips=1",
        "--trainer.callbacks.frames=10",
    )  # fmt: skip
    written = json.loads((tmp_path / "metrics.json").read_text())
    # The flat faces of the toy data are no faces to the real tracker, which is said and is no error.
    for mode in MODES:
        assert written["metrics"][f"{mode}/found[retracked:generator]"] == 0.0
    assert len(written["per_clip"]) == 1


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="at least 1 clip and 2 frames, got 0 and 150"):
        DrivenParts(clips=0)
    with pytest.raises(ConfigError, match="zero or first, got 'mean'"):
        DrivenParts(still="mean")  # type: ignore[arg-type]  # what a YAML file could hold
