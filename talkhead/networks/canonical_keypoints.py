"""Keypoints of a face in its own frame, without pose and expression, by soft-argmax over a volume."""

from __future__ import annotations

from torch import Tensor, nn

from talkhead.networks.hourglass import BlurredDownsample, DownBlock
from talkhead.networks.keypoint_detector import check_pictures
from talkhead.networks.keypoint_maps import softmax_in_full
from talkhead.networks.volume_blocks import VolumeUpBlock, level_widths
from talkhead.networks.volume_conv import VolumeConv
from talkhead.networks.volume_maps import expected_voxels


class CanonicalKeypoints(nn.Module):
    """Canonical keypoints of pictures; part of :class:`talkhead.networks.motion_extractor.MotionExtractor`.

    | layer                                   | maps of 256 x 256 pictures     |
    |-----------------------------------------|--------------------------------|
    | blur, every fourth pixel                | 3 x 64 x 64                    |
    | five blocks, each halving               | 64 to 1024 x 2 x 2             |
    | 1 x 1 convolution, cut into slices      | 16384 x 2 x 2 = 1024 x 16 x 2 x 2 |
    | five blocks, each doubling the slices   | 512 to 32 x 16 x 64 x 64       |
    | 3 x 3 x 3 convolution, softmax          | K x 16 x 64 x 64 heat          |

    Source: face-vid2vid, supplement; sizes of its unofficial code (reference-facts 7.1), without the
        Jacobians, which ControlTalk leaves out.
    """

    def __init__(
        self,
        keypoints: int,
        width: int,
        max_width: int,
        blocks: int,
        scale: float,
        depth: int,
        temperature: float,
    ) -> None:
        """Build the network; arguments as in :class:`MotionExtractor`."""
        super().__init__()
        self.depth, self.temperature = depth, temperature
        self.down = BlurredDownsample(scale)
        self.multiple = self.down.step << blocks
        widths = level_widths(width, max_width, blocks)
        self.downs = nn.ModuleList(
            DownBlock(3 if level == 0 else widths[level], widths[level + 1])
            for level in range(blocks)
        )
        self.lift = nn.Conv2d(widths[-1], widths[-1] * depth, 1)
        self.ups = nn.ModuleList(
            VolumeUpBlock(widths[level + 1], widths[level]) for level in reversed(range(blocks))
        )
        self.heat = VolumeConv(width, keypoints, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(n, 3, H, W)``, RGB in [-1, 1], to ``(n, K, 3)`` as (x, y, z) in [-1, 1].

        Raises:
            ShapeError: Not RGB pictures, or sides that the halvings do not divide.
        """
        check_pictures(pictures, self.multiple)
        maps = self.down((pictures + 1.0) / 2.0)
        for down in self.downs:
            maps = down(maps)
        volume = self.lift(maps).unflatten(1, (-1, self.depth))
        for up in self.ups:
            volume = up(volume)
        logits = self.heat(volume)
        heat = softmax_in_full(logits.flatten(2) / self.temperature, dim=2).view_as(logits)
        return expected_voxels(heat)
