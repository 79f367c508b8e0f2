"""Multi-scale rigid |offset|: does the head move with this voice, on windows of 200, 400 and 800 ms?

What goes in are the embeddings of a pyramid of syncers (:class:`talkhead.networks.rigid_syncer`), one
pair of sequences a level. The offset of a level counts in its own frames, which last 40, 80 and 160 ms.
Numbers of different syncers do not compare: report the real clips with their own sound and with that of
other clips beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.metrics.offset import MAX_SHIFT_FRAMES, estimate_offset, offset_scores
from talkhead.metrics.retrieval import pair_accuracy
from talkhead.metrics.sequences import PerClipRows
from talkhead.metrics.sync_scores import sync_scores
from talkhead.time_pyramid import window_ms

Edges = Literal["drop", "zeros", "balanced"]
"""How offsets are compared although few windows overlap at the outer ones, see :func:`rigid_offsets`."""
EDGES = get_args(Edges)

Pair = tuple[Tensor, Tensor]
"""Embeddings of points and of sound of one level, each ``(B, N, D)``."""


class RigidOffsets(NamedTuple):
    """Offsets of ``B`` runs on ``L`` levels.

    Attributes:
        offset: ``(B, L)`` int64 in frames of the level, above 0 when the sound comes late.
        confidence: ``(B, L)`` float64, at least 0: best minus median score over the offsets.
    """

    offset: Tensor
    confidence: Tensor


def rigid_offsets(
    levels: Sequence[Pair],
    *,
    max_shift: int | Sequence[int] = MAX_SHIFT_FRAMES,
    edges: Edges = "drop",
) -> RigidOffsets:
    """Offset of the sound on every level.

    The coarsest level of a run of 80 frames has 16 windows, of which a single one is left at an offset of
    15. What that means depends on ``edges``:

    - ``"drop"``: the largest mean cosine over the windows that have a partner
      (:func:`talkhead.metrics.offset.offset_scores`). Means of few windows scatter most, so noise is
      found at the outer offsets.
    - ``"zeros"``: SyncNet's measure (:func:`talkhead.metrics.sync_scores.sync_scores`) with its sign
      turned. Zeros are at a distance of 1 from every unit vector: where unrelated windows are nearer
      than that, noise is found at small offsets, where they are farther, at the outermost.
    - ``"balanced"``: with ``n`` windows at an offset, the largest ``sqrt(n) (mean cosine - c)``, where
      ``c`` is the mean over all pairs of the run. Chance is then as large at every offset, as far as
      windows are independent; alike neighbours draw it inwards.

    Args:
        levels: Embeddings of points and sound, finest level first.
        max_shift: Largest offset tried on either side, in frames of the level; one for all levels or
            one each.
        edges: See above.

    Returns:
        Offsets and their confidence.

    Raises:
        ShapeError: No level, shapes that differ, too few windows for the offsets, or another number of
            largest offsets than of levels.

    Source: MS-Sync section 4.3, Table 2, with offsets to +-15 at every level (reference-facts 6.8). How
        it treated the ends is not published. Dropping is the default, because it comes nearest to the
        offsets of about 10 that the paper reports for sound of other clips on every level;
        ``"balanced"`` is ours.
    """
    if not levels:
        raise ShapeError("expected the embeddings of at least one level, got none.")
    offsets, confidences = [], []
    for (points, audio), reach in zip(levels, _shifts(max_shift, len(levels)), strict=True):
        if edges == "zeros":
            scores = sync_scores(points, audio, max_shift=reach)
            offset, confidence = -scores.offset, scores.lse_c
        else:
            similarity = offset_scores(audio, points, max_shift=reach)
            if edges == "balanced":
                similarity = _balanced(similarity, points, audio)
            offset, confidence = estimate_offset(similarity)
        offsets.append(offset)
        confidences.append(confidence.double())
    runs = [len(offset) for offset in offsets]
    if len(set(runs)) > 1:
        raise ShapeError(f"expected as many runs on every level, got {runs}; embed the same runs.")
    return RigidOffsets(torch.stack(offsets, dim=1), torch.stack(confidences, dim=1))


def _shifts(max_shift: int | Sequence[int], levels: int) -> list[int]:
    """Largest offset of every level."""
    shifts = [max_shift] * levels if isinstance(max_shift, int) else list(max_shift)
    if len(shifts) != levels:
        raise ShapeError(f"expected one max_shift for each of {levels} levels, got {shifts}.")
    return shifts


def _balanced(similarity: Tensor, points: Tensor, audio: Tensor) -> Tensor:
    """Mean cosines ``(B, 2 m + 1)`` above their expectation, in units of their scatter."""
    mean_point, mean_sound = (F.normalize(x.double(), dim=-1).mean(dim=-2) for x in (points, audio))
    expected = (mean_point * mean_sound).sum(dim=-1, keepdim=True)
    reach = (similarity.shape[-1] - 1) // 2
    shifts = torch.arange(-reach, reach + 1, device=similarity.device)
    return (similarity - expected) * (points.shape[-2] - shifts.abs()).sqrt()


def chance_offset(max_shift: int = MAX_SHIFT_FRAMES) -> float:
    """Mean |offset| of guessing evenly: ``m (m + 1) / (2 m + 1)``, 7.74 for 15.

    Real syncers on unrelated sound do not guess evenly; the ends of a run push them outwards (about 10
    in MS-Sync's Table 2), so the sound of other clips is the level to compare with.
    """
    return max_shift * (max_shift + 1) / (2 * max_shift + 1)


def frame_ms(level: int) -> int:
    """Milliseconds of one frame of a level: 40, 80, 160 and so on."""
    return window_ms(level, frames=1)


class RigidOffset(PerClipRows):
    """Mean over runs of :func:`rigid_offsets`, absolute values first, and of the pair accuracy.

    An offset is better lower, 0 is perfect. Give ``update`` the names of the runs and one that a distributed
    sampler repeats counts once.
    """

    def __init__(
        self,
        levels: int = 3,
        max_shift: int | Sequence[int] = MAX_SHIFT_FRAMES,
        edges: Edges = "drop",
    ) -> None:
        """Keep the settings.

        Args:
            levels: Levels a run has.
            max_shift: See :func:`rigid_offsets`.
            edges: See :func:`rigid_offsets`.

        Raises:
            ConfigError: An unknown name for the edges.
            ShapeError: Another number of largest offsets than of levels.
        """
        if edges not in EDGES:
            raise ConfigError(f"edges: expected one of {', '.join(EDGES)}, got {edges!r}.")
        super().__init__(width=3 * levels)
        self.levels, self.max_shift = levels, _shifts(max_shift, levels)
        self.edges: Edges = edges

    def update(self, levels: Sequence[Pair], clip: Sequence[str] | None = None) -> None:
        """Add ``B`` runs.

        Args:
            levels: See :func:`rigid_offsets`.
            clip: ``B`` names, or None.

        Raises:
            ShapeError: Another number of levels, shapes that differ, or other than ``B`` names.
        """
        if len(levels) != self.levels:
            raise ShapeError(
                f"expected the embeddings of {self.levels} levels, got {len(levels)}; build the metric "
                "for the levels of the syncer."
            )
        found = rigid_offsets(levels, max_shift=self.max_shift, edges=self.edges)
        accuracy = torch.stack([pair_accuracy(audio, points) for points, audio in levels], dim=1)
        self.add_rows(torch.cat([found.offset.double(), found.confidence, accuracy], dim=1), clip)

    def compute(self) -> dict[str, Tensor]:
        """Float64 scalars by name, NaN when no run was seen.

        For each scale ``s`` of ``200ms``, ``400ms``, …: ``offset_s``, mean |offset| in frames of the
        level as in MS-Sync's Table 2; ``offset_std_s``, its standard deviation over runs;
        ``offset_in_ms_s``, the mean in milliseconds; ``confidence_s``; ``pair_accuracy_s``
        (:func:`talkhead.metrics.retrieval.pair_accuracy`).
        """
        rows = self.distinct()
        out = {}
        for level in range(self.levels):
            scale = f"{window_ms(level)}ms"
            offset = rows[:, level].abs()
            out[f"offset_{scale}"] = offset.mean()
            # Over the runs seen, not an estimate for more: a single one spreads by 0.
            out[f"offset_std_{scale}"] = (offset - offset.mean()).square().mean().sqrt()
            out[f"offset_in_ms_{scale}"] = frame_ms(level) * offset.mean()
            out[f"confidence_{scale}"] = rows[:, self.levels + level].mean()
            out[f"pair_accuracy_{scale}"] = rows[:, 2 * self.levels + level].mean()
        return out
