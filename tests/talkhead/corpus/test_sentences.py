"""The text is varied and fills a clip exactly."""

import numpy as np
import pytest

from talkhead.corpus.sentences import SENTENCES, cut, sample_utterance
from talkhead.corpus.speech import PAUSE, silence, synthesize
from talkhead.errors import ConfigError


def test_sentences_are_many_and_distinct() -> None:
    assert len(SENTENCES) == len(set(SENTENCES)) >= 120
    assert {s[-1] for s in SENTENCES} == {".", "?", "!"}
    letters = "".join(SENTENCES).lower()
    assert set("abcdefghijklmnopqrstuvwxyz") <= set(letters)
    lengths = [len(s.split()) for s in SENTENCES]
    assert min(lengths) <= 5
    assert max(lengths) >= 10


@pytest.mark.parametrize("seconds", [0.5, 2.5, 6.0])
def test_clip_has_whole_frames_and_starts_silent(seconds: float) -> None:
    spoken = sample_utterance(np.random.default_rng(1), seconds, "en-us+f1")
    assert len(spoken.speech.wave) == int(seconds * 25) * 640
    assert spoken.speech.phonemes[0].label == PAUSE
    assert spoken.speech.phonemes[-1].end_s == pytest.approx(int(seconds * 25) / 25)
    assert spoken.texts[0] in SENTENCES


def test_choice_follows_the_generator() -> None:
    first, again, other = (
        sample_utterance(np.random.default_rng(s), 3.0, "en-us").texts for s in (3, 3, 4)
    )
    assert first == again != other


def test_cut_speech_fades_and_keeps_no_later_phoneme() -> None:
    speech = synthesize("The morning boat moves slowly.", "en-us")
    short = cut(speech, 12_800)
    assert len(short.wave) == 12_800
    assert abs(short.wave[-1]) < 1e-6
    assert short.phonemes[-1].end_s == 0.8
    assert np.array_equal(short.wave[:12_000], speech.wave[:12_000])
    assert np.array_equal(cut(silence(1.0), 16_000).wave, np.zeros(16_000, np.float32))


def test_too_short_clip_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.5 s"):
        sample_utterance(np.random.default_rng(0), 0.2, "en-us")
