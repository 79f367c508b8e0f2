"""FID_dfm: Frechet distance of frame-to-frame motion (paper 1, section 4, FID of delta fm)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkhead.metrics.frechet import frechet_distance
from talkhead.metrics.sequences import PerClipMetric, Standard, frame_differences, paired_clips


def fid_dfm(
    generated: Tensor,
    real: Tensor,
    valid: Tensor | None = None,
    real_valid: Tensor | None = None,
    *,
    standard: Standard | None = None,
) -> Tensor:
    """Frechet distance between first differences of generated and real motion of the same clip.

    Differences are not divided by the frame time, as in the paper; a difference across an invalid
    frame does not count. Arguments, result and errors as in :func:`talkhead.metrics.fid_fm.fid_fm`.

    Source: paper 1 section 4; deviates: standardised descriptors where ``standard`` is given.
    """
    clips = paired_clips(generated, real, valid, real_valid, standard)
    return torch.stack(
        [
            frechet_distance(frame_differences(g, gv), frame_differences(r, rv))
            for g, gv, r, rv in clips
        ]
    )


def fid_dfm_pooled(
    generated: Tensor,
    real: Tensor,
    valid: Tensor | None = None,
    real_valid: Tensor | None = None,
    *,
    standard: Standard | None = None,
) -> Tensor:
    """As :func:`fid_dfm`, one Gaussian over all clips a side, float64 scalar."""
    clips = paired_clips(generated, real, valid, real_valid, standard)
    ours = torch.cat([frame_differences(g, gv) for g, gv, _, _ in clips])
    theirs = torch.cat([frame_differences(r, rv) for _, _, r, rv in clips])
    return frechet_distance(ours, theirs)


class FIDdfm(PerClipMetric):
    """Mean over clips of :func:`fid_dfm`."""

    higher_is_better = False

    def update(
        self,
        generated: Tensor,
        real: Tensor,
        valid: Tensor | None = None,
        real_valid: Tensor | None = None,
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add clips; arguments as in :func:`fid_dfm`, plus the clip names."""
        values = fid_dfm(generated, real, valid, real_valid, standard=self.standard)
        self.add_clips(values, clip)
