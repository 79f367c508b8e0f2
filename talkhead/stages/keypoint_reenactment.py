"""Stage 60: keypoints learned from reenactment, and the renderer that they drive (FOMM).

Stage 81 is the same with the keypoints of 68 landmarks in place of learned ones.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from talkhead.batch import FrameBatch
from talkhead.checkpoint import Source
from talkhead.errors import ConfigError
from talkhead.geometry.keypoints import N_KEYPOINTS, Keypoints
from talkhead.losses.equivariance import jacobian_equivariance_loss, point_equivariance_loss
from talkhead.networks.fomm_checkpoint import load_fomm
from talkhead.networks.keypoint_detector import KeypointDetector
from talkhead.networks.keypoint_picture_discriminator import KeypointPictureDiscriminator
from talkhead.networks.keypoint_renderer import KeypointRenderer
from talkhead.networks.landmark_keypoints import LandmarkKeypoints
from talkhead.stages.adversarial import Reconstruction, trainable
from talkhead.stages.base import build_or_start
from talkhead.stages.pair_reenactment import Pair, PairReenactmentStage, forget_file


class KeypointReenactmentStage(PairReenactmentStage):
    """Turn one frame of a video into another by keypoints alone, which nobody labels.

    The detector finds keypoints in both frames, the renderer moves the source's features from the ones to
    the others. Keypoints of a randomly warped driving frame have to follow the warp. The discriminator is
    shown the driving keypoints as constants, so it teaches the renderer and not the detector.

    With ``detector: landmarks`` the keypoints are those of the tracked 68 landmarks
    (:class:`~talkhead.networks.landmark_keypoints.LandmarkKeypoints`). They need no training, so the
    equivariance terms fall away and only the renderer learns: the renderer of system D, which landmarks
    generated from speech then drive.

    Source: FOMM, the reenactment model that paper 3 takes its motion space from (reference-facts 6.1).
        Deviates: the warp is a thin plate of its own on both axes
        (:func:`talkhead.geometry.thin_plate.random_thin_plate`), collapsing Jacobians are inverted with a
        guard, colours are augmented by the operations of :data:`talkhead.pixel_ops.COLOUR_OPS` in place of
        torchvision's jitter, and frames of a video are drawn anew in every epoch instead of 75 times.
    """

    exports = ("keypoint_detector", "keypoint_renderer")
    discriminator_class = KeypointPictureDiscriminator
    default_weights = {
        "perceptual": 10.0,
        "equivariance_points": 10.0,
        "equivariance_jacobians": 10.0,
        "gan": 1.0,
        "feature_matching": 10.0,
        "region": 0.0,
        "pixel": 0.0,
    }

    def __init__(
        self,
        image_size: int = 256,
        detector: Literal["learned", "landmarks"] = "learned",
        keypoint_detector: Source | None = None,
        keypoint_renderer: Source | None = None,
        fomm_weights: str | None = None,
        fomm_sha256: str | None = None,
        fomm_align_corners: bool = True,
        discriminator: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        vgg_weights: str | None = None,
        perceptual_scales: int = 4,
        gan_mode: str = "least_squares",
        augment: bool = True,
        warp_affine_sigma: float = 0.05,
        warp_bend_sigma: float = 0.005,
        warp_side: int = 5,
        shared_batch_norm: bool = True,
        lr: float = 2e-4,
        lr_detector: float = 2e-4,
        lr_discriminator: float = 2e-4,
        betas: list[float] = [0.5, 0.999],  # noqa: B006 - jsonargparse documents a list default; never mutated
        lr_decay: float = 0.1,
        lr_decay_batches: int = 150_000,
        lr_warmup_batches: int = 0,
        grad_clip: float = 0.0,
        r1: float = 0.0,
        r1_every: int = 16,
    ) -> None:
        """Configure the stage.

        Args:
            image_size: Side of the crops in pixels.
            detector: Whether keypoints are learned or those of the tracked landmarks.
            keypoint_detector: Options of :class:`KeypointDetector`, or a checkpoint of this stage to start
                from; with ``detector: landmarks`` there is nothing to set.
            keypoint_renderer: Options of :class:`KeypointRenderer`, or a checkpoint to start from.
            fomm_weights: Published file (``vox-adv-cpk.pth.tar``) to start from, in place of both; with
                ``fit`` it is trained on, with ``test`` and without a checkpoint it is measured as it is.
            fomm_sha256: Digest the file must have.
            fomm_align_corners: How its renderer samples, see :func:`load_fomm`; that of a new one is
                ``keypoint_renderer.align_corners``.
            discriminator: Options of :class:`KeypointPictureDiscriminator`.
            weights: Loss weights by term. FOMM first trains with ``gan`` and ``feature_matching`` at 0, and
                fine-tunes with both (vox-adv-256); ``region`` (mouth and eyes) and ``pixel`` are our
                additions for runs without a perceptual network.
            vgg_weights: File with torchvision's VGG-19 weights; without it the perceptual term is left out.
            perceptual_scales: Picture sizes in that term, each half of the one before, at least 16 pixels.
            gan_mode: ``least_squares``, ``hinge`` or ``log``.
            augment: Mirror pairs of frames and change their colours.
            warp_affine_sigma: Deviation of the affine part of the random warp.
            warp_bend_sigma: Deviation of its bends.
            warp_side: Control points on each axis.
            shared_batch_norm: Take batch statistics over all ranks; off, each rank uses its own.
            lr: Learning rate of the renderer.
            lr_detector: Learning rate of the detector.
            lr_discriminator: Learning rate of the discriminator.
            betas: Adam's two decay rates.
            lr_decay: Factor applied every ``lr_decay_batches`` batches.
            lr_decay_batches: See ``lr_decay``; FOMM decays at 60 and 90 of 100 epochs.
            lr_warmup_batches: Batches over which the learning rates rise from 0.
            grad_clip: Largest gradient norm, 0 for none.
            r1: Weight gamma of the discriminator's gradient penalty, 0 for none.
            r1_every: Batches from one penalty to the next; it then counts as many times.

        Raises:
            ConfigError: ``fomm_weights`` together with other weights or options, keypoints of landmarks for
                a renderer of another number of them, or numbers that cannot work.
        """
        super().__init__(
            weights, image_size, discriminator, vgg_weights, gan_mode, lr_discriminator, betas,
            lr_decay, lr_decay_batches, lr_warmup_batches, grad_clip, r1, r1_every,
        )  # fmt: skip
        self.save_hyperparameters()
        self.lr, self.lr_detector = lr, lr_detector
        self.perceptual_scales, self.augment = perceptual_scales, augment
        self.shared_batch_norm = shared_batch_norm
        self.warp_sigmas, self.warp_side = (warp_affine_sigma, warp_bend_sigma), warp_side
        self.keypoint_detector: KeypointDetector | LandmarkKeypoints
        kind: type[KeypointDetector | LandmarkKeypoints]
        kind = LandmarkKeypoints if detector == "landmarks" else KeypointDetector
        if fomm_weights is None:
            self.keypoint_detector = build_or_start(kind, keypoint_detector, "keypoint_detector")
            self.keypoint_renderer = build_or_start(
                KeypointRenderer, keypoint_renderer, "keypoint_renderer"
            )
        elif keypoint_detector is None and keypoint_renderer is None and detector == "learned":
            self.keypoint_detector, self.keypoint_renderer = load_fomm(
                fomm_weights, fomm_sha256, align_corners=fomm_align_corners
            )
        else:
            raise ConfigError(
                "fomm_weights: expected the published file alone, got options of keypoint_detector or "
                "keypoint_renderer or detector: landmarks as well; leave them null, as the file settles both."
            )
        self.source_landmarks = kind is LandmarkKeypoints
        if self.source_landmarks and self.keypoint_renderer.keypoints != N_KEYPOINTS:
            raise ConfigError(
                f"keypoint_renderer.keypoints: expected the {N_KEYPOINTS} of detector: landmarks, got "
                f"{self.keypoint_renderer.keypoints}; leave the option out."
            )

    def on_fit_start(self) -> None:
        """As every GAN stage; published weights are no longer what was published."""
        super().on_fit_start()
        for part in (self.keypoint_detector, self.keypoint_renderer):
            if not isinstance(part, LandmarkKeypoints):
                part.note_training()

    def reconstruct(self, batch: FrameBatch) -> Reconstruction:
        """The driving frame, and the source moved by the keypoints of both."""
        pair = self._pictures(batch)
        of_source, of_driving, terms = self._keypoints(pair)
        fake = self.keypoint_renderer(pair.source, of_source, of_driving)
        return Reconstruction(pair.driving, fake, pair.landmarks, terms, of_driving.points.detach())

    def _keypoints(self, pair: Pair) -> tuple[Keypoints, Keypoints, dict[str, Tensor]]:
        """Keypoints of source and driving frames, and the terms that make them follow every warp."""
        if isinstance(self.keypoint_detector, LandmarkKeypoints):
            assert pair.source_landmarks is not None  # asked for by needs()
            of_mesh = self.keypoint_detector.of_mesh
            return of_mesh(pair.source_landmarks), of_mesh(pair.landmarks), {}
        source, driving = pair.source, pair.driving
        warp = self._drawn_warp(len(driving))
        warped = warp.pictures(driving, align_corners=self.keypoint_renderer.align_corners)
        # One call: every frame is normalised by the statistics of all three kinds.
        found: Keypoints = self.keypoint_detector(torch.cat([source, driving, warped]))
        points, jacobians = (part.chunk(3) for part in found)
        of_source, of_driving, of_warped = map(Keypoints, points, jacobians)
        terms = {
            "equivariance_points": point_equivariance_loss(of_driving, of_warped, warp),
            "equivariance_jacobians": jacobian_equivariance_loss(of_driving, of_warped, warp),
        }
        return of_source, of_driving, terms

    def generator_groups(self) -> list[dict[str, Any]]:
        """Renderer and detector, each at its own learning rate; landmarks have nothing to learn."""
        parts = ((self.keypoint_renderer, self.lr), (self.keypoint_detector, self.lr_detector))
        groups = [{"params": list(trainable([part])), "lr": lr} for part, lr in parts]
        return [group for group in groups if group["params"]]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As every stage; the published file may be deleted, too."""
        super().on_save_checkpoint(checkpoint)
        parts = {name: getattr(self, name) for name in self.exports}
        forget_file(checkpoint.get("hyper_parameters", {}), "fomm", parts)
