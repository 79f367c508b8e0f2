"""Clips that are in a set twice: the same bytes, or the same recording cut or encoded anew.

Faces of one speaker before one wall look alike in every clip, and two takes may have one sound, so
that pictures alone and sound alone both accuse the innocent. A near duplicate agrees in both, at
one and the same delay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from talkhead.audit.pictures import HASH_BITS, differing_bits
from talkhead.audit.sound import SILENT_WORD, WORDS_PER_SECOND
from talkhead.specs import FPS

HASH_EVERY = 5
"""Every fifth picture has a hash."""
WORD_BITS = 32
SAME_SOUND_ERROR = 0.35
"""Share of differing bits up to which two fingerprints are of one sound (Haitsma & Kalker 2002)."""
SAME_PICTURES_ERROR = 0.16
"""Share of differing bits up to which two hashes are of one picture: 10 of 64."""
MIN_OVERLAP_S = 1.0
_MIN_HITS = 3
_MAX_OWNERS = 50
"""A word that occurs more often, such as one of a pause, says nothing."""

Words = NDArray[np.uint32]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Fingerprint:
    """What of a clip is compared.

    Attributes:
        clip: Id.
        digest: Hash of all pictures and samples.
        words: One word a mel step, ``(4T,)``.
        hashes: One hash for every fifth picture, ``(ceil(T / 5),)``.
    """

    clip: str
    digest: str
    words: Words
    hashes: Hashes


@dataclass(frozen=True)
class Match:
    """Two clips of one recording.

    Attributes:
        first: Place of the earlier clip in the list that was searched.
        second: Place of the later one.
        kind: ``exact``: the same bytes; ``near``: sound and pictures agree; ``sound``: the sound
            agrees and the pictures do not.
        overlap_s: Seconds they share.
        sound_error: Share of fingerprint bits that differ; 0.5 for unrelated sounds.
        picture_error: Share of hash bits that differ.
    """

    first: int
    second: int
    kind: Literal["exact", "near", "sound"]
    overlap_s: float
    sound_error: float
    picture_error: float


def find_matches(prints: Sequence[Fingerprint]) -> list[Match]:
    """Every pair of clips that share a recording, at most one match a pair.

    Pairs are proposed by words they share at one delay, so that time and memory grow with the
    words, not with the pairs. Near duplicates of silent clips are not found, exact ones are.

    Args:
        prints: All clips.

    Returns:
        Matches ordered by ``first``, then ``second``.
    """
    found: dict[tuple[int, int], Match] = {}
    by_digest: dict[str, list[int]] = defaultdict(list)
    for place, one in enumerate(prints):
        by_digest[one.digest].append(place)
    for places in by_digest.values():
        for a, b in combinations(places, 2):
            seconds = len(prints[a].words) / WORDS_PER_SECOND
            found[a, b] = Match(a, b, "exact", seconds, 0.0, 0.0)
    for a, b, delay in _proposed(prints):
        if (a, b) not in found:
            match = _compare(prints, a, b, delay)
            if match is not None:
                found[a, b] = match
    return [found[pair] for pair in sorted(found)]


def _proposed(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, int, int]]:
    """Pairs with at least three shared words at one delay of the second, by falling number of words."""
    words = np.concatenate([one.words for one in prints] or [np.zeros(0, np.uint32)])
    clips = np.repeat(np.arange(len(prints)), [len(one.words) for one in prints])
    steps = np.concatenate([np.arange(len(one.words)) for one in prints] or [np.zeros(0, np.int64)])
    order = np.argsort(words, kind="stable")
    order = order[words[order] != SILENT_WORD]
    edges = np.flatnonzero(np.diff(words[order])) + 1
    votes: dict[tuple[int, int, int], int] = defaultdict(int)
    for group in np.split(order, edges):
        if not 1 < len(group) <= _MAX_OWNERS:
            continue
        for i, j in combinations(group.tolist(), 2):
            if clips[i] != clips[j]:
                votes[int(clips[i]), int(clips[j]), int(steps[i] - steps[j])] += 1
    for pair, count in sorted(votes.items(), key=lambda item: (-item[1], item[0])):
        if count >= _MIN_HITS:
            yield pair


def _compare(prints: Sequence[Fingerprint], a: int, b: int, delay: int) -> Match | None:
    """Judge two clips; step ``n`` of the second meets step ``n + delay`` of the first."""
    left, right = prints[a].words, prints[b].words
    start, stop = max(0, delay), min(len(left), len(right) + delay)
    x, y = left[start:stop], right[start - delay : stop - delay]
    sounding = (x != SILENT_WORD) | (y != SILENT_WORD)
    if sounding.sum() < MIN_OVERLAP_S * WORDS_PER_SECOND:
        return None
    sound_error = float(differing_bits(x[sounding], y[sounding]).mean()) / WORD_BITS
    if sound_error > SAME_SOUND_ERROR:
        return None
    picture_error = _picture_error(prints[a].hashes, prints[b].hashes, delay)
    kind: Literal["near", "sound"] = "near" if picture_error <= SAME_PICTURES_ERROR else "sound"
    overlap_s = (stop - start) / WORDS_PER_SECOND
    return Match(a, b, kind, overlap_s, round(sound_error, 4), round(picture_error, 4))


def _picture_error(first: Hashes, second: Hashes, delay: int) -> float:
    """Mean share of differing bits of the pictures that are nearest in time; 1 if none meet."""
    frames = np.arange(len(second)) * HASH_EVERY + delay * FPS / WORDS_PER_SECOND
    partner = np.round(frames / HASH_EVERY).astype(np.int64)
    inside = (partner >= 0) & (partner < len(first))
    if not inside.any():
        return 1.0
    return float(differing_bits(first[partner[inside]], second[inside]).mean()) / HASH_BITS
