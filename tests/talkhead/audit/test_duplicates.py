from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.audit.duplicates import Fingerprint, Match, find_matches

RNG = np.random.default_rng


def recording(seed: int, frames: int = 100) -> Fingerprint:
    rng = RNG(seed)
    words = rng.integers(1, 2**32, 4 * frames, dtype=np.uint64).astype(np.uint32)
    hashes = rng.integers(0, 2**63, -(-frames // 5), dtype=np.uint64)
    return Fingerprint(f"c{seed}", f"digest{seed}", words, hashes)


def noisy(words: NDArray[Any], share: float, seed: int = 9) -> NDArray[Any]:
    """Words with a share of their bits turned over."""
    bits = np.unpackbits(words.view(np.uint8))
    bits ^= (RNG(seed).random(len(bits)) < share).astype(np.uint8)
    return np.packbits(bits).view(words.dtype)


def encoded_again(one: Fingerprint, name: str, *, cut: int = 0, share: float = 0.08) -> Fingerprint:
    """The same recording, without its first ``cut`` pictures of every fifth, in another file."""
    return Fingerprint(
        name,
        f"digest of {name}",
        noisy(one.words[20 * cut :], share),
        noisy(one.hashes[cut:], 0.05),
    )


def test_the_same_bytes_are_exact_whatever_else() -> None:
    one = recording(0)
    found = find_matches(
        [recording(1), one, recording(2), Fingerprint("b", one.digest, one.words, one.hashes)]
    )
    assert found == [Match(1, 3, "exact", 4.0, 0.0, 0.0)]


def test_a_copy_cut_and_encoded_again_is_near() -> None:
    one = recording(0)
    (match,) = find_matches([encoded_again(one, "copy", cut=3), recording(1), one])
    assert (match.first, match.second, match.kind) == (0, 2, "near")
    assert match.overlap_s == pytest.approx((100 - 15) / 25)
    assert match.sound_error == pytest.approx(0.08, abs=0.01)
    assert match.picture_error == pytest.approx(0.05, abs=0.02)


def test_the_same_sound_with_other_pictures_is_no_copy() -> None:
    one, other = recording(0), recording(1)
    dubbed = Fingerprint("dubbed", "x", noisy(one.words, 0.1), other.hashes)
    (match,) = find_matches([one, other, dubbed])
    assert (match.first, match.second, match.kind) == (0, 2, "sound")
    assert match.picture_error > 0.4


def test_the_same_pictures_with_other_sound_are_no_match() -> None:
    """Faces of one speaker before one wall have nearly the same hashes."""
    one, other = recording(0), recording(1)
    assert find_matches([one, Fingerprint("x", "x", other.words, one.hashes)]) == []


@pytest.mark.parametrize(("shared", "count"), [(120, 1), (90, 0)])
def test_less_than_a_second_is_no_match(shared: int, count: int) -> None:
    one = recording(0)
    tail = Fingerprint(
        "t", "t", np.concatenate([one.words[-shared:], recording(1).words]), one.hashes
    )
    found = find_matches([one, tail])
    assert len(found) == count
    if found:
        assert found[0].overlap_s == shared / 100


def test_pauses_are_no_evidence() -> None:
    """Shared silence and one shared hum, in every clip, accuse nobody."""
    prints = []
    for seed in range(60):
        one = recording(seed)
        words = one.words.copy()
        words[:200] = 0
        words[200:300:2] = 12345
        prints.append(Fingerprint(one.clip, one.digest, words, one.hashes))
    assert find_matches(prints) == []


def test_proposals_find_what_trying_everything_finds() -> None:
    """Against every pair at every delay."""
    base = [recording(seed, 40) for seed in range(6)]
    copies = [encoded_again(base[i], f"copy{i}", cut=i % 3, share=0.03 * i) for i in range(4)]
    prints = [*base, *copies]
    expected = set()
    for i in range(len(prints)):
        for j in range(i + 1, len(prints)):
            a, b = prints[i].words, prints[j].words
            for delay in range(100 - len(b), len(a) - 99):
                start, stop = max(0, delay), min(len(a), len(b) + delay)
                mixed = a[start:stop] ^ b[start - delay : stop - delay]
                if sum(int(w).bit_count() for w in mixed) / (32 * len(mixed)) <= 0.35:
                    expected.add((i, j))
    assert {(m.first, m.second) for m in find_matches(prints)} == expected
    assert expected == {(0, 6), (1, 7), (2, 8), (3, 9)}


def test_no_clips() -> None:
    assert find_matches([]) == []
