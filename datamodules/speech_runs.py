"""Runs of pictures with windows of cached speech features, for lip-sync experts and what they train."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from datamodules.datasets import SampledDataset, draw_apart
from datamodules.features import FeatureStore
from datamodules.shards import ClipRow, PreparedSet
from talkhead.audio.speech_windows import STEPS_PER_FRAME, run_frame, speech_windows
from talkhead.batch import SPEECH, SpeechRunBatch, SpeechRuns
from talkhead.errors import ConfigError
from talkhead.geometry.points68 import ibug_points


class SpeechRunDataset(SampledDataset[SpeechRunBatch]):
    """``count`` runs of consecutive frames of one clip, each with its window of speech.

    First frames lie at least ``min_gap_frames`` apart; overlapping runs are allowed. Clips too short for
    that are left out, with a count in the log: sound of another clip would be told apart by more than
    lips.
    """

    def __init__(
        self,
        prepared: PreparedSet,
        rows: Sequence[ClipRow],
        need: SpeechRuns,
        store: FeatureStore,
        *,
        seed: int = 0,
        resample: bool = True,
        items: int | None = None,
    ) -> None:
        """One sample for each ``count`` runs of video unless ``items`` says otherwise.

        Raises:
            ConfigError: The stage has no source of speech features.
            DataError: No clip is long enough.
        """
        if SPEECH not in store.dims:
            raise ConfigError(
                f"expected the feature {SPEECH} for runs with speech, got "
                f"{', '.join(store.dims) or 'none'}; name it in the stage's feature_sources()."
            )
        span = (need.count - 1) * max(need.min_gap_frames, 1) + need.frames
        # Each clip counts as a video of its own.
        alone = [dataclasses.replace(row, video=row.id) for row in rows]
        super().__init__(prepared, alone, seed, resample, items, need.count * need.frames, span)
        self.need, self.store = need, store

    def __getitem__(self, item: int) -> SpeechRunBatch:
        """One sample: runs ``(N, T, 3, H, W)``, their points, windows of speech and first frames."""
        row, rng = self._draw(item)
        need = self.need
        starts = draw_apart(
            rng, row.frames - need.frames + 1, need.count, max(need.min_gap_frames, 1)
        )
        runs = starts[:, None] + np.arange(need.frames)
        shown, where = np.unique(runs, return_inverse=True)  # overlapping runs share pictures
        place = torch.from_numpy(where.reshape(runs.shape))
        points = torch.from_numpy(ibug_points(self.prepared.landmarks(row, shown))[..., :2])
        whole = self.store.view(SPEECH, row).unflatten(1, (STEPS_PER_FRAME, -1)).flatten(0, 1)
        first = torch.from_numpy(starts)
        own = run_frame(first, need.frames, need.align)
        every = torch.from_numpy(runs if need.every_frame else runs[:, :0])
        windows = speech_windows(
            whole, torch.cat([own, every.flatten()]), length=need.window, align=need.align
        ).float()
        return SpeechRunBatch(
            frames=self.prepared.frames(row, shown, need.size)[place],
            points=points[place],
            speech=windows[: need.count],
            frame_speech=windows[need.count :].unflatten(0, tuple(every.shape)),
            frame_index=first,
            clip=[row.id],
        )
