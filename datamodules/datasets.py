"""One small dataset for each need of a stage.

Item numbers come from :mod:`datamodules.sampling`. In training, item ``g`` is drawn from (seed, g):
another sample in every epoch, the same one in every run. In validation and test, item ``i`` is a
fixed sample that depends neither on the run's seed nor on the epoch, so that scores compare.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.features import FeatureStore
from datamodules.sampling import item_below, item_rng, spread
from datamodules.shards import ClipRow, PreparedSet
from talkhead.audio.filter_bank import log_filter_bank
from talkhead.audio.mfcc import mfcc_window_count, mfcc_windows
from talkhead.batch import (
    FrameBatch,
    FramePairs,
    LandmarkBatch,
    LandmarkRuns,
    SequenceBatch,
    Sequences,
    SpeechRunBatch,
    SyncBatch,
    SyncWindows,
    WindowBatch,
    Windows,
)
from talkhead.errors import DataError
from talkhead.geometry.points68 import ibug_points
from talkhead.specs import FPS, N_LANDMARKS, AudioSpec

log = logging.getLogger(__name__)

B = TypeVar("B", FrameBatch, WindowBatch, SyncBatch, LandmarkBatch, SpeechRunBatch)
S = TypeVar("S")
EVAL_SEED = 0
"""Evaluation samples are the same whatever the seed of the run."""


def collate(items: list[B]) -> B:
    """Stack samples (a batch dataclass each, without the batch axis) into one batch."""
    fields = [f.name for f in dataclasses.fields(items[0])]
    columns: dict[str, Any] = {name: [getattr(item, name) for item in items] for name in fields}
    for name, values in columns.items():
        if isinstance(values[0], Tensor):
            columns[name] = torch.stack(values)
        else:
            columns[name] = [clip for item in values for clip in item]
    return type(items[0])(**columns)


class VideoPool:
    """All frames of one video, over its clips in index order.

    Attributes:
        rows: The clips.
        frames: Number of frames of all clips.
    """

    def __init__(self, rows: Sequence[ClipRow]) -> None:
        """Note where each clip begins on the common axis."""
        self.rows = list(rows)
        self._ends = np.cumsum([row.frames for row in self.rows])
        self.frames = int(self._ends[-1])

    def first(self, row: ClipRow) -> int:
        """Place of a clip's first frame on the common axis."""
        at = self.rows.index(row)
        return int(self._ends[at]) - row.frames

    def locate(self, places: NDArray[np.int64]) -> list[tuple[ClipRow, int]]:
        """Clip and frame number of places on the common axis."""
        owners = np.searchsorted(self._ends, places, side="right")
        rows = [self.rows[int(owner)] for owner in owners]
        starts = [int(self._ends[int(owner)]) - self.rows[int(owner)].frames for owner in owners]
        return [(r, int(p) - s) for r, p, s in zip(rows, places, starts, strict=True)]


def _pools(rows: Sequence[ClipRow]) -> dict[str, VideoPool]:
    """Video id -> its frames."""
    by_video: dict[str, list[ClipRow]] = {}
    for row in rows:
        by_video.setdefault(row.video, []).append(row)
    return {video: VideoPool(members) for video, members in by_video.items()}


def draw_apart(
    rng: np.random.Generator, frames: int, count: int, min_gap: int
) -> NDArray[np.int64]:
    """``count`` numbers below ``frames``, ascending, neighbours at least ``min_gap`` apart.

    Every such set is equally likely: the gaps are taken out before drawing and put back after.
    ``frames`` must be at least ``(count - 1) * max(min_gap, 1) + 1``.
    """
    spare = (max(min_gap, 1) - 1) * np.arange(count, dtype=np.int64)
    free = frames - (int(spare[-1]) if count else 0)
    drawn = np.sort(rng.choice(free, size=count, replace=False)).astype(np.int64)
    return drawn + spare


