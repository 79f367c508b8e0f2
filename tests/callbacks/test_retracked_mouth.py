from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule

from callbacks.retracked_mouth import RetrackedMouth
from talkhead import retracking
from talkhead.errors import ConfigError
from talkhead.landmarks import mediapipe_mesh
from tests.talkhead.stages.short_runs import trainer


class Adapter(LightningModule):
    tracker: Any = None


def test_the_stage_gets_a_tracker_for_the_test_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[int, ...]] = []

    def track(landmarker: Any, pictures: Iterable[Any]) -> tuple[Any, float]:
        shown.extend(picture.shape for picture in pictures)
        return np.zeros((len(shown), 478, 3), np.float32), 0.5

    monkeypatch.setattr(mediapipe_mesh, "MediaPipeMesh", lambda: "a tracker")
    monkeypatch.setattr(retracking, "track_rendered", track)
    made, callback, run = Adapter(), RetrackedMouth(), trainer(tmp_path, 1)
    callback.on_test_start(run, made)
    points, found = made.tracker(torch.zeros(3, 3, 32, 32, dtype=torch.uint8))
    assert shown == [(retracking.RENDER_SIZE, retracking.RENDER_SIZE, 3)] * 3
    assert (points.shape, found) == ((3, 478, 3), 0.5)
    callback.on_test_end(run, made)
    assert made.tracker is None


def test_another_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected stage audio2exp"):
        RetrackedMouth().on_test_start(trainer(tmp_path, 1), LightningModule())
