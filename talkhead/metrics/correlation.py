"""Correlation of curves over time, and the lag at which it is highest."""

from __future__ import annotations

import torch
from torch import Tensor

from talkhead.errors import ShapeError


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation over time of equal columns.

    Args:
        first: ``(T, D)``.
        second: ``(T, D)``, the same frames.

    Returns:
        Float64 ``(D,)`` from -1 to 1; 0 where a column never changes.

    Raises:
        ShapeError: Shapes differ, or fewer than two frames.
    """
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2:
        raise ShapeError(
            f"expected two sequences (T, D) of one shape with T >= 2, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}; cut both to the frames they share."
        )
    a, b = (side.double() - side.double().mean(dim=0) for side in (first, second))
    found: Tensor = (a * b).sum(dim=0) / (a.norm(dim=0) * b.norm(dim=0)).clamp_min(1e-12)
    return found


def best_lag(first: Tensor, second: Tensor, max_lag: int = 8) -> tuple[int, Tensor]:
    """By how many frames the second of two recordings of one motion comes later.

    Frame ``t`` of the first is compared with frame ``t + lag`` of the second, where both exist.

    Args:
        first: ``(T, D)``.
        second: ``(T', D)``, the same columns at the same frame rate.
        max_lag: Largest lag tried, either way, in frames.

    Returns:
        The lag with the highest mean correlation over columns, and that mean for every lag from
        ``-max_lag`` to ``max_lag``, float64 ``(2 * max_lag + 1,)``.

    Raises:
        ShapeError: Widths differ, or fewer than two frames are shared at the largest lag.
    """
    frames = min(len(first), len(second))
    means = []
    for lag in range(-max_lag, max_lag + 1):
        shared = max(frames - abs(lag), 0)
        early, late = first[max(-lag, 0) :][:shared], second[max(lag, 0) :][:shared]
        means.append(correlation(early, late).mean())
    found = torch.stack(means)
    return int(found.argmax()) - max_lag, found
