"""Contrastive losses between sound and picture, and gathering features over ranks."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.errors import ShapeError

Mining = Literal["all", "hard", "semi_hard"]
"""Which false partners of an anchor count, see :func:`triplet_loss`."""


class LogitScale(nn.Module):
    """The inverse of a contrastive loss' temperature, fixed or learned up to a limit, as in CLIP."""

    def __init__(self, temperature: float, learn: bool, max_scale: float = 100.0) -> None:
        """Set up the scale.

        Args:
            temperature: Inverse of the scale, the first one where it is learned.
            learn: Learn it.
            max_scale: Largest scale.
        """
        super().__init__()
        self.max_log_scale = math.log(max_scale)
        self.fixed = 1.0 / temperature
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature))) if learn else None

    @property
    def scale(self) -> Tensor:
        """Current logit scale."""
        return torch.tensor(self.fixed) if self.log_scale is None else self.log_scale.exp()

    def limit(self) -> None:
        """Keep the scale within its limit while training."""
        if self.log_scale is not None and self.training:
            # The parameter itself is limited, as in CLIP: a clamp in the graph would stop its
            # gradient.
            with torch.no_grad():
                self.log_scale.clamp_(max=self.max_log_scale)


class InfoNCE(LogitScale):
    r"""Symmetric InfoNCE within each video.

    With cosine similarities ``c_ij`` of window ``i``'s sound and window ``j``'s picture and a scale
    ``s``, ``L = 1/2 [mean_i -log softmax_j(s c_ij)_i + mean_j -log softmax_i(s c_ij)_j]``, averaged
    over the videos of the batch. Chance is ``ln N``.

    Source: paper 1 eq. 2. Deviates: the scale is learned as in CLIP (start ``1 / 0.07``, at most
        100), since the bare cosine of the paper cannot fall below ``ln(1 + (N - 1) e^-2)``, 3.69
        against a chance of 5.66 at ``N = 288`` (reference-facts 2.3); ``learn_temperature=False``
        is the paper. ``similarity="distance"`` puts the negative Euclidean distance in the place of the
        cosine, for embeddings that are compared by distance later (SyncNet).
    """

    def __init__(
        self,
        learn_temperature: bool = True,
        initial_temperature: float = 0.07,
        max_scale: float = 100.0,
        similarity: Literal["cosine", "distance"] = "cosine",
    ) -> None:
        """Set up the scale.

        Args:
            learn_temperature: Learn the logit scale; False is the bare cosine (scale 1).
            initial_temperature: Inverse of the first scale.
            max_scale: Largest scale.
            similarity: See the class.
        """
        super().__init__(
            initial_temperature if learn_temperature else 1.0, learn_temperature, max_scale
        )
        self.similarity = similarity

    def forward(
        self,
        audio: Tensor,
        visual: Tensor,
        frame_index: Tensor | None = None,
        *,
        min_gap: int = 0,
    ) -> Tensor:
        """Loss of a batch of videos.

        Args:
            audio: Features of the windows, ``(B, N, D)``; row ``b`` is one video.
            visual: Features of the same windows' frames, ``(B, N, D)``.
            frame_index: Frame numbers ``(B, N)``, needed with ``min_gap``.
            min_gap: Other windows closer than this many frames are neither positives nor negatives,
                as 0.2 s windows of neighbouring frames overlap; 0 keeps all, as in the paper.

        Returns:
            Scalar.

        Raises:
            ShapeError: Shapes differ, or ``frame_index`` is missing or has another shape.
        """
        _check_pairs(audio, visual)
        self.limit()
        if self.similarity == "cosine":
            alike = _unit(audio) @ _unit(visual).transpose(1, 2)
        else:
            alike = -_distances(audio, visual)
        logits = self.scale.to(alike) * alike
        if min_gap > 0:
            logits = logits.masked_fill(_near(frame_index, audio, min_gap), float("-inf"))
        return (_matching(logits) + _matching(logits.transpose(1, 2))) / 2


def inverse_distance_loss(first: Tensor, second: Tensor, eps: float = 1e-6) -> Tensor:
    r"""PC-AVS' contrastive loss: the logit of a pair is the inverse of its distance.

    With unit vectors and ``l_ij = 1 / (||a_i - v_j|| + eps)``, the cross-entropies of both
    directions are added; in each the query side is held fixed.

    Args:
        first: ``(B, N, D)``.
        second: ``(B, N, D)``.
        eps: Keeps the logit of equal vectors finite.

    Returns:
        Scalar.

    Raises:
        ShapeError: Shapes differ.

    Source: PC-AVS (reference-facts 2.3); deviates: ``eps``, which its code lacks.
    """
    _check_pairs(first, second)
    a, v = _unit(first), _unit(second)
    return _matching(_inverse_distance(a.detach(), v, eps)) + _matching(
        _inverse_distance(v.detach(), a, eps)
    )


