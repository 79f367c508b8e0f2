"""Energy, pitch, voicing and pauses against signals whose values are known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.corpus.prosody import PROSODY_FEATURES, measure_prosody, track_pitch
from talkhead.corpus.speech import synthesize
from talkhead.errors import ShapeError
from talkhead.specs import SAMPLE_RATE_HZ


def _tone(hz: float, seconds: float, level: float = 0.2) -> NDArray[np.float32]:
    """Harmonic tone, weaker towards the top."""
    t = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    parts = [np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 8) if k * hz < 7000]
    return np.asarray(level * np.sum(parts, axis=0), dtype=np.float32)


@pytest.mark.parametrize("hz", [80.0, 117.3, 200.0, 331.0])
def test_pitch_of_a_tone(hz: float) -> None:
    found, strength = track_pitch(_tone(hz, 0.6))
    assert found[2:-2] == pytest.approx(hz, rel=0.01)
    assert strength[2:-2].min() > 0.9


def test_pitch_of_a_glide_is_that_of_the_frame_centre() -> None:
    t = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    phase = 2 * np.pi * (120 * t + 30 * t**2)
    found, _ = track_pitch((0.3 * np.sin(phase) + 0.1 * np.sin(2 * phase)).astype(np.float32))
    centres = (np.arange(50) + 0.5) / 25
    assert found[2:-2] == pytest.approx((120 + 60 * centres)[2:-2], rel=0.02)


def test_energy_is_the_rms_level() -> None:
    t = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    wave = (0.5 * np.sin(2 * np.pi * 400 * t)).astype(np.float32)
    assert measure_prosody(wave).energy_db[2:-2] == pytest.approx(-9.03, abs=0.05)


def test_noise_is_unvoiced_and_silence_is_a_pause() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(12_800).astype(np.float32)
    wave = np.concatenate([_tone(150, 0.8), np.zeros(12_800, np.float32), noise])
    found = measure_prosody(wave)
    assert found.voiced[2:18].all()
    assert not found.voiced[22:].any()
    assert found.pause[22:38].all()
    assert not found.pause[:19].any()
    assert not found.pause[42:].any()
    assert found.pitch_hz[30] == 0


def test_a_short_gap_is_no_pause() -> None:
    wave = np.concatenate([_tone(150, 0.4), np.zeros(1600, np.float32), _tone(150, 0.4)])
    assert not measure_prosody(wave).pause.any()


def test_features_are_z_scores() -> None:
    found = measure_prosody(synthesize("The boat moves slowly. Why not?", "en-us+f2").wave)
    assert found.features.shape == (len(found.energy_db), len(PROSODY_FEATURES))
    assert found.features.mean(0) == pytest.approx(0, abs=1e-5)
    assert found.features.std(0) == pytest.approx(1, abs=1e-4)
    energy = found.features[:, PROSODY_FEATURES.index("energy")]
    assert np.corrcoef(energy, found.energy_db)[0, 1] == pytest.approx(1, abs=1e-5)


def test_constant_columns_are_zero_not_infinite() -> None:
    found = measure_prosody(np.zeros(6400, np.float32))
    assert not found.features.any()
    assert found.pause.all()


def test_voice_of_a_woman_is_higher() -> None:
    low, high = (
        measure_prosody(synthesize("We all know the way home now.", v).wave)
        for v in ("en-us+m3", "en-us+f1")
    )
    assert np.median(high.pitch_hz[high.voiced]) > 1.3 * np.median(low.pitch_hz[low.voiced])


@pytest.mark.parametrize("shape", [(100,), (2, 6400)])
def test_wrong_waves_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="mono"):
        measure_prosody(np.zeros(shape, np.float32))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    wave = np.concatenate([_tone(150, 0.9), np.zeros(9000, np.float32), _tone(210, 1.1)])
    whole = measure_prosody(wave)
    monkeypatch.setattr("talkhead.corpus.prosody._BLOCK_FRAMES", 7)
    parts = measure_prosody(wave)
    for name in ("energy_db", "pitch_hz", "voiced", "pause", "features"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
