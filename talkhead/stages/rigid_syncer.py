"""Stage 51: the rigid syncer, the judge of how well head motion and speech agree."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from talkhead.batch import LandmarkBatch, LandmarkRuns
from talkhead.errors import ConfigError
from talkhead.losses.contrastive import InfoNCE, Mining, triplet_loss
from talkhead.metrics.offset import MAX_SHIFT_FRAMES
from talkhead.metrics.rigid_offset import Edges
from talkhead.networks.rigid_syncer import (
    RUN_FRAMES,
    LevelEmbeddings,
    RigidSyncer,
    shortest_run,
    windows_of,
)
from talkhead.stages.base import build
from talkhead.stages.reference_offsets import ReferenceOffsets
from talkhead.stages.step_decay import step_decayed_adamw
from talkhead.stages.sync_pyramid import SyncPyramidStage


class RigidSyncerStage(SyncPyramidStage):
    """Pull the motion of brows, nose and eyes towards its own sound, away from the rest of the run.

    One network a level of a pyramid, trained side by side. The false partners share speaker, voice and
    face, so only timing tells them apart. Validation and test cut whole clips into runs and measure the
    offset on every level, with the runs' own sound (``gt/…``) and, for the level of chance, with that of
    other clips (``shuffled/…``).

    Source: MS-Sync section 4.3 (triplet loss, three scales, pairs of one sequence, runs of 80 frames,
        offsets to +-15). Open there and set here: networks, margin, mining, optimiser.
    """

    exports = ("rigid_syncer",)
    score_prefix = "rigid"

    def __init__(
        self,
        run_frames: int = RUN_FRAMES,
        loss: Literal["triplet", "info_nce"] = "triplet",
        margin: float = 0.2,
        mining: Mining = "all",
        min_gap_frames: int = 0,
        max_gap_frames: int | None = None,
        temperature: bool = True,
        mirror: bool = True,
        max_shift: int = MAX_SHIFT_FRAMES,
        edges: Edges = "drop",
        rigid_syncer: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        lr_decay: float = 0.5,
        lr_decay_batches: int = 50_000,
    ) -> None:
        """Configure the stage.

        Args:
            run_frames: Video frames of a run, in training and in every score.
            loss: The paper's ``triplet`` loss, or ``info_nce`` as its training syncers have.
            margin: Of the triplet loss, in units of distances of unit vectors (0 to 2).
            mining: Which false partners count in the triplet loss: ``all``, ``hard`` or ``semi_hard``.
            min_gap_frames: Windows closer than this are no false partners, in frames of the level.
            max_gap_frames: Windows farther than this are none either (triplet only); null keeps all.
            temperature: Learn the scale of the cosines (InfoNCE); false is the bare cosine.
            mirror: See every other run of the training data in the mirror.
            max_shift: Largest offset searched on either side, in frames of the level.
            edges: How that search treats the ends of a run: ``drop``, ``zeros`` or ``balanced``.
            rigid_syncer: Options of :class:`RigidSyncer`.
            weights: Loss weights by level.
            lr: Learning rate (Adam).
            weight_decay: Decoupled weight decay.
            lr_decay: Factor applied every ``lr_decay_batches`` batches.
            lr_decay_batches: See ``lr_decay``.

        Raises:
            ConfigError: Runs too short for the levels and offsets, or gaps that InfoNCE does not know.
        """
        super().__init__(weights)
        self.save_hyperparameters()
        self.run_frames = run_frames
        self.loss_kind, self.margin = loss, margin
        self.mining: Mining = mining
        self.min_gap_frames, self.max_gap_frames = min_gap_frames, max_gap_frames
        self.mirror = mirror
        self.lr, self.weight_decay = lr, weight_decay
        self.lr_decay, self.lr_decay_batches = lr_decay, lr_decay_batches
        self.rigid_syncer = build(RigidSyncer, rigid_syncer, "rigid_syncer")
        levels = len(self.rigid_syncer.scales)
        fewest = windows_of(run_frames, levels - 1)
        if fewest <= max_shift:
            raise ConfigError(
                f"run_frames {run_frames}: expected more than max_shift = {max_shift} windows on each of "
                f"{levels} levels, got {fewest} on the coarsest; use runs of "
                f"{shortest_run(levels, max_shift)} frames or more, fewer levels or a smaller max_shift."
            )
        if loss == "info_nce" and max_gap_frames is not None:
            raise ConfigError("max_gap_frames: info_nce takes all windows; set it to null.")
        self.info_nce = nn.ModuleList(
            InfoNCE(learn_temperature=temperature)
            for _ in range(levels if loss == "info_nce" else 0)
        )
        self.offsets = ReferenceOffsets(self.rigid_syncer.scales, max_shift, edges)

    def needs(self) -> LandmarkRuns:
        """Runs of landmarks with their sound."""
        return LandmarkRuns(self.run_frames)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with step decay (by batches)."""
        return step_decayed_adamw(self, [self.rigid_syncer, self.info_nce])

    def embedded(self, batch: LandmarkBatch) -> list[LevelEmbeddings]:
        """Embeddings of every level; while training, of every other run in the mirror."""
        mirrored = None
        if self.mirror and self.training:
            mirrored = torch.rand(len(batch.points)).to(self.device) < 0.5
        levels: list[LevelEmbeddings] = self.rigid_syncer(batch.points, batch.filter_bank, mirrored)
        return levels

    def contrast(self, levels: list[LevelEmbeddings]) -> dict[str, Tensor]:
        """The contrastive term of every level."""
        terms = {}
        for number, (points, audio) in enumerate(levels):
            index = torch.arange(audio.shape[1], device=audio.device).expand(audio.shape[:2])
            if self.loss_kind == "triplet":
                term = triplet_loss(
                    audio, points, index, margin=self.margin, mining=self.mining,
                    min_gap=self.min_gap_frames, max_gap=self.max_gap_frames,
                )  # fmt: skip
            else:
                term = self.info_nce[number](audio, points, index, min_gap=self.min_gap_frames)
            terms[f"level_{self.rigid_syncer.scales[number]}ms"] = term
        return terms
