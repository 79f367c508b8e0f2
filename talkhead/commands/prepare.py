"""``talkhead prepare``: raw media to shards, index, splits and a quality report."""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkhead.cores import usable_cores
from talkhead.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from datamodules.prepare.layouts import RawClip
    from datamodules.prepare.pipeline import PrepareJob

_DATASETS = ("folder", "embedded", "hdtf", "mead", "voxceleb2")
_EPILOG = """data sets:
  folder     any tree of videos; the speaker comes from --speaker-from
  embedded   speaker/video/clip.mp4, as talkhead corpus writes it
  hdtf       Name_0.mp4 clips, or Name.mp4 with the published lists anywhere below RAW
  mead       M003/video/front/angry/level_1/001.mp4 and M003/audio/angry/level_1/001.m4a
  voxceleb2  {dev,test}/mp4/id00012/VIDEO/00001.mp4, official test split

An interrupted run continues where it stopped. On several machines, run --shard 0/N … --shard N-1/N
on a shared OUT, then once without --shard to write the set. Why clips were turned down is in
OUT/rejected.jsonl."""


def _parser() -> argparse.ArgumentParser:
    """All options; defaults of settings come from their dataclasses."""
    from datamodules.prepare.finish import FinishOptions
    from datamodules.prepare.options import ClipOptions

    clip, last = ClipOptions(), FinishOptions()
    parser = argparse.ArgumentParser(
        prog="talkhead prepare",
        description="Decode to 25 fps and 16 kHz, track the face, crop, compute landmarks, motion "
        "descriptors and mel, and write shards with speaker-disjoint splits.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", choices=_DATASETS, required=True, help="how RAW is laid out")
    parser.add_argument("--raw", type=Path, required=True, help="folder of the raw data")
    parser.add_argument("--out", type=Path, required=True, help="folder of the prepared set")
    parser.add_argument("--name", help="name recorded for the set (default: the data set's)")
    parser.add_argument(
        "--speaker-from",
        default="parent",
        metavar="RULE",
        help="data set folder: parent (folder name), stem (every file its own), or a CSV with the "
        "columns file,speaker (default: parent)",
    )
    parser.add_argument(
        "--views", default="front", help="data set mead: camera views, comma-separated"
    )
    _add_clip_options(parser, clip)
    group = parser.add_argument_group("the set")
    group.add_argument("--expression", type=int, default=last.n_expression, metavar="E")
    group.add_argument("--val-share", type=float, default=last.val_share, metavar="X")
    group.add_argument("--test-share", type=float, default=last.test_share, metavar="X")
    group.add_argument("--frames-per-shard", type=int, default=last.frames_per_shard, metavar="N")
    group.add_argument(
        "--fix-offset",
        nargs="?",
        const=True,
        default=False,
        metavar="AUDIT.csv",
        help="delay the sound of each clip by the frames that 'talkhead data --audit' found (column "
        "shift_frames); without a file, of clips whose offset is clear by the built-in estimate",
    )
    group.add_argument(
        "--drop", type=Path, metavar="AUDIT.csv", help="leave out the clips this audit would drop"
    )
    group.add_argument(
        "--motion-tracks",
        type=Path,
        metavar="DIR",
        help="Deep3DFaceRecon coefficients to store beside the set: DIR/clip.mat for clip.mp4",
    )
    group.add_argument(
        "--motion-lag",
        type=int,
        default=0,
        metavar="FRAMES",
        help="source frames by which the videos come later than their tracks (default: 0)",
    )
    group = parser.add_argument_group("the run")
    group.add_argument("--workers", type=int, default=usable_cores(), metavar="N")
    group.add_argument("--limit", type=int, metavar="N", help="only the first N clips")
    group.add_argument("--shard", metavar="I/N", help="only part I of N, no finishing")
    group.add_argument("--keep-work", action="store_true", help="keep finished clips in OUT/work")
    return parser


def _add_clip_options(parser: argparse.ArgumentParser, clip: Any) -> None:
    """Options of single clips."""
    group = parser.add_argument_group("clips")
    group.add_argument("--size", type=int, default=clip.size, metavar="PX", help="side of crops")
    group.add_argument(
        "--face-share",
        type=float,
        default=clip.face_share,
        metavar="X",
        help=f"share of the crop that the face's width takes (default: {clip.face_share:g})",
    )
    group.add_argument("--min-fps", type=float, default=clip.min_fps, metavar="F")
    group.add_argument("--min-seconds", type=float, default=clip.min_seconds, metavar="S")
    group.add_argument(
        "--max-seconds",
        type=float,
        default=clip.max_seconds,
        metavar="S",
        help=f"cut longer clips into equal pieces (default: {clip.max_seconds:g})",
    )
    group.add_argument("--min-tracked", type=float, default=clip.min_tracked, metavar="X")
    group.add_argument("--max-gap", type=int, default=clip.max_gap, metavar="FRAMES")
    group.add_argument("--min-active", type=float, default=clip.min_active, metavar="X")
    group.add_argument(
        "--allow-silent", action="store_true", help="take clips without sound or with silence"
    )


def _shard(text: str | None) -> tuple[int, int] | None:
    """``"0/4"`` to ``(0, 4)``."""
    if text is None:
        return None
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit()):
        raise ConfigError(f"expected --shard I/N, for example 0/4, got {text!r}.")
    return int(first), int(second)