def _others(
    rng: np.random.Generator, pool: VideoPool, taken: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """``count`` places of the video that are not taken; repeated where too few are left."""
    free = np.setdiff1d(np.arange(pool.frames), taken)
    if not free.size:
        free = taken
    chosen: NDArray[np.int64] = rng.choice(free, size=count, replace=free.size < count)
    return chosen


def _arrange(slots: list[S], items: int | None, seed: int, resample: bool) -> list[S]:
    """Slots in the order item numbers run through them.

    In training mixed once, so that an epoch shorter than the list still meets many clips and the
    following epochs meet the others; in evaluation in their own order, thinned out evenly.
    """
    if not resample:
        return [slots[i] for i in spread(len(slots), items)]
    return [slots[i] for i in np.random.default_rng(seed).permutation(len(slots))]


def _long_enough(
    prepared: PreparedSet, rows: Sequence[ClipRow], minimum: int, frames: Callable[[ClipRow], int]
) -> list[ClipRow]:
    """Clips whose video has the frames a sample needs; the others are counted in the log."""
    usable = [row for row in rows if frames(row) >= minimum]
    if len(usable) < len(rows):
        log.warning(
            "%d of %d clips are left out: their video has fewer than the %d frames a sample needs",
            len(rows) - len(usable),
            len(rows),
            minimum,
        )
    if not usable:
        raise DataError(
            f"expected videos of at least {minimum} frames, got none among {len(rows)} clips "
            f"of {prepared.root}; prepare longer clips or ask for fewer frames."
        )
    return usable


class SampledDataset(Dataset[B]):
    """What the datasets of pictures share: which clip an item belongs to, and its generator.

    Args:
        prepared: The set.
        rows: Clips of one split.
        seed: Of the training draws.
        resample: Draw another sample in every epoch (training).
        items: Samples in an epoch, at most so many in evaluation; None: one for each
            ``frames_per_item`` frames of the data.
        frames_per_item: See above.
        minimum: Frames a video must have; others are left out, with a count in the log.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        rows: Sequence[ClipRow],
        seed: int,
        resample: bool,
        items: int | None,
        frames_per_item: int,
        minimum: int,
    ) -> None:
        """Lay out the slots, one or more for each clip."""
        self.prepared = prepared
        self.pools = _pools(rows)
        usable = _long_enough(prepared, rows, minimum, lambda row: self.pools[row.video].frames)
        slots = [r for r in usable for _ in range(max(1, r.frames // frames_per_item))]
        self.slots = _arrange(slots, items, seed, resample)
        self.seed = seed if resample else EVAL_SEED
        self.length = len(self.slots) if items is None or not resample else items

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self.length

    def _draw(self, item: int) -> tuple[ClipRow, np.random.Generator]:
        """Clip and generator of an item number."""
        return self.slots[item % len(self.slots)], item_rng(self.seed, item)


class FramePairDataset(SampledDataset[FrameBatch]):
    """Identity frames and one held-out target frame of the same video.

    The target is any frame of the item's clip; identity frames come from all clips of the video and
    never show the target, except in a video of one frame. With fewer other frames than wanted, some
    repeat.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        rows: Sequence[ClipRow],
        need: FramePairs,
        *,
        seed: int = 0,
        resample: bool = True,
        items: int | None = None,
    ) -> None:
        """One sample for each second of video unless ``items`` says otherwise."""
        super().__init__(prepared, rows, seed, resample, items, FPS, 2)
        self.need = need

    def __getitem__(self, item: int) -> FrameBatch:
        """One sample: identity ``(K, 3, H, W)``, target ``(3, H, W)``, landmarks and motion, extras."""
        row, rng = self._draw(item)
        pool = self.pools[row.video]
        target = int(rng.integers(row.frames))
        taken = np.asarray([pool.first(row) + target])
        identity = pool.locate(_others(rng, pool, taken, self.need.identity_frames))
        count, size = self.need.extra_frames, self.need.size
        extra = pool.locate(np.sort(rng.choice(pool.frames, count, replace=pool.frames < count)))
        moved = [np.asarray(self.prepared.motion(r, f)) for r, f in _by_clip(extra)]
        return FrameBatch(
            identity=read_frames(self.prepared, identity, size),
            target=self.prepared.frames(row, [target], size)[0],
            landmarks=torch.from_numpy(self.prepared.landmarks(row, [target])[0]),
            motion=torch.from_numpy(self.prepared.motion(row, [target])[0]),
            extra=read_frames(self.prepared, extra, size),
            extra_motion=torch.from_numpy(
                np.concatenate([np.zeros((0, self.prepared.motion_dim), np.float32), *moved])
            ),
            clip=[row.id],
            identity_landmarks=self._landmarks(identity if self.need.identity_landmarks else []),
        )

    def _landmarks(self, places: Sequence[tuple[ClipRow, int]]) -> Tensor:
        """Landmarks ``(n, 478, 3)`` of single frames."""
        found = [self.prepared.landmarks(row, [frame]) for row, frame in places]
        return torch.from_numpy(np.concatenate([np.zeros((0, N_LANDMARKS, 3), np.float32), *found]))


