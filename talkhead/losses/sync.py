"""Audio-visual synchrony: how syncers are trained, and how they train a generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.losses.contrastive import LogitScale, gather_with_grad

Reduction = Literal["mean", "sum", "share"]
"""How the terms of the levels in use become one: their mean as in the released code, the paper's sum, or the
sum divided by the number of all levels, which leaves each the weight it has among all."""


def sampled_info_nce(
    anchors: Tensor,
    candidates: Tensor,
    negatives: int | None = None,
    *,
    from_others: bool = False,
    scale: Tensor | float = 1.0,
    min_gap: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""InfoNCE of each anchor against its own candidate and some false ones.

    With cosines ``S`` and a scale ``s``, ``L = -mean log(e^{s S(a, x)} / (e^{s S(a, x)} + sum_n
    e^{s S(a, x_n)}))`` over all anchors. The false candidates of anchor ``t`` of run ``b`` are drawn
    without replacement, for every anchor anew,

    - out of the same run, from the windows at least ``min_gap`` away from ``t``; or
    - out of all windows of the other runs of the batch, over all ranks (``from_others``).

    Chance is ``ln(1 + N)``.

    Args:
        anchors: Embeddings of speech, ``(B, N, D)``; row ``b`` is one run.
        candidates: Embeddings of the same windows' keypoints, ``(B, N, D)``.
        negatives: How many false candidates an anchor gets; None takes all there are.
        from_others: See above.
        scale: Inverse of the temperature, a scalar; 1 is the bare cosine.
        min_gap: At least 1; as windows of five frames overlap, 5 draws only from those that share none.
        generator: Of the draws; None is the global one. Draws are made on the CPU, so that they do not
            depend on the device.

    Returns:
        Scalar, at least in float32.

    Raises:
        ShapeError: Shapes differ, a gap below 1, or an anchor has fewer candidates than asked for.

    Source: MS-Sync equations 2 and 3 (section 4.1: 12 of the same sequence, 48 of other samples at the
        coarsest scale). Equation 2 lacks the logarithm (reference-facts 10). Gap and scale are ours: the
        paper has neither.
    """
    if anchors.ndim != 3 or anchors.shape != candidates.shape or min_gap < 1:
        raise ShapeError(
            "expected anchors and candidates (B, N, D) of one shape and a gap of at least 1, got "
            f"{tuple(anchors.shape)}, {tuple(candidates.shape)} and {min_gap}; keep one run a row."
        )
    a, x = _unit(anchors), _unit(candidates)
    a = torch.as_tensor(scale).to(a) * a
    true = (a * x).sum(dim=-1).reshape(-1, 1)
    runs, windows = a.shape[:2]
    if from_others:
        everyone = gather_with_grad(x)
        logits = a.flatten(0, 1) @ everyone.flatten(0, 1).T
        mine = runs * _rank() + torch.arange(runs)
        other = mine[:, None] != torch.arange(len(everyone))
        allowed = other.repeat_interleave(windows, 0).repeat_interleave(windows, 1)
    else:
        logits = (a @ x.transpose(1, 2)).flatten(0, 1)
        place = torch.arange(windows)
        allowed = ((place[:, None] - place[None]).abs() >= min_gap).repeat(runs, 1)
    false = _drawn(logits, allowed, negatives, generator)
    return -torch.cat([true, false], dim=1).log_softmax(dim=1)[:, 0].mean()


class SampledInfoNCE(LogitScale):
    """:func:`sampled_info_nce` with its numbers, and a scale that may be learned."""

    def __init__(
        self,
        negatives: int | None = None,
        from_others: bool = False,
        min_gap: int = 1,
        temperature: float = 1.0,
        learn_temperature: bool = False,
    ) -> None:
        """Set up the loss.

        Args:
            negatives: See :func:`sampled_info_nce`.
            from_others: See there.
            min_gap: See there.
            temperature: Inverse of the scale; 1 is the paper's bare cosine.
            learn_temperature: Learn the scale, from ``temperature`` on.
        """
        super().__init__(temperature, learn_temperature)
        self.negatives, self.from_others, self.min_gap = negatives, from_others, min_gap

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """The loss of embeddings ``(B, N, D)``; in evaluation against all other windows of the run.

        So its value then depends neither on draws nor on which runs share a batch.
        """
        if not self.training:
            return sampled_info_nce(anchors, candidates, scale=self.scale)
        self.limit()
        return sampled_info_nce(
            anchors,
            candidates,
            self.negatives,
            from_others=self.from_others,
            scale=self.scale,
            min_gap=self.min_gap,
        )


def av_sync_terms(levels: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Negative mean cosine of keypoints and speech on every level, MS-Sync equations 4 and 7.

    Args:
        levels: Embeddings of keypoints and of speech of each level, each ``(B, N, D)``, as
            :class:`talkhead.networks.syncer.SyncerPyramid` gives them.

    Returns:
        ``(levels,)``, each from -1 (all windows in step) to 1.

    Raises:
        ShapeError: No level, one without windows, or shapes that differ.
    """
    wrong = [
        (tuple(x.shape), tuple(a.shape)) for x, a in levels if x.shape != a.shape or x.numel() == 0
    ]
    if not levels or wrong:
        raise ShapeError(
            "expected keypoints and speech (B, N, D) of one shape on at least one level, got "
            f"{wrong or 'none'}; embed sequences that are long enough for the levels."
        )
    return -torch.stack([(_unit(x) * _unit(a)).sum(dim=-1).mean() for x, a in levels])


def av_sync_loss(
    levels: Sequence[tuple[Tensor, Tensor]],
    reduction: Reduction = "mean",
    chosen: Sequence[int] | None = None,
) -> Tensor:
    """Multi-scale audio-visual synchrony loss, ``-mean_t S`` of every level in use together.

    Args:
        levels: See :func:`av_sync_terms`.
        reduction: See :data:`Reduction`.
        chosen: Numbers of the levels in use; None takes all.

    Returns:
        Scalar.

    Raises:
        ShapeError: See :func:`av_sync_terms`.

    Source: MS-Sync equations 4, 6 and 7; the mean in its released code (reference-facts 6.4); a single
        level is the comparison of figure 6.
    """
    used = levels if chosen is None else [levels[level] for level in chosen]
    parts = {"mean": len(used), "sum": 1, "share": len(levels)}
    return av_sync_terms(used).sum() / parts[reduction]


def _drawn(
    logits: Tensor, allowed: Tensor, count: int | None, generator: torch.Generator | None
) -> Tensor:
    """Logits of ``count`` allowed candidates of each row, ``(rows, count)``; of all for None."""
    fewest = int(allowed.sum(dim=1).min())
    if fewest < (count or 1):
        raise ShapeError(
            f"expected at least {count or 1} false candidates for each anchor, got {fewest}; use longer "
            "runs, larger batches, a smaller gap or fewer negatives."
        )
    if count is None:
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))
    chances = torch.rand(allowed.shape, generator=generator).masked_fill(~allowed, -1.0)
    return logits.gather(1, chances.topk(count, dim=1).indices.to(logits.device))


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _unit(features: Tensor) -> Tensor:
    """Unit vectors in at least float32."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
