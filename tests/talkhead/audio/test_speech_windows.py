from __future__ import annotations

import pytest
import torch

from talkhead.audio.mel import mel_spectrogram
from talkhead.audio.speech_windows import (
    MEL_DIM,
    mel_speech,
    mel_speech_chunks,
    run_frame,
    speech_windows,
    window_starts,
)
from talkhead.errors import ShapeError

STEPS = torch.arange(60.0)[:, None]


def test_a_released_window_starts_with_its_frame() -> None:
    windows = speech_windows(STEPS, 30)
    assert windows.shape == (30, 18, 1)
    assert windows[10, :, 0].tolist() == list(range(20, 38))
    # The released code stops at frame 21, whose window is the last whole one; here frames go on.
    assert windows[21, 0] == 42
    assert windows[29, :, 0].tolist() == list(range(42, 60))


def test_a_centred_window_has_as_much_before_as_after_its_frame() -> None:
    windows = speech_windows(STEPS, torch.tensor([10]), align="centre")
    # Frame 10 owns the steps 20 and 21.
    assert windows[0, :, 0].tolist() == list(range(12, 30))
    assert speech_windows(STEPS, torch.tensor([0]), align="centre")[0, 0] == 0
    assert speech_windows(STEPS, torch.tensor([29]), align="centre")[0, -1] == 59


def test_another_frame_rate_rounds_down() -> None:
    assert window_starts(torch.arange(4), fps=30).tolist() == [0, 1, 3, 5]
    assert window_starts(torch.tensor([7])).tolist() == [int(7 * 50 / 25)]


def test_batches_and_files_shorter_than_a_window() -> None:
    batch = torch.stack([STEPS, -STEPS])
    assert torch.equal(speech_windows(batch, 5)[1], speech_windows(-STEPS, 5))
    short = speech_windows(STEPS[:4], 2)
    assert short[1, :, 0].tolist() == [0, 1, 2] + [3] * 15


@pytest.mark.parametrize("align", ["start", "centre"])
def test_the_window_of_nine_frames_is_what_they_take(align: str) -> None:
    first = torch.tensor([3, 11])
    frame = run_frame(first, 9, align)  # type: ignore[arg-type]  # parametrised
    windows = speech_windows(STEPS, frame, align=align)  # type: ignore[arg-type]
    assert windows[:, 0, 0].tolist() == [6, 22]
    assert windows[:, -1, 0].tolist() == [23, 39]


def test_what_is_no_speech_is_refused() -> None:
    with pytest.raises(ShapeError, match="expected speech features"):
        speech_windows(torch.zeros(60), 3)
    with pytest.raises(ShapeError, match="at least one step"):
        speech_windows(STEPS, 3, length=0)
    with pytest.raises(ShapeError, match="expected frame numbers"):
        speech_windows(STEPS, torch.tensor([-1]))


def test_mel_speech_puts_two_steps_side_by_side() -> None:
    wave = torch.randn(640 * 7 + 5, generator=torch.Generator().manual_seed(0))
    mel = mel_spectrogram(wave)
    speech = mel_speech(wave)
    assert speech.shape == (14, MEL_DIM) == (14, 160)
    assert torch.equal(speech[3, :80], mel[6])
    assert torch.equal(speech[3, 80:], mel[7])


@pytest.mark.parametrize("chunk", [1, 4, 50])
def test_chunks_of_mel_are_the_whole(chunk: int) -> None:
    random = torch.Generator().manual_seed(1)
    wave = torch.randn(640 * 11 + 100, generator=random) * torch.linspace(0, 1, 640 * 11 + 100)
    pieces = list(mel_speech_chunks(wave, chunk))
    assert max(len(piece) for piece in pieces) <= 2 * chunk
    torch.testing.assert_close(torch.cat(pieces), mel_speech(wave), rtol=0, atol=1e-5)
    assert list(mel_speech_chunks(wave[:600])) == []
