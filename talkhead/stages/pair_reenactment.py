"""What the two stages share that turn one frame of a video into another by keypoints of both."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from talkhead.augment import shared_look
from talkhead.batch import FrameBatch, FramePairs, to_bytes, to_float
from talkhead.geometry.face_topology import mirror_order
from talkhead.geometry.thin_plate import ThinPlate, random_thin_plate
from talkhead.losses.perceptual import multi_scale_perceptual_loss
from talkhead.networks.component import Component
from talkhead.networks.perceptual import VGG19Features
from talkhead.stages.adversarial import AdversarialStage

EVALUATION_WARP = 0
"""Seed of the one warp that all pictures are warped by in validation and test."""


class Pair(NamedTuple):
    """What a batch shows.

    Attributes:
        source: Frames ``(B, 3, H, W)``.
        driving: Other frames of the same videos.
        landmarks: Of the driving frames, ``(B, 478, 3)``.
        source_landmarks: Of the source frames, where the stage needs them.
    """

    source: Tensor
    driving: Tensor
    landmarks: Tensor
    source_landmarks: Tensor | None


class PairReenactmentStage(AdversarialStage):
    """Base of the stages that move a source frame by the keypoints of a driving frame.

    A stage sets :attr:`perceptual_scales`, :attr:`augment`, :attr:`warp_sigmas` and :attr:`warp_side` in its
    constructor, and :attr:`source_landmarks` where landmarks of both frames are needed.
    """

    vgg_options: ClassVar[Mapping[str, Any]] = {"imagenet_statistics": True}
    perceptual_scales: int
    augment: bool
    warp_sigmas: tuple[float, float]
    warp_side: int
    source_landmarks: bool = False

    def needs(self) -> FramePairs:
        """A source frame and a driving frame of the same video."""
        return FramePairs(1, self.video_spec.size, identity_landmarks=self.source_landmarks)

    def perceptual(self, vgg: VGG19Features, fake: Tensor, real: Tensor) -> Tensor:
        """The term over several picture sizes, all layers alike."""
        return multi_scale_perceptual_loss(vgg, fake, real, self.perceptual_scales)

    def sample_frames(self, batch: FrameBatch) -> Tensor:
        """Source, driving and generated pictures side by side, ``(n, H, 3 W, 3)`` uint8."""
        pair = self._pictures(batch)
        shown = torch.cat([pair.source, pair.driving, self.reconstruct(batch).fake], dim=-1)
        return to_bytes(shown).permute(0, 2, 3, 1).cpu()

    def _evaluate(self, batch: FrameBatch, prefix: str) -> None:
        """As every GAN stage, and what the source frame itself would score."""
        super()._evaluate(batch, prefix)
        source, driving, *_ = self._pictures(batch)
        copied = peak_signal_noise_ratio(source, driving, data_range=(-1.0, 1.0))
        self.log(f"{prefix}/psnr_of_source", copied, batch_size=len(source), sync_dist=True)

    def _pictures(self, batch: FrameBatch) -> Pair:
        """Frames and their landmarks; augmented in training."""
        pairs = to_float(torch.stack([batch.identity[:, 0], batch.target], dim=1))
        both = self.source_landmarks
        landmarks = batch.landmarks[:, None]
        if both:
            landmarks = torch.cat([landmarks, batch.identity_landmarks[:, :1]], dim=1)
        if self.training and self.augment:
            # Landmarks that are keypoints have to be those of the mirrored face, in the mesh's own order.
            order = torch.from_numpy(mirror_order().copy()).to(pairs.device) if both else None
            pairs, landmarks = shared_look(pairs, landmarks, order=order)
        source, driving = pairs.unbind(1)
        return Pair(source, driving, landmarks[:, 0], landmarks[:, 1] if both else None)

    def _drawn_warp(self, n: int) -> ThinPlate:
        """One warp for each of ``n`` pictures; in evaluation always the same one for all."""
        affine_sigma, bend_sigma = self.warp_sigmas
        draw = partial(
            random_thin_plate, affine_sigma=affine_sigma, bend_sigma=bend_sigma, side=self.warp_side
        )
        if self.training:
            return draw(n, device=self.device)
        drawn = draw(1, generator=torch.Generator().manual_seed(EVALUATION_WARP))
        return ThinPlate(*(part.to(self.device) for part in drawn))


def forget_file(saved: dict[str, Any], name: str, parts: Mapping[str, Component]) -> None:
    """In saved hyper-parameters, put specs in the place of a published file, which may then be deleted.

    Args:
        saved: Changed in place.
        name: ``fomm`` for the options ``fomm_weights`` and ``fomm_sha256``.
        parts: What the file filled, by option.
    """
    if saved.get(f"{name}_weights") is not None:
        saved.update({f"{name}_weights": None, f"{name}_sha256": None})
        saved.update({option: part.spec for option, part in parts.items()})
