"""What the two motion priors share: cached features, statistics, validation, sampling and test."""

from __future__ import annotations

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from talkhead.batch import FeatureSource, SequenceBatch, Sequences
from talkhead.checkpoint import Source, resolve
from talkhead.diffusion.chunking import WindowSampler, first_frame, sample_long, sample_stream
from talkhead.diffusion.sampler import CleanFrames, SamplerSettings, item_seed
from talkhead.errors import ConfigError, DataError, SpecError
from talkhead.metrics.sequences import Standard
from talkhead.metrics.snd import SND
from talkhead.networks.audio_encoder import AudioEncoder
from talkhead.networks.component import weights_digest
from talkhead.networks.generator import StyleGenerator
from talkhead.networks.heads import LipHead, NonLipHead
from talkhead.networks.identity_encoder import IdentityEncoder
from talkhead.networks.motion_encoder import MotionEncoder
from talkhead.networks.prior import PriorNetwork
from talkhead.stages.base import Stage, build
from talkhead.stages.motion_evaluation import (
    MIN_FRAMES,
    VARIANTS,
    ClipEvaluator,
    ClipSample,
    PooledDistance,
    baselines,
    derangement,
    gather_rows,
    motion_scores,
    row_means,
)

log = logging.getLogger(__name__)

SPACE = "code"
VALIDATION_SEED = 20_000
FEATURES = {"nonlip": "code", "audio": "audio"}
"""Cached feature -> its name in the prior's statistics."""
STATISTICS_CLIPS = 5000
"""Training clips, evenly spread, beyond which more would not change the statistics."""


