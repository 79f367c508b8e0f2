"""Stage 70: 3-D keypoints split into identity, pose and expression, and the renderer they drive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from talkhead.batch import FrameBatch
from talkhead.checkpoint import Source
from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.head_angles import angles_of_pose, mirrored_angles
from talkhead.losses.equivariance import projected_equivariance_loss
from talkhead.losses.head_motion import expression_loss, head_pose_loss, keypoint_prior_loss
from talkhead.losses.landmark_guide import GUIDES, landmark_guide_loss
from talkhead.losses.mouth_weighted import MOUTH_SHARE, blended, check_share, mouth_of
from talkhead.networks.discriminator import Judgement
from talkhead.networks.keypoint_picture_discriminator import KeypointPictureDiscriminator
from talkhead.networks.motion_extractor import MotionExtractor
from talkhead.networks.vid2vid_checkpoint import load_face_vid2vid
from talkhead.networks.volume_renderer import VolumeRenderer
from talkhead.stages.adversarial import Reconstruction, trainable
from talkhead.stages.base import build_or_start
from talkhead.stages.pair_reenactment import Pair, PairReenactmentStage, forget_file

ROTATION = slice(0, 3)
"""Where motion descriptors hold pitch, yaw and roll (:class:`talkhead.geometry.motion.MotionModel`)."""


class FaceVid2vidStage(PairReenactmentStage):
    """Turn one frame of a video into another by 3-D keypoints: ``R kc + t + exp``.

    Canonical keypoints come from the source frame alone; pose, translation and expression from each
    frame. Landmarks of the data say what the pose of the driving frame is, so that rotation and
    expression come apart. Keypoints of a randomly warped driving frame, seen from the front, have to
    follow the warp.

    Source: face-vid2vid, section 3.3; ControlTalk's renderer (paper 4, section 3.1; reference-facts 7.1,
        7.2). Deviates: head pose is supervised by the suite's landmarks and not by a foreign network; the
        warp is a thin plate of its own on both axes; pairs of a point with itself are left out of the
        prior; the three kinds of frames go through the head network in one call, so that they share batch
        statistics; the mouth's share is exactly two thirds; the Jacobian terms and clips of five frames
        for the discriminator, which ControlTalk's settings turn off, are not there.
    """

    exports = ("motion_extractor", "renderer")
    discriminator_class = KeypointPictureDiscriminator
    default_weights = {
        "perceptual": 10.0,
        "equivariance": 10.0,
        "keypoint_prior": 10.0,
        "head_pose": 20.0,
        "expression": 5.0,
        "gan": 1.0,
        "feature_matching": 10.0,
        "region": 0.0,
        "pixel": 0.0,
        "landmark_guide": 0.0,
    }

    def __init__(
        self,
        image_size: int = 256,
        motion_extractor: Source | None = None,
        renderer: Source | None = None,
        vid2vid_weights: str | None = None,
        vid2vid_sha256: str | None = None,
        vid2vid_align_corners: bool = False,
        discriminator: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        mouth_share: float = MOUTH_SHARE,
        vgg_weights: str | None = None,
        perceptual_scales: int = 4,
        gan_mode: str = "hinge",
        augment: bool = True,
        warp_affine_sigma: float = 0.05,
        warp_bend_sigma: float = 0.005,
        warp_side: int = 5,
        extractor_batches: int = 0,
        shared_batch_norm: bool = True,
        lr: float = 2e-4,
        lr_extractor: float = 2e-4,
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
            image_size: Side of the crops in pixels; 512 runs through the networks of 256.
            motion_extractor: Options of :class:`MotionExtractor`, or a checkpoint of this stage to start
                from. Its ``convention`` decides in which sense pitch is labelled.
            renderer: Options of :class:`VolumeRenderer`, or a checkpoint to start from.
            vid2vid_weights: Published file to start from, in place of both; with ``fit`` it is trained on,
                with ``test`` and without a checkpoint it is measured as it is.
            vid2vid_sha256: Digest the file must have.
            vid2vid_align_corners: How its renderer samples, see :func:`load_face_vid2vid`; that of a new one
                is ``renderer.align_corners``.
            discriminator: Options of :class:`KeypointPictureDiscriminator`, which here sees pictures
                alone (``keypoints: 0``) and has spectral norm (``spectral: true``) unless told otherwise.
            weights: Loss weights by term; ``region`` (mouth and eyes) and ``pixel`` are our additions for
                runs without a perceptual network, ``landmark_guide`` is LivePortrait's: ten keypoints are
                told where mouth and eyes are.
            mouth_share: Share of the lower middle of the maps in the terms ``gan`` and
                ``feature_matching`` and in the discriminator's loss; 0 is face-vid2vid without NetEase's
                change.
            vgg_weights: File with torchvision's VGG-19 weights; without it the perceptual term is left out.
            perceptual_scales: Picture sizes in that term, each half of the one before, at least 16 pixels.
            gan_mode: ``hinge``, ``least_squares`` or ``log``.
            augment: Mirror pairs of frames and change their colours.
            warp_affine_sigma: Deviation of the affine part of the random warp.
            warp_bend_sigma: Deviation of its bends.
            warp_side: Control points on each axis.
            extractor_batches: Batches at the beginning that train the motion extractor alone, by its own
                terms; the renderer, which takes most of the time, is not run. For small runs.
            shared_batch_norm: Take batch statistics over all ranks; off, each rank uses its own.
            lr: Learning rate of the renderer.
            lr_extractor: Learning rate of the motion extractor.
            lr_discriminator: Learning rate of the discriminator.
            betas: Adam's two decay rates.
            lr_decay: Factor applied every ``lr_decay_batches`` batches.
            lr_decay_batches: See ``lr_decay``; the published run decays once, after 120 of 500 epochs.
            lr_warmup_batches: Batches over which the learning rates rise from 0.
            grad_clip: Largest gradient norm, 0 for none.
            r1: Weight gamma of the discriminator's gradient penalty, 0 for none.
            r1_every: Batches from one penalty to the next; it then counts as many times.

        Raises:
            ConfigError: ``vid2vid_weights`` together with other weights or options, networks of different
                numbers of keypoints, fewer keypoints than ``landmark_guide`` tells, or numbers that cannot
                work.
        """
        super().__init__(
            weights, image_size, {"keypoints": 0, "spectral": True, **(discriminator or {})},
            vgg_weights, gan_mode, lr_discriminator, betas, lr_decay, lr_decay_batches,
            lr_warmup_batches, grad_clip, r1, r1_every,
        )  # fmt: skip
        self.save_hyperparameters()
        check_share(mouth_share)
        self.lr, self.lr_extractor, self.mouth_share = lr, lr_extractor, mouth_share
        self.perceptual_scales, self.augment = perceptual_scales, augment
        self.shared_batch_norm, self.extractor_batches = shared_batch_norm, extractor_batches
        self.source_landmarks = self.loss_weights["landmark_guide"] > 0
        self.warp_sigmas, self.warp_side = (warp_affine_sigma, warp_bend_sigma), warp_side
        if vid2vid_weights is None:
            self.motion_extractor = build_or_start(
                MotionExtractor, motion_extractor, "motion_extractor"
            )
            self.renderer = build_or_start(VolumeRenderer, renderer, "renderer")
        elif motion_extractor is None and renderer is None:
            self.motion_extractor, self.renderer = load_face_vid2vid(
                vid2vid_weights, vid2vid_sha256, align_corners=vid2vid_align_corners
            )
        else:
            raise ConfigError(
                "vid2vid_weights: expected the published file alone, got options of motion_extractor or "
                "renderer as well; leave them null, as the file settles both."
            )
        counts = (self.motion_extractor.n_keypoints, self.renderer.n_keypoints)
        if counts[0] != counts[1]:
            raise ConfigError(
                f"expected one number of keypoints, got {counts[0]} of motion_extractor and {counts[1]} of "
                "renderer; set both options keypoints alike."
            )
        if self.source_landmarks and counts[0] < len(GUIDES):
            raise ConfigError(
                f"weights.landmark_guide: expected at least {len(GUIDES)} keypoints, got {counts[0]}; raise "
                "keypoints of motion_extractor and renderer, or set the weight to 0."
            )

    def on_fit_start(self) -> None:
        """As every GAN stage; published weights are no longer what was published."""
        super().on_fit_start()
        self.motion_extractor.note_training()
        self.renderer.note_training()

    def reconstruct(self, batch: FrameBatch) -> Reconstruction:
        """The driving frame, and the source moved by the keypoints of both."""
        pair = self._pictures(batch)
        of_source, of_driving, terms = self._motion(batch, pair)
        appearance = self.renderer.appearance(pair.source)
        fake = self.renderer(appearance, of_driving, of_source).picture
        return Reconstruction(pair.driving, fake, pair.landmarks, terms)

    def training_step(self, batch: FrameBatch, batch_idx: int) -> None:
        """As every GAN stage, after ``extractor_batches`` without a picture."""
        if self.batches_seen > self.extractor_batches:
            super().training_step(batch, batch_idx)
            return
        *_, terms = self._motion(batch, self._pictures(batch))
        self.generator_step(self.weighted(terms, "train", len(batch.target)))

    def adversarial_terms(self, real: list[Judgement], fake: list[Judgement]) -> dict[str, Tensor]:
        """As every GAN stage, with more weight on the mouth."""
        whole = super().adversarial_terms(real, fake)
        if self.mouth_share == 0:
            return whole
        mouth = super().adversarial_terms(mouth_of(real), mouth_of(fake))
        return {name: blended(whole[name], mouth[name], self.mouth_share) for name in whole}

    def discriminator_term(self, real: list[Judgement], fake: list[Judgement]) -> Tensor:
        """As every GAN stage, with more weight on the mouth."""
        whole = super().discriminator_term(real, fake)
        if self.mouth_share == 0:
            return whole
        mouth = super().discriminator_term(mouth_of(real), mouth_of(fake))
        return blended(whole, mouth, self.mouth_share)

    def generator_groups(self) -> list[dict[str, Any]]:
        """Renderer and motion extractor, each at its own learning rate."""
        return [
            {"params": list(trainable([self.renderer])), "lr": self.lr},
            {"params": list(trainable([self.motion_extractor])), "lr": self.lr_extractor},
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As every stage; the published file may be deleted, too."""
        super().on_save_checkpoint(checkpoint)
        parts = {name: getattr(self, name) for name in self.exports}
        forget_file(checkpoint.get("hyper_parameters", {}), "vid2vid", parts)

    def _motion(self, batch: FrameBatch, pair: Pair) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Keypoints ``(B, K, 3)`` of source and driving frames, and the extractor's own terms."""
        n, extractor = len(pair.driving), self.motion_extractor
        warp = self._drawn_warp(n)
        warped = warp.pictures(pair.driving, align_corners=self.renderer.align_corners)
        # One call: every frame is normalised by the statistics of all three kinds.
        heads = extractor.head(torch.cat([pair.source, pair.driving, warped]))
        canonical = extractor.canonical(pair.source)
        of_source, of_driving, of_warped = extractor.keypoints(
            canonical.repeat(3, 1, 1), heads
        ).chunk(3)
        found = heads.at(slice(n, 2 * n))
        terms = {
            "equivariance": projected_equivariance_loss(of_driving, of_warped, warp),
            "keypoint_prior": keypoint_prior_loss(of_driving),
            "head_pose": head_pose_loss(found.degrees, self._pose_labels(batch, pair.landmarks)),
            "expression": expression_loss(found.expression),
        }
        if pair.source_landmarks is not None:
            terms["landmark_guide"] = landmark_guide_loss(
                torch.cat([of_source, of_driving]),
                torch.cat([pair.source_landmarks, pair.landmarks]),
            )
        return of_source, of_driving, terms

    def _pose_labels(self, batch: FrameBatch, landmarks: Tensor) -> Tensor:
        """Angles ``(B, 3)`` of the driving frame as it is shown, mirrored with its landmarks."""
        if batch.motion.ndim != 2 or batch.motion.shape[1] < ROTATION.stop:
            raise ShapeError(
                "expected descriptors (B, D) that begin with pitch, yaw and roll, got "
                f"{tuple(batch.motion.shape)}; prepare the data again."
            )
        pose = batch.motion[:, ROTATION].to(self.device).float()
        angles = angles_of_pose(pose, self.motion_extractor.convention)
        turned = (landmarks[..., 0] != batch.landmarks[..., 0]).any(dim=1)
        return torch.where(turned[:, None], mirrored_angles(angles), angles)
