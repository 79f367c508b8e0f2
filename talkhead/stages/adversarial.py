"""The two-optimiser loop shared by the stages that train an image generator against a discriminator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from talkhead.batch import to_bytes
from talkhead.errors import ConfigError
from talkhead.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from talkhead.losses.feature_matching import feature_matching_loss
from talkhead.losses.perceptual import perceptual_loss
from talkhead.losses.region import region_loss
from talkhead.networks.component import Component
from talkhead.networks.discriminator import Judgement, PatchDiscriminator
from talkhead.networks.perceptual import VGG19Features
from talkhead.stages.base import Stage, build
from talkhead.stages.two_optimisers import leave_out_of_global_step, take_step


class Reconstruction(NamedTuple):
    """What a stage makes of a batch.

    Attributes:
        real: Real pictures ``(n, 3, H, W)`` in [-1, 1].
        fake: Generated ones.
        landmarks: ``(n, 478, 3)`` of the real ones in crop units.
        terms: The stage's own loss terms.
        condition: What the discriminator is told about every picture, real or generated, beside the
            picture itself; None for one that sees pictures alone.
    """

    real: Tensor
    fake: Tensor
    landmarks: Tensor
    terms: dict[str, Tensor]
    condition: Tensor | None = None


@dataclass
class GeneratorPass:
    """What one pass of the generator gave.

    Attributes:
        real: Real pictures ``(n, 3, H, W)`` in [-1, 1].
        fake: Generated ones.
        terms: Every generator term, unweighted, by name.
        judged: Real and generated pictures as losses and discriminator see them.
        condition: As in :class:`Reconstruction`.
    """

    real: Tensor
    fake: Tensor
    terms: dict[str, Tensor]
    judged: tuple[Tensor, Tensor]
    condition: Tensor | None


class AdversarialStage(Stage):
    """Base of the GAN stages: one generator pass a batch, reused for the discriminator's step.

    Lightning counts every ``optimizer.step()`` as a global step under manual optimisation; the
    discriminator's steps are taken out of that count, so ``max_steps`` means batches here as
    everywhere else. Gradient clipping and learning-rate decay, which the Trainer refuses under manual
    optimisation, are arguments of the stage.

    Without a weight on ``gan`` and ``feature_matching`` the discriminator is neither run nor trained.
    """

    monitor = "val/psnr"
    mode = "max"
    discriminator_class: ClassVar[type[Component]] = PatchDiscriminator
    vgg_options: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        weights: dict[str, float] | None,
        image_size: int,
        discriminator: dict[str, Any] | None,
        vgg_weights: str | None,
        gan_mode: str,
        lr_discriminator: float,
        betas: list[float],
        lr_decay: float,
        lr_decay_batches: int,
        lr_warmup_batches: int,
        grad_clip: float,
        r1: float,
        r1_every: int,
    ) -> None:
        """Build the discriminator and the perceptual network; see the stages for the arguments."""
        super().__init__(weights, image_size)
        self.automatic_optimization = False
        if len(betas) != 2:
            raise ConfigError(f"betas: expected two numbers, got {betas}.")
        self.gan_mode = gan_mode
        self.lr_discriminator = lr_discriminator
        self.betas = (float(betas[0]), float(betas[1]))
        self.lr_decay = lr_decay
        self.lr_decay_batches = lr_decay_batches
        self.lr_warmup_batches = lr_warmup_batches
        self.grad_clip = grad_clip
        if r1 < 0 or r1_every < 1:
            raise ConfigError(
                f"r1: expected a weight of at least 0, every 1 or more batches, got {r1} and {r1_every}."
            )
        self.r1, self.r1_every = r1, r1_every
        self.has_adversary = any(self.loss_weights[t] > 0 for t in ("gan", "feature_matching"))
        self.discriminator = build(self.discriminator_class, discriminator, "discriminator")
        self.vgg = None
        if self.loss_weights["perceptual"] > 0 and vgg_weights is not None:
            vgg = VGG19Features(weights_path=vgg_weights, **self.vgg_options)
            self.vgg = vgg.eval().requires_grad_(False)

    # -- to be given by the stage ----------------------------------------------------------------

    def reconstruct(self, batch: Any) -> Reconstruction:
        """One generator pass."""
        raise ConfigError(f"{type(self).__name__} does not define reconstruct().")

    def generator_groups(self) -> list[dict[str, Any]]:
        """Optimiser groups of everything trained together with the generator."""
        raise ConfigError(f"{type(self).__name__} does not define generator_groups().")

    # -- losses ----------------------------------------------------------------------------------

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Every generator term, unweighted, by name."""
        return self.generator_pass(batch).terms

    def judged(self, real: Tensor, fake: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """Real and generated pictures as losses and discriminator are to see them: here as they are."""
        return real, fake

    def perceptual(self, vgg: VGG19Features, fake: Tensor, real: Tensor) -> Tensor:
        """The perceptual term of generated and real pictures."""
        return perceptual_loss(vgg, fake, real)

    def judge(self, pictures: Tensor, condition: Tensor | None) -> list[Judgement]:
        """What the discriminator says of pictures, and of their condition if there is one."""
        shown = (pictures,) if condition is None else (pictures, condition)
        judgement: list[Judgement] = self.discriminator(*shown)
        return judgement

    def adversarial_terms(self, real: list[Judgement], fake: list[Judgement]) -> dict[str, Tensor]:
        """What the generator learns from how real and generated pictures were judged."""
        return {
            "gan": generator_loss([logits for logits, _ in fake], mode=self.gan_mode),
            "feature_matching": feature_matching_loss(
                [features for _, features in real], [features for _, features in fake]
            ),
        }

    def discriminator_term(self, real: list[Judgement], fake: list[Judgement]) -> Tensor:
        """What the discriminator learns from its own judgements."""
        return discriminator_loss(
            [logits for logits, _ in real], [logits for logits, _ in fake], mode=self.gan_mode
        )

    def generator_pass(self, batch: Any) -> GeneratorPass:
        """Generate once and compute every generator term."""
        whole_real, whole_fake, landmarks, terms, condition = self.reconstruct(batch)
        real, fake = self.judged(whole_real, whole_fake, landmarks)
        if self.has_adversary:
            fake_out = self.judge(fake, condition)
            with torch.no_grad():
                real_out = self.judge(real, condition)
            terms |= self.adversarial_terms(real_out, fake_out)
        terms["region"] = region_loss(fake, real, landmarks)
        terms["pixel"] = l1_loss(fake, real)
        if self.vgg is not None:
            terms["perceptual"] = self.perceptual(self.vgg, fake, real)
        return GeneratorPass(whole_real, whole_fake, terms, (real, fake), condition)

    # -- steps -----------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Say once which public networks are missing."""
        super().on_fit_start()
        if self.vgg is None and self.loss_weights["perceptual"] > 0:
            rank_zero_info(
                "no VGG-19 weights were given (vgg_weights): the perceptual term is left out of this run"
            )

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One generator step and one discriminator step on the same generated pictures."""
        self.discriminator.requires_grad_(False)
        passed = self.generator_pass(batch)
        self.generator_step(self.weighted(passed.terms, "train", len(passed.real)))
        if self.has_adversary:
            _, opt_d = cast(list[LightningOptimizer], self.optimizers())
            self._discriminator_step(opt_d, *passed.judged, passed.condition)
            _, rates_d = cast(list[Any], self.lr_schedulers())
            rates_d.step()

    def generator_step(self, loss: Tensor) -> None:
        """Step along a loss of the generator; the discriminator's steps are no batches."""
        opt_g, opt_d = cast(list[LightningOptimizer], self.optimizers())
        leave_out_of_global_step(opt_d)
        take_step(self, opt_g, loss, self.grad_clip)
        rates, _ = cast(list[Any], self.lr_schedulers())
        rates.step()

    def _discriminator_step(
        self,
        optimizer: LightningOptimizer,
        real: Tensor,
        fake: Tensor,
        condition: Tensor | None,
    ) -> None:
        """Teach the discriminator to tell this batch's pictures apart."""
        self.discriminator.requires_grad_(True)
        penalised = self.r1 > 0 and self.batches_seen % self.r1_every == 0
        real = real.detach().requires_grad_(penalised)
        fake_out, real_out = self.judge(fake.detach(), condition), self.judge(real, condition)
        loss_d = self.discriminator_term(real_out, fake_out)
        if penalised:
            penalty = r1_penalty([logits for logits, _ in real_out], real)
            self.log("train/r1", penalty.detach(), batch_size=len(real))
            loss_d = loss_d + 0.5 * self.r1 * self.r1_every * penalty
        take_step(self, optimizer, loss_d, self.grad_clip)
        self.log("train/loss_discriminator", loss_d.detach(), batch_size=len(real))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Loss terms and reconstruction quality on fixed items."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As validation, on the test split."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Generated pictures ``(n, 3, H, W)`` uint8."""
        return to_bytes(self.reconstruct(batch).fake)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Two Adams with warm-up and step decay; schedulers are stepped by :meth:`training_step`."""
        opt_g = torch.optim.Adam(self.generator_groups(), betas=self.betas, fused=self.fused_adam)
        opt_d = torch.optim.Adam(
            self.discriminator.parameters(),
            self.lr_discriminator,
            self.betas,
            fused=self.fused_adam,
        )
        optimizers: list[torch.optim.Optimizer] = [opt_g, opt_d]
        schedulers = [torch.optim.lr_scheduler.LambdaLR(o, self._rate) for o in optimizers]
        return optimizers, schedulers

    def sample_frames(self, batch: Any) -> Tensor:
        """Real and generated pictures side by side, ``(n, H, 2 W, 3)`` uint8."""
        made = self.reconstruct(batch)
        return to_bytes(torch.cat([made.real, made.fake], dim=-1)).permute(0, 2, 3, 1).cpu()

    # -- helpers ---------------------------------------------------------------------------------

    def _rate(self, batches: int) -> float:
        """Factor on the learning rates: linear warm-up, then steps down."""
        warm = min(1.0, (batches + 1) / max(self.lr_warmup_batches, 1))
        return warm * float(self.lr_decay ** (batches // self.lr_decay_batches))

    def _evaluate(self, batch: Any, prefix: str) -> None:
        passed = self.generator_pass(batch)
        real, fake = passed.real, passed.fake
        self.weighted(passed.terms, prefix, len(real))
        quality = {
            f"{prefix}/psnr": peak_signal_noise_ratio(fake, real, data_range=(-1.0, 1.0)),
            f"{prefix}/ssim": cast(
                Tensor, structural_similarity_index_measure(fake, real, data_range=(-1.0, 1.0))
            ),
        }
        self.log_dict(quality, batch_size=len(real), sync_dist=True)


def trainable(parts: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    """The parameters of several modules that require gradients."""
    return (p for part in parts for p in part.parameters() if p.requires_grad)
