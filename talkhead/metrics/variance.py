"""Var: how much a face moves over time (paper 1, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.metrics.sequences import (
    PerClipMetric,
    Standard,
    as_batch,
    standardised,
    valid_frames,
)

Reduce = Literal["mean", "sum"]


def motion_variance(
    motion: Tensor,
    valid: Tensor | None = None,
    *,
    standard: Standard | None = None,
    reduce: Reduce = "mean",
) -> Tensor:
    """Temporal variance of every clip; closer to the real motion's is better.

    Args:
        motion: ``(T, D)`` or ``(B, T, D)``.
        valid: Mask ``(T,)`` or ``(B, T)``.
        standard: ``(mean, std)`` of the training split; 1.0 then means "varies within the clip as
            much as the whole training split does".
        reduce: ``"mean"`` over coefficients (default), or ``"sum"``: the paper does not say which.

    Returns:
        Unbiased variance, float64 ``(B,)``; average it over clips.

    Raises:
        ShapeError: A clip has fewer than two valid frames.

    Source: paper 1 section 4, "Var".
    """
    clips, masks = as_batch(motion, valid, "given")
    clips = standardised(clips, standard)
    values = []
    for b in range(clips.shape[0]):
        frames = valid_frames(clips[b], None if masks is None else masks[b])
        if frames.shape[0] < 2:
            raise ShapeError(
                f"expected at least 2 valid frames a clip, got {frames.shape[0]} in clip {b}; "
                "leave such clips out."
            )
        per_dim = frames.var(dim=0, unbiased=True)
        values.append(per_dim.mean() if reduce == "mean" else per_dim.sum())
    return torch.stack(values)


class Variance(PerClipMetric):
    """Mean over clips of :func:`motion_variance`."""

    def __init__(self, standard: Standard | None = None, reduce: Reduce = "mean") -> None:
        """See :func:`motion_variance`."""
        super().__init__(standard)
        self.reduce: Reduce = reduce

    def update(
        self, motion: Tensor, valid: Tensor | None = None, clip: Sequence[str] | None = None
    ) -> None:
        """Add clips ``(B, T, D)`` with mask ``(B, T)`` and names."""
        values = motion_variance(motion, valid, standard=self.standard, reduce=self.reduce)
        self.add_clips(values, clip)