class WindowDataset(SampledDataset[WindowBatch]):
    """``count`` aligned (frame, mel window) pairs of one video.

    All come from the item's clip. In place of a clip too short for ``count`` frames with the wanted
    gap, the frames come from all clips of its video (``frame_index`` then counts within each
    frame's own clip). Videos too short for that are left out, with a count in the log.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        rows: Sequence[ClipRow],
        need: Windows,
        *,
        seed: int = 0,
        resample: bool = True,
        items: int | None = None,
    ) -> None:
        """One sample for each ``count`` frames of video unless ``items`` says otherwise."""
        self.span = (need.count - 1) * max(need.min_gap_frames, 1) + 1
        super().__init__(prepared, rows, seed, resample, items, need.count, self.span)
        self.need = need

    def __getitem__(self, item: int) -> WindowBatch:
        """One sample: frames ``(N, 3, H, W)``, mel ``(N, 1, F, M)`` and the rest of the row."""
        row, rng = self._draw(item)
        pool, need = self.pools[row.video], self.need
        whole = row.frames < self.span
        begin, length = (0, pool.frames) if whole else (pool.first(row), row.frames)
        places = begin + draw_apart(rng, length, need.count, need.min_gap_frames)
        identity = pool.locate(_others(rng, pool, places, need.identity_frames))
        at = pool.locate(places)
        mel = [self.prepared.mel_windows(r, f) for r, f in _by_clip(at)]
        landmarks = [self.prepared.landmarks(r, f) for r, f in _by_clip(at)]
        return WindowBatch(
            frames=read_frames(self.prepared, at, need.size),
            mel=torch.cat(mel),
            frame_index=torch.tensor([frame for _, frame in at]),
            identity=read_frames(self.prepared, identity, need.size),
            landmarks=torch.from_numpy(np.concatenate(landmarks)),
            clip=[row.id],
        )


class SyncWindowDataset(SampledDataset[SyncBatch]):
    """``count`` runs of five consecutive frames of one clip, each with the sound that starts with it.

    Starts lie at least ``min_gap_frames`` apart; overlapping runs are allowed. Clips too short for that
    are left out, with a count in the log: sound of another clip would be told apart by more than lips.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        rows: Sequence[ClipRow],
        need: SyncWindows,
        *,
        seed: int = 0,
        resample: bool = True,
        items: int | None = None,
    ) -> None:
        """One sample for each ``count`` frames of video unless ``items`` says otherwise."""
        self.run = AudioSpec().window_frames
        span = (need.count - 1) * max(need.min_gap_frames, 1) + 1
        # Each clip counts as a video of its own.
        alone = [dataclasses.replace(row, video=row.id) for row in rows]
        super().__init__(prepared, alone, seed, resample, items, need.count, span + self.run)
        self.need = need

    def __getitem__(self, item: int) -> SyncBatch:
        """One sample: frames ``(N, 5, 3, H, W)``, cepstra ``(N, 1, 13, 20)`` and their first frames."""
        row, rng = self._draw(item)
        need, count = self.need, mfcc_window_count(row.frames)
        starts = draw_apart(rng, count, need.count, need.min_gap_frames)
        runs = starts[:, None] + np.arange(self.run)
        shown, where = np.unique(runs, return_inverse=True)  # overlapping runs share pictures
        pictures = self.prepared.frames(row, shown, need.size)
        first = torch.from_numpy(starts)
        return SyncBatch(
            frames=pictures[torch.from_numpy(where.reshape(runs.shape))],
            mfcc=mfcc_windows(self.prepared.mfcc(row), first),
            frame_index=first,
            clip=[row.id],
        )


