"""Scores of keypoint motion: synchrony on every level, rigid synchrony, mouth, and drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.geometry.keypoints import unpack
from talkhead.geometry.points68 import ibug_points
from talkhead.metrics.lmd import frontal_lmd, m_lmd
from talkhead.metrics.offset import MAX_SHIFT_FRAMES
from talkhead.metrics.rigid_offset import Edges, rigid_offsets
from talkhead.networks.mesh_keypoints import MeshKeypoints
from talkhead.networks.rigid_syncer import RUN_FRAMES, RigidSyncer, shortest_run
from talkhead.networks.syncer import SyncerPyramid
from talkhead.networks.window_syncer import STEPS_PER_FRAME
from talkhead.specs import frames_to_samples
from talkhead.stages.motion_evaluation import ClipSample, row_means

SYNCER = "syncer"
"""Whose scores are those of the networks that also train the generator."""
WARPED = "warped"
"""Space of landmarks that follow the keypoints, not tracked ones."""
DRIFT_FRAMES = 40
"""Length of a stretch of :class:`DriftScores`, that of a training roll-out."""
_PX256 = 128.0
"""Pixels at 256 for one unit of a keypoint's coordinates."""


class RunData:
    """Landmarks and sound of runs of real frames, out of a prepared set."""

    def __init__(self, prepared: Any) -> None:
        """Keep the set (``datamodules.shards.PreparedSet``)."""
        self._prepared = prepared

    def landmarks(self, sample: ClipSample, frames: int) -> Tensor:
        """``(n, 478, 3)`` in crop units."""
        run = slice(sample.start, sample.start + frames)
        return torch.from_numpy(self._prepared.landmarks(sample.clip, run))

    def wave(self, sample: ClipSample, frames: int) -> Tensor:
        """Samples ``(S,)``, of any scale."""
        first, count = frames_to_samples(sample.start), frames_to_samples(frames)
        return torch.from_numpy(self._prepared.audio(sample.clip)[first : first + count]).float()


def sync_scores_of(
    levels: Sequence[tuple[Tensor, Tensor]],
    scales: Sequence[int],
    *,
    max_shift: int = MAX_SHIFT_FRAMES,
    edges: Edges = "balanced",
) -> dict[str, float]:
    """Offset, confidence and mean cosine of one run on every level.

    Args:
        levels: Embeddings of motion and of speech, each ``(1, N, D)``, finest level first.
        scales: Milliseconds of a window of each level.
        max_shift: Largest offset searched, in frames of the level; a level with fewer windows is
            searched as far as it goes.
        edges: See :func:`talkhead.metrics.rigid_offset.rigid_offsets`.

    Returns:
        ``offset_<ms>ms`` (absolute, in frames of the level), ``confidence_…`` (best minus median score
        over the offsets) and ``cosine_…`` (mean at offset 0, what the loss is made of). A level of two
        windows or fewer has the cosine alone.
    """
    scores = {}
    for scale, (points, audio) in zip(scales, levels, strict=True):
        cosine = F.cosine_similarity(points.double(), audio.double(), dim=-1)
        scores[f"cosine_{scale}ms"] = float(cosine.mean())
        reach = min(max_shift, points.shape[1] - 1)
        if reach > 1:
            found = rigid_offsets([(points, audio)], max_shift=reach, edges=edges)
            scores[f"offset_{scale}ms"] = float(found.offset.abs())
            scores[f"confidence_{scale}ms"] = float(found.confidence)
    return scores


class SyncScores:
    """How well the pyramid of syncers finds the speech in the motion, on every level.

    Source: MS-Sync figure 6, which plots the confidence on validation clips.
    """

    def __init__(self, syncer: SyncerPyramid) -> None:
        """Keep the networks."""
        self._syncer = syncer

    @torch.no_grad()
    def __call__(self, sample: ClipSample) -> Mapping[str, float]:
        """Scores of one run, see :func:`sync_scores_of`; none where a level has no window."""
        if sample.generated.shape[1] < shortest_run(len(self._syncer.scales), 0):
            return {}
        steps = sample.audio[None].unflatten(-1, (STEPS_PER_FRAME, -1)).flatten(1, 2)
        frames = min(sample.generated.shape[1], len(sample.audio))
        levels = self._syncer(sample.generated[:1, :frames], steps[:, : STEPS_PER_FRAME * frames])
        found = sync_scores_of(levels, self._syncer.scales)
        return {f"av_{name}[{SYNCER}]": value for name, value in found.items()}


