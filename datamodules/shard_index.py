"""Index and metadata of a prepared set: everything that is not pixels or arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.shard_io import SHARD_INFO_FILE, shard_folder
from talkhead.errors import DataError
from talkhead.specs import AudioSpec, VideoSpec, check_same_clock, spec_dict
from talkhead.text_files import write_text_atomic

if TYPE_CHECKING:
    from talkhead.geometry.motion import MotionModel

FORMAT = 1
PREPARED_FILE = "prepared.json"
INDEX_FILE = "index.jsonl"
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class ClipRow:
    """One accepted clip, a line of ``index.jsonl``.

    Attributes:
        id: Unique name of the clip.
        speaker: Whoever speaks; splits keep speakers apart.
        video: Recording the clip was cut from; clips of one video share the setting.
        split: ``train``, ``val`` or ``test``.
        shard: Number of the shard.
        start: First frame within the shard.
        frames: Number of frames ``T``.
        source: Path of the media file relative to the raw root.
        fps_in: Frame rate of the source.
        box: Crop ``(x, y, w, h)`` in source pixels.
        offset_frames: Frames by which the video lags (+) or leads (-) the sound as it is stored, by
            the estimate of ``prepare``; None where there is none.
        offset_confidence: Confidence of that estimate.
        silence_share: Share of frames without speech, 0 to 1.
        tracked_share: Share of frames in which the face was found, 0 to 1.
        audio_shift_frames: Frames by which ``prepare --fix-offset`` delayed the sound (made it earlier
            if negative); so many frames at the clip's start (end) have silence in its place.
    """

    id: str
    speaker: str
    video: str
    split: str
    shard: int
    start: int
    frames: int
    source: str
    fps_in: float
    box: tuple[float, float, float, float]
    offset_frames: float | None = None
    offset_confidence: float | None = None
    silence_share: float = 0.0
    tracked_share: float = 1.0
    audio_shift_frames: int = 0

    @property
    def stop(self) -> int:
        """One past the last frame within the shard."""
        return self.start + self.frames

    @classmethod
    def from_json(cls, line: str) -> ClipRow:
        """Read one line of the index; unknown keys of later versions are left out."""
        values = json.loads(line)
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in values.items() if key in known}
        values["box"] = tuple(values["box"])
        return cls(**values)


class MotionStats(NamedTuple):
    """Mean and standard deviation of the motion descriptors over the training split, ``(D,)``."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]


def split_fingerprint(speakers: Mapping[str, Sequence[str]]) -> str:
    """Digest (16 hex digits) over which speaker belongs to which split, in any order."""
    ordered = {split: sorted(speakers.get(split, ())) for split in SPLITS}
    return hashlib.sha256(json.dumps(ordered).encode()).hexdigest()[:16]


def data_fingerprint(root: str | Path, rows: Sequence[ClipRow]) -> str:
    """Digest (16 hex digits) over the index and the content of every shard.

    Raises:
        DataError: A shard named in the index has no ``shard.json``.
    """
    digest = hashlib.sha256()
    for row in rows:
        values = asdict(row)
        if not row.audio_shift_frames:
            # Sets from before there was this column keep their digest.
            del values["audio_shift_frames"]
        digest.update(json.dumps(values, sort_keys=True).encode())
    for shard in sorted({row.shard for row in rows}):
        digest.update(json.dumps(shard_info(Path(root), shard)["sha256"], sort_keys=True).encode())
    return digest.hexdigest()[:16]


def shard_info(root: Path, shard: int) -> dict[str, Any]:
    """The shard's own list: frames, clip ids, content hashes.

    Raises:
        DataError: Missing or unreadable.
    """
    path = shard_folder(root, shard) / SHARD_INFO_FILE
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"expected {path}, which does not exist; run talkhead prepare again."
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"expected JSON in {path}, got {error}; run talkhead prepare again."
        ) from error
    return info


