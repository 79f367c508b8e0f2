"""``samples.npz`` of a prior's test: padded clips, real and generated through one read-out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from callbacks.motion_samples import MotionSamplesFile
from talkhead.report.samples import MotionSamples
from talkhead.stages.motion_evaluation import ClipSample


class Joined(nn.Module):
    """Says the codes themselves."""

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        return codes

    def motion_model(self) -> Any:
        return SimpleNamespace(layout={"nonlip": slice(0, 2), "lip": slice(2, 5)})


def sample(name: str, frames: int) -> ClipSample:
    torch.manual_seed(frames)
    return ClipSample(
        name, 0, torch.randn(3, frames, 2), torch.randn(frames, 2), torch.randn(frames, 3)
    )


def stage_with(samples: list[ClipSample]) -> Any:
    return SimpleNamespace(
        test_scores=SimpleNamespace(samples=samples), readout=Joined(), lip_head=nn.Identity()
    )


def finish(stage: Any, folder: Path, *, first_rank: bool = True) -> None:
    trainer = SimpleNamespace(is_global_zero=first_rank, default_root_dir=str(folder))
    MotionSamplesFile().on_test_end(cast(Any, trainer), stage)


def test_first_takes_and_real_motion_share_the_lips_of_the_speech(tmp_path: Path) -> None:
    clips = [sample("a", 5), sample("b", 3)]
    finish(stage_with(clips), tmp_path)
    found = MotionSamples.read(tmp_path / "samples.npz")
    assert list(found.clips) == ["a", "b"]
    assert found.valid.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    for i, clip in enumerate(clips):
        frames = len(clip.real)
        np.testing.assert_array_equal(found.generated[i, :frames, :2], clip.generated[0].numpy())
        np.testing.assert_array_equal(found.real[i, :frames, :2], clip.real.numpy())
        np.testing.assert_array_equal(found.real[i, :frames, 2:], clip.audio.numpy())
        np.testing.assert_array_equal(found.generated[i, :frames, 2:], clip.audio.numpy())
        assert not found.real[i, frames:].any()


def test_nothing_is_written_without_samples_or_on_other_ranks(tmp_path: Path) -> None:
    finish(stage_with([]), tmp_path)
    finish(stage_with([sample("a", 5)]), tmp_path, first_rank=False)
    finish(SimpleNamespace(), tmp_path)
    assert list(tmp_path.iterdir()) == []
