"""SND: sequence naturalness distance, the sum of FID_fm and FID_dfm (paper 1, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from talkhead.metrics.fid_dfm import fid_dfm, fid_dfm_pooled
from talkhead.metrics.fid_fm import fid_fm, fid_fm_pooled
from talkhead.metrics.sequences import PerClipMetric, Standard


def snd(
    generated: Tensor,
    real: Tensor,
    valid: Tensor | None = None,
    real_valid: Tensor | None = None,
    *,
    standard: Standard | None = None,
) -> Tensor:
    """``SND = FID_fm + FID_dfm`` of every clip, float64 ``(B,)``; lower is more natural.

    Arguments and errors as in :func:`talkhead.metrics.fid_fm.fid_fm`.

    Source: paper 1 section 4.
    """
    still = fid_fm(generated, real, valid, real_valid, standard=standard)
    return still + fid_dfm(generated, real, valid, real_valid, standard=standard)


def snd_pooled(
    generated: Tensor,
    real: Tensor,
    valid: Tensor | None = None,
    real_valid: Tensor | None = None,
    *,
    standard: Standard | None = None,
) -> Tensor:
    """Sum of both pooled distances, float64 scalar."""
    still = fid_fm_pooled(generated, real, valid, real_valid, standard=standard)
    return still + fid_dfm_pooled(generated, real, valid, real_valid, standard=standard)


class SND(PerClipMetric):
    """Mean over clips of :func:`snd`."""

    higher_is_better = False

    def update(
        self,
        generated: Tensor,
        real: Tensor,
        valid: Tensor | None = None,
        real_valid: Tensor | None = None,
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add clips; arguments as in :func:`snd`, plus the clip names."""
        self.add_clips(snd(generated, real, valid, real_valid, standard=self.standard), clip)
