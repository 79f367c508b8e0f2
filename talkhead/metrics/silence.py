"""Mouth motion in silence: lips that move while nothing is said."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from talkhead.errors import ShapeError
from talkhead.geometry.points68 import EYE_OUTER, MOUTH, check_points
from talkhead.metrics.landmark_tracks import landmark_tracks
from talkhead.metrics.sequences import PerClipMetric
from talkhead.specs import FPS, SAMPLES_PER_FRAME

QUIET_SHARE = 0.4
"""A frame is quiet below this share of the way from the clip's noise floor to its loud frames."""
BELOW_LOUD_DB = 18.0
"""And at least this far below the loud frames: a clip without pauses has no noise floor to see."""
FLOOR_DB = -60.0
"""Frames below this level of full scale are silent in any clip."""
PAUSE_FRAMES = 4
"""A silence lasts at least 0.16 s: the closure of a stop is shorter."""
GUARD_FRAMES = 3
"""Frames (0.12 s) at a silence's ends that do not count: lips close late and open early."""

_FLOOR_AND_LOUD = (0.05, 0.95)


def silent_frames(wave: Tensor) -> Tensor:
    """Video frames in which nothing is heard.

    With ``n`` and ``l`` the 5th and 95th percentile of the clip's frame levels (RMS of 640 samples in
    dB), a frame is quiet below ``min(n + 0.4 (l - n), l - 18)``, and always below -60 dB of full
    scale; runs of at least 4 quiet frames are silence. Recordings differ too much in level and
    noise for one fixed threshold.

    Args:
        wave: ``(S,)`` or ``(B, S)``, float in [-1, 1] at 16 kHz; samples after the last whole frame
            are ignored.

    Returns:
        Bool, ``(T,)`` or ``(B, T)`` with ``T = S // 640``.

    Raises:
        ShapeError: Another number of axes, or less than one frame.
    """
    if wave.ndim not in (1, 2) or wave.shape[-1] < SAMPLES_PER_FRAME:
        raise ShapeError(
            f"expected a wave (S,) or (B, S), S >= {SAMPLES_PER_FRAME}, got {tuple(wave.shape)}; "
            "mix down to mono."
        )
    frames = wave.shape[-1] // SAMPLES_PER_FRAME
    cut = wave[..., : frames * SAMPLES_PER_FRAME].to(torch.float64)
    power = cut.reshape(*wave.shape[:-1], frames, SAMPLES_PER_FRAME).square().mean(dim=-1)
    level_db = 10.0 * (power + 1e-12).log10()
    ends = torch.tensor(_FLOOR_AND_LOUD, dtype=torch.float64, device=wave.device)
    floor_db, loud_db = level_db.quantile(ends, dim=-1, keepdim=True)
    share_db = floor_db + QUIET_SHARE * (loud_db - floor_db)
    quiet = level_db < share_db.minimum(loud_db - BELOW_LOUD_DB).clamp_min(FLOOR_DB)
    whole = _windows(quiet, PAUSE_FRAMES, PAUSE_FRAMES - 1, outside=False).all(dim=-1)
    return whole.unfold(-1, PAUSE_FRAMES, 1).any(dim=-1)


def _windows(flags: Tensor, length: int, border: int, *, outside: bool) -> Tensor:
    """All windows of ``length`` frames, ``border`` frames beyond each end being ``outside``."""
    return functional.pad(flags, (border, border), value=outside).unfold(-1, length, 1)


def mouth_speed(points: Tensor) -> Tensor:
    """Speed of the mouth's shape between neighbouring frames.

    Every frame is first laid on its outer eye corners (shift, turn and scale in the picture plane),
    then the mouth's mean is taken off: a head that moves, tips or comes nearer in the plane has
    speed 0.

    Args:
        points: ``(..., T, 68, C)``, any unit.

    Returns:
        Mean over the 20 mouth points in outer-eye distances a second, float64 ``(..., T - 1)``; not
        finite where the eye corners are at one place.

    Raises:
        ShapeError: Not 68 points.
    """
    check_points(points, "..., T")
    plane = torch.view_as_complex(points[..., :2].to(torch.float64).contiguous())
    left, right = (plane[..., i] for i in EYE_OUTER)
    # As complex numbers, dividing by the line between the eyes undoes its turn and its length.
    mouth = plane[..., MOUTH] / (right - left)[..., None]
    mouth = mouth - mouth.mean(dim=-1, keepdim=True)
    speed: Tensor = mouth.diff(dim=-2).abs().mean(dim=-1) * FPS
    return speed


def silence_motion(
    landmarks: Tensor,
    silent: Tensor,
    valid: Tensor | None = None,
    *,
    guard_frames: int = GUARD_FRAMES,
) -> Tensor:
    """Mean :func:`mouth_speed` within silences; lower is better, 0 is a still mouth.

    The tracker's noise is in it: read it beside the real clip's, which is the floor.

    Args:
        landmarks: 68 points at 25 frames a second, ``(T, 68, C)`` or ``(B, T, 68, C)``, any unit.
        silent: :func:`silent_frames` of the sound, ``(T,)`` or ``(B, T)``.
        valid: Mask of the same shape; a step counts when both of its frames are valid and silent.
        guard_frames: Silent frames next to a sound that do not count either. A clip's end is no
            sound.

    Returns:
        Outer-eye distances a second, float64 ``(B,)``; NaN for a clip without such a step.

    Raises:
        ShapeError: Not 68 points, masks that do not fit, a negative guard, or eye corners at one
            place.

    Source: none published; users name it among the faults they see first.
    """
    tracks = landmark_tracks(landmarks, valid)
    if silent.shape != landmarks.shape[:-2] or guard_frames < 0:
        raise ShapeError(
            f"expected silence flags {tuple(landmarks.shape[:-2])} and a guard of at least 0, got "
            f"{tuple(silent.shape)} and {guard_frames}; cut sound and video to the same frames."
        )
    flags = silent.to(landmarks.device).bool().reshape(len(tracks), -1)
    guarded = _windows(flags, 2 * guard_frames + 1, guard_frames, outside=True).all(dim=-1)
    values = []
    for (track, kept), quiet in zip(tracks, guarded, strict=True):
        counted = kept & quiet
        speed = mouth_speed(track)[counted[1:] & counted[:-1]]
        if not bool(torch.isfinite(speed).all()):
            raise ShapeError(
                "expected two eyes apart from each other, got outer eye corners at one place; mask "
                "the frames where tracking failed."
            )
        values.append(speed.mean())  # NaN where no step counts
    return torch.stack(values)


class SilenceMotion(PerClipMetric):
    """Mean over clips of :func:`silence_motion`; clips without silence do not count."""

    higher_is_better = False

    def __init__(self, guard_frames: int = GUARD_FRAMES) -> None:
        """See :func:`silence_motion`."""
        super().__init__()
        self.guard_frames = guard_frames

    def update(
        self,
        landmarks: Tensor,
        silent: Tensor,
        valid: Tensor | None = None,
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add clips; arguments as in :func:`silence_motion`, plus the clip names."""
        values = silence_motion(landmarks, silent, valid, guard_frames=self.guard_frames)
        if clip is not None and len(clip) != len(values):
            raise ShapeError(
                f"expected {len(values)} clip names, got {len(clip)}; give one name a row."
            )
        heard = values.isnan().logical_not()
        names = None if clip is None else [clip[i] for i in heard.nonzero().flatten().tolist()]
        self.add_clips(values[heard], names)
