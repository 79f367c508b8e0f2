"""Blink rate, from the lids among the 68 points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.points68 import PICTURE_LEFT_EYE, PICTURE_RIGHT_EYE, check_points
from talkhead.metrics.landmark_tracks import landmark_tracks
from talkhead.metrics.sequences import PerClipMetric
from talkhead.specs import FPS

CLOSED_SHARE = 0.5
"""Lids closer than this share of the clip's usual opening are shut."""
REOPENED_SHARE = 0.7
"""A blink is over above this share; the gap between the two keeps noise from splitting it."""
SHORTEST_FRAMES = 2
"""A dip of a single frame is the tracker's."""
LONGEST_FRAMES = 12
"""Lids shut for more than 0.48 s are shut eyes or a look down, no blink."""


def eye_aspect_ratio(points: Tensor) -> Tensor:
    """Opening of both eyes over their width.

    ``EAR = (|p2 - p6| + |p3 - p5|) / (2 |p1 - p4|)`` for the six points of an eye, in the picture
    plane.

    Args:
        points: ``(..., 68, C)``, any unit.

    Returns:
        Picture-left and picture-right eye, float64 ``(..., 2)``: about 0.3 open and below 0.1 shut.

    Raises:
        ShapeError: Not 68 points.

    Source: Soukupova & Cech (2016), real-time eye blink detection, equation 1.
    """
    check_points(points)
    flat = points[..., :2].to(torch.float64)
    eyes = torch.stack([flat[..., PICTURE_LEFT_EYE, :], flat[..., PICTURE_RIGHT_EYE, :]], dim=-3)
    p1, p2, p3, p4, p5, p6 = eyes.unbind(dim=-2)
    height = (p2 - p6).norm(dim=-1) + (p3 - p5).norm(dim=-1)
    ratio: Tensor = height / (2.0 * (p1 - p4).norm(dim=-1)).clamp_min(1e-12)
    return ratio


def blink_spans(opening: Tensor, valid: Tensor | None = None) -> list[tuple[int, int]]:
    """First and last-plus-one frame of every blink.

    A blink starts where the opening falls below half the median of the clip's valid frames and
    lasts until it is back above 0.7 of it; it counts when it takes 2 to 12 frames. Lids that are
    already shut when a stretch of valid frames begins are no blink, as its start was not seen; lids
    still shut at the end are.

    Args:
        opening: Any measure of how open the eyes are, ``(T,)``, 0 when shut.
        valid: Mask ``(T,)``; a stretch ends at an invalid frame.

    Returns:
        Spans in order.

    Raises:
        ShapeError: Not one sequence, or no valid frame.
    """
    if opening.ndim != 1 or (valid is not None and valid.shape != opening.shape):
        raise ShapeError(
            f"expected openings (T,) and a mask of the same shape, got {tuple(opening.shape)} and "
            f"{None if valid is None else tuple(valid.shape)}; give one clip at a time."
        )
    kept = [True] * len(opening) if valid is None else valid.bool().tolist()
    if not any(kept):
        raise ShapeError("expected at least one valid frame, got none; leave such clips out.")
    level = opening[torch.tensor(kept, device=opening.device)].double().quantile(0.5).item()
    spans: list[tuple[int, int]] = []
    start: int | None = None  # of the closure under way
    seen = False  # whether its beginning was in this stretch
    inside = False
    for t, (value, ok) in enumerate(zip(opening.tolist(), kept, strict=True)):
        if start is not None and (not ok or value >= REOPENED_SHARE * level):
            if seen:
                spans.append((start, t))
            start = None
        if ok and start is None and value < CLOSED_SHARE * level:
            start, seen = t, inside
        inside = ok
    if start is not None and seen:
        spans.append((start, len(opening)))
    return [(a, b) for a, b in spans if SHORTEST_FRAMES <= b - a <= LONGEST_FRAMES]


def blink_rate(landmarks: Tensor, valid: Tensor | None = None) -> Tensor:
    """Blinks a second.

    Lids are read as the mean :func:`eye_aspect_ratio` of both eyes, events as in
    :func:`blink_spans`. Neither high nor low is good: the real clips' rate is right. People blink
    some 0.2 to 0.5 times a second while they speak, so a clip of a few seconds says little; average
    over many.

    Args:
        landmarks: 68 points at 25 frames a second, ``(T, 68, C)`` or ``(B, T, 68, C)``, any unit.
        valid: Mask ``(T,)`` or ``(B, T)``.

    Returns:
        Rate of each clip in Hz, float64 ``(B,)``, at least 0.

    Raises:
        ShapeError: Not 68 points, or a clip without valid frames.

    Source: rate in blinks a second as in Vougioukas et al. (2020), speech-driven facial animation
        with GANs; event rule: this suite's, as none is published.
    """
    rates = []
    for points, kept in landmark_tracks(landmarks, valid):
        spans = blink_spans(eye_aspect_ratio(points).mean(dim=-1), kept)
        rates.append(len(spans) * FPS / float(kept.sum()))
    return torch.tensor(rates, dtype=torch.float64, device=landmarks.device)


class BlinkRate(PerClipMetric):
    """Mean over clips of :func:`blink_rate`."""

    higher_is_better = None

    def update(
        self, landmarks: Tensor, valid: Tensor | None = None, clip: Sequence[str] | None = None
    ) -> None:
        """Add clips; arguments as in :func:`blink_rate`, plus the clip names."""
        self.add_clips(blink_rate(landmarks, valid), clip)
