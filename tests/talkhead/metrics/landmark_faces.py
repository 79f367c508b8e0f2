"""Moving 68-point faces for the tests of the landmark metrics."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from talkhead.geometry.face_topology import canonical_landmarks
from talkhead.geometry.points68 import ibug_points


def face() -> Tensor:
    """The canonical face in the middle of a crop, eyes 0.25 crop widths apart, ``(68, 3)``."""
    points = torch.from_numpy(ibug_points(canonical_landmarks().astype(np.float64)))
    return 0.25 * points + torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)


def still(frames: int = 6) -> Tensor:
    """The same face in every frame, ``(T, 68, 3)``."""
    return face().expand(frames, -1, -1).clone()


def noisy(clips: int, frames: int, seed: int, size: float = 0.01) -> Tensor:
    """Faces whose every coordinate trembles, ``(B, T, 68, 3)``."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(clips, frames, 68, 3, generator=generator, dtype=torch.float64)
    return face() + size * noise


def with_opening(opening: Tensor) -> Tensor:
    """Faces whose lids stand apart by a share ``(..., T)`` of their usual distance."""
    points = face().expand(*opening.shape, -1, -1).clone()
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46)):
        middle = (points[..., upper, :] + points[..., lower, :]) / 2
        for lid in (upper, lower):
            points[..., lid, :] = middle + opening[..., None] * (points[..., lid, :] - middle)
    return points