def margin_loss(
    audio: Tensor,
    visual: Tensor,
    frame_index: Tensor | None = None,
    *,
    margin: float = 1.0,
    min_gap: int = 0,
) -> Tensor:
    r"""SyncNet's contrastive loss: true pairs together, others at least ``margin`` apart.

    With Euclidean distances ``d_ij`` of window ``i``'s sound and window ``j``'s pictures,
    ``L = 1/2 [mean_i d_ii^2 + mean_{i != j} max(margin - d_ij, 0)^2]``.

    Args:
        audio: ``(B, N, D)``; row ``b`` is one video.
        visual: ``(B, N, D)``, the same windows.
        frame_index: Frame numbers ``(B, N)``, needed with ``min_gap``.
        margin: Distance at which a false pair stops to count.
        min_gap: Other windows closer than this many frames are no negatives; 0 keeps all.

    Returns:
        Scalar; 0 for true pairs that coincide and false ones beyond the margin.

    Raises:
        ShapeError: Shapes differ, ``frame_index`` is missing or has another shape, or no negative is
            left.

    Source: Chung & Zisserman (2016) eq. 1; deviates: every other window of the video is a negative,
        not one shifted at random, and the means of both kinds count alike.
    """
    _check_pairs(audio, visual)
    distances = _distances(audio, visual)
    true = torch.eye(audio.shape[1], dtype=torch.bool, device=distances.device)
    false = ~true.expand_as(distances)
    if min_gap > 0:
        false = false & ~_near(frame_index, audio, min_gap)
    if not bool(false.any()):
        raise ShapeError(
            f"expected windows at least {max(min_gap, 1)} frames apart as negatives, got none among "
            f"{tuple(audio.shape)}; draw more windows of each video or lower min_gap."
        )
    together = distances.diagonal(dim1=1, dim2=2).square().mean()
    apart = (margin - distances[false]).clamp_min(0.0).square().mean()
    return (together + apart) / 2


def triplet_loss(
    audio: Tensor,
    visual: Tensor,
    frame_index: Tensor | None = None,
    *,
    margin: float = 0.2,
    mining: Mining = "all",
    min_gap: int = 0,
    max_gap: int | None = None,
) -> Tensor:
    r"""Triplet loss between the windows of each video, sound and picture in turn as anchor.

    With Euclidean distances ``d_ij`` of window ``i``'s sound and window ``j``'s picture, an anchor ``i``
    and a false partner ``j`` cost ``h_ij = max(margin + d_ii - d_ij, 0)``; so do a picture ``i`` and the
    sound ``j`` with ``d_ji``. ``L`` is the mean over both kinds of anchors of

    - ``"all"``: the mean of ``h_ij`` over all false partners;
    - ``"hard"``: the ``h_ij`` of the nearest one;
    - ``"semi_hard"``: the ``h_ij`` of the nearest one that is farther than the true partner, and of the
      farthest where there is none.

    Args:
        audio: ``(B, N, D)``; row ``b`` is one video.
        visual: ``(B, N, D)``, the same windows.
        frame_index: Frame numbers ``(B, N)``, needed with either gap.
        margin: By how much farther a false partner should be.
        mining: Which false partners count, see above.
        min_gap: Windows closer than this many frames are no false partners; 0 keeps all.
        max_gap: Windows farther than this are none either; None keeps all.

    Returns:
        Scalar; ``margin`` for embeddings that are all the same, 0 where every false partner is farther
        by the margin.

    Raises:
        ShapeError: Shapes differ, ``frame_index`` is missing or has another shape, or an anchor is left
            without a false partner.

    Source: Schroff et al. (2015), FaceNet, for the loss and semi-hard mining, here on distances and not
        their squares; MS-Sync section 4.3 says "triplet loss" with pairs of the same sequence and no
        more (reference-facts 6.8).
    """
    _check_pairs(audio, visual)
    distances = _distances(audio, visual)
    true = torch.eye(audio.shape[1], dtype=torch.bool, device=distances.device)
    false = ~true.expand_as(distances)
    if min_gap > 0:
        false = false & ~_near(frame_index, audio, min_gap)
    if max_gap is not None:
        false = false & (_frames_apart(frame_index, audio, f"max_gap {max_gap}") <= max_gap)
    if not bool(false.any(dim=2).all()):
        raise ShapeError(
            f"expected for each window others {max(min_gap, 1)} to {max_gap or 'any number of'} frames "
            f"away, got none for some of {tuple(audio.shape)}; use longer sequences or other gaps."
        )
    # The gaps are symmetric, so the same mask serves both directions.
    both = [_triplets(d, false, margin, mining) for d in (distances, distances.transpose(1, 2))]
    return torch.stack(both).mean()


