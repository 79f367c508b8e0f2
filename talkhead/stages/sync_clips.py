"""Whole clips scored by a stage that embeds windows of pictures and of sound (SyncNet, lip-sync expert)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from talkhead.metrics.offset import MAX_SHIFT_FRAMES
from talkhead.metrics.sync_scores import SyncOffsetAccuracy, SyncScore, sync_scores
from talkhead.stages.base import Stage

MAX_TESTED_SHIFT = 10
MIN_WINDOWS = MAX_TESTED_SHIFT + MAX_SHIFT_FRAMES
"""Windows a clip must have: after the largest tested shift, half the candidate shifts still overlap."""
SCORES = {"lse_c": "confidence", "lse_d": "distance", "absolute_offset": "offset"}


def score_clips(
    stage: Stage,
    split: str,
    limit: int | None,
    encode: Callable[[Any, Any], tuple[Tensor, Tensor]],
    windows: Callable[[int], int],
    judge: str,
) -> list[dict[str, Any]]:
    """Sync scores of real clips and how often known shifts of -10…10 frames are recovered, logged.

    Logs ``<split>/gt/sync_confidence[judge]``, ``…/sync_distance``, ``…/sync_offset``,
    ``<split>/offset_within`` and ``<split>/offset_mean_error``.

    Args:
        stage: Whose scores; its datamodule has the clips. Without one nothing is scored.
        split: ``val`` or ``test``, the split and the prefix of names.
        limit: At most so many clips, evenly spaced; None is all.
        encode: ``(prepared set, row)`` to visual and audio embeddings, each ``(windows, D)``.
        windows: Windows of a clip by its number of frames.
        judge: Name of the network.

    Returns:
        Scores of this rank's clips, one dictionary a clip.
    """
    data: Any = getattr(stage.trainer, "datamodule", None)
    if not hasattr(data, "prepared"):
        return []
    rows = [row for row in data.prepared.rows(split) if windows(row.frames) >= MIN_WINDOWS]
    if not rows or limit == 0:
        return []
    rows = rows[:: math.ceil(len(rows) / (limit or len(rows)))]
    judged, accuracy = SyncScore(), SyncOffsetAccuracy(tolerance=1)
    found = []
    for row in rows[stage.global_rank :: stage.trainer.world_size]:
        visual, audio = encode(data.prepared, row)
        judged.update(visual[None], audio[None], [row.id])
        score = sync_scores(visual, audio)
        found.append({
            "clip": row.id, "offset": int(score.offset), "lse_d": float(score.lse_d),
            "lse_c": float(score.lse_c),
        })  # fmt: skip
        for shift in range(-MAX_TESTED_SHIFT, MAX_TESTED_SHIFT + 1):
            late, seen = delayed(audio, visual, shift)
            accuracy.update(late[None], seen[None], torch.tensor([shift]))
    shifts = accuracy.to(stage.device).compute()
    scores = judged.to(stage.device).compute()
    logged = {f"gt/sync_{new}[{judge}]": scores[old] for old, new in SCORES.items()}
    logged |= {f"offset_{name}": value for name, value in shifts.items()}
    stage.log_dict({f"{split}/{name}": value.float() for name, value in logged.items()})
    return found


def delayed(audio: Tensor, visual: Tensor, shift: int) -> tuple[Tensor, Tensor]:
    """Sound delayed by ``shift`` windows and the pictures it then meets, both ``(T - |shift|, D)``."""
    length = len(audio) - abs(shift)
    late, seen = max(-shift, 0), max(shift, 0)
    return audio[late : late + length], visual[seen : seen + length]
