"""The audit on disk: a table with one clip a line, and a summary beside it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from talkhead.audit.advice import Advice, SetFacts
from talkhead.audit.measure import Measures
from talkhead.audit.orders import RECOMMENDATIONS
from talkhead.specs import FPS

_POSE_COLUMNS = tuple(
    f"{angle}_{end}_deg" for angle in ("pitch", "yaw", "roll") for end in ("low", "high")
)
COLUMNS = (
    "id", "speaker", "split", "source", "seconds",
    "recommendation", "shift_frames", "reason", "flags",
    "offset_frames", "offset_confidence", "offset_chance", "offset_agreement", "lse_c", "lse_d",
    "applied_shift_frames", "duplicate_of", "duplicate_kind",
    "silence_share", "loudness_lufs", "clipped_share",
    *_POSE_COLUMNS, "profile_share", "sharpness", "face_px", "tracked_share", "fps_in",
)  # fmt: skip


def table_row(row: Any, measured: Measures, advice: Advice, facts: SetFacts) -> dict[str, Any]:
    """One line of the table; None becomes an empty cell.

    Args:
        row: The clip (``datamodules.shards.ClipRow``).
        measured: Its measures.
        advice: Advice on it.
        facts: What holds for the whole set.
    """
    sync = measured.sync
    pose = dict(zip(_POSE_COLUMNS, (round(v, 1) for v in measured.pose_deg), strict=True))
    offset: dict[str, Any] = {}
    if facts.chance is None:
        offset = {
            "offset_frames": row.offset_frames,
            "offset_confidence": row.offset_confidence,
        }
    elif sync is not None:
        offset = {
            "offset_frames": sync.offset_frames,
            "offset_confidence": round(sync.confidence, 4),
            "offset_chance": round(sync.chance, 4),
            "offset_agreement": round(sync.agreement, 3),
            "lse_c": round(sync.lse_c, 4),
            "lse_d": round(sync.lse_d, 4),
        }
    level = measured.loudness_lufs
    return {
        "id": row.id,
        "speaker": row.speaker,
        "split": row.split,
        "source": row.source,
        "seconds": row.frames / FPS,
        "recommendation": advice.recommendation,
        "shift_frames": advice.shift_frames,
        "reason": advice.reason,
        "flags": " ".join(advice.flags),
        **offset,
        "applied_shift_frames": row.audio_shift_frames,
        "duplicate_of": advice.duplicate_of,
        "duplicate_kind": advice.duplicate_kind,
        "silence_share": round(measured.silence_share, 4),
        "loudness_lufs": None if level is None else round(level, 1),
        "clipped_share": round(measured.clipped_share, 6),
        **pose,
        "profile_share": round(measured.profile_share, 4),
        "sharpness": round(measured.sharpness, 4),
        "face_px": round(measured.face_px, 1),
        "tracked_share": row.tracked_share,
        "fps_in": row.fps_in,
    }


def table_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Lines of :func:`table_row` as CSV with a header."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def summary(rows: Sequence[Any], advice: Sequence[Advice], facts: SetFacts) -> dict[str, Any]:
    """The audit in numbers, for the JSON beside the table.

    Args:
        rows: All clips (``datamodules.shards.ClipRow``).
        advice: Advice on each, in the same order.
        facts: What holds for the whole set.
    """
    counts = {}
    for name in RECOMMENDATIONS:
        mine = [row for row, one in zip(rows, advice, strict=True) if one.recommendation == name]
        minutes = sum(row.frames for row in mine) / FPS / 60
        counts[name] = {"clips": len(mine), "minutes": round(minutes, 2)}
    residual = [
        one.shift_frames - row.audio_shift_frames
        for row, one in zip(rows, advice, strict=True)
        if one.recommendation == "fix"
    ]
    return {
        "recommendations": counts,
        "drop_reasons": dict(Counter(name for one in advice for name in one.faults).most_common()),
        "flags": dict(Counter(flag for one in advice for flag in one.flags).most_common()),
        "fixes": {str(k): n for k, n in sorted(Counter(residual).items())},
        "sync": {
            "judge": facts.judge,
            "judged": facts.judged,
            "clear_share": round(facts.clear_share, 4),
            "clear_above": facts.chance,
            "typical_chance": facts.typical_chance,
            "median_offset": facts.median_offset,
            "median_share": facts.median_share,
        },
        "median_sharpness": round(facts.sharpness, 4),
    }
