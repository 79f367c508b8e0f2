from __future__ import annotations

import pytest
import torch

from talkhead.audio.mel import mel_spectrogram, mel_windows
from talkhead.errors import ShapeError
from talkhead.specs import AudioSpec
from tests.oracles.mel import mel_step


def _speechlike(frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    time = torch.arange(640 * frames) / 16000
    tone = torch.sin(2 * torch.pi * 220 * time) + 0.3 * torch.sin(2 * torch.pi * 3100 * time)
    return 0.1 * tone + 0.02 * torch.randn(len(time), generator=generator)


def test_matches_the_slow_transform_at_start_middle_and_end() -> None:
    wave = _speechlike(4)
    mel = mel_spectrogram(wave)
    bins = [0, 3, 40, 66, 79]
    for step in (0, 7, 15):
        slow = mel_step(wave.double().numpy(), 160 * step + 80, bins)
        assert mel[step, bins].tolist() == pytest.approx(slow, abs=2e-4)


@pytest.mark.parametrize("samples", [640, 1279, 1280, 6400 + 639])
def test_four_steps_for_every_whole_frame(samples: int) -> None:
    wave = _speechlike(11)[:samples]
    mel = mel_spectrogram(wave)
    assert mel.shape == (4 * (samples // 640), 80)
    assert mel.dtype == torch.float32
    assert torch.equal(mel, mel_spectrogram(wave[: samples // 640 * 640]))


def test_shorter_than_a_frame_is_empty() -> None:
    assert mel_spectrogram(torch.ones(639)).shape == (0, 80)
    assert mel_windows(torch.zeros(0, 80), torch.tensor([0])).abs().sum() == 0


@pytest.mark.parametrize("step", [6, 13, 30])
def test_an_impulse_is_loudest_in_the_step_centred_on_it(step: int) -> None:
    wave = torch.zeros(640 * 10)
    wave[160 * step + 80] = 0.5
    energy = mel_spectrogram(wave).sum(1)
    assert int(energy.argmax()) == step
    # The window is symmetric about its centre, so equally distant steps hear the click equally.
    assert torch.allclose(energy[step - 3], energy[step + 3], rtol=1e-4)


def test_loudness_drops_out_and_silence_is_zero() -> None:
    wave = _speechlike(5)
    assert torch.allclose(mel_spectrogram(wave), mel_spectrogram(0.05 * wave), atol=1e-4)
    assert mel_spectrogram(torch.zeros(6400)).abs().max() == 0


def test_values_stay_in_range_for_full_scale_noise() -> None:
    noise = torch.randn(640 * 6, generator=torch.Generator().manual_seed(0)).sign()
    mel = mel_spectrogram(noise)
    assert 0 <= float(mel.min()) <= float(mel.max()) <= 1
    assert float(mel.std()) > 0.01


def test_windows_are_centred_on_their_frame() -> None:
    mel = torch.arange(40.0)[:, None].expand(40, 80) + 1
    window = mel_windows(mel, torch.tensor([4, 0, 9]))
    assert window.shape == (3, 1, 80, 20)
    assert window[0, 0, 5].tolist() == [float(v) for v in range(9, 29)]
    assert window[1, 0, 0].tolist() == [0.0] * 8 + [float(v) for v in range(1, 13)]
    assert window[2, 0, 0].tolist() == [float(v) for v in range(29, 41)] + [0.0] * 8


def test_a_click_in_the_middle_of_a_frame_is_in_the_middle_of_its_window() -> None:
    wave = torch.zeros(640 * 12)
    wave[640 * 6 + 320] = 1.0
    energy = mel_windows(mel_spectrogram(wave), torch.tensor([6]))[0, 0].sum(0)
    assert torch.allclose(energy, energy.flip(0), atol=2e-2)
    assert int(energy.argmax()) in (9, 10)


def test_windows_keep_the_stored_type() -> None:
    assert (
        mel_windows(torch.ones(8, 80, dtype=torch.float16), torch.tensor([0])).dtype
        == torch.float16
    )


def test_other_clock() -> None:
    spec = AudioSpec(n_mels=40, window_frames=3)
    mel = mel_spectrogram(_speechlike(4), spec)
    assert mel.shape == (16, 40)
    assert mel_windows(mel, torch.tensor([1]), spec).shape == (1, 1, 40, 12)


@pytest.mark.parametrize("wave", [torch.zeros(2, 640), torch.zeros(640, dtype=torch.int16)])
def test_refuses_stereo_and_integers(wave: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match="divide 16-bit samples"):
        mel_spectrogram(wave)


def test_refuses_windows_without_frames() -> None:
    with pytest.raises(ShapeError, match="pass one clip"):
        mel_windows(torch.zeros(1, 4, 80), torch.tensor([0]))
    with pytest.raises(ShapeError, match="integer type"):
        mel_windows(torch.zeros(4, 80), torch.tensor([0.0]))
