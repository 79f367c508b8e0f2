"""Audio-visual offset: by how many frames the sound lags the picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from talkhead.errors import ShapeError

MAX_SHIFT_FRAMES = 15


def offset_scores(
    audio: Tensor,
    visual: Tensor,
    valid: Tensor | None = None,
    *,
    max_shift: int = MAX_SHIFT_FRAMES,
) -> Tensor:
    """Mean cosine similarity for every candidate offset.

    Column ``k`` compares the picture of frame ``t`` with the sound of frame ``t + k - max_shift``:
    it is largest at ``k == max_shift + d`` when the sound comes ``d`` frames late. Frames without a
    partner are dropped, not padded with zeros as in SyncNet's code, which biases short clips.

    Args:
        audio: One embedding a frame, ``(T, D)`` or ``(B, T, D)``.
        visual: Same shape, same clock.
        valid: Mask ``(T,)`` or ``(B, T)``, for both.
        max_shift: Largest offset tried on either side, in video frames.

    Returns:
        Float64 ``(B, 2 * max_shift + 1)``, in ``[-1, 1]``; NaN where no pair of frames is valid.

    Raises:
        ShapeError: Shapes differ, ``T <= max_shift``, or a mask that does not fit.

    Source: Chung & Zisserman (2016); deviates: cosine instead of Euclidean distance, no padding.
    """
    if audio.shape != visual.shape or audio.ndim not in (2, 3) or audio.shape[-2] <= max_shift:
        raise ShapeError(
            f"expected audio and visual embeddings (B, T, D) with T > {max_shift}, got "
            f"{tuple(audio.shape)} and {tuple(visual.shape)}; use longer clips or smaller shifts."
        )
    if valid is not None and valid.shape != audio.shape[:-1]:
        raise ShapeError(
            f"expected a mask {tuple(audio.shape[:-1])}, got {tuple(valid.shape)}; one flag a frame."
        )
    a = F.normalize(audio.reshape(-1, *audio.shape[-2:]).to(torch.float64), dim=-1)
    v = F.normalize(visual.reshape(-1, *visual.shape[-2:]).to(torch.float64), dim=-1)
    ok = torch.ones(a.shape[:2], dtype=torch.bool, device=a.device)
    if valid is not None:
        ok = valid.reshape(a.shape[:2]).bool()
    frames = a.shape[1]
    columns = []
    for d in range(-max_shift, max_shift + 1):
        picture = slice(max(0, -d), frames - max(0, d))
        sound = slice(max(0, d), frames + min(0, d))
        both = (ok[:, picture] & ok[:, sound]).double()
        similarity = (v[:, picture] * a[:, sound]).sum(-1)
        columns.append((similarity * both).sum(-1) / both.sum(-1))
    return torch.stack(columns, dim=-1)


def estimate_offset(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Offset in frames and its confidence from :func:`offset_scores`.

    Args:
        scores: ``(B, 2 * max_shift + 1)``.

    Returns:
        Offset ``(B,)`` int64, positive when the sound comes late (0.04 s a frame at 25 fps), and
        confidence ``(B,)``: best minus median similarity, 0 for embeddings that tell nothing.
    """
    filled = scores.nan_to_num(nan=-1.0)
    best, where = filled.max(dim=-1)
    return where - (scores.shape[-1] - 1) // 2, best - filled.median(dim=-1).values


class OffsetAccuracy(Metric):
    """Share of clips whose estimated offset is within ``tolerance`` frames of the true one."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    hits: Tensor
    absolute: Tensor
    count: Tensor

    def __init__(self, tolerance: int = 1, max_shift: int = MAX_SHIFT_FRAMES) -> None:
        """See :func:`offset_scores` for ``max_shift``."""
        super().__init__()
        self.set_dtype(torch.float64)
        self.tolerance = tolerance
        self.max_shift = max_shift
        for name in ("hits", "absolute", "count"):
            zero = torch.zeros((), dtype=torch.float64)
            self.add_state(name, zero, dist_reduce_fx="sum")

    def estimate(self, audio: Tensor, visual: Tensor, valid: Tensor | None = None) -> Tensor:
        """Estimated offsets ``(B,)``, positive when the sound comes late."""
        return estimate_offset(offset_scores(audio, visual, valid, max_shift=self.max_shift))[0]

    def update(
        self, audio: Tensor, visual: Tensor, true_offset: Tensor, valid: Tensor | None = None
    ) -> None:
        """Add clips ``(B, T, D)`` whose sound comes ``true_offset`` ``(B,)`` frames late.

        Raises:
            ShapeError: Shapes differ, or other than ``B`` true offsets.
        """
        found = self.estimate(audio, visual, valid)
        if true_offset.shape != found.shape:
            raise ShapeError(
                f"expected true offsets {tuple(found.shape)}, got {tuple(true_offset.shape)}; one a clip."
            )
        error = (found - true_offset.to(found)).abs()
        self.hits += (error <= self.tolerance).sum()
        self.absolute += error.sum()
        self.count += error.numel()

    def compute(self) -> dict[str, Tensor]:
        """``within``: share within the tolerance; ``mean_error``: mean of |error| in frames."""
        return {"within": self.hits / self.count, "mean_error": self.absolute / self.count}
