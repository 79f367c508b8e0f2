"""Stage 62: the multi-scale autoregressive generator of keypoint motion, trained against syncers."""

from __future__ import annotations

from typing import Any, cast, get_args

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from talkhead.batch import FeatureSource, SequenceBatch, Sequences
from talkhead.checkpoint import resolve
from talkhead.errors import ConfigError
from talkhead.geometry.keypoints import KEYPOINT_DIM, ROW_DIM
from talkhead.losses.adversarial import discriminator_loss, generator_loss
from talkhead.losses.sync import Reduction, av_sync_loss
from talkhead.metrics.sequences import Standard
from talkhead.networks.mesh_keypoints import MeshKeypoints
from talkhead.networks.motion_discriminator import MotionDiscriminator, MotionJudgement
from talkhead.networks.motion_generator import MotionGenerator
from talkhead.networks.rigid_syncer import RigidSyncer, shortest_run
from talkhead.networks.syncer import SyncerPyramid
from talkhead.stages.base import Stage, build
from talkhead.stages.keypoint_features import (
    KeypointRun,
    augmented,
    keypoint_sources,
    read_run,
    resolve_detector,
    resolve_renderer,
)
from talkhead.stages.keypoint_scores import DriftScores, LandmarkScores, RunData, SyncScores
from talkhead.stages.motion_evaluation import ClipEvaluator, ClipSample, TestScores, motion_scores
from talkhead.stages.motion_features import STATISTICS_CLIPS, feature_statistics
from talkhead.stages.two_optimisers import leave_out_of_global_step, take_step

SPACE = "keypoints"


