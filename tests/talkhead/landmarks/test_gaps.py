from __future__ import annotations

import numpy as np
import pytest

from talkhead.errors import DataError, ShapeError
from talkhead.landmarks.base import Landmarks
from talkhead.landmarks.gaps import bridge, longest_run


def _at(value: float) -> Landmarks:
    return np.full((2, 3), value, np.float32)


def test_gaps_are_interpolated_and_ends_held() -> None:
    points, tracked = bridge([None, _at(1), None, None, _at(4), _at(9), None])
    assert points[:, 0, 0] == pytest.approx([1, 1, 2, 3, 4, 9, 9])
    assert tracked.tolist() == [False, True, False, False, True, True, False]
    assert points.dtype == np.float32


def test_bridge_against_numpy_interp() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 4, 3)).astype(np.float32)
    keep = rng.random(60) < 0.5
    keep[0] = False
    points, _ = bridge([v if k else None for v, k in zip(values, keep, strict=True)])
    hits = np.flatnonzero(keep)
    for p in range(4):
        for c in range(3):
            expected = np.interp(np.arange(60), hits, values[hits, p, c])
            assert points[:, p, c] == pytest.approx(expected, abs=1e-5)


def test_nothing_to_bridge() -> None:
    with pytest.raises(DataError, match="no face"):
        bridge([None, None])
    with pytest.raises(ShapeError, match="one frame"):
        bridge([])


def _mask(text: str) -> np.ndarray:  # type: ignore[type-arg]
    return np.array([c == "x" for c in text])


@pytest.mark.parametrize(
    ("mask", "limit", "run"),
    [
        ("xxxxx", 2, (0, 5)),
        ("x..xx", 2, (0, 5)),
        ("x...xx", 2, (4, 6)),
        ("xxxx...xx", 2, (0, 4)),
        ("..xx.", 2, (0, 5)),
        ("...xx...", 2, (3, 5)),
        ("....", 2, (0, 0)),
    ],
)
def test_longest_run(mask: str, limit: int, run: tuple[int, int]) -> None:
    assert longest_run(_mask(mask), limit) == run