class LandmarkRunDataset(Dataset[LandmarkBatch]):
    """Runs of 68 points and the log filter-bank energies of their own sound.

    In training, item ``g`` starts anywhere in its clip. In evaluation every clip is cut into consecutive
    whole runs; what is left at its end is not used. Clips shorter than a run are left out, with a count
    in the log. Sound is cut before its energies are computed, so nothing around a run leaks into it.

    Args:
        prepared: The set.
        rows: Clips of one split.
        need: Length in frames.
        seed: Of the training draws.
        resample: Training.
        items: Samples in an epoch; in evaluation, at most so many. None: all whole runs.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        rows: Sequence[ClipRow],
        need: LandmarkRuns,
        *,
        seed: int = 0,
        resample: bool = True,
        items: int | None = None,
    ) -> None:
        """Lay out the slots: one (clip, first frame) for each whole run."""
        self.prepared, self.need = prepared, need
        self.seed, self.resample = seed, resample
        usable = _long_enough(prepared, rows, need.length, lambda row: row.frames)
        runs = [
            (row, start)
            for row in usable
            for start in range(0, row.frames - need.length + 1, need.length)
        ]
        self.slots = _arrange(runs, items, seed, resample)
        self.length = len(self.slots) if items is None or not resample else items

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self.length

    def __getitem__(self, item: int) -> LandmarkBatch:
        """One sample: points ``(T, 68, 3)``, energies ``(4 T, 26)`` and where they begin."""
        row, start = self.slots[item % len(self.slots)]
        if self.resample:
            start = item_below(row.frames - self.need.length + 1, self.seed, item)
        piece = dataclasses.replace(row, start=row.start + start, frames=self.need.length)
        wave = torch.from_numpy(self.prepared.audio(piece)).float()
        return LandmarkBatch(
            points=torch.from_numpy(ibug_points(self.prepared.landmarks(piece))),
            filter_bank=log_filter_bank(wave),
            start=torch.tensor(start),
            clip=[row.id],
        )


def _by_clip(at: Sequence[tuple[ClipRow, int]]) -> list[tuple[ClipRow, list[int]]]:
    """Neighbouring frames of the same clip together, order kept."""
    groups: list[tuple[ClipRow, list[int]]] = []
    for row, frame in at:
        if groups and groups[-1][0] is row:
            groups[-1][1].append(frame)
        else:
            groups.append((row, [frame]))
    return groups


def read_frames(prepared: PreparedSet, at: Sequence[tuple[ClipRow, int]], size: int) -> Tensor:
    """Pictures of frames that may lie in different clips, ``(n, 3, size, size)`` uint8."""
    if not at:
        return torch.empty((0, 3, size, size), dtype=torch.uint8)
    return torch.cat([prepared.frames(row, frames, size) for row, frames in _by_clip(at)])


class SequenceDataset(Dataset[SequenceBatch]):
    """Runs of cached features and motion descriptors.

    In training, item ``g`` starts anywhere in its clip. In evaluation every clip is cut into
    consecutive runs (``stride`` frames apart, the last one padded), so whole clips can be put
    together again from ``clip`` and ``start``. Padding is zero and ``valid`` is False on it. Where the
    need is of ``whole`` runs there is no padding: shorter clips and what is left over at the end of a
    clip are not used.

    Args:
        prepared: The set.
        rows: Clips of one split.
        need: Length and stride in frames.
        store: Cached features; all of them are put into the batch.
        seed: Of the training draws.
        resample: Training.
        items: Samples in an epoch; in evaluation, at most so many. None: one for each ``length``
            frames of data, or all runs.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        rows: Sequence[ClipRow],
        need: Sequences,
        store: FeatureStore,
        *,
        seed: int = 0,
        resample: bool = True,
        items: int | None = None,
    ) -> None:
        """Lay out the slots: (clip, start) in evaluation, clips in training."""
        if not rows:
            raise DataError(f"expected clips to cut runs from, got none in {prepared.root}.")
        self.prepared, self.need, self.store = prepared, need, store
        self.seed, self.resample = seed, resample
        if need.whole:
            rows = _long_enough(prepared, rows, need.length, lambda row: row.frames)
        runs = [(row, start) for row in rows for start in _starts(row.frames, need)]
        self.slots = _arrange(runs, items, seed, resample)
        self.length = len(self.slots) if items is None or not resample else items

    def __len__(self) -> int:
        """Samples in an epoch."""
        return self.length

    def __getitem__(self, item: int) -> SequenceBatch:
        """One sample, with a batch axis of 1."""
        return self.__getitems__([item])

    def __getitems__(self, items: list[int]) -> SequenceBatch:
        """A whole batch in one go, each run copied once into its place."""
        count, length = len(items), self.need.length
        runs = [self._run(item) for item in items]
        features = {
            name: torch.empty((count, length, dim)) for name, dim in self.store.dims.items()
        }
        motion = torch.empty((count, length, self.prepared.motion_dim))
        valid = torch.ones((count, length), dtype=torch.bool)
        for b, (row, start) in enumerate(runs):
            stop = min(start + length, row.frames)
            n = stop - start
            for name, out in features.items():
                out[b, :n] = self.store.view(name, row, start, stop)
            motion[b, :n] = torch.from_numpy(self.prepared.motion(row, slice(start, stop)))
            if n < length:
                for out in (*features.values(), motion, valid):
                    out[b, n:] = 0
        return SequenceBatch(
            features=features,
            motion=motion,
            valid=valid,
            start=torch.tensor([start for _, start in runs]),
            clip=[row.id for row, _ in runs],
        )

    def _run(self, item: int) -> tuple[ClipRow, int]:
        """Clip and first frame of an item number."""
        row, start = self.slots[item % len(self.slots)]
        if self.resample:
            start = item_below(max(row.frames - self.need.length, 0) + 1, self.seed, item)
        return row, start


def _starts(frames: int, need: Sequences) -> range:
    """First frames of consecutive runs; the last one reaches the end of the clip, unless all are whole."""
    stride = need.stride or need.length
    if need.whole:
        return range(0, frames - need.length + 1, stride)
    return range(0, max(frames - need.length, 0) + stride, stride)


def keep(batch: SequenceBatch) -> SequenceBatch:
    """Collate function for :meth:`SequenceDataset.__getitems__`, whose result is the batch."""
    return batch
