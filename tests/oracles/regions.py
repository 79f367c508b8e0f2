"""Regions of pictures by plain loops."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def weighted_difference(fake: Tensor, real: Tensor, mask: Tensor) -> float:
    """Mean difference of pictures ``(n, 3, H, W)`` under a mask ``(n, 1, H, W)``."""
    total, weight = 0.0, 0.0
    n, channels, height, width = fake.shape
    for i in range(n):
        for y in range(height):
            for x in range(width):
                m = float(mask[i, 0, y, x])
                weight += m
                for c in range(channels):
                    total += m * abs(float(fake[i, c, y, x]) - float(real[i, c, y, x])) / channels
    return total / weight


def inside_convex(corners: Sequence[tuple[float, float]], x: float, y: float) -> bool:
    """Whether a point lies on the same side of all sides of a convex polygon."""
    sides = set()
    for i, (ax, ay) in enumerate(corners):
        bx, by = corners[(i + 1) % len(corners)]
        sides.add((bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0)
    return len(sides) == 1
