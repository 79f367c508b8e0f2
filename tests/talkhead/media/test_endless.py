from __future__ import annotations

import weakref
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.errors import ConfigError, DataError
from talkhead.media.encode import write_video
from talkhead.media.endless import BLOCK_FRAMES, count_frames, endless_frames, frames_from


class Counting:
    """A video of numbered pictures that knows how many of them are alive."""

    def __init__(self, frames: int) -> None:
        self.frames, self.alive, self.most = frames, 0, 0

    def gone(self) -> None:
        self.alive -= 1

    def __call__(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        for number in range(start, min(stop, self.frames)):
            picture = np.full((2, 2, 3), number % 251, np.uint8)
            weakref.finalize(picture, self.gone)
            self.alive += 1
            self.most = max(self.most, self.alive)
            yield picture


def numbers(frames: int, count: int, **options: Any) -> list[int]:
    found = list(islice(endless_frames(Counting(frames), frames, **options), count))
    assert [int(picture[0, 0, 0]) for _, picture in found] == [n % 251 for n, _ in found]
    return [n for n, _ in found]


def test_forwards_and_backwards_by_hand() -> None:
    assert numbers(4, 12) == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]
    assert numbers(2, 5) == [0, 1, 0, 1, 0]
    assert numbers(1, 3) == [0, 0, 0]
    assert numbers(3, 6, end="hold") == [0, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("frames", [BLOCK_FRAMES, 2 * BLOCK_FRAMES + 7])
def test_neighbours_stay_neighbours_over_pieces(frames: int) -> None:
    order = np.array(numbers(frames, 4 * frames))
    period = 2 * frames - 2
    folded = np.arange(4 * frames) % period
    assert np.array_equal(order, np.minimum(folded, period - folded))


def test_memory_does_not_grow_with_the_length() -> None:
    reader = Counting(400)
    for _ in islice(endless_frames(reader, 400), 15_000):  # ten minutes
        pass
    assert reader.most <= BLOCK_FRAMES + 3


def test_a_real_file_backwards(tmp_path: Path) -> None:
    shades = [np.full((32, 32, 3), 4 * n, np.uint8) for n in range(60)]
    read = frames_from(write_video(tmp_path / "v.mp4", shades, crf=0))
    seen: list[int] = []
    assert count_frames(read, 1000, lambda n, _: seen.append(n)) == 60 == len(seen)
    assert count_frames(read, 7, lambda n, _: None) == 7
    for number, picture in islice(endless_frames(read, 60), 118):
        assert abs(int(picture.mean()) - 4 * number) <= 2


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(DataError, match="it ends after frame 4"):
        list(islice(endless_frames(Counting(5), 9), 20))
    with pytest.raises(ConfigError, match="ping_pong or hold"):
        next(endless_frames(Counting(3), 3, "loop"))  # type: ignore[arg-type]  # what a user may type
    with pytest.raises(ConfigError, match="at least 1 frame"):
        next(endless_frames(Counting(3), 0))
