from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from talkhead.audio.mfcc import mfcc, mfcc_window_count, mfcc_windows
from talkhead.errors import ShapeError
from talkhead.specs import AudioSpec
from tests.oracles.mfcc import mfcc_step


def _speechlike(samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    time = torch.arange(samples) / 16000
    tone = torch.sin(2 * torch.pi * 220 * time) + 0.3 * torch.sin(2 * torch.pi * 3100 * time)
    wave = 0.1 * tone + 0.02 * torch.randn(samples, generator=generator)
    return (wave * 32768).round() / 32768  # as 16-bit samples come out of a file


def test_matches_the_plain_loop_at_start_middle_and_padded_end() -> None:
    wave = _speechlike(2000)
    features = mfcc(wave)
    assert features.shape == (1 + math.ceil(1600 / 160), 13)
    pcm = (wave.double() * 32768).numpy().astype(np.float64)
    for step in (0, 4, 10):
        assert features[step].tolist() == pytest.approx(mfcc_step(pcm, step), abs=2e-4, rel=1e-5)
    odd = mfcc(wave[:1777])
    assert odd.shape == (10, 13)
    assert odd[9].tolist() == pytest.approx(mfcc_step(pcm[:1777], 9), abs=2e-4, rel=1e-5)


def test_loudness_is_in_coefficient_0_alone() -> None:
    full, quarter = mfcc(_speechlike(2000)), mfcc(_speechlike(2000) / 4)
    assert (full - quarter)[:, 0].tolist() == pytest.approx([math.log(16.0)] * 11, abs=1e-4)
    torch.testing.assert_close(full[:, 1:], quarter[:, 1:], rtol=0, atol=1e-3)


@pytest.mark.parametrize("frames", [1, 6, 25])
def test_whole_frames_give_one_step_less_than_four_a_frame(frames: int) -> None:
    assert mfcc(_speechlike(640 * frames)).shape == (4 * frames - 1, 13)


def test_short_empty_and_silent_waves() -> None:
    assert mfcc(torch.ones(1)).shape == (1, 13)
    assert mfcc(torch.ones(400)).shape == (1, 13)
    assert mfcc(torch.ones(401)).shape == (2, 13)
    assert mfcc(torch.zeros(0)).shape == (0, 13)
    silent = mfcc(torch.zeros(1600))
    assert silent[:, 0].tolist() == pytest.approx([math.log(2.0**-52)] * len(silent))
    assert float(silent[:, 1:].abs().max()) < 1e-3


def test_a_delay_of_one_frame_moves_everything_by_four_steps() -> None:
    wave = torch.nn.functional.pad(_speechlike(6400), (1280, 0))
    late = torch.nn.functional.pad(wave, (640, 0))
    torch.testing.assert_close(mfcc(late)[4 : 4 + len(mfcc(wave))], mfcc(wave))


def test_windows_begin_with_their_frame_and_never_leave_the_clip() -> None:
    frames = 9
    features = mfcc(_speechlike(640 * frames))
    count = mfcc_window_count(frames)
    assert count == 4
    windows = mfcc_windows(features, torch.arange(count))
    assert windows.shape == (4, 1, 13, 20)
    for i in range(count):
        assert torch.equal(windows[i, 0], features[4 * i : 4 * i + 20].T)
    # The window of the next start would be complete but for its very last step.
    assert features.shape[0] == 4 * count + 20 - 1
    with pytest.raises(ShapeError, match=r"within the clip's 35 steps, got frames 4 to 4"):
        mfcc_windows(features, torch.tensor([count]))
    with pytest.raises(ShapeError, match="start below mfcc_window_count"):
        mfcc_windows(features, torch.tensor([-1]))
    assert mfcc_windows(features, torch.zeros(0, dtype=torch.long)).shape == (0, 1, 13, 20)
    assert [mfcc_window_count(n) for n in (0, 5, 6)] == [0, 0, 1]


def test_other_clock() -> None:
    spec = AudioSpec(window_frames=3)
    assert mfcc_window_count(9, spec) == 6
    features = mfcc(_speechlike(640 * 9), spec)
    assert mfcc_windows(features, torch.tensor([5]), spec).shape == (1, 1, 13, 12)


@pytest.mark.parametrize("wave", [torch.zeros(2, 640), torch.zeros(640, dtype=torch.int16)])
def test_refuses_stereo_and_integers(wave: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match="divide 16-bit samples"):
        mfcc(wave)


def test_refuses_windows_without_a_clip_or_whole_frames() -> None:
    with pytest.raises(ShapeError, match="pass one clip"):
        mfcc_windows(torch.zeros(1, 40, 13), torch.tensor([0]))
    with pytest.raises(ShapeError, match="integer type"):
        mfcc_windows(torch.zeros(40, 13), torch.tensor([0.0]))
