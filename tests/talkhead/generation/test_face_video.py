from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from talkhead.errors import DataError
from talkhead.generation.face_video import TRACKED_FRAMES, BoxFinder, find_face, picture_reader
from talkhead.geometry.face_topology import canonical_landmarks


class Tracker:
    """Finds one face where a bright square is."""

    name = "bright"

    def __init__(self) -> None:
        self.asked = 0

    def detect(self, frame: NDArray[Any]) -> list[NDArray[np.float32]]:
        self.asked += 1
        rows, columns = np.nonzero(frame[..., 0] > 200)
        if not len(rows):
            return []
        points = canonical_landmarks().astype(np.float32) * 40
        points[:, 0] += columns.mean()
        points[:, 1] += rows.mean()
        return [points]

    def track(self, frames: Any) -> Any:
        raise AssertionError("pictures are searched one by one")


def scene(at: int) -> NDArray[Any]:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[90:110, at - 10 : at + 10] = 255
    return picture


def test_the_box_holds_the_face_of_a_whole_video() -> None:
    video = [scene(120 + n % 40) for n in range(300)]
    tracker = Tracker()
    found = find_face(
        lambda start, stop: iter(video[start:stop]), 1000, tracker, 0.5, "v.mp4", "hold"
    )
    assert (found.frames, found.end) == (300, "hold")
    assert found.box.x < 120 < 160 < found.box.x + found.box.side
    assert tracker.asked < 300
    assert [p.shape for p in islice(found.crops(found.endless(), 32), 2)] == [(32, 32, 3)] * 2
    portrait = find_face(picture_reader(scene(150)), 1000, tracker, 0.5, "p.png", "hold")
    assert portrait.frames == 1
    assert np.array_equal(next(portrait.endless()), scene(150))


def test_long_videos_are_searched_ever_less_often() -> None:
    tracker = Tracker()
    finder = BoxFinder(tracker)
    picture = scene(150)
    for number in range(15_000):
        finder(number, picture)
        assert len(finder._faces) <= 2 * TRACKED_FRAMES
    assert tracker.asked < 10 * TRACKED_FRAMES
    assert finder.box(0.5, "v.mp4").side > 0


def test_a_video_without_a_face_is_refused() -> None:
    with pytest.raises(DataError, match="no face found in v"):
        find_face(
            picture_reader(np.zeros((64, 64, 3), np.uint8)), 5, Tracker(), 0.5, "v.mp4", "hold"
        )
