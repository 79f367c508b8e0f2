"""The averaging pyramid of MS-Sync: the same motion and sound at one half, a quarter, … of the rate.

Level 0 is the sequence itself. Sample ``j`` of level ``l`` is centred on sample ``2^l j`` of level 0,
so frame ``t`` of any level goes with the sound steps ``4 t .. 4 t + 3`` of the same level, whatever the
length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.specs import FPS

TAPS = 7
_REACH = TAPS // 2


def halved(sequence: Tensor) -> Tensor:
    """Every other sample of a moving average over seven.

    ``y_t = 1/7 sum_{k=-3}^{3} x_{2t + k}``, the ends mirrored without repeating the edge
    (``x_{-k} = x_k``). Constants stay; an alternating ``+1, -1, …`` becomes ``-1/7`` throughout.

    Args:
        sequence: ``(..., S, D)``.

    Returns:
        ``(..., ceil(S / 2), D)``, same type.

    Raises:
        ShapeError: Fewer than two axes, or too few samples to mirror three (fewer than 4).

    Source: MS-Sync equation 5 with ``k = 3``; the ends as in its released code (reference-facts 6.4).
    """
    if sequence.ndim < 2 or sequence.shape[-2] <= _REACH or sequence.shape[-1] == 0:
        raise ShapeError(
            f"expected a sequence (..., S, D) of at least {_REACH + 1} samples, got "
            f"{tuple(sequence.shape)}; use longer sequences or fewer levels."
        )
    length = sequence.shape[-2]
    columns = sequence.reshape(-1, *sequence.shape[-2:]).transpose(1, 2)
    pooled = F.avg_pool1d(F.pad(columns, (_REACH, _REACH), mode="reflect"), TAPS, stride=2)
    return pooled.transpose(1, 2).reshape(*sequence.shape[:-2], (length + 1) // 2, -1)


def time_pyramid(sequence: Tensor, levels: int) -> list[Tensor]:
    """A sequence and its successive halvings, the finest first.

    Args:
        sequence: ``(..., S, D)``.
        levels: How many levels, the sequence itself among them.

    Returns:
        ``levels`` tensors ``(..., ceil(S / 2^l), D)``.

    Raises:
        ShapeError: No level, or the sequence is too short for so many (:func:`halved`).
    """
    if levels < 1:
        raise ShapeError(f"expected at least one level, got {levels}.")
    pyramid = [sequence]
    for _ in range(levels - 1):
        pyramid.append(halved(pyramid[-1]))
    return pyramid


def paired_pyramids(
    points: Tensor, audio: Tensor, levels: int, steps_per_frame: int = 4
) -> list[tuple[Tensor, Tensor]]:
    """Motion and sound of every level, with exactly ``steps_per_frame`` steps a frame on each.

    Where halving leaves the sound short of its frames (by three steps at most, in sequences whose
    length is no multiple of ``2^l``), its end is mirrored.

    Args:
        points: ``(..., T, D)``, one row a video frame.
        audio: ``(..., 4 T, F)``, ``steps_per_frame`` rows a video frame.
        levels: How many levels.
        steps_per_frame: 4 on the suite's clock.

    Returns:
        ``(points (..., T_l, D), audio (..., 4 T_l, F))`` with ``T_l = ceil(T / 2^l)``, finest first.

    Raises:
        ShapeError: The lengths do not belong together, or are too short for so many levels.

    Source: MS-Sync section 3.1 (one operator for both); the mirrored end as in its released code.
    """
    if (
        points.ndim < 2
        or audio.ndim != points.ndim
        or audio.shape[:-2] != points.shape[:-2]
        or audio.shape[-2] != steps_per_frame * points.shape[-2]
    ):
        raise ShapeError(
            f"expected points (..., T, D) with sound (..., {steps_per_frame} T, F), got "
            f"{tuple(points.shape)} and {tuple(audio.shape)}; cut both to the same whole frames."
        )
    pairs = []
    for seen, heard in zip(time_pyramid(points, levels), time_pyramid(audio, levels), strict=True):
        missing = steps_per_frame * seen.shape[-2] - heard.shape[-2]
        if missing:
            mirror = heard[..., -1 - missing : -1, :].flip(-2)
            pairs.append((seen, torch.cat([heard, mirror], dim=-2)))
        else:
            pairs.append((seen, heard))
    return pairs


def window_ms(level: int, frames: int = 5) -> int:
    """Milliseconds that ``frames`` frames of a level stand for; 200, 400, 800, … for five frames."""
    return frames * 1000 // FPS << level
