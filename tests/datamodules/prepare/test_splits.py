from __future__ import annotations

from collections import Counter

import pytest

from datamodules.prepare.splits import assign_splits
from talkhead.errors import DataError


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {"train": 1}),
        (2, {"train": 1, "val": 1}),
        (3, {"train": 1, "val": 1, "test": 1}),
        (12, {"train": 8, "val": 2, "test": 2}),
        (100, {"train": 72, "val": 13, "test": 15}),
    ],
)
def test_shares(count: int, expected: dict[str, int]) -> None:
    splits = assign_splits({f"s{i}": None for i in range(count)})
    assert Counter(splits.values()) == expected


def test_order_of_the_clips_does_not_matter() -> None:
    names = [f"s{i}" for i in range(20)]
    forward = assign_splits(dict.fromkeys(names))
    assert forward == assign_splits(dict.fromkeys(reversed(names)))


def test_official_test_speakers_stay() -> None:
    speakers: dict[str, str | None] = {f"d{i}": "dev" for i in range(10)}
    speakers |= {f"t{i}": "test" for i in range(3)}
    splits = assign_splits(speakers)
    assert {s for s, split in splits.items() if split == "test"} == {"t0", "t1", "t2"}
    assert Counter(splits.values())["val"] >= 1


def test_fixed_speakers_stay_and_the_others_are_divided() -> None:
    speakers: dict[str, str | None] = dict.fromkeys(f"s{i}" for i in range(10))
    fixed = assign_splits(speakers | {"big": "train"})
    assert fixed["big"] == "train"
    assert Counter(fixed.values()) == {"train": 8, "val": 1, "test": 2}
    all_given = assign_splits({"a": "train", "b": "val", "c": "test", "d": None})
    assert all_given == {"a": "train", "b": "val", "c": "test", "d": "train"}


def test_errors() -> None:
    with pytest.raises(DataError, match="no speaker"):
        assign_splits({})
    with pytest.raises(DataError, match="shares"):
        assign_splits({"a": None}, val_share=0.5, test_share=0.5)
