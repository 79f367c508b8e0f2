"""What the two motion priors share: cached features, statistics, validation, sampling and test."""

from __future__ import annotations

import hashlib
import logging
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from talkhead.batch import FeatureSource, SequenceBatch, Sequences
from talkhead.checkpoint import Source, resolve
from talkhead.diffusion.sampler import CleanFrames, SamplerSettings, item_seed
from talkhead.errors import ConfigError, SpecError
from talkhead.metrics.sequences import Standard
from talkhead.metrics.snd import SND
from talkhead.networks.audio_encoder import AudioEncoder
from talkhead.networks.component import weights_digest
from talkhead.networks.generator import StyleGenerator
from talkhead.networks.heads import LipHead, NonLipHead
from talkhead.networks.identity_encoder import IdentityEncoder
from talkhead.networks.motion_encoder import MotionEncoder
from talkhead.networks.motion_readout import MotionReadout
from talkhead.networks.prior import PriorNetwork
from talkhead.stages.base import build
from talkhead.stages.descriptor_space import descriptor_evaluators, fit_motion_readout
from talkhead.stages.motion_evaluation import (
    MIN_FRAMES,
    ClipEvaluator,
    ClipSample,
    TestScores,
    motion_scores,
)
from talkhead.stages.motion_features import (
    FEATURES,
    STATISTICS_CLIPS,
    add_readout,
    cropped,
    feature_statistics,
    take_readout,
)
from talkhead.stages.motion_jumps import JumpScores
from talkhead.stages.motion_sampling import MotionSamplingStage

log = logging.getLogger(__name__)

SPACE = "code"
VALIDATION_SEED = 20_000


