"""Stage 80: speech to landmark motion in two streams, refined by shallow diffusion."""

from __future__ import annotations

import time
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from talkhead.batch import FeatureSource, SequenceBatch, Sequences
from talkhead.diffusion.sampler import SamplerKind, SamplerSettings, item_seed
from talkhead.diffusion.shallow import BoundaryCalibration, StartKind, StartStep, check_start
from talkhead.errors import ConfigError
from talkhead.losses.motion_streams import Independence, Norm
from talkhead.metrics.sequences import Standard
from talkhead.metrics.snd import SND
from talkhead.networks.landmark_motion_model import LandmarkMotionModel, SampleCost
from talkhead.ranks import gather_lists
from talkhead.stages.base import Stage, build
from talkhead.stages.keypoint_features import resolve_landmark_renderer
from talkhead.stages.landmark_features import (
    POINTS,
    LandmarkRun,
    landmark_sources,
    read_run,
    row_statistics,
)
from talkhead.stages.landmark_scores import LandmarkScores, stream_scores
from talkhead.stages.landmark_terms import TermOptions, motion_terms
from talkhead.stages.motion_evaluation import ClipEvaluator, ClipSample, TestScores, motion_scores
from talkhead.stages.motion_features import STATISTICS_CLIPS, cropped

SPACE = "landmarks"
VALIDATION_SEED = 30_000