def gather_with_grad(features: Tensor) -> Tensor:
    """Rows of all ranks, in rank order, with gradients to every rank; itself without distribution.

    Every rank computes the same loss of the gathered rows; the gradients of all ranks' losses are
    summed back, so that after DDP has averaged over ranks the result is the gradient of that loss
    once, as one process with all the rows would have.

    Args:
        features: ``(n, …)``, the same shape on every rank.

    Returns:
        ``(ranks * n, …)``.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return features
    gathered: Tensor = _Gather.apply(features)
    return gathered


class _Gather(torch.autograd.Function):
    """All-gather along the first axis; backward sums over ranks and returns this rank's rows."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        parts = [torch.empty_like(features) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, features.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def _unit(features: Tensor) -> Tensor:
    """Unit vectors, in at least float32: a scale of 100 leaves bfloat16 no digits."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def _distances(audio: Tensor, visual: Tensor) -> Tensor:
    """Euclidean distances ``(B, N, N)`` in at least float32, by differences: products lose digits."""
    wide = torch.promote_types(audio.dtype, torch.float32)
    return torch.cdist(audio.to(wide), visual.to(wide), compute_mode="donot_use_mm_for_euclid_dist")


def _triplets(distances: Tensor, false: Tensor, margin: float, mining: Mining) -> Tensor:
    """Mean cost of the anchors in the rows of ``(B, N, N)`` distances."""
    true = distances.diagonal(dim1=1, dim2=2)[..., None]
    if mining == "all":
        cost = (margin + true - distances).clamp_min(0.0) * false
        return (cost.sum(dim=2) / false.sum(dim=2)).mean()
    nearest = distances.masked_fill(~false, float("inf"))
    if mining == "semi_hard":
        farthest = distances.masked_fill(~false, float("-inf")).amax(dim=2, keepdim=True)
        nearest = nearest.masked_fill(distances <= true, float("inf"))
        nearest = torch.minimum(nearest.amin(dim=2, keepdim=True), farthest)
    else:
        nearest = nearest.amin(dim=2, keepdim=True)
    return (margin + true - nearest).clamp_min(0.0).mean()


def _matching(logits: Tensor) -> Tensor:
    """Cross-entropy of ``(B, N, N)`` logits with the diagonal as truth."""
    return -logits.log_softmax(dim=2).diagonal(dim1=1, dim2=2).mean()


def _inverse_distance(query: Tensor, keys: Tensor, eps: float) -> Tensor:
    # ||q - k||^2 = 2 - 2 cos for unit vectors; the floor keeps the root's slope finite.
    square = (2.0 - 2.0 * query @ keys.transpose(1, 2)).clamp_min(eps * eps)
    return 1.0 / (square.sqrt() + eps)


def _near(frame_index: Tensor | None, audio: Tensor, min_gap: int) -> Tensor:
    """``(B, N, N)`` bool, True for other windows closer than ``min_gap`` frames."""
    near = _frames_apart(frame_index, audio, f"min_gap {min_gap}") < min_gap
    return near & ~torch.eye(audio.shape[1], dtype=torch.bool, device=near.device)


def _frames_apart(frame_index: Tensor | None, audio: Tensor, asked: str) -> Tensor:
    """``(B, N, N)`` distances in frames that ``asked`` calls for."""
    if frame_index is None or frame_index.shape != audio.shape[:2]:
        got = None if frame_index is None else tuple(frame_index.shape)
        raise ShapeError(
            f"{asked} needs frame_index {tuple(audio.shape[:2])}, got {got}; pass the batch's "
            "frame_index or no gap."
        )
    return (frame_index[:, :, None] - frame_index[:, None, :]).abs()


def _check_pairs(first: Tensor, second: Tensor) -> None:
    if first.ndim != 3 or first.shape != second.shape:
        raise ShapeError(
            f"expected two feature tensors (B, N, D) of the same shape, got {tuple(first.shape)} "
            f"and {tuple(second.shape)}; keep one video a row."
        )
