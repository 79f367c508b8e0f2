"""Stage 61: the pyramid of syncers, which knows how keypoints move with speech."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from talkhead.batch import FeatureSource, SequenceBatch, Sequences
from talkhead.checkpoint import Source
from talkhead.errors import ConfigError
from talkhead.losses.sync import SampledInfoNCE
from talkhead.metrics.offset import MAX_SHIFT_FRAMES
from talkhead.metrics.rigid_offset import Edges
from talkhead.networks.rigid_syncer import RUN_FRAMES, LevelEmbeddings, windows_of
from talkhead.networks.syncer import SyncerPyramid
from talkhead.stages.base import build
from talkhead.stages.keypoint_features import (
    LEVEL,
    PICTURE_SIZE,
    SHIFT,
    augmented,
    keypoint_sources,
    read_run,
    resolve_detector,
)
from talkhead.stages.reference_offsets import ReferenceOffsets
from talkhead.stages.step_decay import step_decayed_adamw
from talkhead.stages.sync_pyramid import SyncPyramidStage


class SyncerStage(SyncPyramidStage):
    """Pull the keypoints of a window towards their own sound, away from false partners.

    One network a level of a pyramid, trained side by side. On the fine levels the false partners are
    other windows of the same run, which share speaker, voice and face, so only timing tells them apart;
    the coarsest levels, whose runs have few windows, take windows of other runs. Validation and test
    measure pair accuracy and the offset on every level, with the runs' own sound (``gt/…``) and, for the
    level of chance, with that of other clips (``shuffled/…``).

    Source: MS-Sync sections 3.1 and 4.1. Gaps, optimiser, length of runs and what is averaged in
        evaluation are ours (reference-facts 6.4); augmentation is that of the released code without its
        flip that never turns back.
    """

    consumes = ("keypoint_detector",)
    exports = ("syncer", "keypoint_detector")
    score_prefix = "av"

    def __init__(
        self,
        keypoint_detector: Source | None = None,
        run_frames: int = RUN_FRAMES,
        hard_negatives: int | None = 12,
        other_negatives: int | None = 48,
        levels_from_others: int = 1,
        min_gap_frames: int = 1,
        temperature: float = 1.0,
        learn_temperature: bool = False,
        smooth: bool = True,
        flip: bool = True,
        scale: float = 0.1,
        shift: float = SHIFT,
        level: float = LEVEL,
        max_shift: int = MAX_SHIFT_FRAMES,
        edges: Edges = "balanced",
        syncer: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        image_size: int = PICTURE_SIZE,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        lr_decay: float = 0.5,
        lr_decay_batches: int = 50_000,
    ) -> None:
        """Configure the stage.

        Args:
            keypoint_detector: Checkpoint of stage ``keypoint_reenactment``, or FOMM's published file
                (``….pth.tar``); null reads keypoints off the face mesh (:class:`MeshKeypoints`).
            run_frames: Video frames of a run, in training and in every score.
            hard_negatives: False partners of each window on the fine levels, out of its own run; null
                takes all.
            other_negatives: False partners on the coarsest levels, out of the batch's other runs.
            levels_from_others: How many of the coarsest levels those are.
            min_gap_frames: Windows closer than this are no hard negatives, in frames of the level; at
                least 1.
            temperature: Inverse scale of the cosines; 1 is the paper's bare cosine.
            learn_temperature: Learn the scale, from ``temperature`` on.
            smooth: Moving average over three frames before anything else.
            flip: See every other run of the training data in the mirror.
            scale: Share by which a training run is enlarged or made smaller at most.
            shift: Largest shift of a training run, in half pictures.
            level: Largest offset of a training run's energies, as a share of their range.
            max_shift: Largest offset searched on either side, in frames of the level; levels with fewer
                windows are searched as far as they go.
            edges: How that search treats the ends of a run: ``drop``, ``zeros`` or ``balanced``.
            syncer: Options of :class:`SyncerPyramid`.
            weights: Loss weights by level.
            image_size: Side of the pictures the detector works on, in pixels.
            lr: Learning rate (Adam).
            weight_decay: Decoupled weight decay.
            lr_decay: Factor applied every ``lr_decay_batches`` batches.
            lr_decay_batches: See ``lr_decay``.

        Raises:
            ConfigError: Runs too short for the levels or negatives.
        """
        super().__init__(weights, image_size)
        self.save_hyperparameters()
        self.run_frames = run_frames
        self.smooth, self.flip = smooth, flip
        self.scale, self.shift, self.level = (1.0 - scale, 1.0 + scale), shift, level
        self.lr, self.weight_decay = lr, weight_decay
        self.lr_decay, self.lr_decay_batches = lr_decay, lr_decay_batches
        self.keypoint_detector = resolve_detector(keypoint_detector)
        self.syncer = build(SyncerPyramid, syncer, "syncer")
        scales = self.syncer.scales
        windows = [windows_of(run_frames, number) for number in range(len(scales))]
        fine = len(scales) - levels_from_others
        if not 0 <= fine <= len(scales):
            raise ConfigError(
                f"levels_from_others: expected 0 to {len(scales)}, got {levels_from_others}."
            )
        for number, count in enumerate(windows):
            # The window in the middle has the fewest others at that distance.
            others = count - 2 * min_gap_frames + 1 if number < fine else count - 1
            wanted = (hard_negatives or 1) if number < fine else 1
            if others < wanted:
                raise ConfigError(
                    f"run_frames {run_frames}: expected {wanted} false partners of each of the {count} "
                    f"windows of {scales[number]} ms, got {max(0, others)}; use longer runs, fewer "
                    "levels, a smaller gap, fewer hard_negatives or more levels_from_others."
                )
        self.contrasts = nn.ModuleList(
            SampledInfoNCE(
                hard_negatives if number < fine else other_negatives,
                number >= fine,
                min_gap_frames,
                temperature,
                learn_temperature,
            )
            for number in range(len(scales))
        )
        self.offsets = ReferenceOffsets(
            scales, [min(max_shift, count - 1) for count in windows], edges
        )

    def needs(self) -> Sequences:
        """Whole runs of keypoints and filter-bank energies."""
        return Sequences(self.run_frames, whole=True)

    def feature_sources(self) -> dict[str, FeatureSource]:
        """Keypoints, those of mirrored pictures, and energies of the sound."""
        return keypoint_sources(self.keypoint_detector, self.video_spec.size)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with step decay (by batches)."""
        return step_decayed_adamw(self, [self.syncer, self.contrasts])

    def embedded(self, batch: SequenceBatch) -> list[LevelEmbeddings]:
        """Embeddings of every level; of augmented runs while training."""
        if self.training:
            run = augmented(
                batch, smooth=self.smooth, flip=self.flip, scale=self.scale, shift=self.shift,
                level=self.level,
            )  # fmt: skip
        else:
            run = read_run(batch, smooth=self.smooth)
        levels: list[LevelEmbeddings] = self.syncer(run.keypoints, run.audio)
        return levels

    def contrast(self, levels: list[LevelEmbeddings]) -> dict[str, Tensor]:
        """The contrastive term of every level."""
        return {
            f"level_{scale}ms": contrast(audio, points)
            for scale, contrast, (points, audio) in zip(
                self.syncer.scales, self.contrasts, levels, strict=True
            )
        }
