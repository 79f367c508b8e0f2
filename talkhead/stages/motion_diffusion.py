"""Stage 40: the diffusion prior from speech to non-lip motion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from talkhead.batch import SequenceBatch
from talkhead.checkpoint import Source
from talkhead.diffusion.chunking import WindowSampler
from talkhead.diffusion.guidance import guided_denoiser
from talkhead.diffusion.sampler import CleanFrames, ItemNoise, SamplerSettings, sample
from talkhead.diffusion.schedule import NoiseSchedule, ScheduleKind
from talkhead.diffusion.target import TARGETS, Target, from_x0, to_x0
from talkhead.errors import ConfigError
from talkhead.losses.motion import code_loss, velocity_loss
from talkhead.stages.motion_prior import MotionPriorStage


class MotionDiffusionStage(MotionPriorStage):
    """Denoise sequences of non-lip codes given the sound; sample them by diffusion.

    The network predicts the clean codes (or the noise, or the diffusion velocity) at a uniformly drawn
    step. In one share of the training
    sequences some frames are shown clean, which is what lets windows be chained and frames be
    edited at test time.

    Source: paper 1 section 3.2, eq. 6-10, supplement I.3-I.4; reference-facts 4; cosine schedule from
    MDM. Deviates: the paper shows 10 % random clean frames in every sequence, so that its network never
    meets what the first window of a sample is, a sequence without any; here ``free_share`` of the
    sequences have none, and ``prefix_share`` have a clean beginning, which is what chaining gives it.
    """

    causal = False
    default_weights: ClassVar[Mapping[str, float]] = {"simple": 1.0, "velocity": 1.0}

    def __init__(
        self,
        audio_encoder: Source,
        motion_encoder: Source,
        nonlip_head: Source,
        lip_head: Source,
        identity_encoder: Source | None = None,
        generator: Source | None = None,
        prior: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        image_size: int = 224,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        sampler: SamplerSettings | None = None,
        takes: int = 2,
        validation_clips: int = 8,
        schedule: ScheduleKind = "cosine",
        diffusion_steps: int = 1000,
        target: Target = "x0",
        condition_drop: float = 0.1,
        train_editing: bool = True,
        editing_share: float = 0.1,
        prefix_share: float = 0.25,
        free_share: float = 0.25,
    ) -> None:
        """Configure the stage.

        Args:
            audio_encoder: Checkpoint of stage ``av_contrastive``.
            motion_encoder: Checkpoint of stage ``reenactment`` or ``av_contrastive``.
            nonlip_head: Checkpoint of stage ``lip_disentangle``.
            lip_head: Checkpoint of stage ``lip_disentangle``; not trained on, kept for generation.
            identity_encoder: Checkpoint of stage ``reenactment``; as ``lip_head``, may be left out.
            generator: Checkpoint of stage ``lip_disentangle``; as ``lip_head``, may be left out.
            prior: Options of :class:`PriorNetwork`.
            weights: Loss weights by term; ``velocity: 0`` is the paper's "w/o L_vel".
            image_size: Side of the crops the motion encoder works on, in pixels.
            lr: Learning rate (AdamW).
            weight_decay: Decoupled weight decay.
            sampler: How to sample in validation and test; not stored in checkpoints.
            takes: Samples drawn for each test clip.
            validation_clips: Validation runs sampled for ``val/snd[code]``, 0 for none.
            schedule: Noise schedule.
            diffusion_steps: Steps ``N`` of the schedule.
            target: What the network predicts: ``x0`` as in the paper, ``eps`` or ``v``. ``simple`` is the
                error of that; ``velocity`` is always that of the clean codes it implies. Noise
                prediction says little about them near step ``N``, where the cosine schedule leaves no
                signal; use it with the linear one.
            condition_drop: Share of training sequences whose sound is replaced by the null
                condition.
            train_editing: Show clean frames in training; off is the paper's "training w/o editing",
                which then overwrites the network's answers while sampling, as MDM does.
            editing_share: Clean frames in a sequence with random ones.
            prefix_share: Share of sequences whose first frames are clean instead.
            free_share: Share of sequences without clean frames.

        Raises:
            ConfigError: A share is no probability, prefix and free shares exceed 1 together, or an
                unknown target.
        """
        super().__init__(
            audio_encoder, motion_encoder, nonlip_head, lip_head, identity_encoder, generator,
            prior, weights, image_size, lr, weight_decay, sampler, takes, validation_clips,
        )  # fmt: skip
        self.save_hyperparameters(ignore=["sampler"])
        shares = {
            "condition_drop": condition_drop,
            "editing_share": editing_share,
            "prefix_share": prefix_share,
            "free_share": free_share,
            "prefix_share + free_share": prefix_share + free_share,
        }
        wrong = [f"{name} {value}" for name, value in shares.items() if not 0.0 <= value <= 1.0]
        if wrong:
            raise ConfigError(f"expected shares in [0, 1], got {', '.join(wrong)}; correct them.")
        if target not in TARGETS:
            raise ConfigError(f"expected a target out of {', '.join(TARGETS)}, got {target!r}.")
        self.schedule, self.target = NoiseSchedule(schedule, diffusion_steps), target
        self.condition_drop, self.train_editing = condition_drop, train_editing
        self.editing_share, self.prefix_share, self.free_share = (
            editing_share,
            prefix_share,
            free_share,
        )

    def score(self, batch: SequenceBatch, generator: torch.Generator | None) -> dict[str, Tensor]:
        """Losses of the network's answers at uniformly drawn steps, over all valid frames."""
        codes = self.prior.standardise(batch.features["nonlip"].float())
        rows, device = codes.shape[0], codes.device
        step = torch.randint(self.schedule.steps, (rows,), device=device, generator=generator)
        noise = torch.randn(codes.shape, device=device, generator=generator)
        drop = torch.rand(rows, device=device, generator=generator) < self.condition_drop
        given = self.draw_clean_frames(batch.valid, generator)
        shown = torch.where(given[..., None], codes, self.schedule.noised(codes, step, noise))
        audio = batch.features["audio"].float()
        predicted = self.prior(
            shown, step, audio, given=given, valid=batch.valid, drop=drop
        ).float()
        alpha, sigma = self.schedule.coefficients(step, codes)
        wanted = from_x0(self.target, codes, shown, alpha, sigma)
        clean = to_x0(self.target, predicted, shown, alpha, sigma)
        if self.target == "eps":  # an error of the noise grows by sigma / alpha on its way to x0
            clean = codes + (clean - codes) * (alpha / sigma).clamp_max(1.0)
        return {
            "simple": code_loss(predicted, wanted, batch.valid),
            "velocity": velocity_loss(clean, codes, batch.valid),
        }

    def draw_clean_frames(self, valid: Tensor, generator: torch.Generator | None) -> Tensor:
        """Frames shown clean in training, ``(B, T)`` bool.

        A row has a clean prefix, none, or independent random frames. Prefixes are mostly short, as
        one overlapping frame is the common case, but reach the whole length less one frame.
        """
        rows, frames = valid.shape
        kind, length = torch.rand(2, rows, device=valid.device, generator=generator)
        frame = torch.rand(rows, frames, device=valid.device, generator=generator)
        if not self.train_editing:
            return torch.zeros_like(valid)
        longest = (valid.sum(1) - 1).clamp_min(1)
        count = 1 + ((longest - 1) * length**3).floor()
        prefix = torch.arange(frames, device=valid.device)[None] < count[:, None]
        random = frame < self.editing_share
        is_prefix = (kind < self.prefix_share)[:, None]
        is_free = (kind >= 1.0 - self.free_share)[:, None]
        return torch.where(is_prefix, prefix, random & ~is_free) & valid

    def clean_codes(self, x: Tensor, step: Tensor, audio: Tensor, given: Tensor | None) -> Tensor:
        """The network's answer at noised codes ``(B, T, D)`` and steps ``(B,)``, as clean codes."""
        answer = self.prior.evaluate(x, step, audio, given)
        alpha, sigma = self.schedule.coefficients(step, x)
        return to_x0(self.target, answer.to(x), x, alpha, sigma)

    def window_sampler(self, seeds: Sequence[int], settings: SamplerSettings) -> WindowSampler:
        """Denoise a window from noise; the audio is projected once."""
        prior = self.prior
        noise = ItemNoise(seeds, prior.max_length, prior.code_dim, self.device)

        def window(audio: Tensor, clean: CleanFrames | None) -> Tensor:
            rows, frames = audio.shape[:2]
            edited = clean is not None and self.train_editing
            given = clean.mask if clean is not None and edited else None
            everything = torch.ones(rows, dtype=torch.bool, device=audio.device)
            with_audio = prior.project(audio) if settings.guidance != 0.0 else None
            without = prior.project(audio, everything) if settings.guidance != 1.0 else None
            denoise = guided_denoiser(
                self.clean_codes,
                (with_audio, given),
                (without, given),
                settings.guidance,
            )
            return sample(
                denoise,
                lambda: noise.draw(frames),
                self.schedule,
                settings,
                clean=clean,
                edit_mode="input" if self.train_editing else "prediction",
            )

        return window
