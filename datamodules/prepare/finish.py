"""From finished clips to a prepared set: splits, motion model, offsets, shards, report."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.prepare.layouts import RawClip, Skipped
from datamodules.prepare.offset import CLEAR, MAX_SHIFT_FRAMES, Offset, OffsetEstimator, shift_audio
from datamodules.prepare.splits import assign_splits
from datamodules.prepare.work import WorkFolder
from datamodules.shard_index import SPLITS
from datamodules.shards import ClipRow, MotionStats, ShardWriter, write_prepared
from datamodules.tracks import TrackFolder, write_tracks
from talkhead.errors import ConfigError, DataError
from talkhead.geometry.motion import MotionModel, mouth_opening, pose_free
from talkhead.specs import FPS, SAMPLES_PER_FRAME

_log = logging.getLogger(__name__)

Entry = dict[str, Any]
Step = Callable[[str, int, int], None]
SUSPICIOUS_FRAMES = 3
"""Offsets from here on are worth a look; closer ones are within the estimate's error."""
_MIN_CLEAR = 5
"""Fewer clear estimates than this say nothing about where most clips are."""


@dataclass(frozen=True)
class FinishOptions:
    """What turns clips into a set.

    Attributes:
        n_expression: Expression components of the motion model.
        val_share: Share of speakers for validation, where nothing is official.
        test_share: Share of speakers for the test, where nothing is official.
        fix_offset: Shift the sound of clips whose offset is clear.
        frames_per_shard: Frames after which a new shard begins.
    """

    n_expression: int = 16
    val_share: float = 0.15
    test_share: float = 0.15
    fix_offset: bool = False
    frames_per_shard: int = 20_000

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if not 1 <= self.n_expression <= 256:
            raise ConfigError(f"expected --expression between 1 and 256, got {self.n_expression}.")
        if min(self.val_share, self.test_share) < 0 or self.val_share + self.test_share >= 0.9:
            raise ConfigError(
                "expected --val-share and --test-share of at least 0, together below 0.9, got "
                f"{self.val_share} and {self.test_share}."
            )


@dataclass
class _Sums:
    """Running mean and deviation of the training split's descriptors."""

    count: int = 0
    first: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    second: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, motion: NDArray[np.float32]) -> None:
        rows = motion.astype(np.float64)
        first, second = rows.sum(axis=0), (rows**2).sum(axis=0)
        self.first = first if self.count == 0 else self.first + first
        self.second = second if self.count == 0 else self.second + second
        self.count += len(rows)

    def stats(self) -> MotionStats:
        mean = self.first / self.count
        std = np.sqrt(np.maximum(self.second / self.count - mean**2, 0.0))
        # A column that never moves must not become infinite when it is normalised.
        std = np.where(std < 1e-6, 1.0, std)
        return MotionStats(mean.astype(np.float32), std.astype(np.float32))


def collect(
    folder: WorkFolder, clips: Sequence[RawClip], skipped: Sequence[Skipped] = ()
) -> tuple[list[Entry], list[dict[str, str]]]:
    """Outcomes of all clips in their fixed order.

    Returns:
        Accepted pieces and rejections ``{source, reason, detail}``.

    Raises:
        DataError: Some clips are not finished.
    """
    accepted: list[Entry] = []
    rejected: list[dict[str, str]] = [asdict(s) for s in skipped]
    missing = 0
    for raw in clips:
        status = folder.read_status(raw)
        if status is None:
            missing += 1
            continue
        for entry in status:
            if "rejected" in entry:
                rejected.append(entry["rejected"])
            else:
                accepted.append(entry)
    if missing:
        raise DataError(
            f"{missing} of {len(clips)} clips are not prepared yet; run prepare again (without "
            "--shard, once all parts are done)."
        )
    return accepted, rejected


