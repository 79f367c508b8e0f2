"""Lips: closures, rest, rounding, co-articulation, and the time a frame stands for."""

from itertools import pairwise

import numpy as np
import pytest

from talkhead.corpus.lips import lip_motion
from talkhead.corpus.sentences import SENTENCES
from talkhead.corpus.speech import PAUSE, Phoneme, synthesize
from talkhead.corpus.visemes import VISEMES, visemes
from talkhead.errors import ConfigError


def _string(*parts: tuple[str, float]) -> list[Phoneme]:
    """Phonemes from labels and durations in seconds."""
    ends = np.cumsum([d for _, d in parts])
    return [
        Phoneme(label, float(end - d), float(end))
        for (label, d), end in zip(parts, ends, strict=True)
    ]


def test_ranges_and_length_on_real_speech() -> None:
    speech = synthesize(" ".join(SENTENCES[:4]), "en-us")
    frames = int(speech.duration_s * 25)
    lips = lip_motion(speech.phonemes, frames)
    assert set(lips) == {"jaw", "width", "pucker", "press"}
    for name, values in lips.items():
        assert values.shape == (frames,)
        assert values.dtype == np.float32
        assert values.max() <= 1
        assert values.min() >= (-1 if name == "width" else 0)
    assert lips["jaw"].max() > 0.6
    assert lips["pucker"].max() > 0.6
    assert np.abs(np.diff(lips["jaw"])).max() < 0.75


@pytest.mark.parametrize("label", ["m", "b", "p"])
@pytest.mark.parametrize("offset", np.linspace(0.0, 0.04, 6))
def test_bilabials_close_in_some_frame_wherever_they_fall(label: str, offset: float) -> None:
    lips = lip_motion(_string(("A:", 0.3 + offset), (label, 0.03), ("A:", 0.3)), 15)
    assert lips["jaw"].min() == 0.0
    assert lips["press"][lips["jaw"].argmin()] > 0.89
    assert lips["jaw"][3] > 0.6
    assert lips["jaw"][-3] > 0.6


def test_every_spoken_bilabial_closes() -> None:
    speech = synthesize("Bob and Mabel mopped up the plum jam, maybe.", "en-gb+f2")
    lips = lip_motion(speech.phonemes, int(speech.duration_s * 25))
    for p in speech.phonemes:
        if p.label in ("m", "b", "p"):
            near = slice(max(0, int((p.start_s - 0.05) * 25)), int(p.end_s * 25) + 1)
            assert lips["jaw"][near].min() < 0.01


def test_silence_returns_to_rest() -> None:
    lips = lip_motion(_string(("A:", 0.2), (PAUSE, 1.0)), 30)
    assert lips["jaw"][20:].max() < 0.01
    assert lips["press"][20:] == pytest.approx(0.2, abs=0.01)
    assert lip_motion([], 3)["press"] == pytest.approx(0.2, abs=0.01)


def test_rounding_is_anticipated_by_the_consonant() -> None:
    """The s of "sue" is rounder than the s of "see"."""
    rounded = lip_motion(_string((PAUSE, 0.3), ("s", 0.12), ("u:", 0.3)), 18)
    spread = lip_motion(_string((PAUSE, 0.3), ("s", 0.12), ("i:", 0.3)), 18)
    assert rounded["pucker"][9] > spread["pucker"][9] + 0.2
    assert rounded["width"][9] < spread["width"][9] - 0.3


def test_diphthong_moves_from_one_target_to_the_other() -> None:
    lips = lip_motion(_string((PAUSE, 0.2), ("aI", 0.4), (PAUSE, 0.2)), 20)
    assert lips["jaw"][7] > 0.65
    assert lips["jaw"][13] < 0.5
    assert lips["width"][13] > lips["width"][7]


def test_frame_stands_for_its_centre() -> None:
    """Later phonemes by one frame give the same lips one frame later, exactly."""
    parts = [("A:", 0.2), ("m", 0.08), ("u:", 0.2), ("s", 0.1)]
    first = lip_motion(_string((PAUSE, 0.40), *parts), 40)
    later = lip_motion(_string((PAUSE, 0.44), *parts), 40)
    assert later["jaw"][11:30] == pytest.approx(first["jaw"][10:29], abs=1e-6)
    # An isolated opening symmetric about 0.42 s peaks in the frame whose centre that is.
    single = lip_motion(_string((PAUSE, 0.36), ("A:", 0.12), (PAUSE, 0.36)), 21)
    assert int(single["jaw"].argmax()) == 10


def test_articulation_scales_and_is_checked() -> None:
    parts = _string(("A:", 0.4))
    small, large = (lip_motion(parts, 10, a)["jaw"][5] for a in (0.8, 1.0))
    assert small == pytest.approx(0.8 * large)
    with pytest.raises(ConfigError, match="articulation"):
        lip_motion(parts, 10, 2.0)


def test_unknown_labels_fall_back_by_beginning_then_class() -> None:
    assert visemes("t#") == visemes("t")
    assert visemes("I2") == visemes("I")
    assert visemes("aI@3") == visemes("aI@")
    assert visemes("@-") == visemes("@")
    assert visemes("y&")[0].dominance[0] == 1.0  # a vowel letter
    assert visemes("q!")[0].dominance[1] < 0.5  # anything else: the tongue's work
    assert visemes("") == visemes("t")


def test_table_covers_what_espeak_says() -> None:
    """No English phoneme may fall through to the class rule."""
    speech = synthesize(" ".join(SENTENCES[:40]), "en-us")
    known = set(map(id, VISEMES.values()))
    labels = {p.label for p in speech.phonemes} - {PAUSE}
    assert len(labels) > 30
    assert {label for label in labels if id(visemes(label)) not in known} == set()
    assert all(a.end_s == b.start_s for a, b in pairwise(speech.phonemes))
