from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.base import TalkheadDataModule
from talkhead.corpus.motion_process import MotionParams, MotionProcess
from talkhead.corpus.prosody import measure_prosody
from talkhead.corpus.state import FaceState
from talkhead.corpus.truth import load_truth, save_truth
from talkhead.geometry.landmark_rows import LANDMARK_DIM
from talkhead.stages.landmark_scores import LandmarkScores, running_mean, stream_scores, truth_parts
from talkhead.stages.motion_evaluation import ClipSample
from tests.datamodules.fakes import make_prepared
from tests.talkhead.networks.test_landmark_motion_model import model
from tests.talkhead.stages.test_shallow_diffusion import stage


def sample(generated: torch.Tensor, real: torch.Tensor, variant: str = "model") -> ClipSample:
    return ClipSample("c", 0, generated, real, torch.zeros(len(real), 4), variant)


def test_landmark_distances_by_hand() -> None:
    real = torch.zeros(5, 68, 2)
    made = real.clone()[None].repeat(2, 1, 1, 1)
    made[0, :, 48:58] += 0.01  # half of the mouth's points, the other half is 0.01 sqrt(2) away
    found = LandmarkScores()(sample(made.flatten(2), real.flatten(1)))
    moved = 256 * 0.005 * 2**0.5  # every mouth point is half of the shift from its mean
    assert found["lmd_mouth[px256]"] == pytest.approx(
        moved / 2, rel=1e-4
    )  # of two takes, one moves
    assert found["lmd_face[px256]"] < found["lmd_mouth[px256]"]
    assert LandmarkScores()(sample(made.flatten(2), real.flatten(1), "gt")) == {}


def test_running_mean_by_hand() -> None:
    values = torch.tensor([[0.0], [3.0], [6.0], [0.0]])
    torch.testing.assert_close(running_mean(values, 3), torch.tensor([[1.0], [3.0], [3.0], [2.0]]))


def written_truths(root: Path) -> TalkheadDataModule:
    """Truth files whose channels are a known mix of the law's mean and a slow posture."""
    module = TalkheadDataModule(str(root), batch_size=2, seed=0)
    module.attach(stage().needs(), stage().feature_sources())
    for row in module.prepared.all_rows:
        path = module.clip_truth_path(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = module.prepared.audio(row).astype(np.float32) / 32768
        prosody, state = measure_prosody(sound), FaceState.neutral(row.frames)
        driven = MotionProcess(MotionParams()).mean(prosody.features)
        slow = 0.1 * np.sin(np.arange(row.frames) / 40)[:, None]
        state.rotation[:] = driven[:, :3] + slow
        state.brows[:] = driven[:, 6:] + slow
        save_truth(path, state, [], prosody, 0, 0)
    return module


def test_each_stream_is_compared_with_both_parts_of_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_prepared(tmp_path, frames=90, size=16)
    module = written_truths(root)
    made = model()
    from talkhead.stages import landmark_scores

    def told(_: Any, data: Any, row: Any, __: Any) -> dict[str, torch.Tensor]:
        """Streams that are the truth: channels written into the first eight numbers of a row."""
        parts = truth_parts(load_truth(data.clip_truth_path(row)), row.frames)
        both = {}
        for stream, part in (("rhythm", "prosody"), ("pose", "posture")):
            rows = torch.zeros(row.frames, LANDMARK_DIM)
            rows[:, :8] = parts[part].float()
            both[stream] = rows - rows.mean(0)
        return both

    class Direct:
        @staticmethod
        def predict_tensor(rows: torch.Tensor) -> torch.Tensor:
            return rows[:, :8]

    monkeypatch.setattr(landmark_scores, "_streams", told)
    monkeypatch.setattr(landmark_scores, "_channel_readout", lambda *_: Direct())
    found = stream_scores(made, module, torch.device("cpu"))
    assert found["rhythm_with_prosody[truth]"] == pytest.approx(1.0, abs=1e-3)
    assert found["pose_with_posture[truth]"] == pytest.approx(1.0, abs=1e-3)
    assert abs(found["rhythm_with_posture[truth]"]) < 0.5
    monkeypatch.undo()
    real = stream_scores(made, module, torch.device("cpu"))
    assert set(real) == set(found)
    assert all(-1.0 <= value <= 1.0 for value in real.values())


def test_without_truth_or_without_a_stream_there_is_nothing_to_say(tmp_path: Path) -> None:
    module = TalkheadDataModule(str(make_prepared(tmp_path, size=16)), batch_size=2, seed=0)
    assert stream_scores(model(), module, torch.device("cpu")) == {}
    written = written_truths(make_prepared(tmp_path / "other", frames=90, size=16))
    alone = model(rhythmic_stream=False)
    assert stream_scores(alone, written, torch.device("cpu")) == {}
