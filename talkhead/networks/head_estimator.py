"""Pose, place and expression of a head in a picture: a residual network of the size of ResNet-50."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.geometry.head_angles import N_BINS
from talkhead.networks.keypoint_detector import check_pictures

ANGLES = ("yaw", "pitch", "roll")
"""Order of the three angles everywhere."""


class Bottleneck(nn.Module):
    """1 x 1 to a quarter of the channels, 3 x 3, 1 x 1 back, added to what came in, ReLU."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        """Build the block; a stride of 2 halves the sides and needs a convolution on the way past."""
        super().__init__()
        inner = channels // 4
        self.conv1 = nn.Conv2d(channels, inner, 1)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels, 1)
        self.norm3 = nn.BatchNorm2d(channels)
        self.skip = nn.Conv2d(channels, channels, 1, stride=stride) if stride != 1 else None
        self.norm4 = nn.BatchNorm2d(channels) if stride != 1 else None

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, channels, H, W)`` to ``(n, channels, H / stride, W / stride)``."""
        inner = F.relu(self.norm1(self.conv1(maps)))
        inner = F.relu(self.norm2(self.conv2(inner)))
        if self.skip is not None and self.norm4 is not None:
            maps = self.norm4(self.skip(maps))
        return F.relu(self.norm3(self.conv3(inner)) + maps)


class Widening(nn.Module):
    """1 x 1 convolution, batch norm, ReLU, then bottleneck blocks, the first of which may halve."""

    def __init__(self, inputs: int, outputs: int, blocks: int, halve: bool) -> None:
        """Build one stage; a halving block comes in addition to ``blocks``."""
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)
        self.norm = nn.BatchNorm2d(outputs)
        strides = [2] * halve + [1] * blocks
        self.blocks = nn.Sequential(*(Bottleneck(outputs, stride) for stride in strides))

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, inputs, H, W)`` to ``(n, outputs, H, W)``, or half the sides."""
        out: Tensor = self.blocks(F.relu(self.norm(self.conv(maps))))
        return out


class HeadEstimator(nn.Module):
    """Bins of yaw, pitch and roll, translation and expression; part of the motion extractor.

    | layer                                   | maps of 256 x 256 pictures |
    |-----------------------------------------|----------------------------|
    | 7 x 7, stride 2; largest of 3 x 3, stride 2 | 64 x 64 x 64           |
    | 1 x 1, three blocks                     | 256 x 64 x 64              |
    | 1 x 1, a halving block, three blocks    | 512 x 32 x 32              |
    | 1 x 1, a halving block, five blocks     | 1024 x 16 x 16             |
    | 1 x 1, a halving block, two blocks      | 2048 x 8 x 8               |
    | mean, linear layers                     | 3 x 66, 3 and 3 K          |

    Source: face-vid2vid's unofficial code (reference-facts 7.1). Its layers for yaw and roll have each
        other's names; here each is called what it gives, and the loader of published files swaps them.
    """

    def __init__(
        self, keypoints: int, width: int, widths: Sequence[int], blocks: Sequence[int]
    ) -> None:
        """Build the network; arguments as in :class:`MotionExtractor`."""
        super().__init__()
        self.keypoints = keypoints
        self.conv = nn.Conv2d(3, width, 7, stride=2, padding=3)
        self.norm = nn.BatchNorm2d(width)
        self.stages = nn.ModuleList(
            Widening(before, after, count, halve=level > 0)
            for level, (before, after, count) in enumerate(
                zip([width, *widths], widths, blocks, strict=False)
            )
        )
        self.angles = nn.ModuleDict({name: nn.Linear(widths[-1], N_BINS) for name in ANGLES})
        self.translation = nn.Linear(widths[-1], 3)
        self.expression = nn.Linear(widths[-1], 3 * keypoints)

    def forward(self, pictures: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Logits ``(n, 66)`` of yaw, pitch and roll, translation ``(n, 3)`` and expression ``(n, K, 3)``.

        Raises:
            ShapeError: Not RGB pictures ``(n, 3, H, W)``.
        """
        check_pictures(pictures, 1)
        maps = F.relu(self.norm(self.conv((pictures + 1.0) / 2.0)))
        maps = F.max_pool2d(maps, 3, stride=2, padding=1)
        for stage in self.stages:
            maps = stage(maps)
        pooled = maps.mean(dim=(2, 3))
        logits = [self.angles[name](pooled) for name in ANGLES]
        expression = self.expression(pooled).unflatten(-1, (self.keypoints, 3))
        return logits, self.translation(pooled), expression