def write_prepared(
    root: str | Path,
    meta: Mapping[str, Any],
    rows: Sequence[ClipRow],
    rejected: Sequence[Mapping[str, Any]],
    motion_model: MotionModel,
    motion_stats: MotionStats,
    report: Mapping[str, Any],
) -> dict[str, Any]:
    """Write everything but the shards; ``prepared.json`` comes last and makes the set valid.

    Args:
        root: Folder of the set, with its shards already written.
        meta: ``dataset``, ``synthetic``, ``raw_root``, ``landmarker`` and whatever else belongs in
            ``prepared.json``; format, clocks, motion layout, fingerprints and counts are filled in
            (clocks only where ``meta`` has none).
        rows: Accepted clips in their fixed order.
        rejected: ``{source, reason, detail}`` each.
        motion_model: Fitted on the training split.
        motion_stats: Of the training split.
        report: Quality report.

    Returns:
        The content of ``prepared.json``.
    """
    folder = Path(root)
    (folder / "splits").mkdir(parents=True, exist_ok=True)
    speakers: dict[str, list[str]] = {
        split: sorted({row.speaker for row in rows if row.split == split}) for split in SPLITS
    }
    for split, names in speakers.items():
        text = "".join(f"{name}\n" for name in names)
        write_text_atomic(folder / "splits" / f"{split}.txt", text)
    _write_lines(folder / INDEX_FILE, [asdict(row) for row in rows])
    _write_lines(folder / "rejected.jsonl", rejected)
    _write_motion(folder, motion_model, motion_stats)
    write_text_atomic(folder / "report.json", json.dumps(report, indent=2) + "\n")
    prepared = {
        "format": FORMAT,
        "video": spec_dict(VideoSpec()),
        "audio": spec_dict(AudioSpec()),
        **meta,
        "motion": {
            "n_expression": _n_expression(motion_model),
            "layout": {name: [s.start, s.stop] for name, s in motion_model.layout.items()},
        },
        "split_fingerprint": split_fingerprint(speakers),
        "data_fingerprint": data_fingerprint(folder, rows),
        "clips": len(rows),
        "frames": sum(row.frames for row in rows),
    }
    write_text_atomic(folder / PREPARED_FILE, json.dumps(prepared, indent=2) + "\n")
    return prepared


def _n_expression(model: MotionModel) -> int:
    """Number of expression components, read from the layout."""
    expression = model.layout["expression"]
    return int(expression.stop - expression.start)


def _write_motion(folder: Path, model: MotionModel, stats: MotionStats) -> None:
    """Motion model and statistics; the model's own writer goes through a temporary name, too."""
    model.save(folder / "motion_model.npz")
    # numpy appends .npz to other suffixes, so the temporary name ends in it as well.
    temporary = folder / f".motion_stats.{os.getpid()}.tmp.npz"
    np.savez(temporary, mean=stats.mean, std=stats.std)
    temporary.replace(folder / "motion_stats.npz")


def _write_lines(path: Path, items: Sequence[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    write_text_atomic(path, "".join(json.dumps(item) + "\n" for item in items))


def read_meta(root: Path) -> dict[str, Any]:
    """``prepared.json``, checked for format and clocks."""
    path = root / PREPARED_FILE
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        found = "an unfinished set" if (root / "shards").is_dir() else "no prepared set"
        raise DataError(
            f"expected a prepared set in {root}, got {found} ({PREPARED_FILE} is missing); "
            "run talkhead prepare with this folder as its output."
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"expected JSON in {path}, got {error}; run talkhead prepare again."
        ) from error
    if meta.get("format") != FORMAT:
        raise DataError(
            f"{path}: expected format {FORMAT}, got {meta.get('format')!r}; "
            "run talkhead prepare again with this version."
        )
    # Any crop policy may be read; a stage refuses to mix two.
    clock = {key: value for key, value in spec_dict(VideoSpec()).items() if key != "crop"}
    check_same_clock(str(path), clock, meta["video"])
    check_same_clock(str(path), spec_dict(AudioSpec()), meta["audio"])
    return meta


def read_rows(root: Path) -> list[ClipRow]:
    """All rows of the index."""
    path = root / INDEX_FILE
    try:
        with path.open(encoding="utf-8") as lines:
            return list(_parse(path, lines))
    except FileNotFoundError as error:
        raise DataError(
            f"expected {path}, which is missing; run talkhead prepare again."
        ) from error


def _parse(path: Path, lines: Iterable[str]) -> Iterator[ClipRow]:
    """Rows of the index, with the line number in the message of a broken one."""
    for number, line in enumerate(lines, 1):
        try:
            yield ClipRow.from_json(line)
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise DataError(
                f"{path}, line {number}: expected a clip, got {error!r}; "
                "run talkhead prepare again."
            ) from error