class MotionPriorStage(MotionSamplingStage):
    """Base of the stages that learn non-lip motion from sound.

    Both train on cached features only: ``audio`` from the audio encoder and ``nonlip`` from the motion
    encoder and its non-lip head. A subclass says how a batch is scored and how a window is sampled.
    Identity encoder, generator and lip head are carried along untouched so that one checkpoint holds
    all that generation needs. So is a linear read-out from codes to motion descriptors, fitted when
    training starts; it is no submodule, since an average of the weights copies the stage earlier.
    """

    consumes = (
        "audio_encoder",
        "motion_encoder",
        "nonlip_head",
        "lip_head",
        "identity_encoder",
        "generator",
    )
    exports = ("prior", "readout")
    monitor = f"val/snd[{SPACE}]"
    mode = "min"
    causal: ClassVar[bool]

    def __init__(
        self,
        audio_encoder: Source,
        motion_encoder: Source,
        nonlip_head: Source,
        lip_head: Source,
        identity_encoder: Source | None,
        generator: Source | None,
        prior: dict[str, Any] | None,
        weights: dict[str, float] | None,
        image_size: int,
        lr: float,
        weight_decay: float,
        sampler: SamplerSettings | None,
        takes: int,
        validation_clips: int,
    ) -> None:
        """Resolve the frozen parts and build the prior.

        Raises:
            ConfigError: ``prior`` sets what follows from the consumed parts or from the stage.
            SpecError: The motion encoder was trained on another picture size.
        """
        super().__init__(weights, image_size)
        self.audio_encoder = resolve(AudioEncoder, audio_encoder, "audio_encoder")
        self.motion_encoder = resolve(MotionEncoder, motion_encoder, "motion_encoder")
        trained_on = (
            (getattr(self.motion_encoder, "origin", None) or {}).get("video", {}).get("size")
        )
        if trained_on not in (None, image_size):
            raise SpecError(
                f"the motion encoder was trained on crops of {trained_on} pixels, got image_size "
                f"{image_size}; set model.image_size to {trained_on}."
            )
        self.nonlip_head = resolve(NonLipHead, nonlip_head, "nonlip_head")
        self.lip_head = resolve(LipHead, lip_head, "lip_head")
        self.identity_encoder = (
            resolve(IdentityEncoder, identity_encoder, "identity_encoder")
            if identity_encoder
            else None
        )
        self.generator = resolve(StyleGenerator, generator, "generator") if generator else None
        fixed = {
            "audio_dim": self.audio_encoder.dim,
            "code_dim": self.nonlip_head.spec["code_dim"],
            "causal": self.causal,
        }
        clash = sorted(set(fixed) & set(prior or {}))
        if clash:
            raise ConfigError(
                f"prior: {', '.join(clash)} follow from the stage and the parts it consumes; "
                "remove them."
            )
        self.prior = build(PriorNetwork, {**(prior or {}), **fixed}, "prior")
        if takes < 1:
            raise ConfigError(f"expected at least 1 take a test clip, got {takes}; raise takes.")
        self.lr, self.weight_decay = lr, weight_decay
        self.sampler = sampler or SamplerSettings()
        self.takes, self.validation_clips = takes, validation_clips
        self.readout: MotionReadout | None
        object.__setattr__(self, "readout", None)
        self.clip_evaluators: list[ClipEvaluator] = []
        self._own_evaluators: list[ClipEvaluator] = []
        self._readout_quality: dict[str, float] = {}
        self.test_scores: TestScores | None = None
        # No submodule: an average of the weights copies the stage before there is one.
        self._validation_snd: list[SND] = []

    # -- data ------------------------------------------------------------------------------------

    def needs(self) -> Sequences:
        """Runs of as many frames as the prior has positions."""
        return Sequences(length=self.prior.max_length)

    def feature_sources(self) -> dict[str, FeatureSource]:
        """``audio`` and ``nonlip``, keyed by the weights they come from."""
        parts = [weights_digest(part) for part in (self.motion_encoder, self.nonlip_head)]
        return {
            "audio": FeatureSource(
                name="audio",
                digest=weights_digest(self.audio_encoder),
                kind="mel",
                module=self.audio_encoder,
                dim=self.prior.audio_dim,
            ),
            "nonlip": FeatureSource(
                name="nonlip",
                digest=hashlib.sha256("".join(parts).encode()).hexdigest(),
                kind="frames",
                module=nn.Sequential(self.motion_encoder, self.nonlip_head).eval(),
                dim=self.prior.code_dim,
                size=self.video_spec.size,
            ),
        }

    @property
    def standard(self) -> Standard:
        """Mean and deviation of the codes on the training split."""
        return self.prior.code_mean, self.prior.code_std

    def on_fit_start(self) -> None:
        """Check clocks; take feature statistics and read-out unless a checkpoint gave them.

        Raises:
            ConfigError: There are none and the datamodule has no feature store to take them from.
        """
        super().on_fit_start()
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if self.readout is None and hasattr(datamodule, "clip_truth_path"):
            fitted = fit_motion_readout(datamodule, self.lip_head)
            object.__setattr__(self, "readout", fitted)
        if bool(self.prior.has_statistics):
            return
        if not (hasattr(datamodule, "store") and hasattr(datamodule, "prepared")):
            raise ConfigError(
                "expected a talkhead datamodule to take feature statistics from, got "
                f"{type(datamodule).__name__}; use one, or call prior.set_statistics(...) first."
            )
        rows = datamodule.prepared.rows("train")
        rows = rows[:: max(1, len(rows) // STATISTICS_CLIPS)]
        clips = ({name: datamodule.store.window(name, r) for name in FEATURES} for r in rows)
        self.prior.set_statistics(**feature_statistics(clips))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As every stage, with the read-out."""
        super().on_save_checkpoint(checkpoint)
        if self.readout is not None:
            add_readout(checkpoint, self.readout)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As every stage, with the read-out."""
        super().on_load_checkpoint(checkpoint)
        object.__setattr__(self, "readout", take_readout(checkpoint))

    # -- training and validation -----------------------------------------------------------------

    @abstractmethod
    def score(self, batch: SequenceBatch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Loss terms; all random draws come from ``generator`` (None is the global one)."""

    def losses(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """``simple`` (eq. 7) and ``velocity`` (eq. 8), in standardised codes."""
        return self.score(batch, None)

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Weighted sum of the losses."""
        return self.weighted(self.losses(batch), "train", len(batch.valid))

    def on_validation_epoch_start(self) -> None:
        """A fresh accumulator, in the units of the training split."""
        self._validation_snd[:] = [SND(standard=self.standard).to(self.device)]

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Losses at the same noise every time; SND of samples of the first ``validation_clips``."""
        generator = torch.Generator(self.device).manual_seed(VALIDATION_SEED + batch_idx)
        window = cropped(
            batch, len(batch.valid), self.prior.max_length
        )  # evaluation runs may be whole clips
        self.weighted(self.score(window, generator), "val", len(batch.valid))
        if batch_idx == 0:
            (snd,) = self._validation_snd
            here = len(range(self.global_rank, self.validation_clips, self.trainer.world_size))
            for item in self._items(cropped(batch, here, batch.valid.shape[1]), takes=1):
                key = [f"{item.clip}@{item.start}"]
                snd.update(item.generated, item.real[None], clip=key)

    def on_validation_epoch_end(self) -> None:
        """Log the sampled SND."""
        if self.validation_clips > 0:
            self.log(self.monitor, self._validation_snd[0].compute().float(), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW on the prior only."""
        return torch.optim.AdamW(
            self.prior.parameters(),
            lr=self.lr,
            weight_decay=self.weight_decay,
            fused=self.fused_adam,
        )

    # -- test and predict ------------------------------------------------------------------------

    def on_test_start(self) -> None:
        """Fresh accumulators; scores in descriptors where the data offer them."""
        self._own_evaluators = [JumpScores(self, self.standard, SPACE)]
        self._readout_quality = {}
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(datamodule, "clip_truth_path"):
            found = descriptor_evaluators(datamodule)
            self._own_evaluators += found[0]
            self._readout_quality = found[1]
        self.test_scores = TestScores(self.evaluate_clip, self.standard, SPACE)
        self.per_clip_results = []

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Draw ``takes`` samples for every run of frames and score them."""
        assert self.test_scores is not None  # made in on_test_start
        for item in self._items(batch, self.takes):
            self.test_scores.add(item)

    def on_test_epoch_end(self) -> None:
        """Score the baselines, too; log ``test/<name>`` and ``test/<baseline>/<name>``."""
        assert self.test_scores is not None  # made in on_test_start
        means = self.test_scores.finish()
        means |= self._readout_quality
        # The same on every rank already; saying so keeps Lightning from warning.
        self.log_dict({f"test/{name}": value for name, value in means.items()}, sync_dist=True)
        self.per_clip_results = self.test_scores.clip_rows()

    def evaluate_clip(self, sample: ClipSample) -> dict[str, float]:
        """Scores of one clip: code space, descriptors, then all of :attr:`clip_evaluators`.

        Callbacks add measures in other spaces by appending to that list before testing starts.
        """
        mean, std = (value.to(sample.real) for value in self.standard)
        scores = motion_scores(sample.generated, sample.real, (mean, std), SPACE)
        for evaluator in (*self._own_evaluators, *self.clip_evaluators):
            scores.update(evaluator(sample))
        return scores

    def predict_step(self, batch: SequenceBatch, batch_idx: int) -> list[ClipSample]:
        """Samples of every run of frames."""
        return self._items(batch, self.takes)

    # -- private ---------------------------------------------------------------------------------

    def _items(self, batch: SequenceBatch, takes: int) -> list[ClipSample]:
        """Samples of a batch, run by run; runs of one length share a network pass."""
        lengths = batch.valid.sum(1).tolist()
        names = batch.clip or [f"row{i}" for i in range(len(lengths))]
        starts = batch.start.tolist()
        found: dict[int, ClipSample] = {}
        for length in sorted(set(lengths)):
            if length < MIN_FRAMES:
                short = [names[i] for i, n in enumerate(lengths) if n == length]
                log.warning("not scored, shorter than %d frames: %s", MIN_FRAMES, ", ".join(short))
                continue
            rows = [i for i, n in enumerate(lengths) if n == length]
            audio = batch.features["audio"][rows, :length].float()
            keys = [f"{names[i]}@{starts[i]}" for i in rows]
            seeds = [item_seed(self.sampler.seed, key, k) for key in keys for k in range(takes)]
            real = batch.features["nonlip"][rows, :length].float()
            repeated = audio.repeat_interleave(takes, 0)
            codes = self.sample(repeated, seeds, clean=self._portraits(real, takes))
            for n, (i, made) in enumerate(zip(rows, codes.unflatten(0, (-1, takes)), strict=True)):
                found[i] = ClipSample(names[i], starts[i], made, real[n], audio[n])
        return [found[i] for i in sorted(found)]

    def _portraits(self, real: Tensor, takes: int) -> CleanFrames | None:
        """The first frames of real codes ``(n, T, D)``, if samples are to begin with them."""
        if self.sampler.start == "noise":
            return None
        first = torch.zeros(real.shape[:2], dtype=torch.bool, device=real.device)
        first[:, 0] = True
        return CleanFrames(real.repeat_interleave(takes, 0), first.repeat_interleave(takes, 0))
