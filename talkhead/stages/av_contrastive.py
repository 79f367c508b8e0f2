"""Stage 20: audio-visual contrastive pre-training of the audio encoder."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from talkhead.batch import WindowBatch, Windows, to_float
from talkhead.checkpoint import Source, resolve
from talkhead.losses.contrastive import InfoNCE, gather_with_grad
from talkhead.metrics.offset import OffsetAccuracy
from talkhead.metrics.retrieval import window_retrieval
from talkhead.networks.audio_encoder import AudioEncoder
from talkhead.networks.heads import ContrastiveHead
from talkhead.networks.motion_encoder import MotionEncoder
from talkhead.stages.base import Stage, build
from talkhead.stages.step_decay import step_decayed_adamw
from talkhead.stages.whole_clips import encode_clips

MAX_TESTED_SHIFT = 5


class AVContrastiveStage(Stage):
    """Pull each 0.2 s of sound towards its own frame and away from other moments of the same video.

    Since the negatives share speaker, voice and picture with the positive, what is left to tell them
    apart is what the lips do.

    Source: paper 1 eq. 2 and supplement I.3; reference-facts 2. Deviates: a learned temperature as in
    CLIP by default (``temperature: false`` gives the paper's bare cosine), and several videos share a
    batch while each is scored by itself.
    """

    consumes = ("motion_encoder",)
    exports = ("audio_encoder", "contrastive_head")
    monitor = "val/retrieval_top1"
    mode = "max"
    default_weights = {"contrastive": 1.0}

    def __init__(
        self,
        motion_encoder: Source,
        image_size: int = 224,
        windows: int = 288,
        min_gap_frames: int = 0,
        negatives: Literal["video", "batch"] = "video",
        temperature: bool = True,
        centre_videos: bool = False,
        train_motion_encoder: bool = False,
        audio_encoder: dict[str, Any] | None = None,
        contrastive_head: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        lr: float = 1e-5,
        weight_decay: float = 0.0,
        lr_decay: float = 0.93,
        lr_decay_batches: int = 200_000,
    ) -> None:
        """Configure the stage.

        Args:
            motion_encoder: Checkpoint of stage ``reenactment``.
            image_size: Side of the crops in pixels.
            windows: Aligned frame and sound windows ``N`` drawn from each video.
            min_gap_frames: Pairs closer than this are no negatives (0 as in the paper).
            negatives: ``video`` scores within each video; ``batch`` scores against every window of the
                global batch, gathered over ranks.
            temperature: Learn the logit scale.
            centre_videos: Take each video's mean feature off both sides before they are compared. What a
                video has in common cannot tell its windows apart, and with few training speakers it is
                what does not carry over to others (our addition; off in the paper).
            train_motion_encoder: Fine-tune the motion encoder too (the paper's text and figure disagree;
                frozen is the recommended reading).
            audio_encoder: Options of :class:`AudioEncoder`.
            contrastive_head: Options of :class:`ContrastiveHead`.
            weights: Loss weights by term.
            lr: Learning rate (Adam).
            weight_decay: Decoupled weight decay.
            lr_decay: Factor applied every ``lr_decay_batches`` batches.
            lr_decay_batches: See ``lr_decay``.
        """
        super().__init__(weights, image_size)
        self.save_hyperparameters()
        self.windows = windows
        self.min_gap_frames = min_gap_frames
        self.negatives = negatives
        self.centre_videos = centre_videos
        self.lr, self.weight_decay = lr, weight_decay
        self.lr_decay, self.lr_decay_batches = lr_decay, lr_decay_batches
        self.motion_encoder = resolve(MotionEncoder, motion_encoder, "motion_encoder")
        self.motion_encoder.train(train_motion_encoder).requires_grad_(train_motion_encoder)
        self.audio_encoder = build(AudioEncoder, audio_encoder, "audio_encoder")
        self.contrastive_head = build(ContrastiveHead, contrastive_head, "contrastive_head")
        self.info_nce = InfoNCE(learn_temperature=temperature)

    def needs(self) -> Windows:
        """Aligned windows of one video in each row."""
        return Windows(
            count=self.windows, size=self.video_spec.size, min_gap_frames=self.min_gap_frames
        )

    def embed(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        """Audio features ``f_a`` and visual features ``f_cl`` as compared, each ``(B, N, D)``."""
        rows, count = batch.frames.shape[:2]
        audio = self.audio_encoder(batch.mel.flatten(0, 1)).unflatten(0, (rows, count))
        visual = self._visual(to_float(batch.frames.flatten(0, 1))).unflatten(0, (rows, count))
        return self._compared(audio), self._compared(visual)

    def losses(self, batch: WindowBatch) -> dict[str, Tensor]:
        """The symmetric contrastive term."""
        return {"contrastive": self._contrast(*self.embed(batch), batch.frame_index)}

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        """The weighted loss of one batch."""
        return self.weighted(self.losses(batch), "train", len(batch.frames))

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        """Loss and retrieval accuracy among the windows of one video."""
        self._evaluate(batch, "val")

    def test_step(self, batch: WindowBatch, batch_idx: int) -> None:
        """As validation, on the test split."""
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Recover known shifts of -5…5 frames on the whole test clips, if the data has any."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "prepared"):
            return
        accuracy = OffsetAccuracy(tolerance=1, max_shift=MAX_TESTED_SHIFT + 5)
        rows = data.prepared.rows("test")[self.global_rank :: self.trainer.world_size]
        clips = encode_clips(
            data, rows, self._visual, self.audio_encoder, self.video_spec.size, self.device
        )
        for _, seen, heard in clips:
            visual, audio = self._compared(seen), self._compared(heard)
            for shift in range(-MAX_TESTED_SHIFT, MAX_TESTED_SHIFT + 1):
                late = audio.roll(shift, 0)
                inside = torch.ones(len(audio), dtype=torch.bool)
                inside[: max(shift, 0)] = False
                inside[len(audio) + min(shift, 0) :] = False
                accuracy.update(late[None], visual[None], torch.tensor([shift]), inside[None])
        scores = accuracy.to(self.device).compute()
        self.log_dict({f"test/offset_{name}": value.float() for name, value in scores.items()})

    def predict_step(self, batch: WindowBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Audio and visual features, each ``(B, N, D)``."""
        return self.embed(batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with step decay (by batches)."""
        parts = [self.audio_encoder, self.contrastive_head, self.info_nce, self.motion_encoder]
        return step_decayed_adamw(self, parts)

    def _compared(self, features: Tensor) -> Tensor:
        """Features ``(…, N, D)`` of one video a row, as the loss sees them."""
        if not self.centre_videos:
            return features
        return features - features.mean(-2, keepdim=True)

    def _visual(self, pictures: Tensor) -> Tensor:
        features: Tensor = self.contrastive_head(self.motion_encoder(pictures))
        return features

    def _contrast(self, audio: Tensor, visual: Tensor, frame_index: Tensor) -> Tensor:
        if self.negatives == "video":
            loss: Tensor = self.info_nce(audio, visual, frame_index, min_gap=self.min_gap_frames)
            return loss
        audio, visual = audio.flatten(0, 1), visual.flatten(0, 1)
        pooled: Tensor = self.info_nce(
            gather_with_grad(audio)[None], gather_with_grad(visual)[None]
        )
        return pooled

    def _evaluate(self, batch: WindowBatch, prefix: str) -> None:
        audio, visual = self.embed(batch)
        loss = {"contrastive": self._contrast(audio, visual, batch.frame_index)}
        self.weighted(loss, prefix, len(audio))
        to_visual, to_audio = window_retrieval(audio, visual)
        scores = {
            f"{prefix}/retrieval_top1": ((to_visual + to_audio) / 2).mean().float(),
            f"{prefix}/retrieval_chance": torch.tensor(1.0 / audio.shape[1]),
        }
        self.log_dict(scores, batch_size=len(audio), sync_dist=True)
