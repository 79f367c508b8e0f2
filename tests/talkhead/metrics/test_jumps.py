from __future__ import annotations

import math

import pytest
import torch

from talkhead.diffusion.chunking import sample_long
from talkhead.diffusion.sampler import CleanFrames
from talkhead.errors import ShapeError
from talkhead.metrics.jumps import jump_ratio, window_borders


def test_a_step_three_times_as_fast_by_hand() -> None:
    motion = torch.tensor([0.0, 1.0, 2.0, 5.0, 6.0])[:, None]
    assert float(jump_ratio(motion, [3])) == pytest.approx(3.0)
    assert float(jump_ratio(motion, [1, 3])) == pytest.approx(2.0)
    assert float(jump_ratio(torch.stack([motion, -motion]), [3])) == pytest.approx(3.0)
    plane = motion * torch.tensor([[3.0, 4.0]])
    assert float(jump_ratio(plane, [3])) == pytest.approx(3.0)


def test_even_motion_has_none_and_no_motion_no_answer() -> None:
    assert float(jump_ratio(torch.arange(9.0)[:, None], [4, 7])) == pytest.approx(1.0)
    assert math.isnan(float(jump_ratio(torch.zeros(9, 2), [4])))


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_a_jump_counts_as_often_as_it_is_longer_than_the_other_steps(factor: float) -> None:
    steps = torch.randn(3, 40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    once = float(jump_ratio(steps.cumsum(1), [10, 30]))
    steps[:, [10, 30]] *= factor
    assert float(jump_ratio(steps.cumsum(1), [10, 30])) == pytest.approx(factor * once)


@pytest.mark.parametrize("frames", [7, 8, 9, 20, 29, 30])
@pytest.mark.parametrize("overlap", [1, 3])
def test_borders_are_where_windows_hand_over(frames: int, overlap: int) -> None:
    windows: list[int] = []

    def window(audio: torch.Tensor, clean: CleanFrames | None) -> torch.Tensor:
        known = 0 if clean is None else int(clean.mask.sum())
        windows.append(audio.shape[1] - known)
        return torch.zeros(1, audio.shape[1], 2)

    sample_long(window, torch.zeros(1, frames, 3), length=8, overlap=overlap)
    assert sum(windows) == frames
    begins = [sum(windows[:i]) for i in range(1, len(windows))]
    assert window_borders(frames, 8, overlap) == begins


def test_refuses_frames_that_are_no_step() -> None:
    motion = torch.zeros(5, 2)
    for at in ([], [0], [5]):
        with pytest.raises(ShapeError, match="from 1 to 4"):
            jump_ratio(motion, at)
    with pytest.raises(ShapeError, match="single entry"):
        jump_ratio(torch.zeros(5), [2])
    with pytest.raises(ShapeError, match="compare"):
        jump_ratio(motion, [1, 2, 3, 4])
