from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datamodules.prepare import spool as module
from datamodules.prepare.spool import FrameSpool
from talkhead.geometry.crop import Box, crop_frame


def test_crop_of_the_kept_part_equals_crop_of_the_frame() -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (3, 200, 300, 3)).astype(np.uint8)
    box = Box(110, 60, 60)
    with FrameSpool(Box(105, 55, 70), 300, 200, 64) as spool:
        for frame in frames:
            spool.write(frame)
        assert spool.covers(box)
        kept = [crop_frame(f, spool.local(spool.snapped(box)), 64) for f in spool.read()]
    assert spool.snapped(box) == box
    for a, b in zip(kept, frames, strict=True):
        assert np.array_equal(a, crop_frame(b, box, 64))


def test_large_heads_are_shrunk_on_the_way() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (800, 800, 3)).astype(np.uint8)
    guess = Box(100, 100, 400)
    with FrameSpool(guess, 800, 800, 64) as spool:
        assert spool.grid == 5
        spool.write(frame)
        (kept,) = spool.read()
        assert kept.shape[0] < 110
        box = spool.snapped(guess)
        direct = crop_frame(frame, box, 64).astype(int)
        twice = crop_frame(kept, spool.local(box), 64).astype(int)
    assert np.abs(direct - twice).mean() < 12  # white noise, the worst case


def test_what_is_not_covered() -> None:
    with FrameSpool(Box(100, 100, 80), 400, 400, 64) as spool:
        assert spool.covers(Box(95, 95, 90))
        assert not spool.covers(Box(20, 100, 80))
        assert not spool.covers(Box(100, 100, 300))
    # The picture's own border is no limit.
    with FrameSpool(Box(0, 0, 80), 90, 90, 64) as spool:
        assert spool.covers(Box(-5, -5, 100))
    with FrameSpool(None, 400, 400, 64) as spool:
        assert not spool.covers(Box(100, 100, 80))


def test_full_disk_limit_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISK_BYTES", 50_000)
    monkeypatch.setattr(module, "MEMORY_BYTES", 1000)
    frame = np.zeros((100, 100, 3), np.uint8)
    with FrameSpool(Box(0, 0, 100), 100, 100, 64, tmp_path) as spool:
        spool.write(frame)
        assert spool.covers(Box(0, 0, 100))
        spool.write(frame)
        assert not spool.covers(Box(0, 0, 100))
    assert list(tmp_path.iterdir()) == []