class MSSyncStage(Stage):
    """Speech to keypoint motion, free running, judged by four syncers and two discriminators.

    A run has ``observed_frames`` real frames and ``predicted_frames`` that follow from the model's own
    output, with gradients through the whole roll-out. The generator minimises

    ``8 L_AV^MS + 0.1 (L_Gf + L_Gs) + L_rec``

    over the re-predicted observed frames and the free ones. The discriminators see the real observed
    frames in front of the generated ones.

    | term             | equation | what it is                                                         |
    |------------------|----------|--------------------------------------------------------------------|
    | `av_sync`        | 4, 6, 7  | negative mean cosine of the frozen syncers over ``av_levels``      |
    | `gan_frames`     | 11       | ``-mean D_f`` over the generated frames                            |
    | `gan_windows`    | 12       | ``-mean D_s``, windows of every length averaged                    |
    | `reconstruction` | 14       | squared distance of the six numbers, mean over frames and points   |
    | `velocity`       | none     | mean absolute velocity, off; the released code has it with weight 0 |

    Source: MS-Sync sections 3.2, 3.3 and 4.1, equations 8 to 16; open points as reference-facts 6.5 to
        6.7 and section 10 recommend. Equation 6 sums over levels, the released code takes the mean
        (``av_reduction``).
    """

    consumes = ("keypoint_detector", "syncer", "keypoint_renderer", "rigid_syncer")
    exports = ("motion_generator",)
    monitor = "val/loss_without_gan"
    default_weights = {
        "av_sync": 8.0,
        "gan_frames": 0.1,
        "gan_windows": 0.1,
        "reconstruction": 1.0,
        "velocity": 0.0,
    }

    def __init__(
        self,
        syncer: str | dict[str, Any],
        keypoint_detector: str | dict[str, Any] | None = None,
        keypoint_renderer: str | dict[str, Any] | None = None,
        rigid_syncer: str | dict[str, Any] | None = None,
        image_size: int = 256,
        observed_frames: int = 3,
        predicted_frames: int = 40,
        motion_generator: dict[str, Any] | None = None,
        discriminator: dict[str, Any] | None = None,
        av_levels: list[int] | None = None,
        av_reduction: Reduction = "mean",
        weights: dict[str, float] | None = None,
        smooth: bool = True,
        augment: bool = True,
        share_roll_out: bool = False,
        lr: float = 2e-5,
        lr_discriminator: float = 1e-5,
        betas: list[float] = [0.0, 0.999],  # noqa: B006 - jsonargparse documents a list default; never mutated
        lr_decay: float = 0.1,
        lr_decay_batches: int = 70_000,
        grad_clip: float = 0.0,
    ) -> None:
        """Configure the stage.

        Args:
            syncer: Checkpoint of stage ``syncer``.
            keypoint_detector: Checkpoint that holds the keypoints the syncer was trained on, or FOMM's
                published file (``….pth.tar``); null takes those of the face mesh.
            keypoint_renderer: Checkpoint of stage ``keypoint_reenactment`` or the same file, carried along
                for ``talkhead generate``; null leaves it out.
            rigid_syncer: Checkpoint of stage ``rigid_syncer``, which judges test clips on points that
                training does not see (face mesh only); null leaves that out.
            image_size: Side of the pictures that the keypoint detector sees, in pixels.
            observed_frames: Real frames a run begins with.
            predicted_frames: Frames after them.
            motion_generator: Options of :class:`MotionGenerator`.
            discriminator: Options of :class:`MotionDiscriminator`.
            av_levels: Levels of ``av_sync``, 0 the finest (200 ms); null takes all of the syncer's,
                ``[0]`` is the single-scale loss of figure 6.
            av_reduction: ``mean`` over levels, the paper's ``sum``, or ``share``, see :data:`Reduction`.
            weights: Loss weights by term.
            smooth: Average keypoints over three frames first, as the released code does.
            augment: Mirror, scale and shift runs, and raise or lower their sound, in training.
            share_roll_out: Show the discriminators the roll-out that the generator has just learned from,
                instead of another one made for them before; saves a quarter of the time.
            lr: Learning rate of the generator.
            lr_discriminator: Learning rate of both discriminators.
            betas: Adam's two decay rates.
            lr_decay: Factor on both rates after ``lr_decay_batches`` batches.
            lr_decay_batches: See ``lr_decay``.
            grad_clip: Largest gradient norm, 0 for none.

        Raises:
            ConfigError: Levels the syncer does not have, runs too short for them or for the discriminator,
                or an unknown reduction.
        """
        super().__init__(weights, image_size)
        self.save_hyperparameters()
        self.automatic_optimization = False
        if len(betas) != 2:
            raise ConfigError(f"betas: expected two numbers, got {betas}.")
        if observed_frames < 2 or predicted_frames < 1:
            raise ConfigError(
                "expected at least 2 observed_frames, which the discriminators compare with, and 1 of "
                f"predicted_frames, got {observed_frames} and {predicted_frames}."
            )
        self.observed_frames, self.predicted_frames = observed_frames, predicted_frames
        self.smooth, self.augment, self.share_roll_out = smooth, augment, share_roll_out
        self.lr, self.lr_discriminator = lr, lr_discriminator
        self.betas = (float(betas[0]), float(betas[1]))
        self.lr_decay, self.lr_decay_batches = lr_decay, lr_decay_batches
        self.grad_clip = grad_clip
        self.keypoint_detector = resolve_detector(keypoint_detector)
        self.syncer = resolve(SyncerPyramid, syncer, "syncer")
        self.keypoint_renderer = resolve_renderer(keypoint_renderer)
        self.rigid_syncer = None
        if rigid_syncer is not None:
            self.rigid_syncer = resolve(RigidSyncer, rigid_syncer, "rigid_syncer")
        self.motion_generator = build(MotionGenerator, motion_generator, "motion_generator")
        self.discriminator = build(MotionDiscriminator, discriminator, "discriminator")
        self.av_levels = self._checked_levels(av_levels)
        if av_reduction not in get_args(Reduction):
            raise ConfigError(
                f"av_reduction: expected {', '.join(get_args(Reduction))}, got {av_reduction!r}."
            )
        self.av_reduction: Reduction = av_reduction
        self.has_adversary = any(self.loss_weights[t] > 0 for t in ("gan_frames", "gan_windows"))
        self.clip_evaluators: list[ClipEvaluator] = []
        self._own_evaluators: list[ClipEvaluator] = []
        self.standard: Standard = (torch.zeros(ROW_DIM), torch.ones(ROW_DIM))
        self.test_scores: TestScores | None = None

    # -- data ------------------------------------------------------------------------------------

    def needs(self) -> Sequences:
        """Whole runs of observed and predicted frames."""
        return Sequences(length=self.observed_frames + self.predicted_frames, whole=True)

    def feature_sources(self) -> dict[str, FeatureSource]:
        """Keypoints, those of the mirrored pictures, and the sound."""
        return keypoint_sources(self.keypoint_detector, self.video_spec.size)

    # -- model -----------------------------------------------------------------------------------

    def forward(self, run: KeypointRun) -> Tensor:
        """Motion ``(B, T, 60)`` from the first observed frames of a run and all of its sound."""
        observed = run.keypoints[:, : self.observed_frames]
        made: Tensor = self.motion_generator(observed, run.audio)
        return made

    def losses(self, batch: SequenceBatch) -> dict[str, Tensor]:
        """Every term of the generator."""
        run = self._read(batch)
        return self._terms(run, self(run))

    # -- steps -----------------------------------------------------------------------------------

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """A step of the discriminators and one of the generator, each with a roll-out of its own."""
        opt_g, opt_d = cast(list[LightningOptimizer], self.optimizers())
        rates, rates_d = cast(list[Any], self.lr_schedulers())
        leave_out_of_global_step(opt_d)
        run = self._read(batch)
        if self.has_adversary and not self.share_roll_out:
            with torch.no_grad():
                shown = self(run)
            self._discriminator_step(opt_d, run, shown)
        self.discriminator.requires_grad_(False)
        made = self(run)
        loss = self.weighted(self._terms(run, made), "train", len(made))
        take_step(self, opt_g, loss, self.grad_clip)
        if self.has_adversary and self.share_roll_out:
            self._discriminator_step(opt_d, run, made.detach())
        rates.step()
        if self.has_adversary:
            rates_d.step()

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Loss terms over whole runs, and synchrony on every level (figure 6)."""
        run = read_run(batch, smooth=self.smooth)
        made = self(run)
        rows = len(made)
        terms = self._terms(run, made)
        self.weighted(terms, "val", rows)
        supervised = [self.loss_weights[k] * v for k, v in terms.items() if "gan" not in k]
        scores = {"val/loss_without_gan": torch.stack(supervised).sum()}
        judge = SyncScores(self.syncer)
        found = [judge(sample) for sample in self._samples(batch, run, made)]
        for name in found[0]:
            values = torch.tensor([row[name] for row in found])
            scores[f"val/{name}"] = values.mean()
        self.log_dict(scores, batch_size=rows, sync_dist=True)

    def on_test_start(self) -> None:
        """Fresh accumulators; landmarks, sound and statistics where the data offer them."""
        self._own_evaluators = [SyncScores(self.syncer), DriftScores()]
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if hasattr(datamodule, "store"):
            self.standard = self._statistics(datamodule)
            if isinstance(self.keypoint_detector, MeshKeypoints):
                data = RunData(datamodule.prepared)
                judge = LandmarkScores(self.keypoint_detector, data, self.rigid_syncer)
                self._own_evaluators.append(judge)
        self.test_scores = TestScores(self.evaluate_clip, self.standard, SPACE)
        self.per_clip_results = []

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Roll every run out and score it."""
        assert self.test_scores is not None  # made in on_test_start
        run = read_run(batch, smooth=self.smooth)
        for sample in self._samples(batch, run, self(run)):
            self.test_scores.add(sample)

    def on_test_epoch_end(self) -> None:
        """Score the baselines, too; log ``test/<name>`` and ``test/<baseline>/<name>``."""
        assert self.test_scores is not None  # made in on_test_start
        means = self.test_scores.finish()
        self.log_dict({f"test/{name}": value for name, value in means.items()}, sync_dist=True)
        self.per_clip_results = self.test_scores.clip_rows()

    def predict_step(self, batch: SequenceBatch, batch_idx: int) -> list[ClipSample]:
        """Motion of every run."""
        run = read_run(batch, smooth=self.smooth)
        return self._samples(batch, run, self(run))

    def evaluate_clip(self, sample: ClipSample) -> dict[str, float]:
        """Scores of one run: motion statistics, synchrony, drift, then :attr:`clip_evaluators`."""
        mean, std = (value.to(sample.real) for value in self.standard)
        scores = motion_scores(sample.generated, sample.real, (mean, std), SPACE)
        for evaluator in (*self._own_evaluators, *self.clip_evaluators):
            scores.update(evaluator(sample))
        return scores

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Two Adams whose rates fall once; :meth:`training_step` steps the schedules."""
        parts = ((self.motion_generator, self.lr), (self.discriminator, self.lr_discriminator))
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(part.parameters(), rate, self.betas, fused=self.fused_adam)
            for part, rate in parts
        ]
        schedules = [
            torch.optim.lr_scheduler.StepLR(o, self.lr_decay_batches, self.lr_decay)
            for o in optimizers
        ]
        return optimizers, schedules

    # -- private ---------------------------------------------------------------------------------

    def _checked_levels(self, levels: list[int] | None) -> list[int]:
        known = len(self.syncer.scales)
        wanted = list(range(known)) if levels is None else levels
        if not wanted or not set(wanted) <= set(range(known)):
            raise ConfigError(
                f"av_levels: expected some of 0 to {known - 1}, the syncer's levels, got {levels}."
            )
        fewest, frames = shortest_run(known, 0), self.observed_frames + self.predicted_frames
        if frames < fewest:
            raise ConfigError(
                f"observed_frames + predicted_frames: expected at least {fewest} for the {known} levels of "
                f"the syncer, got {frames}; predict more frames or train a syncer of fewer levels."
            )
        return wanted

    def _statistics(self, datamodule: Any) -> Standard:
        """Mean and deviation of the keypoints of the training split."""
        rows = datamodule.prepared.rows("train")
        rows = rows[:: max(1, len(rows) // STATISTICS_CLIPS)]
        clips = ({"keypoints": datamodule.store.window("keypoints", row)} for row in rows)
        found = feature_statistics(clips, {"keypoints": "keypoints"})
        return found["keypoints_mean"].to(self.device), found["keypoints_std"].to(self.device)

    def _read(self, batch: SequenceBatch) -> KeypointRun:
        """A run as training sees it, or as it is."""
        if self.training and self.augment:
            return augmented(batch, smooth=self.smooth)
        return read_run(batch, smooth=self.smooth)

    def _terms(self, run: KeypointRun, made: Tensor) -> dict[str, Tensor]:
        levels = self.syncer(made, run.audio)
        apart = (made - run.keypoints)[:, 1:]
        terms = {
            "av_sync": av_sync_loss(levels, self.av_reduction, self.av_levels),
            "reconstruction": KEYPOINT_DIM * apart.square().mean(),
            "velocity": made.diff(dim=1).abs().mean(),
        }
        if self.has_adversary:
            judged = self._judged(run, made)
            terms["gan_frames"] = generator_loss([judged.frames])
            terms["gan_windows"] = generator_loss([judged.run])
        return terms

    def _judged(self, run: KeypointRun, made: Tensor) -> MotionJudgement:
        """The discriminators on real observed frames, all but the first, and what follows them."""
        seen = run.keypoints[:, 1 : self.observed_frames]
        shown = torch.cat([seen, made[:, self.observed_frames :]], 1)
        judged: MotionJudgement = self.discriminator(shown, seen.shape[1])
        return judged

    def _discriminator_step(
        self, optimizer: LightningOptimizer, run: KeypointRun, made: Tensor
    ) -> None:
        """Equations 13 and 15."""
        self.discriminator.requires_grad_(True)
        real, fake = self._judged(run, run.keypoints), self._judged(run, made)
        terms = {
            "frames": discriminator_loss([real.frames], [fake.frames]),
            "windows": discriminator_loss([real.run], [fake.run]),
        }
        loss = torch.stack(list(terms.values())).sum()
        take_step(self, optimizer, loss, self.grad_clip)
        logged = {f"train/loss_discriminator_{k}": v.detach() for k, v in terms.items()}
        self.log_dict(logged, batch_size=len(made))

    def _samples(self, batch: SequenceBatch, run: KeypointRun, made: Tensor) -> list[ClipSample]:
        """One sample a run, with the sound of each frame in one row."""
        heard = run.audio.unflatten(1, (made.shape[1], -1)).flatten(2)
        names = batch.clip or [f"row{i}" for i in range(len(made))]
        starts = batch.start.tolist()
        return [
            ClipSample(names[i], starts[i], made[i : i + 1].float(), run.keypoints[i], heard[i])
            for i in range(len(made))
        ]
