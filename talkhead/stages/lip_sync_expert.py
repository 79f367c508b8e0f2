"""Stage 71: the lip-sync expert, which teaches ControlTalk's adapter what mouths go with what is heard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from talkhead.audio.speech_windows import STEPS_PER_FRAME
from talkhead.augment import another_look
from talkhead.batch import SPEECH, FeatureSource, SpeechRunBatch, SpeechRuns, to_float
from talkhead.errors import ConfigError
from talkhead.geometry.points68 import ibug_points
from talkhead.losses.contrastive import InfoNCE
from talkhead.losses.lip_sync import lip_sync_loss
from talkhead.metrics.retrieval import pair_accuracy
from talkhead.networks.sync_expert import Front, SyncExpert
from talkhead.stages.base import Stage, build
from talkhead.stages.speech_features import speech_front
from talkhead.stages.step_decay import step_decayed_adamw
from talkhead.stages.sync_clips import score_clips

NAME = "sync_expert"
"""Whose scores these are; part of the name of each."""
RUNS_AT_ONCE = 32


class LipSyncExpertStage(Stage):
    """Decide whether the mouths of nine frames and a window of speech are of one moment.

    True pairs are runs of frames with their own speech; false ones meet the speech of another moment of
    the same clip, so that speaker, voice and picture tell nothing and only timing does. Every run is seen
    both ways, and ``negative_share`` weighs its false pair against the true one.

    Data must be in sync to begin with: ``talkhead prepare --fix-offset`` corrects what it can measure,
    and a constant offset in the data is learnt as if it were sync. Validation and test log how often the
    true pair of two is the more alike (``sync_accuracy``, 0.5 is chance), how often the verdict at a
    cosine of 1/2 is right (``verdicts``), and offset and confidence of whole clips.

    Source: Wav2Lip's expert, which ControlTalk adopts (reference-facts 7.4, 7.6; batch, rate and length
        of runs were not published). Deviates: true and false pairs of every run, weighted, in the place of
        a coin; mouth boxes shared by a run by default (:func:`talkhead.geometry.mouth_box.run_boxes`).
        ``loss: info_nce`` is ours: all runs of a clip against each other, for data on which the binary
        decision does not leave its start.
    """

    exports = (NAME,)
    monitor = "val/sync_accuracy"
    mode = "max"
    default_weights = {"sync": 1.0}

    def __init__(
        self,
        front: Front = "hubert",
        hubert: dict[str, Any] | None = None,
        image_size: int = 256,
        runs: int = 8,
        min_gap_frames: int = 1,
        loss: Literal["bce", "one_minus_cosine", "info_nce"] = "bce",
        negative_share: float = 0.5,
        augment: bool = False,
        sync_expert: dict[str, Any] | None = None,
        validation_clips: int = 8,
        weights: dict[str, float] | None = None,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        lr_decay: float = 0.5,
        lr_decay_batches: int = 50_000,
    ) -> None:
        """Configure the stage.

        Args:
            front: Speech features: ``hubert``, or ``mel``, which needs no weights.
            hubert: ``kind`` (``base``, ``large``, ``chinese_large``), ``weights_path``,
                ``weights_sha256``; without a path base and large are looked for in torch's cache.
            image_size: Side of the pictures that mouths are cut from, in pixels.
            runs: Runs of frames drawn from each clip; a false partner is the speech of another of them.
            min_gap_frames: Least distance of the first frames of two runs.
            loss: Binary cross-entropy on the cosine, 1 - cos, or InfoNCE over the runs of a clip.
            negative_share: Weight of false pairs; the true ones have the rest.
            augment: Train on mouths in another look (:func:`talkhead.augment.another_look`).
            sync_expert: Options of :class:`SyncExpert`; the features are this stage's.
            validation_clips: Whole clips scored in each validation.
            weights: Loss weights by term.
            lr: Learning rate (Adam).
            weight_decay: Decoupled weight decay.
            lr_decay: Factor applied every ``lr_decay_batches`` batches.
            lr_decay_batches: See ``lr_decay``.

        Raises:
            ConfigError: Fewer than two runs, a share that is none, or unknown options.
        """
        super().__init__(weights, image_size)
        self.save_hyperparameters()
        if runs < 2 or min_gap_frames < 1 or not 0 < negative_share < 1:
            raise ConfigError(
                f"lip_sync_expert: expected runs >= 2, min_gap_frames >= 1 and 0 < negative_share < 1, "
                f"got {runs}, {min_gap_frames} and {negative_share}."
            )
        self.runs, self.min_gap_frames = runs, min_gap_frames
        self.loss_kind, self.negative_share = loss, negative_share
        self.augment, self.validation_clips = augment, validation_clips
        self.lr, self.weight_decay = lr, weight_decay
        self.lr_decay, self.lr_decay_batches = lr_decay, lr_decay_batches
        options = dict(sync_expert or {})
        recorded = str(options.get("front_digest", ""))
        self.front = speech_front(front, hubert, recorded)
        kind = self.front.hubert.kind if front == "hubert" else ""
        features = {"front": front, "feature_dim": self.front.dim, "front_kind": kind}
        self.sync_expert = build(SyncExpert, {**options, **features}, NAME)
        self.info_nce = InfoNCE(learn_temperature=loss == "info_nce")

    def needs(self) -> SpeechRuns:
        """Runs of one clip in each row, with their speech."""
        expert = self.sync_expert
        return SpeechRuns(
            self.runs, expert.frames, self.video_spec.size, expert.window, expert.align,
            min_gap_frames=self.min_gap_frames,
        )  # fmt: skip

    def feature_sources(self) -> dict[str, FeatureSource]:
        """Speech features of whole clips."""
        source = self.front.source()
        self.sync_expert.note_front(source.digest)
        return {SPEECH: source}

    @property
    def blind_loss(self) -> float:
        """The loss of the best answer that tells nothing: ``ln 2`` for half true, half false pairs."""
        share = self.negative_share
        if self.loss_kind == "info_nce":
            return math.log(self.runs)
        if self.loss_kind == "one_minus_cosine":
            return min(share, 1.0 - share)
        return -share * math.log(share) - (1.0 - share) * math.log(1.0 - share)

    def embed(self, batch: SpeechRunBatch) -> tuple[Tensor, Tensor]:
        """Embeddings of speech and mouths of a batch, each ``(B, N, D)``."""
        shape = batch.frames.shape[:2]
        pictures, points = to_float(batch.frames.flatten(0, 1)), batch.points.flatten(0, 1)
        mouths = self.sync_expert.mouths(pictures, points)
        if self.training and self.augment:
            mouths = another_look(mouths)
        audio, video = self.sync_expert(batch.speech.flatten(0, 1), mouths)
        return audio.unflatten(0, shape), video.unflatten(0, shape)

    def losses(self, batch: SpeechRunBatch) -> dict[str, Tensor]:
        """The sync term."""
        return self._judge(*self.embed(batch), batch.frame_index)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the expert's spec in the place of its options, and no path of HuBERT's weights."""
        super().on_save_checkpoint(checkpoint)
        saved = checkpoint.get("hyper_parameters", {})
        if NAME in saved:
            saved[NAME] = dict(self.sync_expert.spec)
        if self.front.name == "hubert" and "hubert" in saved:
            saved["hubert"] = {"kind": self.front.hubert.kind}

    def training_step(self, batch: SpeechRunBatch, batch_idx: int) -> Tensor:
        """The weighted loss of one batch."""
        audio, video = self.embed(batch)
        self._note("train", audio, video)
        return self.weighted(
            self._judge(audio, video, batch.frame_index), "train", len(batch.frames)
        )

    def validation_step(self, batch: SpeechRunBatch, batch_idx: int) -> None:
        """Loss and accuracy among the runs of one clip."""
        self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        """Score some whole validation clips, if the data has any."""
        self._score_clips("val", self.validation_clips)

    def test_step(self, batch: SpeechRunBatch, batch_idx: int) -> None:
        """As validation, on the test split."""
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        """Score every whole test clip, if the data has any."""
        self.per_clip_results = self._score_clips("test", None)

    def predict_step(self, batch: SpeechRunBatch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Embeddings of speech and mouths, each ``(B, N, D)``."""
        return self.embed(batch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam with step decay (by batches)."""
        return step_decayed_adamw(self, [self.sync_expert, self.info_nce])

    def encode(self, prepared: Any, row: Any) -> tuple[Tensor, Tensor]:
        """Mouths and speech of a whole clip as unit vectors, each ``(T - 8, D)`` on the CPU."""
        size = self.video_spec.size
        features = self._datamodule().store.window(SPEECH, row)
        return embed_track(
            self.sync_expert,
            lambda at: to_float(prepared.frames(row, at, size).to(self.device)),
            torch.from_numpy(ibug_points(prepared.landmarks(row))),
            features.unflatten(1, (STEPS_PER_FRAME, -1)).flatten(0, 1),
            self.device,
        )

    def _judge(self, audio: Tensor, video: Tensor, frame_index: Tensor) -> dict[str, Tensor]:
        if self.loss_kind == "info_nce":
            loss: Tensor = self.info_nce(audio, video, frame_index, min_gap=self.min_gap_frames)
            return {"sync": loss}
        partner = self._partners(*audio.shape[:2]).to(audio.device)
        other = audio.gather(1, partner[..., None].expand_as(audio))
        lips = video.flatten(0, 1)
        true, false = (
            lip_sync_loss(heard.flatten(0, 1), lips, lips.new_full((len(lips),), m), self.loss_kind)
            for heard, m in ((audio, 1.0), (other, 0.0))
        )
        return {"sync": (1.0 - self.negative_share) * true + self.negative_share * false}

    def _partners(self, rows: int, runs: int) -> Tensor:
        """Another run of the same clip for every run, ``(rows, runs)``; in evaluation half-way on."""
        # On the CPU, whose generator every device of a run shares.
        step = torch.randint(1, runs, (rows, runs)) if self.training else torch.tensor(runs // 2)
        return (torch.arange(runs) + step).remainder(runs).expand(rows, runs)

    def _note(self, prefix: str, audio: Tensor, video: Tensor) -> None:
        """Log what tells a dead start from a slow one: cosines, and shares of units that are off."""
        if self._trainer is None:
            return
        sound, lips = _unit(audio.detach()), _unit(video.detach())
        alike = sound @ lips.transpose(1, 2)
        true = alike.diagonal(dim1=1, dim2=2)
        runs = alike.shape[1]
        false = (alike.sum((1, 2)) - true.sum(1)) / (runs * (runs - 1))
        scores = {
            "cosine_true": true.mean(), "cosine_false": false.mean(),
            "sound_off": (sound <= 0).float().mean(), "lips_off": (lips <= 0).float().mean(),
        }  # fmt: skip
        if prefix != "train":
            scores["sync_accuracy"] = pair_accuracy(sound, lips).mean().float()
            wrong = (alike < 0.5).float()
            right = wrong.sum((1, 2)) - wrong.diagonal(dim1=1, dim2=2).sum(1)
            scores["verdicts"] = (
                (true >= 0.5).float().mean() + (right / (runs * (runs - 1))).mean()
            ) / 2
        self.log_dict(
            {f"{prefix}/{name}": value for name, value in scores.items()},
            batch_size=len(audio),
            sync_dist=prefix != "train",
        )

    def _evaluate(self, batch: SpeechRunBatch, prefix: str) -> None:
        audio, video = self.embed(batch)
        self.weighted(self._judge(audio, video, batch.frame_index), prefix, len(audio))
        self._note(prefix, audio, video)

    def _score_clips(self, split: str, limit: int | None) -> list[dict[str, Any]]:
        frames = self.sync_expert.frames
        return score_clips(self, split, limit, self.encode, lambda n: n - frames + 1, NAME)

    def _datamodule(self) -> Any:
        # Lightning puts the datamodule there without declaring it.
        return self.trainer.datamodule  # type: ignore[attr-defined]


@torch.no_grad()
def embed_track(
    expert: SyncExpert,
    pictures: Callable[[Sequence[int]], Tensor],
    points: Tensor,
    features: Tensor,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Every run of frames of a video and its speech, some runs at a time.

    Args:
        expert: In eval mode, on ``device``.
        pictures: Frame numbers, ascending, to pictures ``(n, 3, H, W)`` in [-1, 1] on ``device``.
        points: 68 points of every frame, ``(F, 68, C)`` in crop units.
        features: Speech features of the whole file, ``(S, D)``.
        device: Where the expert is.

    Returns:
        Mouths and speech as unit vectors, each ``(F - T + 1, dim)`` on the CPU, as
        :func:`talkhead.metrics.sync_scores.sync_scores` takes them; none for fewer than ``T`` frames.
    """
    runs = len(points) - expert.frames + 1
    seen, heard = [torch.empty(0, expert.dim)], [torch.empty(0, expert.dim)]
    for start in range(0, runs, RUNS_AT_ONCE):
        first = torch.arange(start, min(start + RUNS_AT_ONCE, runs))
        at = range(start, int(first[-1]) + expert.frames)
        place = first[:, None] - start + torch.arange(expert.frames)
        own = points[start : start + len(at)][place]
        mouths = expert.mouths(pictures(at)[place.to(device)], own.to(device))
        seen.append(_unit(expert.video(mouths)).cpu())
        heard.append(_unit(expert.audio(expert.run_windows(features, first).to(device))).cpu())
    return torch.cat(seen), torch.cat(heard)


def _unit(features: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features.float(), dim=-1)
