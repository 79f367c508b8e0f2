"""One portrait and keypoints to a picture: the generator of the First Order Motion Model."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import JACOBIAN_FLOOR, N_KEYPOINTS, Keypoints
from talkhead.networks.dense_motion import DenseMotion, Motion
from talkhead.networks.hourglass import (
    BlurredDownsample,
    ConvBlock,
    DownBlock,
    ResidualBlock,
    UpBlock,
)
from talkhead.networks.keypoint_detector import check_pictures
from talkhead.networks.pretrained import RANDOM
from talkhead.networks.published import PublishedComponent


class EncodedPortrait(NamedTuple):
    """What every picture of a portrait shares.

    Attributes:
        small: The picture in [0, 1] at the size of the motion, ``(n, 3, h, w)``.
        features: Its features, ``(n, C, H / 2^downs, W / 2^downs)``.
    """

    small: Tensor
    features: Tensor


class KeypointRenderer(PublishedComponent):
    """Moves the features of a portrait to where driving keypoints want them, and paints the rest.

    | part                                       | maps of 256 x 256 pictures |
    |--------------------------------------------|----------------------------|
    | 7 x 7, two halvings                        | 64, 128, 256 x 64 x 64     |
    | dense motion on every fourth pixel         | flow, occlusion 64 x 64    |
    | features sampled by the flow, x occlusion  | 256 x 64 x 64              |
    | six residual blocks                        | 256 x 64 x 64              |
    | two doublings, 7 x 7, sigmoid              | 128, 64, 3 x 256 x 256     |

    Keypoints are absolute: the driving ones are where the points of the result shall be.
    :meth:`encode` runs once for a portrait, :meth:`render` for every batch of frames, and
    :meth:`forward` is both.

    Source: First Order Motion Model, section 3 and supplement A, sizes of vox-adv-256 (reference-facts
        6.1). Deviates: pictures are in [-1, 1] outside; the driving Jacobian's inverse is guarded
        (:func:`guarded_inverse`); ``align_corners`` holds for every sampling and resizing, where the
        released code takes whatever its torch has as default.
    """

    def __init__(
        self,
        keypoints: int = N_KEYPOINTS,
        width: int = 64,
        max_width: int = 512,
        downs: int = 2,
        residual_blocks: int = 6,
        motion_width: int = 64,
        motion_max_width: int = 1024,
        motion_blocks: int = 5,
        scale: float = 0.25,
        variance: float = 0.01,
        occlusion: bool = True,
        align_corners: bool = True,
        jacobian_floor: float = JACOBIAN_FLOOR,
        provenance: str = RANDOM,
    ) -> None:
        """Build the network.

        Args:
            keypoints: Number ``K`` of points.
            width: Channels at full size.
            max_width: Largest number of channels.
            downs: Halvings before features are moved.
            residual_blocks: Blocks on the moved features.
            motion_width: Channels of the motion's hourglass at its full size.
            motion_max_width: Its largest number of channels.
            motion_blocks: Its halvings.
            scale: Share of the picture's side at which motion is found, 1 over a whole number.
            variance: Of the spots that show keypoints to it.
            occlusion: Learn what the source cannot give.
            align_corners: True samples on the corner-aligned grid that keypoints live on, so that equal
                keypoints leave the picture as it is; the published weights were trained so. False samples
                between pixel edges, as their code does on any torch since 1.3.
            jacobian_floor: Smallest singular value of a driving Jacobian that is inverted as it is.
            provenance: Where the first weights came from; set by the loader and kept in the spec.

        Raises:
            ConfigError: A number that is not positive, or a scale that is not 1 over a whole number.
        """
        super().__init__()
        sizes = (keypoints, width, max_width, motion_width, motion_max_width, motion_blocks)
        if min(sizes) < 1 or min(downs, residual_blocks) < 0 or min(variance, jacobian_floor) <= 0:
            raise ConfigError(
                "keypoint_renderer: expected positive sizes, variance and jacobian_floor, got "
                f"{sizes}, {variance} and {jacobian_floor}, with {downs} downs and "
                f"{residual_blocks} residual blocks."
            )
        self.keypoints, self.align_corners, self.provenance = keypoints, align_corners, provenance
        self.down = BlurredDownsample(scale)
        self.multiple = max(self.down.step << motion_blocks, 1 << downs)
        self.motion = DenseMotion(
            keypoints,
            motion_width,
            motion_max_width,
            motion_blocks,
            variance,
            occlusion,
            align_corners,
            jacobian_floor,
        )
        widths = [min(max_width, width << level) for level in range(downs + 1)]
        self.first = ConvBlock(3, width, 7)
        self.downs = nn.ModuleList(DownBlock(widths[i], widths[i + 1]) for i in range(downs))
        self.residuals = nn.ModuleList(ResidualBlock(widths[-1]) for _ in range(residual_blocks))
        self.ups = nn.ModuleList(UpBlock(widths[i + 1], widths[i]) for i in reversed(range(downs)))
        self.final = nn.Conv2d(width, 3, 7, padding=3)

    def forward(
        self, source: Tensor, source_keypoints: Keypoints, driving_keypoints: Keypoints
    ) -> Tensor:
        """Pictures of portraits with their points moved.

        Args:
            source: Portraits, RGB in [-1, 1], ``(1 or n, 3, H, W)``.
            source_keypoints: Their keypoints, ``(1 or n, K, …)``.
            driving_keypoints: Keypoints of the results, ``(n, K, …)``.

        Returns:
            ``(n, 3, H, W)`` in [-1, 1].

        Raises:
            ShapeError: Shapes that do not belong together, or sides that the halvings do not divide.
        """
        return self.render(self.encode(source), source_keypoints, driving_keypoints)

    def encode(self, source: Tensor) -> EncodedPortrait:
        """What :meth:`render` needs of portraits ``(n, 3, H, W)``, RGB in [-1, 1].

        Raises:
            ShapeError: Not RGB pictures, or sides that the halvings do not divide.
        """
        check_pictures(source, self.multiple)
        pictures = (source + 1.0) / 2.0
        features = self.first(pictures)
        for down in self.downs:
            features = down(features)
        return EncodedPortrait(self.down(pictures), features)

    def render(
        self,
        portrait: EncodedPortrait,
        source_keypoints: Keypoints,
        driving_keypoints: Keypoints,
    ) -> Tensor:
        """Pictures ``(n, 3, H, W)`` in [-1, 1]; arguments as in :meth:`forward`.

        Raises:
            ShapeError: Shapes that do not belong together.
        """
        motion = self.dense_motion(portrait, source_keypoints, driving_keypoints)
        maps = self.warped(portrait.features, motion.flow)
        maps = maps * self._resized(motion.occlusion, maps)
        for block in (*self.residuals, *self.ups):
            maps = block(maps)
        # 2 sigmoid(x) - 1: the published network paints in [0, 1].
        return torch.tanh(self.final(maps) / 2.0)

    def dense_motion(
        self,
        portrait: EncodedPortrait,
        source_keypoints: Keypoints,
        driving_keypoints: Keypoints,
    ) -> Motion:
        """Flow, occlusion and masks of every result, for losses and to look at.

        Raises:
            ShapeError: Shapes that do not belong together.
        """
        self._check(portrait, source_keypoints, driving_keypoints)
        motion: Motion = self.motion(portrait.small, source_keypoints, driving_keypoints)
        return motion

    def warped(self, maps: Tensor, flow: Tensor) -> Tensor:
        """``(1 or n, C, H, W)`` sampled where a flow ``(n, h, w, 2)`` says, ``(n, C, H, W)``."""
        resized = self._resized(flow.permute(0, 3, 1, 2), maps).permute(0, 2, 3, 1)
        return F.grid_sample(
            maps.expand(flow.shape[0], -1, -1, -1), resized, align_corners=self.align_corners
        )

    def _resized(self, maps: Tensor, like: Tensor) -> Tensor:
        """Maps at the size of others."""
        if maps.shape[2:] == like.shape[2:]:
            return maps
        return F.interpolate(
            maps, size=like.shape[2:], mode="bilinear", align_corners=self.align_corners
        )

    def _check(self, portrait: EncodedPortrait, source: Keypoints, driving: Keypoints) -> None:
        """Raise ShapeError unless portraits, source and driving keypoints belong together."""
        n = driving.points.shape[0]
        for name, found, counts in (("source", source, (1, n)), ("driving", driving, (n,))):
            fits = found.points.shape[1:] == (self.keypoints, 2) and found.points.ndim == 3
            if not fits or found.jacobians.shape != (*found.points.shape, 2):
                raise ShapeError(
                    f"expected {name} keypoints (n, {self.keypoints}, 2) and (n, {self.keypoints}, 2, 2),"
                    f" got {tuple(found.points.shape)} and {tuple(found.jacobians.shape)}; unpack rows "
                    "with talkhead.geometry.keypoints.unpack."
                )
            if found.points.shape[0] not in counts:
                raise ShapeError(
                    f"expected 1 or {n} {name} keypoints for {n} results, got {found.points.shape[0]}."
                )
        if portrait.features.shape[0] not in (1, n):
            raise ShapeError(
                f"expected 1 or {n} portraits for {n} results, got {portrait.features.shape[0]}."
            )
