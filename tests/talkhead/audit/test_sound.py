from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.audio.mel import mel_spectrogram
from talkhead.audit.pictures import differing_bits
from talkhead.audit.sound import clipped_share, loudness_lufs, sound_words, wave_of
from talkhead.errors import ShapeError
from talkhead.specs import SAMPLE_RATE_HZ


def sine(level_db: float, seconds: float = 2.0, hz: float = 997.0) -> Tensor:
    time = torch.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return 10 ** (level_db / 20) * torch.sin(2 * math.pi * hz * time)


@pytest.mark.parametrize("level_db", [0.0, -20.0, -40.0])
def test_loudness_of_the_standards_sine(level_db: float) -> None:
    """BS.1770: a 997 Hz sine of full scale in one channel reads -3.01."""
    assert loudness_lufs(sine(level_db)) == pytest.approx(level_db - 3.01, abs=0.1)


def test_silence_does_not_count_and_has_no_loudness() -> None:
    speech = sine(-23.0)
    pause = torch.zeros(len(speech))
    alone, with_pause = loudness_lufs(speech), loudness_lufs(torch.cat([speech, pause]))
    assert alone is not None
    assert with_pause == pytest.approx(alone, abs=0.4)
    assert loudness_lufs(pause) is None
    assert loudness_lufs(speech[:1000]) is None


def test_clipping_is_plateaus_at_the_peak() -> None:
    top = [32767] * 5
    samples = [0, *top, 0, 32767, 32767, 0, *(-v for v in top[:3]), 100]
    assert clipped_share(np.array(samples, np.int16)) == 8 / len(samples)
    # Scaled down by half a decibel it is still found, at half the level it is loud and clean.
    quieter = np.array(samples, np.float64) * 10 ** (-0.5 / 20)
    assert clipped_share(quieter.astype(np.int16)) == 8 / len(samples)
    assert clipped_share(np.array(samples, np.int16) // 2) == 0.0
    assert clipped_share(np.zeros(0, np.int16)) == 0.0
    loud = np.round(32767 * sine(0.0).numpy()).astype(np.int16)
    assert clipped_share(loud) < 0.01


def words_loop(mel: list[list[float]]) -> list[int]:
    """Bit by bit."""
    out = []
    for n, row in enumerate(mel):
        past = mel[max(0, n - 8)]
        word = 0
        for m in range(32):
            pair = [
                (r[2 * m] + r[2 * m + 1]) / 2 - (r[2 * m + 2] + r[2 * m + 3]) / 2
                for r in (row, past)
            ]
            word = 2 * word + (pair[0] > pair[1])
        out.append(word)
    return out


def test_words_say_what_rises_between_neighbouring_bands() -> None:
    mel = np.random.default_rng(0).random((24, 80)).astype(np.float32)
    assert sound_words(mel).tolist() == words_loop(mel.astype(float).tolist())
    assert sound_words(np.full((12, 80), 0.3, np.float32)).tolist() == [0] * 12


def babble(seed: int) -> Tensor:
    """Noise whose spectrum changes all the time."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(3 * SAMPLE_RATE_HZ, generator=generator)
    time = torch.arange(len(noise)) / SAMPLE_RATE_HZ
    tones = [
        (1 + torch.sin(2 * math.pi * (1.3 + 0.7 * k) * time + seed * k))
        * torch.sin(2 * math.pi * 250 * 1.5**k * time)
        for k in range(7)
    ]
    return 0.05 * torch.stack(tones).sum(0) + 0.02 * noise


def test_words_survive_level_and_delay_but_not_another_sound() -> None:
    def words(wave: Tensor) -> NDArray[np.uint32]:
        return sound_words(mel_spectrogram(wave).numpy())

    base = words(babble(0))
    assert (differing_bits(base, words(0.1 * babble(0))).mean() / 32) < 0.01
    late = words(torch.roll(babble(0), 80))  # half a step
    assert differing_bits(base, late).mean() / 32 < 0.25
    assert 0.4 < differing_bits(base, words(babble(1))).mean() / 32 < 0.6


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="mono"):
        loudness_lufs(torch.zeros(2, 16000))
    with pytest.raises(ShapeError, match="4T, 80"):
        sound_words(np.zeros((8, 40), np.float32))


def test_samples_become_a_wave() -> None:
    assert wave_of(np.array([0, 32767, -32767], np.int16)).tolist() == [0.0, 1.0, -1.0]
