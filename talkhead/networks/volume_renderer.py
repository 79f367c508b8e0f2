"""One portrait and 3-D keypoints to a picture: the generator of face-vid2vid with a SPADE decoder."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.hourglass import ConvBlock, DownBlock
from talkhead.networks.keypoint_detector import check_pictures
from talkhead.networks.motion_extractor import N_KEYPOINTS
from talkhead.networks.pretrained import RANDOM
from talkhead.networks.published import PublishedComponent
from talkhead.networks.spade import SpadeDecoder
from talkhead.networks.volume_blocks import VolumeResidual, level_widths
from talkhead.networks.volume_motion import VolumeFlow, VolumeMotion

_LEAK = 0.01


class Rendered(NamedTuple):
    """Rendered pictures and how they came about.

    Attributes:
        picture: RGB in [-1, 1], ``(n, 3, H, W)``.
        occlusion: Share of each place that the source could give, ``(n, 1, h, w)`` in [0, 1].
        masks: Share of the background (first) and of each point in the flow, ``(n, K + 1, D, h, w)``.
    """

    picture: Tensor
    occlusion: Tensor
    masks: Tensor


class VolumeRenderer(PublishedComponent):
    """Moves the appearance volume of a portrait to where driving keypoints want it, and paints the rest.

    | part                                            | maps of 256 x 256 pictures    |
    |-------------------------------------------------|-------------------------------|
    | 3 x 3, two halvings                             | 64, 128, 256 x 64 x 64        |
    | 1 x 1, cut into slices, six residual blocks     | 512 x 64 x 64 = 32 x 16 x 64 x 64 |
    | 3-D dense motion, 16 masks                      | flow 16 x 64 x 64, occlusion 64 x 64 |
    | volume sampled by the flow, slices as channels  | 512 x 64 x 64                 |
    | 3 x 3, 1 x 1, x occlusion                       | 256 x 64 x 64                 |
    | SPADE decoder                                   | 3 x 256 x 256                 |

    Pictures of 512 x 512 run through the same layers, with maps twice as wide. Keypoints are absolute: the
    driving ones are where the points of the result shall be. :meth:`appearance` runs once for a portrait,
    :meth:`forward` for every batch of frames.

    Source: face-vid2vid; NetEase's SPADE variant, sizes of vox-256-beta (reference-facts 7.1). Deviates:
        pictures are in [-1, 1] outside; ``align_corners`` is stated, where the first code takes whatever
        its torch has as default.
    """

    def __init__(
        self,
        keypoints: int = N_KEYPOINTS,
        width: int = 64,
        max_width: int = 512,
        downs: int = 2,
        channels: int = 32,
        depth: int = 16,
        residual_blocks: int = 6,
        compress: int = 4,
        motion_width: int = 32,
        motion_max_width: int = 1024,
        motion_blocks: int = 5,
        mask_kernel: int = 7,
        middle_blocks: int = 6,
        guide_width: int = 128,
        variance: float = 0.01,
        occlusion: bool = True,
        align_corners: bool = True,
        provenance: str = RANDOM,
    ) -> None:
        """Build the network.

        Args:
            keypoints: Number ``K`` of points.
            width: Channels at full size.
            max_width: Largest number of channels of the halvings.
            downs: Halvings before the volume, and doublings of the decoder.
            channels: Channels of the volume.
            depth: Its slices, at least 2.
            residual_blocks: Residual blocks on it.
            compress: Channels of the volume that the motion is found on.
            motion_width: Channels of the motion's hourglass at its full size.
            motion_max_width: Its largest number of channels.
            motion_blocks: Its halvings.
            mask_kernel: Side of the convolutions to masks and occlusion, an odd number.
            middle_blocks: Blocks of the decoder before its first doubling.
            guide_width: Channels inside each of its guided norms.
            variance: Of the spots that show keypoints to the motion network.
            occlusion: Learn what the source cannot give.
            align_corners: True samples on the corner-aligned grid that keypoints live on, so that equal
                keypoints leave the volume as it is. False samples between voxel edges, as the published
                weights are used.
            provenance: Where the first weights came from; set by the loader and kept in the spec.

        Raises:
            ConfigError: Numbers that cannot work.
        """
        super().__init__()
        sizes = (
            keypoints, width, max_width, channels, compress, motion_width, motion_max_width,
            motion_blocks, guide_width,
        )  # fmt: skip
        blocks = (downs, residual_blocks, middle_blocks)
        if min(sizes) < 1 or min(blocks) < 0 or depth < 2 or variance <= 0:
            raise ConfigError(
                "renderer: expected positive sizes and variance and a depth of 2 or more, got "
                f"{sizes}, {blocks}, {variance} and {depth}."
            )
        if mask_kernel < 1 or mask_kernel % 2 == 0:
            raise ConfigError(f"mask_kernel: expected an odd number, got {mask_kernel}; use 7.")
        self.n_keypoints, self.align_corners, self.provenance = keypoints, align_corners, provenance
        self.depth = depth
        self.multiple = 1 << (downs + motion_blocks)
        widths = level_widths(width, max_width, downs)
        self.first = ConvBlock(3, width)
        self.downs = nn.ModuleList(DownBlock(widths[i], widths[i + 1]) for i in range(downs))
        self.lift = nn.Conv2d(widths[-1], channels * depth, 1)
        self.residuals = nn.ModuleList(VolumeResidual(channels) for _ in range(residual_blocks))
        self.motion = VolumeMotion(
            keypoints, channels, depth, compress, motion_width, motion_max_width, motion_blocks,
            mask_kernel, variance, occlusion, align_corners,
        )  # fmt: skip
        self.flatten_conv = nn.Conv2d(channels * depth, widths[-1], 3, padding=1)
        self.flatten_norm = nn.BatchNorm2d(widths[-1])
        self.mix = nn.Conv2d(widths[-1], widths[-1], 1)
        self.decoder = SpadeDecoder(widths[-1], width, downs, middle_blocks, guide_width)

    def appearance(self, pictures: Tensor) -> Tensor:
        """Appearance volumes of portraits.

        Args:
            pictures: RGB in [-1, 1], ``(n, 3, H, W)``.

        Returns:
            ``(n, 32, 16, H / 4, W / 4)`` at the published size.

        Raises:
            ShapeError: Not RGB pictures, or sides that the halvings do not divide.
        """
        check_pictures(pictures, self.multiple)
        maps = self.first((pictures + 1.0) / 2.0)
        for down in self.downs:
            maps = down(maps)
        volume: Tensor = self.lift(maps).unflatten(1, (-1, self.depth))
        for block in self.residuals:
            volume = block(volume)
        return volume

    def forward(self, appearance: Tensor, driving: Tensor, source: Tensor) -> Rendered:
        """Pictures of portraits with their points moved.

        Args:
            appearance: From :meth:`appearance`, ``(1 or n, C, D, h, w)``.
            driving: Keypoints of the results, ``(n, K, 3)``.
            source: Keypoints of the portraits, ``(1 or n, K, 3)``.

        Returns:
            Pictures, occlusion and masks of the ``n`` results.

        Raises:
            ShapeError: Shapes that do not belong together.
        """
        self._check(appearance, driving, source)
        motion: VolumeFlow = self.motion(appearance, source, driving)
        moved = self.warped(appearance, motion.flow).flatten(1, 2)
        features = F.leaky_relu(self.flatten_norm(self.flatten_conv(moved)), _LEAK)
        features = self.mix(features) * motion.occlusion.to(features)
        # 2 sigmoid(x) - 1: the published network paints in [0, 1].
        picture = torch.tanh(self.decoder(features) / 2.0)
        return Rendered(picture, motion.occlusion, motion.masks)

    def warped(self, volume: Tensor, flow: Tensor) -> Tensor:
        """``(1 or n, C, D, h, w)`` sampled where a flow ``(n, D, h, w, 3)`` says, ``(n, C, D, h, w)``."""
        return F.grid_sample(
            volume.expand(len(flow), -1, -1, -1, -1),
            flow.to(volume),
            align_corners=self.align_corners,
        )

    def _check(self, appearance: Tensor, driving: Tensor, source: Tensor) -> None:
        """Raise ShapeError unless appearance, driving and source keypoints belong together."""
        n, points = len(driving), (self.n_keypoints, 3)
        for name, found, counts in (("driving", driving, (n,)), ("source", source, (1, n))):
            if found.ndim != 3 or found.shape[1:] != points or len(found) not in counts:
                raise ShapeError(
                    f"expected {name} keypoints ({' or '.join(map(str, counts))}, {points[0]}, 3) for {n} "
                    f"results, got {tuple(found.shape)}; take them from the motion extractor."
                )
        if (
            appearance.ndim != 5
            or appearance.shape[2] != self.depth
            or len(appearance) not in (1, n)
        ):
            raise ShapeError(
                f"expected appearance (1 or {n}, C, {self.depth}, h, w), got {tuple(appearance.shape)}; "
                "call appearance() on one portrait, or on one for each result."
            )
