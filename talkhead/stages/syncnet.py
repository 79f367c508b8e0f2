"""Stage 50: SyncNet, the judge of how well lips and sound agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from talkhead.audio.mfcc import mfcc_window_count, mfcc_windows
from talkhead.augment import another_look
from talkhead.batch import SyncBatch, SyncWindows, to_float
from talkhead.losses.contrastive import InfoNCE, margin_loss
from talkhead.metrics.retrieval import window_retrieval
from talkhead.networks.syncnet import WINDOW_FRAMES, SyncNet
from talkhead.stages.base import Stage, build
from talkhead.stages.step_decay import step_decayed_adamw
from talkhead.stages.sync_clips import score_clips
from talkhead.stages.whole_clips import CHUNK


class ClipReader(Protocol):
    """What is asked of a prepared set (``datamodules.shards.PreparedSet``)."""

    def rows(self, split: str | None = None) -> list[Any]:
        """Clips of one split, or all."""
        ...

    def frames(self, clip: Any, indices: Sequence[int], size: int | None = None) -> Tensor:
        """Pictures ``(n, 3, H, W)`` uint8."""
        ...

    def mfcc(self, clip: Any) -> Tensor:
        """Cepstral coefficients ``(4T - 1, 13)``."""
        ...


class SyncNetStage(Stage):
    """Pull five frames towards their own 0.2 s of sound, away from other moments of the same clip.

    The negatives share speaker and voice, so only timing tells them apart. Training is optional: with
    ``syncnet: {weights_path: syncnet_v2.model}``, ``talkhead test`` scores a data set by the published
    network. Validation and test score whole real clips; the name of the network is part of the name of
    every score, ``[syncnet_v2]`` for the published weights and ``[syncnet]`` for ours.

    Source: Chung & Zisserman (2016); reference-facts 8.1. Its training code is not public. Deviates:
    InfoNCE over the windows of a clip by default, because the margin loss often does not leave its first
    plateau (reference-facts 9, item 2); ``loss: margin`` is the paper.
    """

    exports = ("syncnet",)
    monitor = "val/retrieval_top1"
    mode = "max"
    default_weights = {"contrastive": 1.0}

    def __init__(
        self,
        image_size: int = 224,
        windows: int = 32,
        min_gap_frames: int = 0,
        loss: Literal["info_nce", "margin"] = "info_nce",
        margin: float = 10.0,
        temperature: bool = True,
        augment: bool = False,
        syncnet: dict[str, Any] | None = None,
        validation_clips: int = 8,
        weights: dict[str, float] | None = None,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        lr_decay: float = 0.5,
        lr_decay_batches: int = 50_000,
    ) -> None:
        """Configure the stage.

        Args:
            image_size: Side of the crops in pixels.
            windows: Windows ``N`` drawn from each clip; they are each other's negatives.
            min_gap_frames: Least distance of two windows; nearer ones share up to four of five frames.
            loss: ``info_nce`` on negative distances, or the published ``margin`` loss.
            margin: Distance beyond which the margin loss leaves false pairs alone. The paper names none;
                10 is near the distance of false pairs under the published weights.
            temperature: Learn the scale of the distances (InfoNCE).
            augment: Train on clips in another look (:func:`talkhead.augment.another_look`).
            syncnet: Options of :class:`SyncNet`; its ``image_size`` is this stage's.
            validation_clips: Whole clips scored in each validation.
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
        self.loss_kind, self.margin = loss, margin
        self.validation_clips, self.augment = validation_clips, augment
        self.lr, self.weight_decay = lr, weight_decay
        self.lr_decay, self.lr_decay_batches = lr_decay, lr_decay_batches
        self.syncnet = build(SyncNet, {**(syncnet or {}), "image_size": image_size}, "syncnet")
        self.info_nce = InfoNCE(
            learn_temperature=temperature and loss == "info_nce",
            initial_temperature=1.0,
            similarity="distance",
        )

    def needs(self) -> SyncWindows:
        """Windows of one clip in each row."""
        return SyncWindows(self.windows, self.video_spec.size, self.min_gap_frames)

    def embed(self, batch: SyncBatch) -> tuple[Tensor, Tensor]:
        """Visual and audio embeddings of a batch, each ``(B, N, D)``."""
        rows, count = batch.frames.shape[:2]
        pictures = to_float(batch.frames)
        if self.training and self.augment:
            pictures = another_look(pictures.flatten(1, 2)).view_as(pictures)
        visual, audio = self.syncnet(pictures.flatten(0, 1), batch.mfcc.flatten(0, 1))
        return visual.unflatten(0, (rows, count)), audio.unflatten(0, (rows, count))

    def losses(self, batch: SyncBatch) -> dict[str, Tensor]:
        """The contrastive term."""
        return self._contrast(*self.embed(batch), batch.frame_index)

    def on_train_start(self) -> None:
        """Published weights are no longer the published ones."""
        self.syncnet.note_training()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the network's spec in the place of its options, so that no file of weights is needed again."""
        super().on_save_checkpoint(checkpoint)
        if "syncnet" in checkpoint.get("hyper_parameters", {}):
            checkpoint["hyper_parameters"]["syncnet"] = dict(self.syncnet.spec)

    def training_step(self, batch: SyncBatch, batch_idx: int) -> Tensor:
        """The weighted loss of one batch."""
        return self.weighted(self.losses(batch), "train", len(batch.frames))

    def validation_step(self, batch: SyncBatch, batch_idx: int) -> None:
        """Loss and retrieval accuracy among the windows of one clip."""
        self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Score some whole validation clips, if the data has any."""
        self._score_clips("val", self.validation_clips)

    def test_step(self, batch: SyncBatch, batch_idx: int) -> None:
        """As validation, on the test split."""
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Score every whole test clip, if the data has any."""
        self.per_clip_results = self._score_clips("test", None)

    def predict_step(self, batch: SyncBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Visual and audio embeddings, each ``(B, N, D)``."""
        return self.embed(batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with step decay (by batches)."""
        return step_decayed_adamw(self, [self.syncnet, self.info_nce])

    def encode(self, prepared: ClipReader, row: Any) -> tuple[Tensor, Tensor]:
        """Visual and audio embeddings of a whole clip, each ``(T - 5, D)`` on the CPU."""
        return embed_clip(self.syncnet, prepared, row, self.video_spec.size, self.device)

    def _contrast(self, visual: Tensor, audio: Tensor, frame_index: Tensor) -> dict[str, Tensor]:
        if self.loss_kind == "info_nce":
            loss: Tensor = self.info_nce(audio, visual, frame_index, min_gap=self.min_gap_frames)
        else:
            loss = margin_loss(
                audio, visual, frame_index, margin=self.margin, min_gap=self.min_gap_frames
            )
        return {"contrastive": loss}

    def _evaluate(self, batch: SyncBatch, prefix: str) -> None:
        visual, audio = self.embed(batch)
        self.weighted(self._contrast(visual, audio, batch.frame_index), prefix, len(visual))
        to_visual, to_audio = window_retrieval(audio, visual, similarity="distance")
        scores = {
            f"{prefix}/retrieval_top1": ((to_visual + to_audio) / 2).mean().float(),
            f"{prefix}/retrieval_chance": torch.tensor(1.0 / audio.shape[1]),
        }
        self.log_dict(scores, batch_size=len(audio), sync_dist=True)

    def _score_clips(self, split: str, limit: int | None) -> list[dict[str, Any]]:
        return score_clips(
            self,
            split,
            limit,
            self.encode,
            lambda frames: mfcc_window_count(frames, self.audio_spec),
            self.syncnet.judge,
        )


@torch.no_grad()
def embed_clip(
    network: SyncNet, prepared: ClipReader, row: Any, size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """A whole clip through both branches, a chunk at a time.

    Args:
        network: In eval mode, on ``device``.
        prepared: The prepared set.
        row: The clip, of ``T`` frames.
        size: Side of the network's pictures in pixels.
        device: Where the network is.

    Returns:
        Visual and audio embeddings, each ``(T - 5, D)`` on the CPU.
    """
    cepstra = prepared.mfcc(row)
    count = mfcc_window_count(row.frames)
    seen, heard = [], []
    for start in range(0, count, CHUNK):
        at = range(start, min(start + CHUNK, count) + WINDOW_FRAMES - 1)
        pictures = prepared.frames(row, at, size)[None].to(device)
        sound = mfcc_windows(cepstra, torch.arange(start, min(start + CHUNK, count)))
        seen.append(network.visual(to_float(pictures))[0].cpu())
        heard.append(network.audio(sound.to(device)).cpu())
    return torch.cat(seen), torch.cat(heard)
