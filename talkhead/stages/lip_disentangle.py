"""Stage 30: the GAN that splits the motion code into a lip part, read from sound, and the rest."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from talkhead.batch import WindowBatch, Windows, to_float
from talkhead.checkpoint import Source, resolve
from talkhead.errors import ConfigError
from talkhead.losses.disentangle import MemoryBank, orthogonal_loss
from talkhead.losses.gaze import gaze_loss
from talkhead.networks.audio_encoder import AudioEncoder
from talkhead.networks.gaze import GazeNet
from talkhead.networks.generator import StyleGenerator
from talkhead.networks.heads import LipHead, NonLipHead
from talkhead.networks.identity_encoder import IdentityEncoder
from talkhead.networks.motion_encoder import MotionEncoder
from talkhead.networks.perceptual import GazeBackbone, GazeFeatures
from talkhead.stages.adversarial import AdversarialStage, Reconstruction, trainable
from talkhead.stages.base import build, build_or_start
from talkhead.stages.whole_clips import leakage


class LipDisentangleStage(AdversarialStage):
    """Rebuild a frame from identity, a 42-d non-lip code of the frame and a 470-d lip code of the sound.

    The orthogonal loss takes out of the visual code whatever correlates with the sound, measured over
    the last ``bank_steps`` batches; reconstruction keeps it complete.

    Source: paper 1 eq. 3-5, supplement I.2-I.3; reference-facts 3. All weights are 1 as in the paper.
    """

    consumes = ("identity_encoder", "motion_encoder", "audio_encoder", "gaze")
    exports = ("nonlip_head", "lip_head", "generator")
    default_weights = {
        "orthogonal": 1.0,
        "gan": 1.0,
        "feature_matching": 1.0,
        "perceptual": 1.0,
        "gaze": 1.0,
        "region": 0.0,
        "pixel": 0.0,
    }

    def __init__(
        self,
        identity_encoder: Source,
        motion_encoder: Source,
        audio_encoder: Source,
        image_size: int = 224,
        identity_frames: int = 1,
        windows: int = 1,
        bank_steps: int = 32,
        bank_over_ranks: bool = False,
        nonlip_head: dict[str, Any] | None = None,
        lip_head: dict[str, Any] | None = None,
        generator: Source | None = None,
        discriminator: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        vgg_weights: str | None = None,
        gaze: Source | None = None,
        gaze_weights: str | None = None,
        gaze_backbone: GazeBackbone = "resnet50",
        gan_mode: str = "hinge",
        train_identity: bool = False,
        freeze_heads_after_batches: int = 40_000,
        lr: float = 1e-5,
        lr_generator: float = 2e-5,
        lr_discriminator: float = 3.5e-6,
        betas: list[float] = [0.0, 0.999],  # noqa: B006 - jsonargparse documents a list default; never mutated
        lr_decay: float = 0.5,
        lr_decay_batches: int = 80_000,
        lr_warmup_batches: int = 0,
        grad_clip: float = 0.0,
        r1: float = 0.0,
        r1_every: int = 16,
    ) -> None:
        """Configure the stage.

        Args:
            identity_encoder: Checkpoint of stage ``reenactment``.
            motion_encoder: Checkpoint of stage ``reenactment`` or ``av_contrastive``.
            audio_encoder: Checkpoint of stage ``av_contrastive``.
            image_size: Side of the crops in pixels.
            identity_frames: Identity frames of each video.
            windows: Frames drawn from each video; the number of pictures is batch size times this.
            bank_steps: Batches ``K`` the correlation is measured over, the current one included; 1 is the
                paper's "w/o MB".
            bank_over_ranks: Fill the bank with the rows of all ranks instead of one bank a rank.
            nonlip_head: Options of :class:`NonLipHead` (MLP_ol and MLP_nl).
            lip_head: Options of :class:`LipHead` (MLP_a2l).
            generator: Options of :class:`StyleGenerator`, or a ``reenactment`` checkpoint to start from.
            discriminator: Options of :class:`PatchDiscriminator`.
            weights: Loss weights by term; ``orthogonal: 0`` is the paper's "w/o L_ol".
            vgg_weights: File with torchvision's VGG-19 weights; without it that term is left out.
            gaze: Checkpoint of stage ``gaze``, whose network then measures the gaze term.
            gaze_weights: File with L2CS weights, in its place; without either the gaze term is left out.
            gaze_backbone: ResNet in that file; the paper's 512 dimensions are those of ``resnet18`` and
                ``resnet34``, the released files are ``resnet50``.
            gan_mode: ``hinge``, ``log`` or ``least_squares``.
            train_identity: Train the identity encoder too (unknown in the paper; frozen is recommended).
            freeze_heads_after_batches: From here only the generator and the discriminator learn, whatever
                ``train_identity`` says.
            lr: Learning rate of the two heads.
            lr_generator: Learning rate of the generator.
            lr_discriminator: Learning rate of the discriminator (slower than the generator, as printed).
            betas: Adam's two decay rates (not given by the paper; PC-AVS' values).
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
        self.identity_frames, self.windows = identity_frames, windows
        self.lr, self.lr_generator = lr, lr_generator
        self.freeze_heads_after_batches = freeze_heads_after_batches
        self.identity_encoder = resolve(IdentityEncoder, identity_encoder, "identity_encoder")
        self.identity_encoder.train(train_identity).requires_grad_(train_identity)
        self.motion_encoder = resolve(MotionEncoder, motion_encoder, "motion_encoder")
        self.audio_encoder = resolve(AudioEncoder, audio_encoder, "audio_encoder")
        self.nonlip_head = build(NonLipHead, nonlip_head, "nonlip_head")
        self.lip_head = build(LipHead, lip_head, "lip_head")
        self.generator = build_or_start(StyleGenerator, generator, "generator")
        self.bank = MemoryBank(steps=bank_steps, gather=bank_over_ranks)
        self.gaze: GazeNet | GazeFeatures | None = None
        if self.loss_weights["gaze"] > 0:
            self.gaze = _gaze_network(gaze, gaze_weights, gaze_backbone)

    def needs(self) -> Windows:
        """Aligned frame and sound windows with identity frames of the same video."""
        return Windows(
            count=self.windows, size=self.video_spec.size, identity_frames=self.identity_frames
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """As every stage; a frozen identity encoder keeps its batch statistics, too."""
        super().on_train_batch_start(batch, batch_idx)
        if self.heads_frozen:
            self.identity_encoder.eval()

    def codes(self, batch: WindowBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``f_nl (n, 42)``, ``f_l (n, 470)``, ``f_ol (n, D)`` and the frozen ``f_a (n, D)``."""
        with torch.no_grad():
            f_v = self.motion_encoder(to_float(batch.frames.flatten(0, 1)))
            f_a = self.audio_encoder(batch.mel.flatten(0, 1))
        with self._unless_frozen():
            f_ol = self.nonlip_head.orthogonal(f_v)
            return self.nonlip_head.compress(f_ol), self.lip_head(f_a), f_ol, f_a

    @property
    def heads_frozen(self) -> bool:
        """Whether only the generator and the discriminator still learn."""
        return self.batches_seen > self.freeze_heads_after_batches

    def reconstruct(self, batch: WindowBatch) -> Reconstruction:
        """Frames, their reconstruction from the split codes, and the orthogonal and gaze terms."""
        real, landmarks = to_float(batch.frames.flatten(0, 1)), batch.landmarks.flatten(0, 1)
        f_nl, f_l, f_ol, f_a = self.codes(batch)
        with self._unless_frozen():
            f_id, spatial = self.identity_encoder(to_float(batch.identity))
        count = batch.frames.shape[1]
        f_id, spatial = f_id.repeat_interleave(count, 0), spatial.repeat_interleave(count, 0)
        fake = self.generator(torch.cat([f_id, f_nl, f_l], dim=1), spatial)
        visual, audio = self.bank(f_ol, f_a)
        terms = {"orthogonal": orthogonal_loss(visual, audio)}
        if self.gaze is not None:
            terms["gaze"] = gaze_loss(self.gaze, fake, real, landmarks)
        return Reconstruction(real, fake, landmarks, terms)

    def on_test_epoch_end(self) -> None:
        """Leakage between the two codes on all held-out clips, where the truth is known."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(data, "clip_truth_path"):
            return
        held_out = [*data.prepared.rows("val"), *data.prepared.rows("test")]
        scores = leakage(
            data,
            held_out,
            lambda pictures: self.nonlip_head(self.motion_encoder(pictures)),
            lambda mel: self.lip_head(self.audio_encoder(mel)),
            self.video_spec.size,
            self.device,
        )
        self.log_dict(
            {f"test/{name}": value for name, value in scores.items()}, rank_zero_only=True
        )

    def generator_groups(self) -> list[dict[str, Any]]:
        """Heads and generator, each at its own learning rate."""
        heads = [self.nonlip_head, self.lip_head, self.identity_encoder]
        return [
            {"params": list(trainable(heads)), "lr": self.lr},
            {"params": list(trainable([self.generator])), "lr": self.lr_generator},
        ]

    def _unless_frozen(self) -> AbstractContextManager[None]:
        """Record gradients of what is frozen with the heads only until then."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.heads_frozen)


def _gaze_network(
    source: Source | None, weights: str | None, backbone: GazeBackbone
) -> GazeNet | GazeFeatures | None:
    """The frozen network of the gaze term, or None.

    Raises:
        ConfigError: Two networks are given.
    """
    if source is not None and weights is not None:
        raise ConfigError(
            "gaze and gaze_weights: expected one gaze network, got two; pass the checkpoint of stage gaze "
            "or the file with L2CS weights."
        )
    if source is not None:
        return resolve(GazeNet, source, "gaze")
    if weights is not None:
        return GazeFeatures(backbone, weights_path=weights).eval().requires_grad_(False)
    return None
