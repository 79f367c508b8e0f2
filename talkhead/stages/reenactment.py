"""Stage 10: self-supervised reenactment, which teaches the identity and motion encoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from talkhead.augment import augment_pose_input, shared_shift
from talkhead.batch import FrameBatch, FramePairs, to_float
from talkhead.losses.descriptor import DescriptorHead, shift_motion
from talkhead.losses.foreground import foreground_mask, without_background
from talkhead.networks.generator import StyleGenerator
from talkhead.networks.identity_encoder import IdentityEncoder
from talkhead.networks.motion_encoder import MotionEncoder
from talkhead.stages.adversarial import AdversarialStage, Reconstruction, trainable
from talkhead.stages.base import build


class ReenactmentStage(AdversarialStage):
    """Rebuild a held-out frame from other frames of the video and its own augmented motion code.

    Identity reaches the generator only through the mean code of other frames; the motion encoder sees
    an augmented copy of the target (pixels changed, aspect ratio squeezed), so that what it can carry
    is motion.

    Source: paper 1 section 3.1 and supplement I.2; the recipe is LPD's (reference-facts 1), which the
    paper names without numbers. Deviates: the generator is the style generator of the later stage
    instead of LPD's AdaIN network, and the segmentation and embedding-matching terms are left out, as
    the shards carry neither masks nor a fixed list of training videos.
    """

    exports = ("identity_encoder", "motion_encoder", "generator")
    default_weights = {
        "gan": 1.0,
        "feature_matching": 10.0,
        "perceptual": 10.0,
        "region": 0.0,
        "pixel": 0.0,
        "descriptor": 0.0,
    }

    def __init__(
        self,
        image_size: int = 224,
        identity_frames: int = 8,
        identity_encoder: dict[str, Any] | None = None,
        motion_encoder: dict[str, Any] | None = None,
        generator: dict[str, Any] | None = None,
        discriminator: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        vgg_weights: str | None = None,
        gan_mode: str = "hinge",
        augment: bool = True,
        descriptors: int = 27,
        descriptor_frames: int = 0,
        shared_batch_norm: bool = True,
        foreground_only: bool = False,
        lr: float = 5e-5,
        lr_generator: float | None = None,
        lr_discriminator: float = 2e-4,
        betas: list[float] = [0.0, 0.999],  # noqa: B006 - jsonargparse documents a list default; never mutated
        lr_decay: float = 1.0,
        lr_decay_batches: int = 80_000,
        lr_warmup_batches: int = 0,
        grad_clip: float = 0.0,
        r1: float = 0.0,
        r1_every: int = 16,
    ) -> None:
        """Configure the stage.

        Args:
            image_size: Side of the crops in pixels.
            identity_frames: Identity frames ``K`` of each video.
            identity_encoder: Options of :class:`IdentityEncoder`.
            motion_encoder: Options of :class:`MotionEncoder`.
            generator: Options of :class:`StyleGenerator`.
            discriminator: Options of :class:`PatchDiscriminator`.
            weights: Loss weights by term; ``region`` (mouth and eyes), ``pixel`` (the whole picture) and
                ``descriptor`` are our additions for small runs.
            vgg_weights: File with torchvision's VGG-19 weights; without it the perceptual term is left out.
            gan_mode: ``hinge``, ``log`` or ``least_squares``.
            augment: Augment the motion encoder's input (off: an ablation, identity leaks).
            descriptors: Motion descriptors of the data, for the ``descriptor`` term.
            descriptor_frames: Further frames of each video that only this term sees. They cost a pass of
                the motion encoder and none of the generator.
            shared_batch_norm: Take batch statistics over all ranks; off, each rank uses its own, which
                saves a small exchange for every normalisation.
            foreground_only: Blacken what lies outside the grown face oval in real and generated pictures
                before losses and discriminator see them (:func:`foreground_mask`); PSNR and SSIM are
                of whole pictures either way.
            lr: Learning rate of the encoders.
            lr_generator: Learning rate of the generator, by default the same. Its equalised layers take
                relative steps about ten times smaller than plain ones at the same rate.
            lr_discriminator: Learning rate of the discriminator.
            betas: Adam's two decay rates.
            lr_decay: Factor applied every ``lr_decay_batches`` batches.
            lr_decay_batches: See ``lr_decay``.
            lr_warmup_batches: Batches over which the learning rates rise from 0; large rates need some,
                or the generator saturates and stays there.
            grad_clip: Largest gradient norm, 0 for none.
            r1: Weight gamma of the discriminator's gradient penalty, 0 for none.
            r1_every: Batches from one penalty to the next; it then counts as many times.
        """
        super().__init__(
            weights, image_size, discriminator, vgg_weights, gan_mode, lr_discriminator, betas,
            lr_decay, lr_decay_batches, lr_warmup_batches, grad_clip, r1, r1_every,
        )  # fmt: skip
        self.save_hyperparameters()
        self.lr, self.lr_generator = lr, lr if lr_generator is None else lr_generator
        self.identity_frames = identity_frames
        self.augment, self.descriptor_frames = augment, descriptor_frames
        self.shared_batch_norm, self.foreground_only = shared_batch_norm, foreground_only
        self.identity_encoder = build(IdentityEncoder, identity_encoder, "identity_encoder")
        self.motion_encoder = build(MotionEncoder, motion_encoder, "motion_encoder")
        self.generator = build(StyleGenerator, generator, "generator")
        self.descriptor_head = None
        if self.loss_weights["descriptor"] > 0:
            self.descriptor_head = DescriptorHead(self.motion_encoder.dim, descriptors)

    def on_fit_start(self) -> None:
        """Take the statistics of the descriptors from the data."""
        super().on_fit_start()
        data = getattr(self.trainer, "datamodule", None)
        if self.descriptor_head is not None and data is not None:
            stats = data.motion_stats
            mean, std = torch.as_tensor(stats.mean), torch.as_tensor(stats.std)
            self.descriptor_head.set_statistics(mean.to(self.device), std.to(self.device))

    def needs(self) -> FramePairs:
        """Identity frames, one target frame of each video and those of the ``descriptor`` term."""
        extra = 0 if self.descriptor_head is None else self.descriptor_frames
        return FramePairs(self.identity_frames, self.video_spec.size, extra)

    def reconstruct(self, batch: FrameBatch) -> Reconstruction:
        """Target and its reconstruction; the target is shifted together with the motion input."""
        target, landmarks, motion = to_float(batch.target), batch.landmarks, batch.motion
        augment = self.training and self.augment
        if augment:
            target, landmarks = shared_shift(target, landmarks)
            motion = shift_motion(motion, batch.landmarks, landmarks)
        seen = torch.cat([target, to_float(batch.extra.flatten(0, 1))])
        seen = self.motion_encoder(augment_pose_input(seen) if augment else seen)
        f_v = seen[: len(target)]
        f_id, spatial = self.identity_encoder(to_float(batch.identity))
        fake = self.generator(torch.cat([f_id, f_v], dim=1), spatial)
        terms = {}
        if self.descriptor_head is not None:
            shown = torch.cat([motion, batch.extra_motion.flatten(0, 1)])
            terms["descriptor"] = self.descriptor_head(seen, shown)
        return Reconstruction(target, fake, landmarks, terms)

    def judged(self, real: Tensor, fake: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        """With ``foreground_only`` on black, else as they are."""
        if not self.foreground_only:
            return real, fake
        mask = foreground_mask(landmarks, *real.shape[-2:])
        return without_background(real, mask), without_background(fake, mask)

    def generator_groups(self) -> list[dict[str, Any]]:
        """Encoders and generator, each at its own learning rate."""
        encoders: list[nn.Module] = [self.identity_encoder, self.motion_encoder]
        if self.descriptor_head is not None:
            encoders.append(self.descriptor_head)
        return [
            {"params": list(trainable(encoders)), "lr": self.lr},
            {"params": list(trainable([self.generator])), "lr": self.lr_generator},
        ]
