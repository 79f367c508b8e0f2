"""Speech is reproducible, timed, and fails with a message."""

import multiprocessing
import sys

import numpy as np
import pytest

from talkhead.corpus.speech import (
    PAUSE,
    VARIANTS,
    VOICES,
    Phoneme,
    Speech,
    join,
    require_espeak,
    silence,
    synthesize,
)
from talkhead.errors import ConfigError, MissingDependencyError
from talkhead.specs import SAMPLE_RATE_HZ

TEXT = "My mom may buy a big map. Why not?"


def _speak(voice: str) -> Speech:
    """Runs in another process."""
    synthesize("Something else first.", "en-us+m7")
    return synthesize(TEXT, voice)


def _level_db(speech: Speech, start_s: float, end_s: float) -> float:
    part = speech.wave[int(start_s * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]
    return float(10 * np.log10(np.mean(part.astype(np.float64) ** 2) + 1e-9))


def test_phonemes_cover_the_wave_without_gaps() -> None:
    speech = synthesize(TEXT, "en-us")
    starts = [p.start_s for p in speech.phonemes]
    ends = [p.end_s for p in speech.phonemes]
    assert starts[0] == 0.0
    assert starts[1:] == ends[:-1]
    assert ends[-1] == pytest.approx(speech.duration_s, abs=1e-4)
    assert all(e > s for s, e in zip(starts, ends, strict=True))
    labels = "".join(p.label for p in speech.phonemes)
    assert labels.count("m") >= 4
    assert not set(labels) & set("',%=")
    assert speech.wave.dtype == np.float32
    assert 0.1 < np.abs(speech.wave).max() <= 1.0


def test_phoneme_times_fit_the_sound() -> None:
    """Vowels are loud and pauses silent where the events say so."""
    speech = synthesize("Pa. Ta. Ma. See the map.", "en-us+f1")
    levels = {True: [], False: []}  # type: dict[bool, list[float]]
    for p in speech.phonemes:
        if p.label == PAUSE and p.end_s - p.start_s > 0.1:
            levels[True].append(_level_db(speech, p.start_s + 0.02, p.end_s - 0.06))
        elif p.label[0] in "aAiI" and p.end_s - p.start_s > 0.06:
            levels[False].append(_level_db(speech, p.start_s + 0.02, p.end_s - 0.02))
    assert max(levels[True]) < -55
    assert min(levels[False]) > -35


def test_closure_of_voiceless_stops_lies_before_their_event() -> None:
    """The lip model relies on it."""
    speech = synthesize("A paper map, a happy apple, a copper pipe, a paper puppy.", "en-us")
    before, after = [], []
    for previous, p in zip(speech.phonemes[:-1], speech.phonemes[1:], strict=True):
        if p.label == "p" and previous.label[0] in "aAeEiI@03":
            before.append(_level_db(speech, p.start_s - 0.035, p.start_s - 0.01))
            after.append(_level_db(speech, p.start_s, p.start_s + 0.02))
    assert len(before) >= 5
    assert np.median(before) < -45 < np.median(after) - 5


def test_same_samples_again_and_in_another_process() -> None:
    first = synthesize(TEXT, "en-gb+f2")
    synthesize("A sentence in between.", "en-us-nyc+m3", rate=200)
    again = synthesize(TEXT, "en-gb+f2")
    assert np.array_equal(first.wave, again.wave)
    assert first.phonemes == again.phonemes
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        elsewhere = pool.apply(_speak, ("en-gb+f2",))
    assert np.array_equal(first.wave, elsewhere.wave)


def test_voices_rates_and_pitches_differ() -> None:
    plain = synthesize(TEXT, "en-us", rate=150, pitch=50)
    assert synthesize(TEXT, "en-us", rate=200).duration_s < 0.9 * plain.duration_s
    waves = [synthesize(TEXT, v).wave for v in ("en-us", "en-gb", "en-us+f3", "en-us+m4")]
    assert len({w.tobytes() for w in waves}) == 4


@pytest.mark.parametrize("voice", [*VOICES, *(f"en-us+{v}" for v in VARIANTS)])
def test_every_listed_voice_speaks(voice: str) -> None:
    assert 0.3 < synthesize("A warm day.", voice).duration_s < 3


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"voice": "xx"}, "unknown voice 'xx'"),
        ({"voice": "en-us+q9"}, "unknown voice"),
        ({"rate": 20}, "rate 20"),
        ({"pitch": 120}, "pitch 120"),
        ({"text": "  "}, "no text"),
    ],
)
def test_bad_requests_are_named(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        synthesize(**{"text": "Hello.", **kwargs})  # type: ignore[arg-type] # wrong on purpose


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingDependencyError, match=r"talkhead\[corpus\]"):
        require_espeak()


def test_joining_shifts_the_times() -> None:
    speech = join([silence(0.5), synthesize("Yes.", "en-us"), silence(0.25)])
    assert speech.phonemes[0] == Phoneme(PAUSE, 0.0, 0.5)
    assert speech.phonemes[1].start_s == 0.5
    assert speech.phonemes[-1].end_s == pytest.approx(speech.duration_s)
    assert not speech.wave[:8000].any()
    with pytest.raises(ConfigError, match="no speech to join"):
        join([])
