"""What an audit, perhaps edited by hand, asks ``talkhead prepare`` to do."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from talkhead.errors import DataError

RECOMMENDATIONS = ("keep", "fix", "drop")
MAX_FIX_FRAMES = 250
"""A shift of more than ten seconds is a slip of the pen."""


@dataclass(frozen=True)
class AuditOrders:
    """What ``talkhead prepare`` takes from an audit.

    Attributes:
        path: The table.
        digest: Hash of its content (16 hex digits).
        shifts: Clip -> frames its sound has to be delayed by, without zeros.
        drops: Clip -> reason, for clips the audit would drop.
    """

    path: Path
    digest: str
    shifts: Mapping[str, int]
    drops: Mapping[str, str]


def read_orders(path: str | os.PathLike[str]) -> AuditOrders:
    """What an audit, perhaps edited by hand, asks ``talkhead prepare`` to do.

    Only the columns ``id``, ``recommendation``, ``shift_frames`` and ``reason`` are read, the last one
    if it is there.

    Raises:
        DataError: No such file, no such columns, a clip named twice, an unknown recommendation, or a
            shift that is no whole number of at most 250 frames.
    """
    file = Path(path)
    try:
        raw = file.read_bytes()
        lines = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cannot read the audit {file}: {error}; pass the CSV that talkhead data --audit wrote."
        ) from error
    wanted = {"id", "recommendation", "shift_frames"}
    if not lines or not wanted <= set(lines[0]):
        found = ", ".join(map(str, lines[0])) if lines else "no clip"
        raise DataError(f"{file}: expected the columns {', '.join(sorted(wanted))}, got {found}.")
    shifts: dict[str, int] = {}
    drops: dict[str, str] = {}
    seen: set[str] = set()
    for number, line in enumerate(lines, 2):
        name, what = line["id"], line["recommendation"]
        if name in seen or what not in RECOMMENDATIONS:
            raise DataError(
                f"{file}, line {number}: expected each clip once with one of "
                f"{', '.join(RECOMMENDATIONS)}, got {name!r} with {what!r}."
            )
        seen.add(name)
        shift = _shift(file, number, line["shift_frames"])
        if what == "drop":
            drops[name] = line.get("reason") or "the audit says drop"
        if shift:
            shifts[name] = shift
    return AuditOrders(file, hashlib.sha256(raw).hexdigest()[:16], shifts, drops)


def _shift(file: Path, number: int, text: str | None) -> int:
    """Whole frames from a cell."""
    try:
        shift = int(text or "")
    except ValueError as error:
        raise DataError(
            f"{file}, line {number}: expected shift_frames in whole frames, got {text!r}."
        ) from error
    if abs(shift) > MAX_FIX_FRAMES:
        raise DataError(
            f"{file}, line {number}: expected shift_frames of at most {MAX_FIX_FRAMES}, got {shift}."
        )
    return shift
