"""Multimodality: how far apart repeats for the same speech are (paper 1 supplement, from MDM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.metrics.sequences import PerClipMetric, Standard, standardised


def multimodality(
    takes: Tensor,
    valid: Tensor | None = None,
    *,
    pairs: int = 10,
    generator: torch.Generator | None = None,
    standard: Standard | None = None,
) -> Tensor:
    """Mean distance between two random subsets of repeats, paired up.

    For each condition, two lists of ``pairs`` repeats are drawn without replacement within a list,
    and ``1 / pairs * sum_i |first_i - second_i|`` is returned. As in MDM a repeat may meet itself,
    which pulls the value down by ``1 / K``; :func:`pairwise_distance` has no such draw and is
    exact. The distance of two sequences is the mean over frames of the Euclidean norm over
    descriptors.

    Args:
        takes: ``(K, T, D)`` or ``(C, K, T, D)``: ``K`` repeats of each of ``C`` conditions.
        valid: Mask ``(T,)`` or ``(C, T)``, shared by the repeats of a condition.
        pairs: Pairs a condition, at most ``K``; fewer repeats use ``K``.
        generator: Source of the draws.
        standard: ``(mean, std)`` of the training split.

    Returns:
        One value a condition, float64 ``(C,)``.

    Raises:
        ShapeError: Fewer than two repeats, or shapes that do not fit.

    Source: Tevet et al. (2023) after Guo et al. (2022), "MultiModality"; TH-PAD supplement I.
    """
    conditions, masks = _conditions(takes, valid, standard)
    device = None if generator is None else generator.device
    repeats = conditions.shape[1]
    used = min(pairs, repeats)
    values = []
    for sequences, mask in zip(conditions, masks, strict=True):
        distances = _distance_matrix(sequences, mask)
        first, second = (
            torch.randperm(repeats, generator=generator, device=device)[:used].to(distances.device)
            for _ in range(2)
        )
        values.append(distances[first, second].mean())
    return torch.stack(values)


def pairwise_distance(
    takes: Tensor, valid: Tensor | None = None, *, standard: Standard | None = None
) -> Tensor:
    """Mean distance over all pairs of different repeats, float64 ``(C,)``; arguments as above."""
    conditions, masks = _conditions(takes, valid, standard)
    repeats = conditions.shape[1]
    upper = torch.triu_indices(repeats, repeats, offset=1, device=conditions.device)
    return torch.stack(
        [
            _distance_matrix(sequences, mask)[upper[0], upper[1]].mean()
            for sequences, mask in zip(conditions, masks, strict=True)
        ]
    )


def _conditions(
    takes: Tensor, valid: Tensor | None, standard: Standard | None
) -> tuple[Tensor, list[Tensor | None]]:
    """Checked ``(C, K, T, D)`` takes and one mask ``(T,)`` or None for each condition."""
    batched = takes[None] if takes.ndim == 3 else takes
    if batched.ndim != 4 or batched.shape[1] < 2:
        raise ShapeError(
            f"expected takes (K, T, D) or (C, K, T, D) with at least 2 repeats, got "
            f"{tuple(takes.shape)}; sample the same speech more than once."
        )
    if valid is None:
        return standardised(batched, standard), [None] * batched.shape[0]
    masks = valid[None] if valid.ndim == 1 else valid
    if masks.shape != (batched.shape[0], batched.shape[2]):
        raise ShapeError(
            f"expected a mask ({batched.shape[0]}, {batched.shape[2]}), got {tuple(valid.shape)}; "
            "one flag a frame of each condition."
        )
    return standardised(batched, standard), list(masks.bool())


def _distance_matrix(sequences: Tensor, mask: Tensor | None) -> Tensor:
    """Mean per-frame Euclidean distance between repeats, ``(K, K)``."""
    frames = sequences if mask is None else sequences[:, mask]
    rows = [(frames - one).norm(dim=-1).mean(dim=-1) for one in frames]
    return torch.stack(rows)


class Multimodality(PerClipMetric):
    """Mean over conditions of :func:`multimodality`; seeded draws, so it can be repeated."""

    def __init__(self, standard: Standard | None = None, pairs: int = 10, seed: int = 0) -> None:
        """See :func:`multimodality`; ``seed`` decides the draws."""
        super().__init__(standard)
        self.pairs = pairs
        self.seed = seed

    def update(
        self,
        takes: Tensor,
        valid: Tensor | None = None,
        clip: Sequence[str] | None = None,
    ) -> None:
        """Add conditions ``(C, K, T, D)`` with mask ``(C, T)`` and names.

        Every condition draws from its own generator, seeded alike, so that neither batch size nor
        rank changes the value.

        Raises:
            ShapeError: Fewer than two repeats, or shapes that do not fit.
        """
        conditions, masks = _conditions(takes, valid, self.standard)
        values = [
            multimodality(
                sequences,
                mask,
                pairs=self.pairs,
                generator=torch.Generator().manual_seed(self.seed),
            )
            for sequences, mask in zip(conditions, masks, strict=True)
        ]
        self.add_clips(torch.cat(values), clip)
