"""A prepared set: what ``talkhead prepare`` writes and every stage trains from.

Layout below the set's folder::

    prepared.json  index.jsonl  rejected.jsonl  splits/{train,val,test}.txt  report.json
    motion_model.npz  motion_stats.npz  shards/00000/…  features/…

A clip's frames are the rows ``[start, start + frames)`` of its shard, its mel steps the rows
``[4 start, 4 (start + frames))``, its samples ``[640 start, 640 (start + frames))``.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.jpeg import decode_jpeg, decode_planes, encode_jpeg, resize_pictures
from datamodules.shard_index import (
    INDEX_FILE,
    SPLITS,
    ClipRow,
    MotionStats,
    Split,
    data_fingerprint,
    read_meta,
    read_rows,
    shard_info,
    split_fingerprint,
    write_prepared,
)
from datamodules.shard_io import ROWS_PER_FRAME, Shard, ShardWriter, shard_folder
from talkhead.audio.mfcc import FULL_SCALE, mfcc
from talkhead.errors import DataError, SpecError
from talkhead.specs import AudioSpec, window_start_step

if TYPE_CHECKING:
    from talkhead.geometry.motion import MotionModel

__all__ = [
    "SPLITS",
    "ClipRow",
    "MotionStats",
    "PreparedSet",
    "Shard",
    "ShardWriter",
    "Split",
    "data_fingerprint",
    "decode_jpeg",
    "encode_jpeg",
    "split_fingerprint",
    "verify",
    "write_prepared",
]

_AUDIO = AudioSpec()
OPEN_SHARDS = 48
"""Shards kept open per process; each takes at most five file descriptors."""


class PreparedSet:
    """Reads a prepared set; cheap to open, safe to use in forked and spawned workers.

    Args:
        root: Folder written by ``talkhead prepare``.

    Raises:
        DataError: Folder, ``prepared.json`` or index are missing or of an unknown format.
        SpecError: The set was made with another clock or crop.
    """

    def __init__(self, root: str | Path) -> None:
        """Read metadata and index; shards open when they are needed."""
        self.root = Path(root)
        self.meta = read_meta(self.root)
        self.all_rows = read_rows(self.root)
        self._by_id = {row.id: row for row in self.all_rows}
        self._shards: OrderedDict[int, Shard] = OrderedDict()
        self._pid = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        """Handles stay behind when the set is sent to another process."""
        return {**self.__dict__, "_shards": OrderedDict()}

    @property
    def dataset(self) -> str:
        """Name of the corpus, for example ``hdtf``."""
        return str(self.meta["dataset"])

    @property
    def split_fingerprint(self) -> str:
        """Digest over the speaker lists."""
        return str(self.meta["split_fingerprint"])

    @property
    def data_fingerprint(self) -> str:
        """Digest over index and shard contents."""
        return str(self.meta["data_fingerprint"])

    @property
    def raw_root(self) -> Path:
        """Folder of the raw corpus, which need not exist any more."""
        return Path(self.meta["raw_root"])

    @property
    def motion_dim(self) -> int:
        """Width ``D`` of the motion descriptors."""
        return max(int(stop) for _, stop in self.meta["motion"]["layout"].values())

    def rows(self, split: str | None = None) -> list[ClipRow]:
        """Clips of one split (or all) in their fixed order.

        Raises:
            DataError: Unknown split name.
        """
        if split is None:
            return list(self.all_rows)
        if split not in SPLITS:
            raise DataError(f"expected a split out of {SPLITS}, got {split!r}; name one of them.")
        return [row for row in self.all_rows if row.split == split]

    def row(self, clip: str | ClipRow) -> ClipRow:
        """The row of a clip id.

        Raises:
            DataError: No such clip.
        """
        if isinstance(clip, ClipRow):
            return clip
        if clip not in self._by_id:
            raise DataError(
                f"expected a clip of {self.root}, got {clip!r}; see {self.root / INDEX_FILE}."
            )
        return self._by_id[clip]

    def frames(
        self, clip: str | ClipRow, indices: Sequence[int] | NDArray[Any], size: int | None = None
    ) -> Tensor:
        """Pictures of some frames of a clip.

        Args:
            clip: Id or row.
            indices: ``n`` frame numbers within the clip.
            size: Scale to this height and width in pixels; None keeps the stored size.

        Returns:
            ``(n, 3, H, W)`` uint8 RGB.

        Raises:
            DataError: A frame number outside the clip, or bytes that do not decode.
        """
        row = self.row(clip)
        shard = self.shard(row.shard)
        at = _inside(row, indices)
        edge = int(self.meta["video"]["size"])
        pictures = torch.empty((len(at), 3, edge, edge), dtype=torch.uint8)
        planes = pictures.numpy()
        for out, i in zip(planes, at, strict=True):
            decode_planes(shard.picture(row.start + int(i)), out)
        return resize_pictures(pictures, size or edge)

    def mel(self, clip: str | ClipRow) -> NDArray[np.float32]:
        """Whole log-mel of a clip, ``(4T, 80)`` float32."""
        return self._part("mel", clip).astype(np.float32)

    def mel_windows(self, clip: str | ClipRow, frames: Sequence[int] | NDArray[Any]) -> Tensor:
        """Audio-encoder windows centred on frames.

        Window ``f`` holds the mel steps ``[4 (f - 2), 4 (f - 2) + 20)`` of the clip; steps before
        its start and after its end are 0, as in silence. Same values as
        :func:`talkhead.audio.mel.mel_windows` on the clip's whole mel, without reading the whole.

        Returns:
            ``(n, 1, 80, 20)`` float32, mel bins before time steps.
        """
        row = self.row(clip)
        mel = self._part("mel", row)
        steps = _AUDIO.window_steps
        windows = np.zeros((len(frames), _AUDIO.n_mels, steps), np.float32)
        for window, frame in zip(windows, _inside(row, frames), strict=True):
            first = window_start_step(int(frame), _AUDIO)
            begin, end = max(first, 0), min(first + steps, len(mel))
            window[:, begin - first : end - first] = mel[begin:end].T
        return torch.from_numpy(windows).unsqueeze(1)

    def landmarks(
        self, clip: str | ClipRow, frames: Sequence[int] | NDArray[Any] | slice | None = None
    ) -> NDArray[np.float32]:
        """Landmarks ``(n, 478, 3)`` in crop units; None takes the whole clip."""
        return self._pick("landmarks", clip, frames)

    def motion(
        self, clip: str | ClipRow, frames: Sequence[int] | NDArray[Any] | slice | None = None
    ) -> NDArray[np.float32]:
        """Motion descriptors ``(n, D)``, not normalised; None takes the whole clip."""
        return self._pick("motion", clip, frames)

    def audio(self, clip: str | ClipRow) -> NDArray[np.int16]:
        """Samples ``(640T,)`` at 16 kHz."""
        return np.array(self._part("audio", clip))

    def mfcc(self, clip: str | ClipRow) -> Tensor:
        """Cepstral coefficients of a clip for SyncNet, ``(4T - 1, 13)`` float32."""
        return mfcc(torch.from_numpy(self.audio(clip)).float() / FULL_SCALE)

    def content_digest(self, clip: str | ClipRow) -> str:
        """Hash (32 hex digits) over all pictures and samples of a clip, whatever its name.

        Raises:
            DataError: The shard is damaged.
        """
        row = self.row(clip)
        shard = self.shard(row.shard)
        digest = hashlib.sha256(self._part("audio", row).tobytes())
        for frame in range(row.start, row.stop):
            digest.update(shard.picture(frame))
        return digest.hexdigest()[:32]

    def motion_stats(self) -> MotionStats:
        """Mean and deviation of the descriptors over the training split.

        Raises:
            DataError: The file is missing.
        """
        path = self.root / "motion_stats.npz"
        if not path.is_file():
            raise DataError(f"expected {path}, which is missing; run talkhead prepare again.")
        with np.load(path) as arrays:
            return MotionStats(arrays["mean"], arrays["std"])

    def motion_model(self) -> MotionModel:
        """The fitted motion model.

        Raises:
            DataError: The file is missing.
        """
        from talkhead.geometry.motion import MotionModel

        path = self.root / "motion_model.npz"
        if not path.is_file():
            raise DataError(f"expected {path}, which is missing; run talkhead prepare again.")
        return MotionModel.load(path)

    def shard(self, number: int) -> Shard:
        """An open shard of this process; the least recently used one is closed beyond a limit."""
        if self._pid != os.getpid():
            # Descriptors inherited over a fork belong to the parent, which may close them.
            self._shards, self._pid = OrderedDict(), os.getpid()
        if number not in self._shards:
            self._shards[number] = Shard(shard_folder(self.root, number))
            while len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)
        self._shards.move_to_end(number)
        return self._shards[number]

    def close(self) -> None:
        """Close every open shard of this process."""
        self._shards.clear()

    def _part(self, name: str, clip: str | ClipRow) -> NDArray[Any]:
        """Memory-mapped rows of one clip."""
        row = self.row(clip)
        step = ROWS_PER_FRAME[name]
        array = self.shard(row.shard).array(name)
        if row.stop * step > len(array):
            raise DataError(
                f"clip {row.id} ends at frame {row.stop} of shard {row.shard}, which holds "
                f"{len(array) // step}; run talkhead prepare again."
            )
        return array[row.start * step : row.stop * step]

    def _pick(
        self,
        name: str,
        clip: str | ClipRow,
        frames: Sequence[int] | NDArray[Any] | slice | None,
    ) -> NDArray[np.float32]:
        """Copy of some frames of an array with one row a frame."""
        rows = self._part(name, clip)
        if frames is None or isinstance(frames, slice):
            return np.array(rows[frames or slice(None)], np.float32)
        return np.array(rows[_inside(self.row(clip), frames)], np.float32)


def _inside(row: ClipRow, frames: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
    """Frame numbers as an array, refused when they leave the clip."""
    at = np.asarray(frames, np.int64).reshape(-1)
    if at.size and (at.min() < 0 or at.max() >= row.frames):
        raise DataError(
            f"clip {row.id}: expected frames 0 to {row.frames - 1}, got {at.min()} to {at.max()}."
        )
    return at


def verify(root: str | Path, *, deep: bool = False) -> list[str]:
    """Check a prepared set against its own records.

    Args:
        root: Folder of the set.
        deep: Decode every picture and hash every shard instead of two pictures a clip.

    Returns:
        One sentence for each problem found; empty for a sound set.
    """
    try:
        prepared = PreparedSet(root)
    except (DataError, SpecError) as error:
        return [str(error)]
    problems = _check_records(prepared)
    for row in prepared.all_rows:
        try:
            _check_clip(prepared, row, problems, deep=deep)
        except DataError as error:
            problems.append(str(error))
    if deep:
        for shard in sorted({row.shard for row in prepared.all_rows}):
            problems += _check_hashes(prepared, shard)
    # A truncated shard fails once for every clip in it, with one and the same sentence.
    return list(dict.fromkeys(problems))


def _check_records(prepared: PreparedSet) -> list[str]:
    """Counts, fingerprints, splits and motion files."""
    problems = []
    rows = prepared.all_rows
    found = {"clips": len(rows), "frames": sum(row.frames for row in rows)}
    for name, count in found.items():
        if prepared.meta.get(name) != count:
            problems.append(f"index: expected {prepared.meta.get(name)} {name}, got {count}.")
    if len({row.id for row in rows}) != len(rows):
        problems.append("index: clip ids are not unique.")
    speakers: dict[str, list[str]] = {
        split: sorted({row.speaker for row in rows if row.split == split}) for split in SPLITS
    }
    homes = Counter(speaker for speaker, _ in {(row.speaker, row.split) for row in rows})
    shared = [name for name, splits in homes.items() if splits > 1]
    if shared:
        problems.append(f"splits: speakers in more than one split: {', '.join(sorted(shared))}.")
    if split_fingerprint(speakers) != prepared.split_fingerprint:
        problems.append("splits: speakers differ from those prepared.json was written for.")
    for split in SPLITS:
        path = prepared.root / "splits" / f"{split}.txt"
        listed = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else None
        if listed != speakers[split]:
            problems.append(f"splits: {path.name} does not list the speakers of the index.")
    try:
        if data_fingerprint(prepared.root, rows) != prepared.data_fingerprint:
            problems.append("data_fingerprint differs: index or shards changed after preparing.")
        width = prepared.motion_stats().mean.shape[0]
        if width != prepared.motion_dim:
            problems.append(f"motion_stats: expected width {prepared.motion_dim}, got {width}.")
        prepared.motion_model()
    except DataError as error:
        problems.append(str(error))
    return problems


def _check_clip(prepared: PreparedSet, row: ClipRow, problems: list[str], *, deep: bool) -> None:
    """Arrays are whole and finite, pictures decode."""
    arrays = {
        "mel": prepared.mel(row),
        "landmarks": prepared.landmarks(row),
        "motion": prepared.motion(row),
    }
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            problems.append(f"clip {row.id}: {name} holds values that are not finite.")
    prepared.audio(row)
    prepared.frames(row, range(row.frames) if deep else [0, row.frames - 1])


def _check_hashes(prepared: PreparedSet, number: int) -> list[str]:
    """Arrays whose content no longer has the hash noted when the shard was written."""
    noted = shard_info(prepared.root, number)["sha256"]
    shard = prepared.shard(number)
    changed = [name for name in noted if shard.sha256(name) != noted[name]]
    return [f"shard {shard.folder}: {name} changed after it was written." for name in changed]
