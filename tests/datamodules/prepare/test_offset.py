from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from datamodules.prepare.offset import OffsetEstimator, audio_features, best_shift, shift_audio
from talkhead.errors import ShapeError

Array = NDArray[np.float64]


def _speech(seed: int, frames: int = 250) -> tuple[Array, Array]:
    """Mel whose lower bands follow a wandering mouth opening, and that opening."""
    rng = np.random.default_rng(seed)
    mouth = np.convolve(rng.standard_normal(frames + 8), np.hanning(9), mode="valid")
    mel = rng.standard_normal((4 * frames, 80)) * 0.5
    mel[:, :40] += np.repeat(mouth, 4)[:, None]
    return mel, mouth


def _shifted(values: Array, lag: int) -> Array:
    return np.roll(values, lag)


@pytest.mark.parametrize("lag", [-5, -1, 0, 2, 5])
def test_known_offsets_are_found(lag: int) -> None:
    estimator = OffsetEstimator()
    for seed in range(8):
        mel, mouth = _speech(seed)
        estimator.add(f"c{seed}", f"s{seed}", mel, mouth)
    mel, mouth = _speech(99)
    late = _shifted(mouth, lag)  # the picture comes `lag` frames after the sound
    estimator.add("new", "new", mel, late)
    offset = estimator.estimate("new", "new", mel, late)
    assert offset is not None
    assert offset.frames == lag
    assert offset.clear


def test_unrelated_sound_is_not_clear() -> None:
    estimator = OffsetEstimator()
    for seed in range(8):
        estimator.add(f"c{seed}", f"s{seed}", *_speech(seed))
    mel, _ = _speech(50)
    _, mouth = _speech(51)
    offset = estimator.estimate("new", "new", mel, mouth)
    assert offset is not None
    assert not offset.clear


def test_nothing_to_learn_from() -> None:
    estimator = OffsetEstimator()
    mel, mouth = _speech(0)
    estimator.add("only", "only", mel, mouth)
    assert estimator.estimate("only", "only", mel, mouth) is None


def test_best_shift_sign() -> None:
    expected = np.random.default_rng(0).standard_normal(100)
    assert best_shift(expected, _shifted(expected, 2)).frames == 2
    assert best_shift(expected, _shifted(expected, -4)).frames == -4


def test_features_hold_the_context() -> None:
    mel = np.zeros((40, 80))
    mel[20:24] = 1.0  # video frame 5
    features = audio_features(mel).reshape(10, 7, 20)
    hot = features.mean(axis=2) > 1
    assert [tuple(x) for x in np.argwhere(hot)] == [(t, 8 - t) for t in range(2, 9)]
    with pytest.raises(ShapeError, match="mel"):
        audio_features(np.zeros((41, 80)))


def test_shift_audio() -> None:
    audio = np.arange(1, 6, dtype=np.int16)
    assert shift_audio(audio, 2).tolist() == [0, 0, 1, 2, 3]
    assert shift_audio(audio, -2).tolist() == [3, 4, 5, 0, 0]
    assert shift_audio(audio, 9).tolist() == [0] * 5
    assert shift_audio(audio, 0).tolist() == audio.tolist()
