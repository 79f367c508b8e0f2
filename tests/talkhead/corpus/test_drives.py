"""The drives are linear, time-invariant, and of unit power over the corpus."""

import numpy as np
import pytest

from talkhead.corpus.drives import DRIVE_CORRELATION, KERNELS, prosody_drives
from talkhead.corpus.prosody import measure_prosody
from talkhead.corpus.sentences import sample_utterance
from talkhead.errors import ShapeError


def test_drives_are_the_written_sum() -> None:
    """A plain loop over the definition."""
    features = np.random.default_rng(0).standard_normal((30, 4))
    found = prosody_drives(features)
    unit = prosody_drives(np.eye(1, 4, 0))[0] / np.where(KERNELS[:, 0, 40], KERNELS[:, 0, 40], 1)
    for t in (0, 13, 29):
        expected = np.zeros(3)
        for s in range(30):
            expected += KERNELS[:, :, 40 + t - s] @ features[s]
        assert found[t] == pytest.approx(unit * expected)


def test_a_burst_of_energy_is_answered_late_and_fades() -> None:
    features = np.zeros((120, 4))
    features[60, 0] = 1.0
    accent = prosody_drives(features)[:, 0]
    assert int(accent.argmax()) == 61
    assert accent[:20] == pytest.approx(0.0, abs=1e-9)
    assert accent.sum() == pytest.approx(0.0, abs=1e-9)


def test_power_over_corpus_speech_matches_the_constants() -> None:
    rng = np.random.default_rng(7)
    voices = ("en-us", "en-gb+f2", "en-gb-x-rp+m3", "en-us-nyc+f4", "en-gb-scotland+m7")
    total, frames = np.zeros((3, 3)), 0
    for i in range(12):
        wave = sample_utterance(rng, 6.0, voices[i % 5]).speech.wave
        drives = prosody_drives(measure_prosody(wave).features)
        total += drives.T @ drives
        frames += len(drives)
    assert total / frames == pytest.approx(DRIVE_CORRELATION, abs=0.2)


def test_wrong_width_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(T, 4\)"):
        prosody_drives(np.zeros((5, 3)))
