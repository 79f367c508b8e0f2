"""Real against real: the score that perfect motion would get, the floor under FID_fm and SND."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.metrics.sequences import Standard, as_batch, valid_frames
from talkhead.metrics.snd import snd

MotionDistance = Callable[..., Tensor]
"""A per-clip distance with the arguments of :func:`talkhead.metrics.snd.snd`."""


def halves_floor(
    real: Tensor,
    valid: Tensor | None = None,
    *,
    distance: MotionDistance = snd,
    standard: Standard | None = None,
) -> Tensor:
    """Distance between the first and second half of every real clip.

    Works on any corpus. Halves are shorter than clips, which raises a per-video Frechet distance,
    and slow drift separates them: an upper bound of the true floor.

    Args:
        real: ``(T, D)`` or ``(B, T, D)``.
        valid: Mask ``(T,)`` or ``(B, T)``.
        distance: ``fid_fm``, ``fid_dfm`` or ``snd``.
        standard: ``(mean, std)`` of the training split.

    Returns:
        One distance a clip, float64 ``(B,)``.

    Raises:
        ShapeError: A clip has fewer than six valid frames.
    """
    clips, masks = as_batch(real, valid, "real")
    values = []
    for b in range(clips.shape[0]):
        frames = valid_frames(clips[b], None if masks is None else masks[b])
        half = frames.shape[0] // 2
        if half < 3:
            raise ShapeError(
                f"expected at least 6 valid frames a clip, got {frames.shape[0]} in clip {b}; "
                "leave such clips out."
            )
        values.append(distance(frames[:half], frames[half : 2 * half], standard=standard))
    return torch.cat(values)


def takes_floor(
    takes: Tensor,
    valid: Tensor | None = None,
    *,
    distance: MotionDistance = snd,
    standard: Standard | None = None,
) -> Tensor:
    """Mean distance between different real takes of the same speech: the floor proper.

    Args:
        takes: ``(K, T, D)``, ``K`` true motions for one speech.
        valid: Mask ``(T,)``, shared.
        distance: ``fid_fm``, ``fid_dfm`` or ``snd``.
        standard: ``(mean, std)`` of the training split.

    Returns:
        Float64 scalar: mean over all unordered pairs.

    Raises:
        ShapeError: Fewer than two takes.
    """
    if takes.ndim != 3 or takes.shape[0] < 2:
        raise ShapeError(
            f"expected at least two takes (K, T, D), got {tuple(takes.shape)}; "
            "render the corpus with --takes 2 or more."
        )
    first, second = torch.triu_indices(takes.shape[0], takes.shape[0], offset=1)
    masks = None if valid is None else valid[None].expand(len(first), -1)
    return distance(takes[first], takes[second], masks, standard=standard).mean()