class ShallowDiffusionStage(Stage):
    """Pose stream from content, rhythmic stream from prosody, and a denoiser that starts from their sum.

    | term             | equation | what it is                                                           |
    |------------------|----------|----------------------------------------------------------------------|
    | `regularisation` | 4        | codes of real frames pass the motion decoder unchanged                 |
    | `cycle`          | 3        | the decoder goes back from a frame's code by the codes' difference      |
    | `independence`   | 5        | squared correlation of the streams' codes, or their distance            |
    | `reconstruction` | 10       | coarse motion, free running, against the real one                      |
    | `diffusion`      | 9        | error of the denoiser's noise (or ``target``) at a random step           |
    | `step`           | none     | predicted share of the chain against the boundary of each run           |

    All are means over entries; landmarks count in deviations. The denoiser is told the coarse motion as a
    constant: its loss does not reach the streams. Known frames count in no term of landmarks.

    The shallow step is calibrated at every validation on coarse predictions of the validation runs and
    kept in the model; the denoiser learns all steps, so that another ``start_step`` needs no training.

    Source: paper 2 section 3, equations 1 to 12, weights and Adam of section 4.1; readings as
        reference-facts 5.2 and 10 recommend. Equation 11 has no diffusion loss and names no cycle; both
        have weight 1 here, as has the step predictor, whose loss is ours.
    """

    consumes = ("keypoint_detector", "keypoint_renderer")
    exports = ("motion_model",)
    monitor = f"val/snd[{SPACE}]"
    default_weights = {
        "regularisation": 5.0,
        "independence": 2.0,
        "reconstruction": 1.0,
        "cycle": 1.0,
        "diffusion": 1.0,
        "step": 1.0,
    }

    def __init__(
        self,
        keypoint_detector: str | dict[str, Any] | None = None,
        keypoint_renderer: str | dict[str, Any] | None = None,
        motion_model: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        image_size: int = 256,
        independence: Independence = "decorrelated",
        norm: Norm = "l2",
        diffusion_norm: Norm = "l2",
        chain_share: float = 0.5,
        train_below: int | None = None,
        start: StartKind = "calibrated",
        start_step: int | None = None,
        tolerance: float = 0.0,
        sampler: SamplerKind = "dpmpp2m",
        sampling_steps: int = 20,
        overlap: int = 8,
        sample_seed: int = 0,
        takes: int = 2,
        validation_clips: int = 8,
        measure_time: bool = True,
        lr: float = 2e-4,
        betas: list[float] = [0.4, 0.999],  # noqa: B006 - jsonargparse documents a list default; never mutated
    ) -> None:
        """Configure the stage.

        Args:
            keypoint_detector: Checkpoint of stage ``keypoint_reenactment`` with ``detector: landmarks``,
                carried along for ``talkhead generate``; null leaves it out.
            keypoint_renderer: The same checkpoint.
            motion_model: Options of :class:`LandmarkMotionModel`.
            weights: Loss weights by term.
            image_size: Side of the pictures of the renderer, in pixels.
            independence: Form of equation 5: ``decorrelated`` or ``literal``.
            norm: Of terms of equations 3, 4, 10 and the literal 5: ``l2`` or ``l1``.
            diffusion_norm: Of the denoiser's loss.
            chain_share: Share of training batches that begin as a later window does: some frames known,
                and a portrait from anywhere in the run. The others know frame 0 alone, the portrait.
            train_below: Train the denoiser on so many steps only; null trains all.
            start: Where sampling starts: at the step ``calibrated`` in validation, at the one ``predicted``
                for each run, or at pure ``noise``; chosen at test time.
            start_step: After so many diffusion steps instead; 0 leaves the coarse motion as it is.
            tolerance: Nats an entry that the boundary always allows.
            sampler: ``ddpm``, ``ddim`` or ``dpmpp2m``.
            sampling_steps: Evaluations of the full chain; a shallow start runs those below its step.
            overlap: Known frames between windows.
            sample_seed: Of all samples.
            takes: Samples of a test run.
            validation_clips: Runs sampled in validation, 0 for none.
            measure_time: Log the time of sampling in a test.
            lr: Learning rate.
            betas: Adam's two decay rates.

        Raises:
            ConfigError: A value out of range.
        """
        super().__init__(weights, image_size)
        self.save_hyperparameters()
        if len(betas) != 2:
            raise ConfigError(f"betas: expected two numbers, got {betas}.")
        if not 0.0 <= chain_share <= 1.0 or takes < 1:
            raise ConfigError(
                f"expected chain_share in [0, 1] and at least 1 of takes, got {chain_share} and {takes}."
            )
        self.motion_model = build(LandmarkMotionModel, motion_model, "motion_model")
        steps, frames = self.motion_model.schedule.steps, self.motion_model.max_length
        self.start_step: StartStep = start if start_step is None else start_step
        check_start(self.start_step, steps)
        if train_below is not None and not 1 <= train_below <= steps:
            raise ConfigError(f"train_below: expected 1 to {steps} or null, got {train_below}.")
        if not overlap < frames:
            raise ConfigError(f"overlap: expected 1 to {frames - 1} frames, got {overlap}.")
        self.keypoint_detector, self.keypoint_renderer = resolve_landmark_renderer(
            keypoint_detector, keypoint_renderer
        )
        self.options = TermOptions(independence, norm, diffusion_norm, train_below, tolerance)
        self.chain_share = chain_share
        self.settings = SamplerSettings(
            kind=sampler, steps=sampling_steps, guidance=1.0, overlap=overlap, seed=sample_seed
        )
        self.takes, self.validation_clips = takes, validation_clips
        self.measure_time = measure_time
        self.lr, self.betas = lr, (float(betas[0]), float(betas[1]))
        self.clip_evaluators: list[ClipEvaluator] = []
        self.test_scores: TestScores | None = None
        self._calibration = BoundaryCalibration()
        self._snd: list[SND] = []  # no submodule, so that an average of weights need not have it
        self._cost, self._seconds, self._frames = SampleCost(), 0.0, 0

    # -- data ------------------------------------------------------------------------------------

    def needs(self) -> Sequences:
        """Whole runs of a window."""
        return Sequences(length=self.motion_model.max_length, whole=True)

    def feature_sources(self) -> dict[str, FeatureSource]:
        """Points, mel and prosody."""
        return landmark_sources()

    @property
    def standard(self) -> Standard:
        """Mean of rows, and their deviation within clips, on the training split."""
        return self.motion_model.face_mean, self.motion_model.motion_std

    def on_fit_start(self) -> None:
        """Check clocks; take landmark statistics unless a checkpoint gave them.

        Raises:
            ConfigError: There are none and the datamodule has no feature store to take them from.
        """
        super().on_fit_start()
        if bool(self.motion_model.has_statistics):
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        if not (hasattr(data, "store") and hasattr(data, "prepared")):
            raise ConfigError(
                "expected a talkhead datamodule to take landmark statistics from, got "
                f"{type(data).__name__}; use one, or call motion_model.set_statistics(...) first."
            )
        rows = data.prepared.rows("train")
        rows = rows[:: max(1, len(rows) // STATISTICS_CLIPS)]
        self.motion_model.set_statistics(
            *row_statistics(data.store.window(POINTS, r) for r in rows)
        )

    # -- losses ----------------------------------------------------------------------------------

    def losses(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Every term of a batch."""
        run = read_run(batch)
        known, first = self._beginning(run)
        return motion_terms(self.motion_model, run, known, first, self.options).terms

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Weighted sum of the losses."""
        return self.weighted(self.losses(batch), "train", len(batch.valid))

    def on_validation_epoch_start(self) -> None:
        """Fresh accumulators."""
        self._calibration = BoundaryCalibration()
        self._snd[:] = [SND(standard=self.standard).to(self.device)]

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Losses at the same noise every time, the boundary's sums, SND of samples of the first runs."""
        rows = len(batch.valid)
        run = read_run(cropped(batch, rows, self.motion_model.max_length))
        generator = torch.Generator(self.device).manual_seed(VALIDATION_SEED + batch_idx)
        found = motion_terms(
            self.motion_model, run, 1, run.rows[:, 0], self.options, generator=generator
        )
        self.weighted(found.terms, "val", rows)
        self._calibration.update(found.coarse.motion[:, 1:], found.motion[:, 1:])
        here = len(range(self.global_rank, self.validation_clips, self.trainer.world_size))
        if batch_idx == 0 and here:
            for item in self._samples(cropped(batch, here, batch.valid.shape[1]), 1):
                key = [f"{item.clip}@{item.start}"]
                self._snd[0].update(item.generated, item.real[None], clip=key)

    def on_validation_epoch_end(self) -> None:
        """Keep the calibrated step; log it and the sampled SND."""
        joined = BoundaryCalibration.joined(gather_lists([self._calibration.sums]))
        found = joined.step(self.motion_model.schedule, tolerance=self.options.tolerance)
        if found is not None and not self.trainer.sanity_checking:
            self.motion_model.calibrated_step.fill_(found)
        step = self.motion_model.calibrated_step.float()
        self.log("val/shallow_step", step, sync_dist=True)
        if self.validation_clips > 0:
            self.log(self.monitor, self._snd[0].compute().float(), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam on the motion model."""
        return torch.optim.Adam(
            self.motion_model.parameters(), self.lr, self.betas, fused=self.fused_adam
        )

    # -- test and predict ------------------------------------------------------------------------

    def on_test_start(self) -> None:
        """Fresh accumulators."""
        self.test_scores = TestScores(self.evaluate_clip, self.standard, SPACE)
        self._cost, self._seconds, self._frames = SampleCost(), 0.0, 0
        self.per_clip_results = []

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Draw ``takes`` samples of every run and score them."""
        assert self.test_scores is not None  # made in on_test_start
        for sample in self._samples(batch, self.takes):
            self.test_scores.add(sample)

    def on_test_epoch_end(self) -> None:
        """Score baselines, streams and cost, too; log ``test/<name>`` and ``test/<baseline>/<name>``."""
        assert self.test_scores is not None  # made in on_test_start
        means = self.test_scores.finish()
        means["network_evaluations"] = self._cost.evaluations / max(1, self._cost.windows)
        if self.measure_time:
            means["sampling_time"] = 1000 * self._seconds / max(1, self._frames)
        data: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(data, "clip_truth_path"):
            means |= stream_scores(self.motion_model, data, self.device)
        self.log_dict({f"test/{name}": value for name, value in means.items()}, sync_dist=True)
        self.per_clip_results = self.test_scores.clip_rows()

    def predict_step(self, batch: SequenceBatch, batch_idx: int) -> list[ClipSample]:
        """Samples of every run."""
        return self._samples(batch, self.takes)

    def evaluate_clip(self, sample: ClipSample) -> dict[str, float]:
        """Scores of one run: motion statistics, landmark distances, then :attr:`clip_evaluators`."""
        mean, std = (value.to(sample.real) for value in self.standard)
        scores = motion_scores(sample.generated, sample.real, (mean, std), SPACE)
        own: list[ClipEvaluator] = [LandmarkScores()]
        for evaluator in (*own, *self.clip_evaluators):
            scores.update(evaluator(sample))
        return scores

    # -- private ---------------------------------------------------------------------------------

    def _beginning(self, run: LandmarkRun) -> tuple[int, Tensor]:
        """How many frames are known, and the portraits ``(B, 136)``."""
        rows, frames = run.rows.shape[:2]
        if not self.training or self.chain_share == 0.0 or frames < 3:
            return 1, run.rows[:, 0]
        # On the CPU, whose generator every device of a run shares.
        kind, length = torch.rand(2).tolist()
        at = torch.randint(frames, (rows,))
        if kind >= self.chain_share:
            return 1, run.rows[:, 0]
        # Mostly as short as the overlap; the last window of a clip may know more.
        return 1 + int((frames - 1) * length**3), run.rows[torch.arange(rows), at]

    def _samples(self, batch: SequenceBatch, takes: int) -> list[ClipSample]:
        """Samples of every run of a batch, ``takes`` of each."""
        run = read_run(batch)
        names = batch.clip or [f"row{i}" for i in range(len(run.rows))]
        starts = batch.start.tolist()
        keys = [f"{name}@{start}" for name, start in zip(names, starts, strict=True)]
        seeds = [item_seed(self.settings.seed, key, k) for key in keys for k in range(takes)]
        rows, mel, prosody = (value.repeat_interleave(takes, 0) for value in run)
        begun = time.perf_counter()
        pieces = self.motion_model.sample_rows(
            mel, prosody, rows[:, 0], seeds,
            settings=self.settings, start_step=self.start_step, cost=self._cost,
        )  # fmt: skip
        made = torch.cat(list(pieces), 1).float().cpu()  # the copy waits for the device
        self._seconds += time.perf_counter() - begun
        self._frames += made.shape[0] * made.shape[1]
        made = made.to(rows).unflatten(0, (-1, takes))
        return [
            ClipSample(names[i], starts[i], made[i], run.rows[i], run.prosody[i])
            for i in range(len(made))
        ]