def job_from_args(argv: Sequence[str]) -> PrepareJob:
    """The preparation a command line asks for.

    Raises:
        ConfigError: A value that cannot work.
    """
    from datamodules.prepare.finish import FinishOptions
    from datamodules.prepare.options import ClipOptions
    from datamodules.prepare.pipeline import PrepareJob
    from datamodules.tracks import TrackFolder

    args = _parser().parse_args(argv)
    # One option with or without a file: True, False, or the file's name.
    fix_from = Path(args.fix_offset) if isinstance(args.fix_offset, str) else None
    return PrepareJob(
        root=args.raw,
        out=args.out,
        layout=args.dataset,
        name=args.name,
        speaker_from=args.speaker_from,
        views=tuple(args.views.split(",")),
        clip=ClipOptions(
            size=args.size,
            face_share=args.face_share,
            min_fps=args.min_fps,
            min_seconds=args.min_seconds,
            max_seconds=args.max_seconds,
            min_tracked=args.min_tracked,
            max_gap=args.max_gap,
            min_active=args.min_active,
            require_audio=not args.allow_silent,
        ),
        finish=FinishOptions(
            n_expression=args.expression,
            val_share=args.val_share,
            test_share=args.test_share,
            fix_offset=args.fix_offset is True,
            frames_per_shard=args.frames_per_shard,
        ),
        workers=args.workers,
        limit=args.limit,
        shard=_shard(args.shard),
        keep_work=args.keep_work,
        tracks=None
        if args.motion_tracks is None
        else TrackFolder(args.motion_tracks, args.motion_lag),
        fix_from=fix_from,
        drop_from=args.drop,
    )


class _Bars:
    """Progress bars: one for the clips, then one for each step of finishing."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._turned_down: Counter[str] = Counter()

    def _task(self, what: str, total: int) -> TaskID:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        return self._tasks[what]

    def clip(self, raw: RawClip, entries: list[dict[str, Any]], total: int) -> None:
        """One clip more."""
        task = self._task("clips", total)
        for entry in entries:
            if "rejected" in entry:
                self._turned_down[entry["rejected"]["reason"]] += 1
        turned_down = sum(self._turned_down.values())
        label = f"clips ({turned_down} rejected)" if turned_down else "clips"
        self._progress.update(task, advance=1, description=label)

    def step(self, what: str, done: int, total: int) -> None:
        """Progress of finishing."""
        self._progress.update(self._task(what, total), completed=done, total=total)


def main(argv: Sequence[str]) -> int:
    """Prepare a data set and say what came of it.

    Returns:
        0.

    Raises:
        TalkheadError: Settings or data that cannot work, or a missing library.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from datamodules.prepare.pipeline import prepare

    job = job_from_args(argv)
    columns = (
        TextColumn("{task.description:<26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        outcome = prepare(job, _Bars(progress))
    if outcome.report is None:
        print(
            f"part {'/'.join(map(str, job.shard or ()))} done: {outcome.done} of {outcome.total} "
            "clips. Run the same command without --shard when all parts are done."
        )
        return 0
    if outcome.up_to_date:
        print(f"{job.out} is up to date; nothing to do.")
    print(summary(outcome.report, job.out))
    return 0


def summary(report: dict[str, Any], out: Path) -> str:
    """The quality report in a dozen lines."""
    rejected = report["rejected"]
    lines = [f"accepted   {report['accepted']} clips, {_length(report['hours'])}"]
    if rejected:
        reasons = ", ".join(f"{reason} {n}" for reason, n in rejected.items())
        lines.append(
            f"rejected   {sum(rejected.values())}: {reasons} (see {out / 'rejected.jsonl'})"
        )
    for split, counts in report["splits"].items():
        lines.append(
            f"{split:<10} {counts['clips']} clips, {counts['speakers']} speakers, "
            f"{_length(counts['hours'])}"
        )
    lines.append(
        f"tracking   face found in {report['tracked_share']:.2%} of the frames, crop box "
        f"{report['box_px']['median']:.0f} px (median)"
    )
    lines.append(f"sound      {report['silence_share']:.0%} of the time silent")
    offsets = report["offsets"]
    late = offsets["suspicious"]
    lines.append(
        f"offsets    {offsets['clear']} of {offsets['estimated']} clear, {len(late)} of them three "
        "frames or more off" + (f": {', '.join(late[:5])}" if late else "")
    )
    if "tracks" in report:
        lines.append(_tracks_line(report["tracks"]))
    if shifts := report.get("audio_shift_frames"):
        lines.append(f"shifted    sound of {len(shifts)} clips (audio_shift_frames in the index)")
    if report["flags"]:
        flags = ", ".join(f"{flag} {n}" for flag, n in report["flags"].items())
        lines.append(f"flags      {flags} (see {out / 'report.json'})")
    if any(not counts["clips"] for counts in report["splits"].values()):
        lines.append(
            "warning    a split is empty; speaker-disjoint splits need three speakers or more"
        )
    lines.append(f"written    {out}")
    return "\n".join(lines)


def _tracks_line(tracks: dict[str, Any]) -> str:
    """How many clips have coefficients, and how their head pose agrees with the mesh's."""
    pose = [clip["correlation"] for clip in tracks["clips"].values()]
    middle = [statistics.median(values) for values in zip(*pose, strict=True)]
    lag = statistics.median(clip["lag_frames"] for clip in tracks["clips"].values())
    return (
        f"tracks     {len(pose)} clips with {tracks['name']}, {len(tracks['refused'])} refused, "
        f"{tracks['without']} without; pitch, yaw, roll correlate {middle[0]:.2f}, {middle[1]:.2f}, "
        f"{middle[2]:.2f} with the mesh (median), lag {lag:+.0f} frames"
    )


def _length(hours: float) -> str:
    """Hours, or minutes when it is less than one hour."""
    return f"{hours:.2f} h" if hours >= 1 else f"{hours * 60:.1f} min"
