"""Speaker-disjoint splits: the data set's own where it has one, else by a hash of the speaker."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from datamodules.shard_index import SPLITS
from talkhead.errors import DataError


def _order(speaker: str) -> str:
    """Position of a speaker that depends on nothing but the name."""
    return hashlib.sha256(f"talkhead-split:{speaker}".encode()).hexdigest()


def assign_splits(
    speakers: Mapping[str, str | None], *, val_share: float = 0.15, test_share: float = 0.15
) -> dict[str, str]:
    """Give every speaker one split.

    Speakers with an official split stay there; ``"dev"`` ones are divided into train and val. The
    others are put in the order of a hash of their names and the first ``test_share`` of them go to test,
    unless a test split is official, the next ``val_share`` to val, unless that is, at least one each
    when there are three speakers. Two speakers give train and val, one gives train only.

    Args:
        speakers: Speaker -> official split (``"train"``, ``"val"``, ``"test"``, ``"dev"``) or None.
        val_share: Share of speakers for validation.
        test_share: Share of speakers for the test.

    Returns:
        Speaker -> ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        DataError: Shares that leave no one for training, or no speaker.
    """
    if not speakers:
        raise DataError("no speaker to split; every clip was rejected.")
    if val_share < 0 or test_share < 0 or val_share + test_share >= 0.9:
        raise DataError(
            f"expected shares of at least 0 that sum to less than 0.9, got {val_share} and "
            f"{test_share}."
        )
    out: dict[str, str] = {s: own for s, own in speakers.items() if own in SPLITS}
    pool = sorted(set(speakers) - set(out), key=_order)
    fixed = set(out.values())
    trainers = 0 if "train" in fixed else 1  # who must be left over for training
    tests = 0 if "test" in fixed else _count(len(pool), test_share, spare=2 * trainers)
    vals = 0 if "val" in fixed else _count(len(pool) - tests, val_share, spare=trainers)
    for place, speaker in enumerate(pool):
        out[speaker] = "test" if place < tests else "val" if place < tests + vals else "train"
    return out


def _count(speakers: int, share: float, spare: int) -> int:
    """Speakers to take: the rounded share, at least one if ``spare`` others remain."""
    if speakers <= spare or share == 0:
        return 0
    return min(max(1, round(share * speakers)), speakers - spare)
