from __future__ import annotations

import numpy as np
import pytest
import torch

from talkhead.audio.mel import mel_spectrogram
from talkhead.batch import SequenceBatch
from talkhead.corpus.prosody import measure_prosody
from talkhead.errors import DataError, ShapeError
from talkhead.geometry.landmark_rows import landmark_points
from talkhead.geometry.points68 import ibug_points
from talkhead.stages.landmark_features import (
    landmark_sources,
    read_run,
    row_statistics,
    speech_features,
)


def wave(frames: int = 12) -> torch.Tensor:
    return 0.1 * torch.randn(640 * frames + 100, generator=torch.Generator().manual_seed(0))


def test_sound_is_what_the_front_ends_say() -> None:
    sound = wave()
    mel, prosody = speech_features(sound)
    assert mel.shape == (12, 320)
    torch.testing.assert_close(mel.reshape(48, 80), mel_spectrogram(sound))
    np.testing.assert_array_equal(prosody.numpy(), measure_prosody(sound.numpy()).features)
    sources = landmark_sources()
    torch.testing.assert_close(sources["mel_rows"].module(sound), mel)
    torch.testing.assert_close(sources["prosody"].module(sound), prosody)
    with pytest.raises(ShapeError, match="at least 640 samples"):
        speech_features(sound[:600])


def test_points_are_the_68_of_the_mesh() -> None:
    mesh = torch.rand(5, 478, 3, generator=torch.Generator().manual_seed(1))
    rows = landmark_sources()["points68"].module(mesh)
    torch.testing.assert_close(landmark_points(rows), ibug_points(mesh)[..., :2])


def test_digests_tell_features_apart_and_stay() -> None:
    first, again = landmark_sources(), landmark_sources()
    assert len({source.digest for source in first.values()}) == 3
    assert {n: s.digest for n, s in first.items()} == {n: s.digest for n, s in again.items()}


def test_statistics_by_hand_however_clips_are_cut() -> None:
    clips = [torch.tensor([[0.0], [2.0]]), torch.tensor([[10.0], [10.0], [13.0]])]
    mean, spread, within = row_statistics(clips)
    everything = torch.cat(clips).double()
    assert mean.item() == pytest.approx(7.0)
    assert spread.item() == pytest.approx(float(everything.std(correction=0)))
    assert within.item() == pytest.approx(((1 + 1 + 1 + 1 + 4) / 5) ** 0.5)
    with pytest.raises(DataError, match="at least 2 training frames"):
        row_statistics([torch.zeros(1, 3)])


def test_a_batch_without_the_features_is_refused() -> None:
    batch = SequenceBatch(
        features={"points68": torch.zeros(1, 4, 136), "mel_rows": torch.zeros(1, 4, 80)},
        motion=torch.zeros(1, 4, 1), valid=torch.ones(1, 4, dtype=torch.bool), start=torch.zeros(1),
    )  # fmt: skip
    with pytest.raises(ShapeError, match=r"mel_rows \(B, T, 320\), prosody \(B, T, 4\)"):
        read_run(batch)
