"""Jitter: how much landmarks that move with the head only tremble from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.geometry.points68 import EYE_INNER, EYE_OUTER, N_POINTS, NOSE
from talkhead.metrics.landmark_tracks import CROP_PIXELS, Unit, in_unit, landmark_tracks
from talkhead.metrics.sequences import PerClipMetric

STEADY = (*range(NOSE.start, NOSE.stop), *EYE_OUTER, *EYE_INNER)
"""Nose and eye corners, 13 points: lids, brows and lips move fast without any jitter."""

_ORDER = 3
_NOISE_GAIN = 20.0
"""Sum of the squares of 1, 3, 3, 1: the variance of white noise after three differences."""


def jitter(
    landmarks: Tensor,
    valid: Tensor | None = None,
    *,
    points: Sequence[int] = STEADY,
    unit: Unit = "px256",
) -> Tensor:
    """Standard deviation of the frame-to-frame tremble of a track.

    ``J = sqrt(mean_{t,i,c} (x_{t+3} - 3 x_{t+2} + 3 x_{t+1} - x_t)^2 / 20)`` over points ``i`` and
    the picture coordinates ``c`` (x, y). Motion of constant acceleration has no third difference,
    and independent noise of deviation ``s`` added to every coordinate gives ``J = s``. Lower is
    better and 0 is perfectly smooth, which a frozen face is as well; the tracker's own noise is in
    it, so read it beside the real clip's.

    Args:
        landmarks: 68 points, ``(T, 68, C)`` or ``(B, T, 68, C)`` in crop space.
        valid: Mask ``(T,)`` or ``(B, T)``; a difference counts when its four frames do.
        points: Which of the 68.
        unit: Pixels of a 256-pixel crop, or the distance of the outer eye corners averaged over the
            clip.

    Returns:
        One deviation a clip, float64 ``(B,)``, at the frame rate of the track.

    Raises:
        ShapeError: Not 68 points, a point that is not among them, or a clip without four valid
            frames in a row.

    Source: none published for talking heads; third differences (jerk) as customary for body motion.
    """
    tracks = landmark_tracks(landmarks, valid)
    if not points or min(points) < 0 or max(points) >= N_POINTS:
        raise ShapeError(
            f"expected points from 0 to {N_POINTS - 1}, got {list(points)}; name some of the 68."
        )
    index = torch.tensor(list(points), device=landmarks.device)
    values = []
    for b, (track, kept) in enumerate(tracks):
        whole = kept.unfold(0, _ORDER + 1, 1).all(dim=-1) if len(kept) > _ORDER else kept[:0]
        if not bool(whole.any()):
            raise ShapeError(
                f"expected {_ORDER + 1} valid frames in a row, got none in clip {b}; "
                "leave such clips out."
            )
        jerk = track[:, index, :2].diff(n=_ORDER, dim=0)[whole]
        tremble = (jerk.square().mean() / _NOISE_GAIN).sqrt()
        values.append(tremble * _clip_scale(track[kept], unit))
    return torch.stack(values)


def _clip_scale(track: Tensor, unit: Unit) -> Tensor:
    """Units in one crop width: one factor a clip, since a factor a frame would tremble itself."""
    if unit == "px256":
        return torch.tensor(float(CROP_PIXELS), dtype=track.dtype, device=track.device)
    mean_face = track[..., :2].mean(dim=0, keepdim=True)
    return in_unit(torch.ones_like(mean_face[:, 0, 0]), mean_face, unit)[0]


class Jitter(PerClipMetric):
    """Mean over clips of :func:`jitter`."""

    higher_is_better = False

    def __init__(self, points: Sequence[int] = STEADY, unit: Unit = "px256") -> None:
        """See :func:`jitter`."""
        super().__init__()
        self.points = tuple(points)
        self.unit: Unit = unit

    def update(
        self, landmarks: Tensor, valid: Tensor | None = None, clip: Sequence[str] | None = None
    ) -> None:
        """Add clips; arguments as in :func:`jitter`, plus the clip names."""
        self.add_clips(jitter(landmarks, valid, points=self.points, unit=self.unit), clip)
