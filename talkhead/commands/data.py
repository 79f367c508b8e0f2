"""``talkhead data``: what is in a prepared set, whether it is sound, and which clips are bad."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkhead.commands.audit import add_audit_options, check_audit_options, options_of, run_audit
from talkhead.errors import DataError
from talkhead.specs import FPS

if TYPE_CHECKING:
    from datamodules.shards import PreparedSet


def main(argv: Sequence[str]) -> int:
    """Show and check a prepared set, and audit it if asked to.

    Returns:
        0 if it is sound.

    Raises:
        DataError: It is damaged; the message names every problem found.
        TalkheadError: The audit's judge or options cannot work.
    """
    parser = argparse.ArgumentParser(
        prog="talkhead data",
        description="Show what a prepared set holds, check it, and audit its clips.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder written by prepare")
    parser.add_argument(
        "--deep", action="store_true", help="decode every picture and hash every array"
    )
    parser.add_argument("--no-check", action="store_true", help="only show, do not check")
    parser.add_argument("--json", action="store_true", help="print prepared.json and report.json")
    add_audit_options(parser)
    args = parser.parse_args(argv)
    check_audit_options(args)

    from datamodules.shards import PreparedSet

    prepared = PreparedSet(args.folder)
    if args.json:
        print(json.dumps({"prepared": prepared.meta, "report": _report(args.folder)}, indent=2))
    else:
        print(describe(prepared))
    if args.no_check:
        return _audit(args, prepared)
    problems = check(prepared, deep=args.deep)
    if problems:
        shown = "\n  ".join(problems[:20])
        more = f"\n  and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise DataError(f"{args.folder} is damaged:\n  {shown}{more}\nRun talkhead prepare again.")
    if not args.json:
        print(f"check      sound ({'every picture' if args.deep else 'sampled pictures'})")
    return _audit(args, prepared)


def _audit(args: argparse.Namespace, prepared: PreparedSet) -> int:
    """Audit the set if it was asked for."""
    if args.audit:
        run_audit(prepared, options_of(args), _report(prepared.root).get("flagged_clips", {}))
    return 0


def _report(folder: Path) -> dict[str, Any]:
    """The quality report, empty if there is none."""
    path = folder / "report.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return report


def describe(prepared: PreparedSet) -> str:
    """A dozen lines about a prepared set."""
    from datamodules.shard_index import SPLITS

    meta = prepared.meta
    kind = "synthetic" if meta.get("synthetic") else "recorded"
    lines = [
        f"data set   {prepared.dataset} ({kind}), from {meta['raw_root']}",
        f"video      {meta['video']['fps']} fps, {meta['video']['size']} px, crop "
        f"{meta['video']['crop']}",
        f"sound      {meta['audio']['sample_rate_hz']} Hz, {meta['audio']['n_mels']} mel bins",
        f"landmarks  {meta['landmarker']}",
        f"motion     {prepared.motion_dim} numbers a frame: {', '.join(meta['motion']['layout'])}",
    ]
    for split in SPLITS:
        rows = prepared.rows(split)
        frames = sum(row.frames for row in rows)
        lines.append(
            f"{split:<10} {len(rows)} clips, {len({r.speaker for r in rows})} speakers, "
            f"{len({r.video for r in rows})} videos, {frames} frames ({frames / FPS / 60:.1f} min)"
        )
    rows = prepared.all_rows
    if rows:
        lengths = np.array([row.frames for row in rows])
        tracked = np.average([row.tracked_share for row in rows], weights=lengths)
        lines.append(
            f"clips      {lengths.min()} to {lengths.max()} frames, median "
            f"{np.median(lengths):.0f}; face found in {tracked:.2%}"
        )
    lines += [
        f"splits     fingerprint {prepared.split_fingerprint}",
        f"content    fingerprint {prepared.data_fingerprint}",
    ]
    return "\n".join(lines)


def check(prepared: PreparedSet, *, deep: bool = False) -> list[str]:
    """Problems of a prepared set, one sentence each, damaged shards named.

    Args:
        prepared: The set.
        deep: Decode every picture instead of two for each clip.
    """
    from datamodules.shards import verify

    problems = verify(prepared.root, deep=deep)
    for number in sorted({row.shard for row in prepared.all_rows}):
        try:
            shard = prepared.shard(number)
        except DataError:
            continue  # verify has named it already
        if shard.offsets[0] != 0 or (np.diff(shard.offsets) <= 0).any():
            problems.append(f"shard {shard.folder}: picture offsets do not increase.")
    return problems
