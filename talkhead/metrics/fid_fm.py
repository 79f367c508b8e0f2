"""FID_fm: Frechet distance of facial motion, frame by frame (paper 1, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkhead.metrics.frechet import FrechetDistance, frechet_distance
from talkhead.metrics.sequences import PerClipMetric, Standard, paired_clips, valid_frames


def fid_fm(
    generated: Tensor,
    real: Tensor,
    valid: Tensor | None = None,
    real_valid: Tensor | None = None,
    *,
    standard: Standard | None = None,
) -> Tensor:
    """Frechet distance between generated and real motion of the same clip.

    Short clips inflate it: two samples of one Gaussian in 70 dimensions are 58 apart at 40 frames.
    Read it beside the real-against-real floor of the same length (:mod:`talkhead.metrics.floor`).

    Args:
        generated: ``(T, D)`` or ``(B, T, D)``.
        real: ``(T', D)`` or ``(B, T', D)``.
        valid: Mask of ``generated`` (and of ``real`` unless ``real_valid`` is given).
        real_valid: Mask of ``real``.
        standard: ``(mean, std)`` of the training split.

    Returns:
        One distance a clip, float64 ``(B,)``.

    Raises:
        ShapeError: Shapes do not pair up, or a clip has fewer than two valid frames.

    Source: paper 1 section 4; deviates: standardised descriptors where ``standard`` is given.
    """
    clips = paired_clips(generated, real, valid, real_valid, standard)
    return torch.stack(
        [frechet_distance(valid_frames(g, gv), valid_frames(r, rv)) for g, gv, r, rv in clips]
    )


def fid_fm_pooled(
    generated: Tensor,
    real: Tensor,
    valid: Tensor | None = None,
    real_valid: Tensor | None = None,
    *,
    standard: Standard | None = None,
) -> Tensor:
    """Frechet distance between all frames of all clips: one Gaussian a side, float64 scalar.

    Far less biased on short clips than :func:`fid_fm`, but blind to a model that gives every clip
    the average of all clips. Arguments as there.
    """
    clips = paired_clips(generated, real, valid, real_valid, standard)
    ours = torch.cat([valid_frames(g, gv) for g, gv, _, _ in clips])
    theirs = torch.cat([valid_frames(r, rv) for _, _, r, rv in clips])
    return frechet_distance(ours, theirs)


class FIDfm(PerClipMetric):
    """Mean over clips of :func:`fid_fm`."""

    higher_is_better = False

    def update(
        self,
        generated: Tensor,
        real: Tensor,
        valid: Tensor | None = None,
        real_valid: Tensor | None = None,
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add clips; arguments as in :func:`fid_fm`, plus the clip names."""
        values = fid_fm(generated, real, valid, real_valid, standard=self.standard)
        self.add_clips(values, clip)


class FIDfmPooled(FrechetDistance):
    """:func:`fid_fm_pooled` accumulated: feed generated and real frames by ``real=``."""