class LandmarkScores:
    """The motion carried over to the real face's landmarks: rigid synchrony and the mouth.

    The landmarks of the first real frame are moved as the keypoints move
    (:meth:`~talkhead.networks.mesh_keypoints.MeshKeypoints.warp_landmarks`). The rigid syncer judges the
    31 points of brows, eyes and nose, none of which is a keypoint; its networks saw neither the keypoints
    nor the generator. The real keypoints go through the same warp (``gt/``), so that its cost shows.

    Source: MS-Sync section 4.3 (test syncers on other points than those trained on) and Table 1 (LMD).
        There both are read off tracked videos, which ``talkhead evaluate`` does.
    """

    def __init__(
        self,
        mesh: MeshKeypoints,
        data: RunData,
        rigid_syncer: RigidSyncer | None = None,
    ) -> None:
        """Keep the warp, where landmarks and sound come from, and the judge."""
        self._mesh, self._data, self._judge = mesh, data, rigid_syncer

    @torch.no_grad()
    def __call__(self, sample: ClipSample) -> Mapping[str, float]:
        """Scores of one run; of its halves and of the mean face none."""
        if sample.variant in ("floor", "mean"):
            return {}
        frames = min(sample.generated.shape[1], len(sample.audio))
        motion = sample.generated[0, :frames]
        real = self._data.landmarks(sample, frames).to(motion)
        # Another clip's motion is laid on this face: it begins where that face began.
        first = motion[0] if sample.variant == "shuffled" else sample.real[0]
        moved = ibug_points(self._mesh.warp_landmarks(real[0], first, motion))
        target = ibug_points(real)
        scores = {
            f"lmd_mouth[{WARPED}]": float(m_lmd(moved, target)),
            f"lmd_frontal[{WARPED}]": float(frontal_lmd(moved, target)),
        }
        if self._judge is not None and frames >= RUN_FRAMES:
            scores |= self._rigid(moved, sample, frames)
        return scores

    def _rigid(self, moved: Tensor, sample: ClipSample, frames: int) -> dict[str, float]:
        """Offset and confidence of every level, means over the run's consecutive stretches."""
        assert self._judge is not None  # asked for before
        wave = self._data.wave(sample, frames)
        levels = self._judge.embed_clip(moved, wave)
        runs = [
            sync_scores_of([(p[i : i + 1], a[i : i + 1]) for p, a in levels], self._judge.scales,
                           edges="drop")
            for i in range(len(levels[0][0]))
        ]  # fmt: skip
        return {
            f"rigid_{name}[rigid_syncer]": value
            for name, value in row_means(runs).items()
            if not name.startswith("cosine")
        }


class DriftScores:
    """How far the face strays, stretch by stretch of 40 frames.

    ``drift_<a>[keypoints]`` is the RMS distance of the ten points from their mean place in the real run
    over the frames ``a .. a + 39``, in pixels at 256. Read it beside ``gt/``: motion that neither dies
    down nor runs away stays as far as the real face does, in the last stretch as in the first.

    Source: ours; MS-Sync section 5 names drift beyond the training length and shows pictures of it.
    """

    def __call__(self, sample: ClipSample) -> Mapping[str, float]:
        """Scores of one run of the model or the real motion."""
        if sample.variant not in ("model", "gt"):
            return {}
        points = unpack(sample.generated.double()).points
        home = unpack(sample.real.double()).points.mean(0)
        squares = (points - home).square().sum(-1).mean((0, 2))
        starts = range(0, len(squares) - DRIFT_FRAMES + 1, DRIFT_FRAMES)
        return {
            f"drift_{start}[keypoints]": _PX256
            * float(squares[start : start + DRIFT_FRAMES].mean().sqrt())
            for start in starts
        }
