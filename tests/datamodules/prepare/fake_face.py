"""A face tracker for tests: a red square is a face, nothing else is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talkhead.geometry import face_topology as topology
from talkhead.landmarks.base import Landmarks, Picture
from tests.talkhead.media.make_media import tone_bursts, write_media

SIDE = 48


def draw(
    centre: tuple[float, float] | None, size: tuple[int, int] = (160, 120), opening: float = 0.0
) -> NDArray[np.uint8]:
    """A picture with a red face; the green share of its colour says how open the mouth is."""
    width, height = size
    ramp = np.linspace(40, 90, width, dtype=np.uint8)
    picture = np.repeat(np.repeat(ramp[None, :, None], height, axis=0), 3, axis=2)
    if centre is not None:
        x, y = (round(c) for c in centre)
        half = SIDE // 2
        rows = slice(max(0, y - half), y + half)
        columns = slice(max(0, x - half), x + half)
        picture[rows, columns] = (240, round(100 * opening), 0)
    return picture


def find(frame: Picture) -> Landmarks | None:
    """Landmarks of the red square, as wide as the square."""
    red = (frame[..., 0] > 180) & (frame[..., 2] < 80)
    if red.sum() < SIDE * SIDE // 4:
        return None
    rows, columns = np.nonzero(red)
    face = topology.canonical_landmarks().copy()
    face[topology.LIPS_INNER_LOWER, 1] += float(frame[red][:, 1].mean()) / 255
    face *= SIDE / np.ptp(face[topology.FACE_OVAL, 0])
    face[:, :2] += (columns.mean() + 0.5, rows.mean() + 0.5)
    return face.astype(np.float32)


class FakeFace:
    """Finds red squares."""

    name = "fake"

    def track(self, frames: Iterable[Picture]) -> Iterator[Landmarks | None]:
        for frame in frames:
            yield find(frame)

    def detect(self, frame: Picture) -> list[Landmarks]:
        face = find(frame)
        return [] if face is None else [face]


class CrashingFace(FakeFace):
    """Kills its process at the sight of a blue picture, fails with a bug at a green one."""

    name = "crashing"

    def detect(self, frame: Picture) -> list[Landmarks]:
        colour = frame[2, 2]
        if colour[2] > 180 and colour[0] < 80:
            os._exit(11)
        if colour[1] > 180 and colour[0] < 80:
            raise RuntimeError("a bug")
        return super().detect(frame)


def write_clip(
    path: Path, seconds: float = 2.0, seed: int = 0, *, sound: bool = True, rate: float = 25.0
) -> Path:
    """A face that moves and opens its mouth with its sound."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate)
    wave = tone_bursts(seconds, seed)
    place = np.cumsum(rng.normal(0, 1.0, (count, 2)), axis=0).clip(-10, 10) + np.array([80, 62])
    opening = 0.5 + 0.5 * np.sin(2 * np.pi * 2.3 * np.arange(count) / rate)
    pictures = [draw((x, y), opening=o) for (x, y), o in zip(place, opening, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    times = [i / rate for i in range(count)]
    return write_media(path, pictures, times, wave if sound else None, rate=rate)
