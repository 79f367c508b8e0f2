"""Made-up videos and measured clips whose every number is known."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.evaluation.measure import Side
from talkhead.geometry import face_topology as topology
from talkhead.geometry.crop import Box, crop_frame
from talkhead.media.decode import MediaInfo

CENTRE = (0.5, 0.5, 0.0)


def moving_face(frames: int, seed: int = 0, tremble: float = 0.002) -> NDArray[np.float32]:
    """Landmarks ``(T, 478, 3)`` in crop units: a mouth that opens, a head that sways and noise."""
    rng = np.random.default_rng(seed)
    face = np.repeat(0.25 * topology.canonical_landmarks()[None].astype(np.float64), frames, axis=0)
    phase = 2 * np.pi * (np.arange(frames) / 9 + rng.random())
    face[:, topology.LIPS_INNER_LOWER, 1] += 0.01 * (1 + np.sin(phase))[:, None]
    face[..., 0] += 0.02 * np.sin(phase / 3)[:, None]
    face += np.array(CENTRE) + tremble * rng.standard_normal(face.shape)
    return face.astype(np.float32)


def side(frames: int = 60, seed: int = 0) -> Side:
    """A measured clip with embeddings in every space; silent in its first third."""
    generator = torch.Generator().manual_seed(seed)
    person = torch.randn(16, generator=generator)
    near = person + 0.1 * torch.randn(frames, 16, generator=generator)
    made = Side(
        torch.from_numpy(moving_face(frames, seed)),
        torch.ones(frames, dtype=torch.bool),
        torch.arange(frames) < frames // 3,
    )
    made.identity["who"] = near
    made.inception["inception"] = torch.randn(frames, 5, generator=generator) + seed
    made.visual["judge"] = torch.randn(frames - 5, 8, generator=generator)
    made.audio["judge"] = made.visual["judge"] + 0.01
    made.rigid_points["200"] = torch.randn(2, 76, 8, generator=generator)
    made.rigid_audio["200"] = made.rigid_points["200"] + 0.01
    made.readings["gaze"] = torch.randn(frames, 4, generator=generator)
    return made


class StillVideo:
    """A video in memory."""

    def __init__(
        self, pictures: NDArray[np.uint8], points: NDArray[np.float32], *, sound: bool = False
    ) -> None:
        self.path = Path("still.mp4")
        self.height, self.width = pictures.shape[1:3]
        self.info = MediaInfo(self.width, self.height, 25.0, len(pictures) / 25, True, sound, 0.0)
        self.pictures, self.points = pictures, points
        self.tracked = np.ones(len(pictures), bool)
        self.most_faces = 1

    def crops(self, box: Box, size: int, frames: int) -> Iterator[NDArray[np.uint8]]:
        for picture in itertools.islice(self.pictures, frames):
            yield crop_frame(picture, box, size)


def still_video(
    frames: int = 40, side: int = 96, seed: int = 0, height: int | None = None
) -> StillVideo:
    """Noise with a face in the middle of a picture ``height`` (by default as wide) high."""
    rng = np.random.default_rng(seed)
    height = height or side
    coarse = rng.integers(0, 256, (frames, height // 8, side // 8, 3), dtype=np.uint8)
    pictures = coarse.repeat(8, axis=1).repeat(8, axis=2)
    return StillVideo(pictures, moving_face(frames, seed) * np.float32(side))


def lengths(rows: dict[str, Tensor]) -> dict[str, int]:
    """Rows in each space."""
    return {name: len(values) for name, values in rows.items()}
