from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.prepare import clip, tracked
from datamodules.prepare.tracked import TrackedVideo
from talkhead.errors import DataError
from talkhead.geometry.crop import Box, clip_box, crop_frame
from talkhead.media.decode import iter_frames
from tests.datamodules.prepare.fake_face import FakeFace, draw, write_clip
from tests.talkhead.media.make_media import write_media


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that was decoded, once for each time."""
    seen: list[Path] = []

    def counted(path: Path, **more: Any) -> Iterator[Any]:
        seen.append(path)
        return iter_frames(path, **more)

    monkeypatch.setattr(clip, "iter_frames", counted)
    monkeypatch.setattr(tracked, "iter_frames", counted)
    return seen


def test_crops_of_any_box_come_from_one_decoding(tmp_path: Path, decoded: list[Path]) -> None:
    path = write_clip(tmp_path / "a.mp4", 1.2)
    frames = list(iter_frames(path))
    with TrackedVideo(path, FakeFace(), tmp_path) as video:
        assert video.points.shape == (len(frames), 478, 3)
        assert video.tracked.all()
        assert (video.width, video.height, video.info.audio) == (160, 120, True)
        own = clip_box(video.points, video.width, video.height)
        for box, size in ((own, 48), (Box(own.x + 3, own.y + 2, own.side - 8), 32), (own, 64)):
            found = list(video.crops(box, size, 20))
            assert len(found) == 20
            expected = [crop_frame(frame, box, size) for frame in frames[:20]]
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert decoded == [path]
    assert list(tmp_path.iterdir()) == [path]


def test_boxes_elsewhere_cost_one_more_decoding_in_all(tmp_path: Path, decoded: list[Path]) -> None:
    face = (40.0, 60.0)
    pictures = [draw(face, (640, 120)) for _ in range(20)]
    path = write_media(tmp_path / "wide.mp4", pictures, [i / 25 for i in range(20)])
    frames = list(iter_frames(path))
    far = Box(500, 10, 60)
    with TrackedVideo(path, FakeFace()) as video:
        for size in (30, 60):
            found = list(video.crops(far, size, 20))
            expected = [crop_frame(frame, far, size) for frame in frames]
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        assert len(list(video.crops(Box(10, 20, 70), 35, 5))) == 5
    assert decoded == [path, path]


def test_a_video_that_fills_the_store_is_still_cropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datamodules.prepare import spool

    monkeypatch.setattr(spool, "DISK_BYTES", 100_000)
    path = write_clip(tmp_path / "a.mp4", 1.0)
    frames = list(iter_frames(path))
    with TrackedVideo(path, FakeFace()) as video:
        box = clip_box(video.points, video.width, video.height)
        found = list(video.crops(box, 40, 10))
        expected = [crop_frame(frame, box, 40) for frame in frames[:10]]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_video_without_a_face_is_refused(tmp_path: Path) -> None:
    path = write_media(tmp_path / "empty.mp4", [draw(None)] * 14, [i / 25 for i in range(14)])
    with pytest.raises(DataError, match="no face in any of 14 frames"):
        TrackedVideo(path, FakeFace())
