"""Coefficient tracks beside a prepared set: a second description of the same motion, frame by frame.

``ROOT/tracks/deep3d/<shard>.npy`` holds one row for every frame of a shard, NaN where a clip has no
track; ``track.json`` beside them says which clips have one, and how well its head pose agrees with
that of the face mesh. The prepared set itself is the same with and without.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datamodules.shard_index import ClipRow, data_fingerprint
from datamodules.shard_io import write_array_atomic
from talkhead.errors import DataError
from talkhead.geometry.deep3d import MOTION_DIM, MOTION_LAYOUT, NAME, read_deep3d
from talkhead.specs import FPS
from talkhead.text_files import write_text_atomic

if TYPE_CHECKING:
    from datamodules.shards import PreparedSet

TRACK_FILE = "track.json"
SUFFIX = ".mat"


@dataclass(frozen=True)
class TrackFolder:
    """Coefficient files named as the clips they belong to.

    Attributes:
        folder: Holds ``speaker/clip.mat`` or ``clip.mat`` for a clip whose source is
            ``speaker/clip.mp4``.
        lag_rows: Source frames by which the videos come later than the tracks.
    """

    folder: Path
    lag_rows: int = 0

    def check(self, option: str = "--motion-tracks") -> None:
        """Refuse a folder that cannot serve, before hours of other work.

        Args:
            option: Where the user named it.

        Raises:
            DataError: No such folder, or no coefficient file in it.
        """
        if not self.folder.is_dir() or not any(self.folder.rglob(f"*{SUFFIX}")):
            raise DataError(
                f"expected coefficient files (*{SUFFIX}) in {self.folder}, found none; pass the folder "
                f"that holds them as {option}."
            )

    def signature(self) -> list[Any]:
        """Changes when a file or the lag does."""
        found = sorted(self.folder.rglob(f"*{SUFFIX}"))
        stats = [(p.relative_to(self.folder).as_posix(), p.stat()) for p in found]
        return [self.lag_rows, *((name, s.st_size, s.st_mtime_ns) for name, s in stats)]

    def find(self, source: str) -> Path | None:
        """The file of a clip, by the path of its media file relative to the raw root."""
        name = Path(source).with_suffix(SUFFIX)
        places = (self.folder / name, self.folder / name.name)
        return next((place for place in places if place.is_file()), None)


def write_tracks(
    root: Path,
    rows: Sequence[ClipRow],
    entries: Iterable[Mapping[str, Any]],
    pose_of: Callable[[ClipRow], NDArray[np.float32]],
    tracks: TrackFolder,
) -> dict[str, Any]:
    """Write the tracks of a prepared set whose shards are complete.

    A file that cannot be read or is of another video costs only its own clip.

    Args:
        root: Folder of the set.
        rows: All clips.
        entries: For each clip ``start_s``, ``first_frame`` and ``fps_in``: where it lies in its file.
        pose_of: Pitch, yaw and roll ``(T, 3)`` of a clip by the face mesh.
        tracks: The files.

    Returns:
        The content of ``track.json``.

    Raises:
        DataError: No clip has a usable track.
    """
    from torch import from_numpy

    from talkhead.metrics.correlation import best_lag, correlation

    lengths: dict[int, int] = {}
    for row in rows:
        lengths[row.shard] = max(lengths.get(row.shard, 0), row.stop)
    arrays = {n: np.full((frames, MOTION_DIM), np.nan, np.float32) for n, frames in lengths.items()}
    clips: dict[str, dict[str, Any]] = {}
    refused: dict[str, str] = {}
    for row, entry in zip(rows, entries, strict=True):
        path = tracks.find(row.source)
        if path is None:
            continue
        try:
            track = read_deep3d(path).on_clock(
                row.frames,
                float(entry["fps_in"]),
                (entry["start_s"] or 0.0) + entry["first_frame"] / FPS,
                tracks.lag_rows,
            )
        except DataError as error:
            refused[row.id] = str(error)
            continue
        arrays[row.shard][row.start : row.stop] = track.motion
        mesh, theirs = from_numpy(np.asarray(pose_of(row))), from_numpy(track.rotation)
        clips[row.id] = {
            "file": path.relative_to(tracks.folder).as_posix(),
            "correlation": [round(r, 3) for r in correlation(mesh, theirs).tolist()],
            "lag_frames": best_lag(theirs, mesh, min(8, row.frames // 3))[0],
        }
    if not clips:
        raise DataError(
            f"no clip has a usable coefficient track in {tracks.folder}: {len(refused)} were refused"
            + (f" (first: {next(iter(refused.values()))})" if refused else "")
            + f"; name them as their clips, for example {Path(rows[0].source).with_suffix(SUFFIX)}."
        )
    folder = root / "tracks" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    for shard, array in arrays.items():
        write_array_atomic(folder / f"{shard:05d}.npy", array)
    record = {
        "name": NAME,
        "dim": MOTION_DIM,
        "layout": {name: [s.start, s.stop] for name, s in MOTION_LAYOUT.items()},
        "lag_rows": tracks.lag_rows,
        "clips": clips,
        "refused": refused,
        "without": sum(row.id not in clips and row.id not in refused for row in rows),
        "data_fingerprint": data_fingerprint(root, rows),
    }
    write_text_atomic(folder / TRACK_FILE, json.dumps(record, indent=2) + "\n")
    return record


class TrackStore:
    """Reads the tracks of a prepared set.

    Args:
        prepared: The set.

    Raises:
        DataError: The set has no tracks, or they were written for other data.
    """

    def __init__(self, prepared: PreparedSet) -> None:
        """Read the list of clips; arrays open when they are needed."""
        self.folder = prepared.root / "tracks" / NAME
        try:
            record: dict[str, Any] = json.loads((self.folder / TRACK_FILE).read_text("utf-8"))
        except (FileNotFoundError, json.JSONDecodeError) as error:
            raise DataError(
                f"expected coefficient tracks in {self.folder}, found none ({error}); run talkhead "
                "prepare with --motion-tracks."
            ) from error
        if record["data_fingerprint"] != prepared.data_fingerprint:
            raise DataError(
                f"{self.folder} belongs to other data; run talkhead prepare with --motion-tracks again."
            )
        self.clips: dict[str, dict[str, Any]] = record["clips"]

    def motion(self, row: ClipRow) -> NDArray[np.float32]:
        """Rotation 3, expression 64 and translation 3 of every frame of a clip, ``(T, 70)``.

        Raises:
            DataError: The clip has no track.
        """
        if row.id not in self.clips:
            raise DataError(
                f"clip {row.id} has no coefficient track; {len(self.clips)} clips of the set have one."
            )
        array = np.load(self.folder / f"{row.shard:05d}.npy", mmap_mode="r")
        return np.array(array[row.start : row.stop], np.float32)
