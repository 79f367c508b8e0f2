from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from talkhead.audio.filter_bank import ZERO_POWER, log_filter_bank
from talkhead.errors import ShapeError
from tests.oracles.mfcc import edges, log_filter_bank_step


def speechlike(samples: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    time = torch.arange(samples) / 16000
    tone = torch.sin(2 * torch.pi * 220 * time) + 0.3 * torch.sin(2 * torch.pi * 3100 * time)
    return 0.1 * tone + 0.02 * torch.randn(samples, generator=generator) + 0.05


def test_matches_the_plain_loop_from_the_start_to_the_padded_end() -> None:
    wave = speechlike(3 * 640)
    found = log_filter_bank(wave)
    assert found.shape == (12, 26)
    samples = wave.double().numpy().astype(np.float64)
    # The last two steps reach beyond the clip, where the oracle has fewer samples and so zeros.
    for step in (0, 5, 10, 11):
        slow = log_filter_bank_step(samples, step)
        assert found[step].tolist() == pytest.approx(slow, abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("samples", [640, 640 * 7, 640 * 7 + 639])
def test_four_steps_a_frame_exactly(samples: int) -> None:
    whole = samples // 640
    found = log_filter_bank(speechlike(samples))
    assert found.shape == (4 * whole, 26)
    assert torch.equal(found, log_filter_bank(speechlike(samples)[: 640 * whole]))


def test_level_and_offset_drop_out() -> None:
    wave = speechlike(6400)
    torch.testing.assert_close(
        log_filter_bank(wave), log_filter_bank(300 * wave - 7), rtol=0, atol=2e-3
    )


@pytest.mark.parametrize("band", [5, 12, 20])
def test_a_tone_is_loudest_in_its_own_band(band: int) -> None:
    # Band j peaks at the corner j + 1, a whole FFT bin of 31.25 Hz.
    hertz = 31.25 * edges()[band + 1]
    tone = torch.sin(2 * torch.pi * hertz * torch.arange(6400) / 16000)
    assert log_filter_bank(tone)[2:-2].argmax(dim=1).unique().tolist() == [band]


def test_silence_and_constants_are_the_floor() -> None:
    floor = math.log(ZERO_POWER)
    assert floor == pytest.approx(-36.04, abs=0.01)
    for wave in (torch.zeros(1280), torch.full((1280,), 0.1), torch.full((1280,), 12345.0)):
        assert log_filter_bank(wave).unique().tolist() == pytest.approx([floor])
    assert log_filter_bank(torch.zeros(639)).shape == (0, 26)


def test_a_delay_of_one_frame_moves_everything_by_four_steps() -> None:
    wave = torch.nn.functional.pad(speechlike(6400) - 0.05, (1280, 1280))
    late = torch.nn.functional.pad(wave[:-640], (640, 0))
    # The same samples, so mean and peak are the same; the first sample of all has no predecessor,
    # and the last two steps reach beyond the end.
    torch.testing.assert_close(
        log_filter_bank(late)[5:-2], log_filter_bank(wave)[1:-6], atol=1e-3, rtol=1e-4
    )


@pytest.mark.parametrize("wave", [torch.zeros(2, 640), torch.zeros(640, dtype=torch.int16)])
def test_refuses_stereo_and_integers(wave: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match="mix down to mono"):
        log_filter_bank(wave)
