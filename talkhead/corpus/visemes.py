"""Lip targets of eSpeak's English phonemes: where the mouth wants to be, and how badly."""

from __future__ import annotations

from typing import NamedTuple

Four = tuple[float, float, float, float]


class Viseme(NamedTuple):
    """Targets and dominances in the order jaw, width, pucker, press.

    Attributes:
        target: Value each field heads for; see :class:`talkhead.corpus.state.FaceState`.
        dominance: How strongly it does; a vowel has 1, a tongue consonant hardly cares.
        closes: The lips must really meet (bilabials).
    """

    target: Four
    dominance: Four
    closes: bool = False


_VOWEL: Four = (1.0, 1.0, 1.0, 1.0)
_ROUND: Four = (1.2, 2.0, 2.5, 1.0)
_TONGUE: Four = (0.8, 0.35, 0.35, 0.8)


def _vowel(jaw: float, width: float, pucker: float = 0.0) -> Viseme:
    """A vowel; a clearly rounded one dominates its neighbours' lips."""
    return Viseme((jaw, width, pucker, 0.0), _ROUND if pucker >= 0.4 else _VOWEL)


def _tongue(jaw: float, width: float = 0.0) -> Viseme:
    """A consonant made inside the mouth; the lips follow their neighbours."""
    return Viseme((jaw, width, 0.0, 0.0), _TONGUE)


REST = Viseme((0.0, 0.0, 0.0, 0.2), _VOWEL)
"""Silence: closed and lightly pressed."""

_BILABIAL = Viseme((0.0, 0.0, 0.05, 0.9), (4.0, 0.5, 0.5, 5.0), closes=True)
_LABIODENTAL = Viseme((0.08, 0.1, 0.0, 0.35), (4.0, 0.6, 0.8, 4.0))
_DENTAL = _tongue(0.2, 0.1)
_ALVEOLAR = _tongue(0.18, 0.1)
_SIBILANT = Viseme((0.1, 0.35, 0.0, 0.0), (1.6, 0.8, 0.6, 0.8))
_POSTALVEOLAR = Viseme((0.15, -0.4, 0.5, 0.0), (1.5, 1.5, 1.8, 0.8))
_VELAR = _tongue(0.25)
_GLOTTAL = Viseme((0.3, 0.0, 0.0, 0.0), (0.2, 0.1, 0.1, 0.5))
_RHOTIC = Viseme((0.2, -0.25, 0.35, 0.0), (1.0, 1.0, 1.0, 0.8))
_GLIDE_W = Viseme((0.1, -0.8, 0.9, 0.0), (2.0, 2.5, 3.0, 1.0))
_GLIDE_J = Viseme((0.15, 0.5, 0.0, 0.0), (0.8, 0.8, 0.6, 0.8))

_SPREAD_HIGH = _vowel(0.2, 0.75)
_SPREAD_LAX = _vowel(0.3, 0.45)
_MID_FRONT = _vowel(0.48, 0.4)
_OPEN_FRONT = _vowel(0.75, 0.35)
_OPEN_BACK = _vowel(0.9, 0.05)
_OPEN_MID = _vowel(0.6, 0.05)
_NEUTRAL = _vowel(0.35, 0.0)
_NEUTRAL_RHOTIC = _vowel(0.32, -0.2, 0.3)
_ROUND_OPEN = _vowel(0.65, -0.35, 0.45)
_ROUND_MID = _vowel(0.5, -0.55, 0.7)
_ROUND_LAX = _vowel(0.25, -0.5, 0.65)
_ROUND_HIGH = _vowel(0.18, -0.75, 0.95)

VISEMES: dict[str, tuple[Viseme, ...]] = {
    **dict.fromkeys(("p", "b", "m"), (_BILABIAL,)),
    **dict.fromkeys(("f", "v"), (_LABIODENTAL,)),
    **dict.fromkeys(("T", "D"), (_DENTAL,)),
    **dict.fromkeys(("t", "d", "n", "l", "*"), (_ALVEOLAR,)),
    **dict.fromkeys(("s", "z"), (_SIBILANT,)),
    **dict.fromkeys(("S", "Z", "tS", "dZ"), (_POSTALVEOLAR,)),
    **dict.fromkeys(("k", "g", "N", "x"), (_VELAR,)),
    **dict.fromkeys(("h", "?"), (_GLOTTAL,)),
    **dict.fromkeys(("r", "R"), (_RHOTIC,)),
    "w": (_GLIDE_W,),
    **dict.fromkeys(("j", ";"), (_GLIDE_J,)),
    **dict.fromkeys(("i", "i:"), (_SPREAD_HIGH,)),
    "I": (_SPREAD_LAX,),
    **dict.fromkeys(("E", "e", "e:"), (_MID_FRONT,)),
    **dict.fromkeys(("a", "aa", "a:"), (_OPEN_FRONT,)),
    **dict.fromkeys(("A", "A:"), (_OPEN_BACK,)),
    "V": (_OPEN_MID,),
    **dict.fromkeys(("@", "@L"), (_NEUTRAL,)),
    **dict.fromkeys(("3", "3:"), (_NEUTRAL_RHOTIC,)),
    **dict.fromkeys(("0", "O", "O:"), (_ROUND_OPEN,)),
    "o": (_ROUND_MID,),
    "U": (_ROUND_LAX,),
    **dict.fromkeys(("u", "u:"), (_ROUND_HIGH,)),
    "aI": (_OPEN_BACK, _SPREAD_LAX),
    "aU": (_OPEN_BACK, _ROUND_LAX),
    "eI": (_MID_FRONT, _SPREAD_HIGH),
    "OI": (_ROUND_OPEN, _SPREAD_LAX),
    "oU": (_ROUND_MID, _ROUND_HIGH),
    "i@": (_SPREAD_HIGH, _NEUTRAL),
    "e@": (_MID_FRONT, _NEUTRAL),
    "U@": (_ROUND_LAX, _NEUTRAL),
    "aI@": (_OPEN_BACK, _SPREAD_LAX, _NEUTRAL),
    "aU@": (_OPEN_BACK, _ROUND_LAX, _NEUTRAL),
    "A@": (_OPEN_BACK, _RHOTIC),
    **dict.fromkeys(("O@", "o@"), (_ROUND_OPEN, _RHOTIC)),
    "IR": (_NEUTRAL_RHOTIC,),
    "VR": (_OPEN_MID, _RHOTIC),
}
"""Targets of the phonemes of eSpeak's English voices."""
# eSpeak marks variants of a phoneme with digits and signs; the lips make no difference.
_MODIFIERS = "#2345-^;~"
_VOWEL_LETTERS = frozenset("aeiouyAEIOUQV@03&")


def visemes(label: str) -> tuple[Viseme, ...]:
    """Lip targets of a phoneme, one after the other (diphthongs have two or three).

    A label that is not in the table is looked up without eSpeak's variant marks, then by its
    longest known beginning, and finally by class: a letter that writes a vowel gives a neutral
    vowel, any other a tongue consonant.

    Args:
        label: eSpeak mnemonic without stress marks.
    """
    if label in VISEMES:
        return VISEMES[label]
    bare = label.rstrip(_MODIFIERS)
    for length in range(len(bare), 0, -1):
        if bare[:length] in VISEMES:
            return VISEMES[bare[:length]]
    return (_NEUTRAL,) if label[:1] in _VOWEL_LETTERS else (_ALVEOLAR,)