def finish(
    out: Path,
    folder: WorkFolder,
    entries: Sequence[Entry],
    rejected: Sequence[Mapping[str, str]],
    meta: Mapping[str, Any],
    options: FinishOptions,
    step: Step | None = None,
    tracks: TrackFolder | None = None,
    shifts: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Write the prepared set; doing it again gives the same files.

    Args:
        out: Folder of the prepared set.
        folder: Finished clips.
        entries: Accepted pieces, from :func:`collect`.
        rejected: Rejections for ``rejected.jsonl``.
        meta: ``dataset``, ``synthetic``, ``raw_root``, ``landmarker``, ``video`` for prepared.json.
        options: Settings.
        step: Called with what is being done, and how much of it is done.
        tracks: Coefficient files to store beside the set.
        shifts: Clip -> frames to delay its sound by before anything is made of it, as an audit found
            them; they come before ``options.fix_offset`` and its own estimates.

    Returns:
        The report, as written to ``report.json``.

    Raises:
        DataError: No clip was accepted, no training clip moves, or no clip has a usable track.
    """
    if not entries:
        reasons = Counter(r["reason"] for r in rejected)
        found = ", ".join(f"{reason}: {n}" for reason, n in reasons.most_common())
        raise DataError(f"no clip was accepted ({found}); see {out / 'rejected.jsonl'}.")
    tell = step or (lambda what, done, total: None)
    official = {e["speaker"]: e["official"] for e in entries}
    splits = assign_splits(official, val_share=options.val_share, test_share=options.test_share)
    training = [e for e in entries if splits[e["speaker"]] == "train"]
    # From here on the old set, if any, is no longer whole.
    (out / "prepared.json").unlink(missing_ok=True)
    shutil.rmtree(out / "shards", ignore_errors=True)
    shutil.rmtree(out / "tracks", ignore_errors=True)
    model = MotionModel.fit(_landmarks(folder, training, tell), options.n_expression)
    shifts = shifts or {}
    offsets = measure_offsets(folder, entries, len(splits), tell, shifts)
    sums = _Sums()
    rows: list[ClipRow] = []
    flags: dict[str, list[str]] = {}
    with ShardWriter(out, options.frames_per_shard) as writer:
        for number, entry in enumerate(entries):
            tell("writing shards", number, len(entries))
            split, offset = splits[entry["speaker"]], offsets.get(entry["id"])
            sound = clip_sound(folder, entry, shifts)
            row, motion, odd = _write(writer, folder, entry, sound, split, model, offset, options)
            rows.append(row)
            if row.split == "train":
                sums.add(motion)
            if odd:
                flags[row.id] = odd
    report = make_report(rows, entries, rejected, flags)
    if tracks is not None:
        places = {row.id: entry for row, entry in zip(rows, entries, strict=True)}
        record = write_tracks(
            out,
            rows,
            entries,
            lambda r: pose_free(folder.load(places[r.id], "landmarks"))[1],
            tracks,
        )
        report["tracks"] = {key: record[key] for key in ("name", "clips", "refused", "without")}
    write_prepared(out, meta, rows, list(rejected), model, sums.stats(), report)
    tell("writing shards", len(entries), len(entries))
    return report


def _landmarks(
    folder: WorkFolder, entries: Sequence[Entry], tell: Step
) -> Iterator[NDArray[np.float32]]:
    """Landmarks clip by clip."""
    for number, entry in enumerate(entries):
        tell("fitting the motion model", number, len(entries))
        yield folder.load(entry, "landmarks")


def clip_mel(audio: NDArray[np.int16]) -> NDArray[np.float32]:
    """Log-mel ``(4T, 80)`` of 16 kHz samples ``(640 T,)``."""
    # torch takes 400 MiB; the workers that share this package's modules do without it.
    import torch

    from talkhead.audio.mel import mel_spectrogram

    wave = torch.from_numpy(audio.astype(np.float32) / 32767.0)
    mel: NDArray[np.float32] = mel_spectrogram(wave).numpy()
    return mel


@dataclass(frozen=True)
class ClipSound:
    """Samples of a clip, and what was done to them.

    Attributes:
        samples: ``(640 T,)`` int16.
        shift_frames: Frames they were delayed by.
    """

    samples: NDArray[np.int16]
    shift_frames: int = 0

    def delayed(self, frames: int) -> ClipSound:
        """The same sound so many frames later (earlier if negative), with silence at the open end.

        The clip keeps its length: pictures, landmarks and truth files are aligned to its frames.
        """
        samples = shift_audio(self.samples, frames * SAMPLES_PER_FRAME)
        return ClipSound(samples, self.shift_frames + frames)


def clip_sound(folder: WorkFolder, entry: Entry, shifts: Mapping[str, int]) -> ClipSound:
    """Sound of a finished clip, shifted as an audit asks."""
    sound = ClipSound(folder.load(entry, "audio"))
    shift = shifts.get(entry["id"], 0)
    return sound.delayed(shift) if shift else sound


def measure_offsets(
    folder: WorkFolder,
    entries: Sequence[Entry],
    speakers: int,
    tell: Step,
    shifts: Mapping[str, int],
) -> dict[str, Offset]:
    """Offset of every clip with sound, by clip id.

    The regression absorbs the mean offset of the clips it learns from, so the zero is put where
    most clips are: the median of the clear estimates.
    """
    estimator = OffsetEstimator(by_speaker=speakers >= 5)
    sounding = [e for e in entries if e["silence_share"] < 1.0]
    mouths: dict[str, NDArray[np.float32]] = {}
    for number, entry in enumerate(sounding):
        tell("measuring offsets", number, 2 * len(sounding))
        shapes = pose_free(folder.load(entry, "landmarks"))[0]
        mouths[entry["id"]] = mouth_opening(shapes).astype(np.float32)
        mel = clip_mel(clip_sound(folder, entry, shifts).samples)
        estimator.add(entry["id"], entry["speaker"], mel, mouths[entry["id"]])
    found: dict[str, Offset] = {}
    for number, entry in enumerate(sounding):
        tell("measuring offsets", len(sounding) + number, 2 * len(sounding))
        mel = clip_mel(clip_sound(folder, entry, shifts).samples)
        offset = estimator.estimate(entry["id"], entry["speaker"], mel, mouths[entry["id"]])
        if offset is not None:
            found[entry["id"]] = offset
    clear = [o.frames for o in found.values() if o.clear]
    if len(clear) < _MIN_CLEAR:
        return found
    zero = round(float(np.median(clear)))
    return {name: replace(o, frames=o.frames - zero) for name, o in found.items()}


def _write(
    writer: ShardWriter,
    folder: WorkFolder,
    entry: Entry,
    sound: ClipSound,
    split: str,
    model: MotionModel,
    offset: Offset | None,
    options: FinishOptions,
) -> tuple[ClipRow, NDArray[np.float32], list[str]]:
    """One clip into the open shard; its row, its descriptors and what is odd about it."""
    landmarks = folder.load(entry, "landmarks")
    motion = model.encode(landmarks)
    flags = list(entry["flags"])
    shift = offset.frames if offset is not None and offset.clear else 0
    if options.fix_offset and shift and abs(shift) < MAX_SHIFT_FRAMES:
        sound = sound.delayed(shift)
        offset = None if offset is None else replace(offset, frames=0)
    elif abs(shift) >= SUSPICIOUS_FRAMES:
        flags.append("offset")
    if sound.shift_frames:
        flags.append(f"offset_fixed{sound.shift_frames:+d}")
    mel = clip_mel(sound.samples).astype(np.float16)
    shard, start = writer.add(
        entry["id"], folder.load_pictures(entry), mel, landmarks, motion, sound.samples
    )
    x, y, w, h = entry["box"]
    row = ClipRow(
        id=entry["id"],
        speaker=entry["speaker"],
        video=entry["video"],
        split=split,
        shard=shard,
        start=start,
        frames=entry["frames"],
        source=entry["source"],
        fps_in=entry["fps_in"],
        box=(x, y, w, h),
        offset_frames=None if offset is None else offset.frames,
        offset_confidence=None if offset is None else round(offset.confidence, 4),
        silence_share=entry["silence_share"],
        tracked_share=entry["tracked_share"],
        audio_shift_frames=sound.shift_frames,
    )
    return row, motion, flags


def _mean(shares: Sequence[float], frames: NDArray[np.int64]) -> float:
    """Mean over frames of a number given for each clip."""
    return round(float(np.average(shares, weights=frames)), 5)


def make_report(
    rows: Sequence[ClipRow],
    entries: Sequence[Entry],
    rejected: Sequence[Mapping[str, str]],
    flags: Mapping[str, list[str]],
) -> dict[str, Any]:
    """The quality report: counts, hours, tracking, offsets, and what to look at."""
    frames = np.array([row.frames for row in rows])
    splits = {}
    for split in SPLITS:
        mine = [row for row in rows if row.split == split]
        splits[split] = {
            "speakers": len({row.speaker for row in mine}),
            "clips": len(mine),
            "hours": round(sum(row.frames for row in mine) / FPS / 3600, 5),
        }
    clear = [r for r in rows if (r.offset_confidence or 0.0) >= CLEAR]
    return {
        "accepted": len(rows),
        "rejected": dict(Counter(r["reason"] for r in rejected).most_common()),
        "hours": round(float(frames.sum()) / FPS / 3600, 5),
        "splits": splits,
        "tracked_share": _mean([row.tracked_share for row in rows], frames),
        "silence_share": _mean([row.silence_share for row in rows], frames),
        "fps_in": dict(Counter(f"{row.fps_in:.2f}" for row in rows).most_common()),
        "box_px": {
            name: float(np.percentile([row.box[2] for row in rows], share))
            for name, share in (("min", 0), ("median", 50), ("max", 100))
        },
        "offsets": {
            "estimated": sum(row.offset_frames is not None for row in rows),
            "clear": len(clear),
            "clear_frames": dict(sorted(Counter(str(r.offset_frames) for r in clear).items())),
            "suspicious": sorted(name for name, found in flags.items() if "offset" in found),
        },
        "audio_shift_frames": {r.id: r.audio_shift_frames for r in rows if r.audio_shift_frames},
        "flags": dict(Counter(f for found in flags.values() for f in found).most_common()),
        "flagged_clips": dict(flags),
        "trimmed_frames": {e["id"]: e["first_frame"] for e in entries if e["first_frame"]},
    }
