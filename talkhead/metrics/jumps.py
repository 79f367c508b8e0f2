"""Does motion jump where windows meet or frames were edited?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkhead.errors import ShapeError


def jump_ratio(motion: Tensor, at: Sequence[int]) -> Tensor:
    """Speed of the steps into some frames, relative to all other steps.

    ``mean_{t in at} |x_t - x_{t-1}| / mean_{t not in at} |x_t - x_{t-1}|``

    Args:
        motion: Standardised codes or descriptors, ``(…, T, D)``; leading axes are averaged over.
        at: Frames ``t`` from 1 to ``T - 1``.

    Returns:
        Scalar float64: 1 where these steps are like any other, larger for a jump; NaN if nothing moves.

    Raises:
        ShapeError: Not a sequence, no such frame, a frame out of range, or no other step to compare with.
    """
    if motion.ndim < 2:
        raise ShapeError(
            f"expected motion (..., T, D), got {tuple(motion.shape)}; give a single entry D = 1."
        )
    frames = motion.shape[-2]
    chosen = torch.zeros(max(frames - 1, 0), dtype=torch.bool)
    if not at or min(at) < 1 or max(at) >= frames:
        raise ShapeError(
            f"expected frames from 1 to {frames - 1} to look for jumps at, got {list(at)}."
        )
    chosen[torch.tensor(list(at)) - 1] = True
    if bool(chosen.all()):
        raise ShapeError(
            "expected some steps to compare the jumps with, got none; use longer motion."
        )
    speed = motion.double().diff(dim=-2).norm(dim=-1).cpu()
    ratio: Tensor = speed[..., chosen].mean() / speed[..., ~chosen].mean()
    return ratio


def window_borders(frames: int, length: int, overlap: int) -> list[int]:
    """First frame of every chained window's own part but the first's.

    Windows of ``length`` frames share ``overlap`` frames with their neighbours
    (:func:`talkhead.diffusion.chunking.sample_long`), so new parts begin at ``length``, ``2 length -
    overlap`` and so on.
    """
    return list(range(length, frames, length - overlap))
