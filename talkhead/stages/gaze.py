"""Stage 52: a network that reads gaze and eye opening from pictures, for the gaze loss and as a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanAbsoluteError, R2Score

from talkhead.augment import pixel_noise
from talkhead.batch import FrameBatch, FramePairs, to_float
from talkhead.corpus.truth import load_truth
from talkhead.geometry.face_topology import EYE_INNER, EYE_OUTER
from talkhead.metrics.correlation import correlation
from talkhead.networks.gaze import EYES, GAZE, GazeNet
from talkhead.ranks import gather_rows
from talkhead.stages.base import Stage, build
from talkhead.stages.step_decay import step_decayed_adamw
from talkhead.stages.whole_clips import CHUNK

READ = slice(-5, -1)
"""Where a motion descriptor holds what is read: eyes 2 and gaze 2, before the mouth, which is last."""
_GROUPS = {"eyes": EYES, "gaze": GAZE}


class GazeData(Protocol):
    """What is asked of the datamodule (``datamodules.base.TalkheadDataModule``) about whole clips."""

    @property
    def prepared(self) -> Any:
        """The prepared set."""
        ...

    def clip_truth_path(self, row: Any) -> Path:
        """Truth file of a clip, which need not exist."""
        ...


class GazeStage(Stage):
    """Regress the tracker's eye opening and gaze from the two eyes of one picture.

    The label comes from landmarks, the network sees pixels: cut out between the corners of each eye, so
    that neither the iris landmarks nor the lid landmarks are told. What it learns is therefore a second
    opinion that is differentiable in the picture.

    Test scores whole clips: how far the reading follows the tracker, and on the embedded corpus how far
    both follow the truth.

    Source: ours. Takes the place of L2CS in paper 1 eq. 4 (reference-facts 3.4), whose labels (Gaze360)
    are angles in the camera's frame; here gaze is that of the eyes in the head.
    """

    exports = ("gaze",)
    monitor = "val/gaze_r2"
    mode = "max"
    default_weights = {"eyes": 1.0, "gaze": 1.0}

    def __init__(
        self,
        image_size: int = 224,
        gaze: dict[str, Any] | None = None,
        augment: bool = True,
        corner_noise: float = 0.05,
        weights: dict[str, float] | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-2,
        lr_decay: float = 0.5,
        lr_decay_batches: int = 10_000,
    ) -> None:
        """Configure the stage.

        Args:
            image_size: Side of the crops in pixels.
            gaze: Options of :class:`GazeNet`.
            augment: Change colour, sharpness and grain of the training pictures.
            corner_noise: Training misplaces each eye corner by up to this share of the eye's width, because
                corners in generated pictures are not quite where they are in real ones.
            weights: Loss weights by term.
            lr: Learning rate (AdamW).
            weight_decay: Decoupled weight decay.
            lr_decay: Factor applied every ``lr_decay_batches`` batches.
            lr_decay_batches: See ``lr_decay``.
        """
        super().__init__(weights, image_size)
        self.save_hyperparameters()
        self.augment, self.corner_noise = augment, corner_noise
        self.lr, self.weight_decay = lr, weight_decay
        self.lr_decay, self.lr_decay_batches = lr_decay, lr_decay_batches
        self.gaze = build(GazeNet, gaze, "gaze")
        self.errors = MeanAbsoluteError(num_outputs=4)
        self.explained = R2Score(multioutput="raw_values")

    def needs(self) -> FramePairs:
        """Single frames with their landmarks and descriptors."""
        return FramePairs(identity_frames=0, size=self.video_spec.size)

    def on_fit_start(self) -> None:
        """Take the statistics of the labels from the data."""
        super().on_fit_start()
        data: Any = getattr(self.trainer, "datamodule", None)
        if data is not None:
            mean, std = (torch.as_tensor(part)[READ] for part in data.motion_stats)
            self.gaze.set_statistics(mean.to(self.device), std.to(self.device))

    def losses(self, batch: FrameBatch) -> dict[str, Tensor]:
        """Smooth L1 of the standardised readings; a lost iris under a closing lid pulls no harder than 1."""
        pictures, landmarks = to_float(batch.target), batch.landmarks
        if self.training and self.augment:
            pictures = pixel_noise(pictures)
        if self.training and self.corner_noise > 0:
            landmarks = self._misplaced(landmarks)
        read = self.gaze.standardised(pictures, landmarks)
        wanted = (batch.motion[:, READ] - self.gaze.mean) / self.gaze.std
        return {
            name: F.smooth_l1_loss(read[:, columns], wanted[:, columns])
            for name, columns in _GROUPS.items()
        }

    def training_step(self, batch: FrameBatch, batch_idx: int) -> Tensor:
        """The weighted loss of one batch."""
        return self.weighted(self.losses(batch), "train", len(batch.target))

    def validation_step(self, batch: FrameBatch, batch_idx: int) -> None:
        """Loss, and errors gathered until the end of the epoch."""
        self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Log errors and explained variance over all validation frames."""
        self._log_epoch("val")

    def test_step(self, batch: FrameBatch, batch_idx: int) -> None:
        """As validation, on the test split."""
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Log the errors, and how far readings follow tracker and truth through whole clips."""
        self._log_epoch("test")
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "clip_truth_path"):
            return
        rows = data.prepared.rows("test")[self.global_rank :: self.trainer.world_size]
        self.per_clip_results = [{"clip": row.id, **self._follow(data, row)} for row in rows]
        everywhere = gather_rows(self.per_clip_results)
        for name in sorted({key for clip in everywhere for key in clip if key != "clip"}):
            known = [clip[name] for clip in everywhere if name in clip]
            self.log(f"test/{name}", sum(known) / len(known), rank_zero_only=True)

    def predict_step(self, batch: FrameBatch, batch_idx: int) -> Tensor:
        """Readings ``(B, 4)`` in the units of the descriptors."""
        return self.gaze.read(to_float(batch.target), batch.landmarks)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with step decay (by batches)."""
        return step_decayed_adamw(self, [self.gaze])

    @torch.no_grad()
    def read_clip(self, prepared: Any, row: Any) -> Tensor:
        """Readings of every frame of a prepared clip, ``(T, 4)`` on the CPU."""
        landmarks = torch.from_numpy(np.asarray(prepared.landmarks(row), np.float32))
        found = []
        for start in range(0, row.frames, CHUNK):
            at = range(start, min(start + CHUNK, row.frames))
            pictures = to_float(prepared.frames(row, at, self.video_spec.size).to(self.device))
            found.append(self.gaze.read(pictures, landmarks[at.start : at.stop].to(self.device)))
        return torch.cat(found).cpu()

    def _misplaced(self, landmarks: Tensor) -> Tensor:
        """Landmarks with every point moved by its own draw."""
        outer, inner = (landmarks[:, at.tolist(), :2] for at in (EYE_OUTER, EYE_INNER))
        width = (outer - inner).norm(dim=-1).mean(1)
        noise = 2 * torch.rand_like(landmarks) - 1
        moved: Tensor = landmarks + self.corner_noise * width[:, None, None] * noise
        return moved

    def _evaluate(self, batch: FrameBatch, prefix: str) -> None:
        self.weighted(self.losses(batch), prefix, len(batch.target))
        read, wanted = self.predict_step(batch, 0), batch.motion[:, READ]
        self.errors.update(read, wanted)
        # Standardised, because torchmetrics takes a small sum of squares for a constant label.
        self.explained.update(read / self.gaze.std, wanted / self.gaze.std)

    def _log_epoch(self, prefix: str) -> None:
        errors, explained = self.errors.compute(), self.explained.compute()
        for name, columns in _GROUPS.items():
            self.log(f"{prefix}/{name}_error", errors[columns].mean())
            self.log(f"{prefix}/{name}_r2", explained[columns].mean())
        self.errors.reset()
        self.explained.reset()

    def _follow(self, data: GazeData, row: Any) -> dict[str, float]:
        """Correlations through one clip: of the reading and of the tracker, with each other and the truth."""
        read = self.read_clip(data.prepared, row)
        tracked = torch.from_numpy(data.prepared.motion(row))[:, READ]
        found = _correlations("tracker", read, tracked)
        path = data.clip_truth_path(row)
        if path.is_file():
            state = load_truth(path).state
            # Other units than a reading's, which a correlation does not see.
            true = torch.from_numpy(state.matrix(("lids", "gaze"))[: row.frames])
            found |= _correlations("truth", read, true)
            found |= _correlations("truth[tracker]", tracked, true)
        return found


def _correlations(name: str, read: Tensor, wanted: Tensor) -> dict[str, float]:
    """Mean correlation of each group of readings, ``gaze_follows_<name>`` and so on."""
    found = correlation(read, wanted)
    return {
        f"{group}_follows_{name}": float(found[columns].mean())
        for group, columns in _GROUPS.items()
    }
