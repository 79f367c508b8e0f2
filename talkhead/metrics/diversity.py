"""True-diversity ratio: are samples for one speech as different as true motions for it are?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.metrics.multimodality import pairwise_distance
from talkhead.metrics.sequences import PerClipMetric, Standard


def diversity_ratio(
    generated: Tensor,
    true: Tensor,
    valid: Tensor | None = None,
    *,
    standard: Standard | None = None,
) -> Tensor:
    """Mean pairwise distance of generated takes over that of true takes of the same speech.

    Real corpora hold one motion for one speech, so only the embedded corpus can tell. 1 is right, 0
    means the samples are all alike, above 1 means they spread more than the truth.

    Args:
        generated: ``(K, T, D)`` or ``(C, K, T, D)``.
        true: ``(K', T, D)`` or ``(C, K', T, D)``, in the same descriptors.
        valid: Mask ``(T,)`` or ``(C, T)``.
        standard: ``(mean, std)`` of the training split.

    Returns:
        Ratio for each speech, float64 ``(C,)``.

    Raises:
        ShapeError: Fewer than two takes on a side, or shapes that do not fit.
    """
    if generated.ndim != true.ndim or _without_takes(generated) != _without_takes(true):
        raise ShapeError(
            f"expected takes of the same speeches, frames and descriptors, got {tuple(generated.shape)} "
            f"generated and {tuple(true.shape)} true; only the number of takes may differ."
        )
    ours = pairwise_distance(generated, valid, standard=standard)
    truth = pairwise_distance(true, valid, standard=standard)
    return ours / truth.clamp_min(torch.finfo(torch.float64).tiny)


def _without_takes(takes: Tensor) -> tuple[int, ...]:
    return (*takes.shape[:-3], *takes.shape[-2:])


class DiversityRatio(PerClipMetric):
    """Mean over speeches of :func:`diversity_ratio`."""

    def update(
        self,
        generated: Tensor,
        true: Tensor,
        valid: Tensor | None = None,
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add speeches; arguments as in :func:`diversity_ratio`, plus names."""
        self.add_clips(diversity_ratio(generated, true, valid, standard=self.standard), clip)
