"""Audio-visual retrieval: find the right moment of sound for a face among moments of one video."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from talkhead.errors import ShapeError

_TIE = 1e-9


def window_retrieval(
    audio: Tensor, visual: Tensor, *, similarity: Literal["cosine", "distance"] = "cosine"
) -> tuple[Tensor, Tensor]:
    """Top-1 accuracy in both directions, by cosine similarity or by Euclidean distance.

    Several equally similar candidates share the credit, so constant embeddings score exactly
    chance, ``1 / N``.

    Args:
        audio: ``(N, D)`` or ``(B, N, D)``, window ``n`` of video ``b``.
        visual: Same shape, same windows.
        similarity: What makes two embeddings alike: a large cosine or a small distance.

    Returns:
        Audio-to-visual and visual-to-audio accuracy, each float64 ``(B,)``.

    Raises:
        ShapeError: Shapes differ, or fewer than two windows.
    """
    a, v = _windows(audio, visual)
    if similarity == "cosine":
        alike = F.normalize(a, dim=-1) @ F.normalize(v, dim=-1).mT
    else:
        alike = -torch.cdist(a, v, compute_mode="donot_use_mm_for_euclid_dist")
    return _top1(alike), _top1(alike.mT)


def pair_accuracy(audio: Tensor, visual: Tensor) -> Tensor:
    """Share of false pairs of windows that are farther apart than the true pair.

    Over all windows ``i != j`` of a video, in both directions: how often ``d_ii < d_ij`` with Euclidean
    distances of sound ``i`` and picture ``j``, equal distances counting half. 1 is perfect, 0.5 chance
    and the score of constant embeddings. Where top-1 retrieval is lost in overlapping windows, this
    still tells a weak link from none.

    Args:
        audio: ``(N, D)`` or ``(B, N, D)``, window ``n`` of video ``b``.
        visual: Same shape, same windows.

    Returns:
        Float64 ``(B,)``.

    Raises:
        ShapeError: Shapes differ, or fewer than two windows.
    """
    a, v = _windows(audio, visual)
    distances = torch.cdist(a, v, compute_mode="donot_use_mm_for_euclid_dist")
    true = distances.diagonal(dim1=1, dim2=2)
    count = a.shape[1] * (a.shape[1] - 1)
    share = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for anchors in (true[:, :, None], true[:, None, :]):
        won = (distances > anchors + _TIE).double() + 0.5 * ((distances - anchors).abs() <= _TIE)
        # Each true pair ties with itself.
        share += (won.sum(dim=(1, 2)) - 0.5 * a.shape[1]) / count
    return share / 2


def _windows(audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
    """Checked embeddings, float64 ``(B, N, D)``."""
    if audio.shape != visual.shape or audio.ndim not in (2, 3) or audio.shape[-2] < 2:
        raise ShapeError(
            f"expected audio and visual embeddings (B, N, D) with N >= 2, got {tuple(audio.shape)} "
            f"and {tuple(visual.shape)}; take the same windows on both sides."
        )
    a = audio.reshape(-1, *audio.shape[-2:]).to(torch.float64)
    v = visual.reshape(-1, *visual.shape[-2:]).to(torch.float64)
    return a, v


def _top1(similarity: Tensor) -> Tensor:
    """Share of rows whose diagonal entry is the largest, ties shared, ``(B,)``."""
    best = similarity >= similarity.amax(dim=-1, keepdim=True) - _TIE
    hit = best.diagonal(dim1=-2, dim2=-1).double() / best.sum(dim=-1)
    return hit.mean(dim=-1)


class WindowRetrieval(Metric):
    """Mean over videos of :func:`window_retrieval`, both directions averaged.

    ``chance`` is the accuracy of guessing for the windows seen so far.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        """No settings."""
        super().__init__()
        self.set_dtype(torch.float64)
        # Audio-to-visual, visual-to-audio, chance, number of videos.
        self.add_state("sums", torch.zeros(4, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, audio: Tensor, visual: Tensor) -> None:
        """Add windows ``(B, N, D)`` of ``B`` videos."""
        forth, back = window_retrieval(audio, visual)
        count = forth.numel()
        added = [forth.sum().item(), back.sum().item(), count / audio.shape[-2], count]
        self.sums += torch.tensor(added, dtype=torch.float64, device=self.device)

    def compute(self) -> dict[str, Tensor]:
        """``top1``, ``audio_to_visual``, ``visual_to_audio`` and ``chance``; NaN without videos."""
        forth, back, chance = (self.sums[:3] / self.sums[3]).unbind()
        return {
            "top1": 0.5 * (forth + back),
            "audio_to_visual": forth,
            "visual_to_audio": back,
            "chance": chance,
        }