class MotionPriorStage(Stage):
    """Base of the stages that learn non-lip motion from sound.

    Both train on cached features only: ``audio`` from the audio encoder and ``nonlip`` from the
    motion encoder and its non-lip head. A subclass says how a batch is scored and how a window is
    sampled. Identity encoder, generator and lip head are carried along untouched so that one
    checkpoint holds all that generation needs.
    """

    consumes = (
        "audio_encoder",
        "motion_encoder",
        "nonlip_head",
        "lip_head",
        "identity_encoder",
        "generator",
    )
    exports = ("prior",)
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
                f"prior: {', '.join(clash)} follow from the stage and the parts it consumes; remove them."
            )
        self.prior = build(PriorNetwork, {**(prior or {}), **fixed}, "prior")
        if takes < 1:
            raise ConfigError(f"expected at least 1 take a test clip, got {takes}; raise takes.")
        self.lr, self.weight_decay = lr, weight_decay
        self.sampler = sampler or SamplerSettings()
        self.takes, self.validation_clips = takes, validation_clips
        self.clip_evaluators: list[ClipEvaluator] = []
        self.test_samples: list[ClipSample] = []
        self.variant_results: dict[str, list[dict[str, Any]]] = {}
        self._validation_snd: SND | None = None
        self._pooled: PooledDistance | None = None

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
        """Check clocks; take the training split's feature statistics unless a checkpoint gave them.

        Raises:
            ConfigError: There are none and the datamodule has no feature store to take them from.
        """
        super().on_fit_start()
        if bool(self.prior.has_statistics):
            return
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if not (hasattr(datamodule, "store") and hasattr(datamodule, "prepared")):
            raise ConfigError(
                "expected a talkhead datamodule to take feature statistics from, got "
                f"{type(datamodule).__name__}; use one, or call stage.prior.set_statistics(...) first."
            )
        rows = datamodule.prepared.rows("train")
        rows = rows[:: max(1, len(rows) // STATISTICS_CLIPS)]
        clips = ({name: datamodule.store.window(name, r) for name in FEATURES} for r in rows)
        self.prior.set_statistics(**feature_statistics(clips))

    # -- training and validation -----------------------------------------------------------------

    @abstractmethod
    def score(self, batch: SequenceBatch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Loss terms; all random draws come from ``generator`` (None is the global one)."""

    @abstractmethod
    def window_sampler(self, seeds: Sequence[int], settings: SamplerSettings) -> WindowSampler:
        """Samples one window of standardised codes for rows with these seeds; keeps its random state."""

    def losses(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """``simple`` (eq. 7) and ``velocity`` (eq. 8), in standardised codes."""
        return self.score(batch, None)

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Weighted sum of the losses."""
        return self.weighted(self.losses(batch), "train", len(batch.valid))

    def on_validation_epoch_start(self) -> None:
        """A fresh accumulator, in the units of the training split."""
        self._validation_snd = SND(standard=self.standard).to(self.device)

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Losses at the same noise every time; SND of samples for the first ``validation_clips``."""
        generator = torch.Generator(self.device).manual_seed(VALIDATION_SEED + batch_idx)
        window = cropped(
            batch, len(batch.valid), self.prior.max_length
        )  # evaluation runs may be whole clips
        self.weighted(self.score(window, generator), "val", len(batch.valid))
        if batch_idx == 0 and self._validation_snd is not None:
            for item in self._items(
                cropped(batch, self.validation_clips, batch.valid.shape[1]), takes=1
            ):
                key = [f"{item.clip}@{item.start}"]
                self._validation_snd.update(item.generated, item.real[None], clip=key)

    def on_validation_epoch_end(self) -> None:
        """Log the sampled SND."""
        if self.validation_clips > 0 and self._validation_snd is not None:
            self.log(self.monitor, self._validation_snd.compute().float())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW on the prior only."""
        return torch.optim.AdamW(
            self.prior.parameters(), lr=self.lr, weight_decay=self.weight_decay
        )

    # -- sampling --------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self,
        audio: Tensor,
        seeds: Sequence[int] | None = None,
        *,
        clean: CleanFrames | None = None,
        settings: SamplerSettings | None = None,
    ) -> Tensor:
        """Motion codes for sound of any length.

        Args:
            audio: Audio features, ``(B, T, 512)``.
            seeds: One per row; a row's sample follows from its seed alone, whatever else is in the
                batch.
                Default: derived from the settings' seed and the row number.
            clean: Codes of frames to keep (not standardised), such as the portrait's at frame 0.
            settings: Sampler; default the stage's own.

        Returns:
            ``(B, T, 42)``.
        """
        chosen = settings or self.sampler
        window = self.window_sampler(self._seeds(seeds, audio.shape[0], chosen), chosen)
        kept = None
        if clean is not None:
            kept = CleanFrames(self.prior.standardise(clean.codes), clean.mask)
        codes = sample_long(
            window,
            self.audio_ahead(audio),
            length=self.prior.max_length,
            overlap=chosen.overlap,
            clean=kept,
        )
        return self.prior.restore(codes)

    @torch.no_grad()
    def sample_stream(
        self,
        audio: Iterable[Tensor],
        seeds: Sequence[int],
        *,
        first: Tensor | None = None,
        settings: SamplerSettings | None = None,
    ) -> Iterator[Tensor]:
        """As :meth:`sample`, block by block in constant memory.

        Args:
            audio: Blocks of features ``(B, t, 512)`` in order.
            seeds: One per row.
            first: Code to start from, such as the portrait's, ``(B, 42)``.
            settings: Sampler; default the stage's own.

        Yields:
            New codes ``(B, n, 42)`` as soon as their window has all its sound.
        """
        chosen = settings or self.sampler
        given = None if first is None else first_frame(self.prior.standardise(first))
        pieces = sample_stream(
            self.window_sampler(seeds, chosen),
            self.stream_ahead(audio),
            length=self.prior.max_length,
            overlap=chosen.overlap,
            given=given,
        )
        for codes in pieces:
            yield self.prior.restore(codes)

    def audio_ahead(self, audio: Tensor, valid: Tensor | None = None) -> Tensor:
        """Audio as the tokens see it, ``(B, T, 512)``; a stage with look-ahead shifts it."""
        return audio

    def stream_ahead(self, audio: Iterable[Tensor]) -> Iterable[Tensor]:
        """As :meth:`audio_ahead` for a stream of blocks."""
        return audio

    # -- test and predict ------------------------------------------------------------------------

    def on_test_start(self) -> None:
        """Fresh accumulators."""
        self.test_samples, self.per_clip_results, self.variant_results = [], [], {}
        self._pooled = PooledDistance(self.prior.code_dim, self.standard, VARIANTS).to(self.device)

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Draw ``takes`` samples for every run of frames and score them."""
        for item in self._items(batch, self.takes):
            self._record(item)
            # kept for the baselines and for callbacks that render or measure in another space
            self.test_samples.append(
                ClipSample(
                    item.clip, item.start, item.generated.cpu(), item.real.cpu(), item.audio.cpu()
                )
            )

    def on_test_epoch_end(self) -> None:
        """Score the baselines, then log means over clips: ``test/<name>``, ``test/<baseline>/<name>``."""
        partners = derangement(self.test_samples)
        mean = self.prior.code_mean.cpu()
        for item, j in zip(self.test_samples, partners, strict=True):
            for baseline in baselines(item, mean, self.test_samples[j].real):
                self._record(baseline)
        assert self._pooled is not None  # made in on_test_start
        for variant in VARIANTS:
            rows = gather_rows(self.variant_results.get(variant, []))
            self.variant_results[variant] = rows
            scores = row_means(rows) | self._pooled.compute(variant, SPACE)
            prefix = "test/" if variant == "model" else f"test/{variant}/"
            self.log_dict({f"{prefix}{name}": value for name, value in scores.items()})
        self.per_clip_results = self.variant_results["model"]

    def evaluate_clip(self, sample: ClipSample) -> dict[str, float]:
        """Scores of one clip: code space, then everything in :attr:`clip_evaluators`.

        Callbacks add measures in other spaces by appending to that list before testing starts.
        """
        scores = motion_scores(sample.generated, sample.real, self._standard_on(sample), SPACE)
        for evaluator in self.clip_evaluators:
            scores.update(evaluator(sample))
        return scores

    def predict_step(self, batch: SequenceBatch, batch_idx: int) -> list[ClipSample]:
        """Samples of every run of frames."""
        return self._items(batch, self.takes)

    # -- private ---------------------------------------------------------------------------------

    def _record(self, sample: ClipSample) -> None:
        """Score a sample and keep the row."""
        assert self._pooled is not None  # made in on_test_start
        row = {"clip": sample.clip, "start": sample.start, **self.evaluate_clip(sample)}
        self.variant_results.setdefault(sample.variant, []).append(row)
        self._pooled.update(sample)

    def _standard_on(self, sample: ClipSample) -> Standard:
        mean, std = self.standard
        return mean.to(sample.real), std.to(sample.real)

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
            codes = self.sample(audio.repeat_interleave(takes, 0), seeds).unflatten(0, (-1, takes))
            for n, i in enumerate(rows):
                real = batch.features["nonlip"][i, :length].float()
                found[i] = ClipSample(names[i], starts[i], codes[n], real, audio[n])
        return [found[i] for i in sorted(found)]

    def _seeds(
        self, seeds: Sequence[int] | None, rows: int, settings: SamplerSettings
    ) -> Sequence[int]:
        if seeds is None:
            return [item_seed(settings.seed, f"row{i}") for i in range(rows)]
        if len(seeds) != rows:
            raise ConfigError(
                f"expected {rows} seeds, one per row, got {len(seeds)}; give one each."
            )
        return seeds


def feature_statistics(clips: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean and standard deviation of every feature in :data:`FEATURES` over all frames.

    Args:
        clips: Features of one clip after the other, ``(T, D)`` each.

    Returns:
        ``<name>_mean`` and ``<name>_std``, float32 ``(D,)``.

    Raises:
        DataError: Fewer than two frames.
    """
    count = 0
    sums: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for clip in clips:
        count += len(clip["nonlip"])
        for feature in FEATURES:
            rows = clip[feature].double()
            # sums are taken around the first frame: far from zero they would lose digits
            origin, first, second = sums.get(feature, (rows[0], rows[0] * 0, rows[0] * 0))
            shifted = rows - origin
            sums[feature] = (origin, first + shifted.sum(0), second + shifted.square().sum(0))
    if count < 2:
        raise DataError(
            f"expected at least 2 training frames for the feature statistics, got {count}; "
            "check the training split."
        )
    result = {}
    for feature, name in FEATURES.items():
        origin, first, second = sums[feature]
        offset = first / count
        result[f"{name}_mean"] = (origin + offset).float()
        result[f"{name}_std"] = (second / count - offset.square()).clamp_min(0).sqrt().float()
    return result


def cropped(batch: SequenceBatch, rows: int, length: int) -> SequenceBatch:
    """The first ``rows`` runs of a batch, and the first ``length`` frames of each."""
    return SequenceBatch(
        features={name: value[:rows, :length] for name, value in batch.features.items()},
        motion=batch.motion[:rows, :length],
        valid=batch.valid[:rows, :length],
        start=batch.start[:rows],
        clip=batch.clip[:rows],
    )
