"""Convolutions over volumes: blocks and hourglass of face-vid2vid, which halve slices and keep the depth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.networks.volume_conv import VolumeConv


class VolumeBlock(nn.Module):
    """3 x 3 x 3 convolution, batch norm, ReLU; ``stride`` is that within a slice."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        """Build the block for volumes of ``inputs`` and ``outputs`` channels."""
        super().__init__()
        self.conv = VolumeConv(inputs, outputs, 3, stride=(1, stride, stride), padding=1)
        self.norm = nn.BatchNorm3d(outputs)

    def forward(self, volume: Tensor) -> Tensor:
        """``(n, inputs, D, H, W)`` to ``(n, outputs, D, H / stride, W / stride)``."""
        return F.relu(self.norm(self.conv(volume)))


class VolumeUpBlock(VolumeBlock):
    """A :class:`VolumeBlock` on volumes whose slices were enlarged twofold, linearly."""

    def forward(self, volume: Tensor) -> Tensor:
        """``(n, inputs, D, H, W)`` to ``(n, outputs, D, 2 H, 2 W)``."""
        larger = F.interpolate(
            volume, scale_factor=(1.0, 2.0, 2.0), mode="trilinear", align_corners=False
        )
        return super().forward(larger)


class VolumeResidual(nn.Module):
    """Norm, ReLU and convolution, twice, added to what came in."""

    def __init__(self, channels: int) -> None:
        """Build the block."""
        super().__init__()
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv1 = VolumeConv(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm3d(channels)
        self.conv2 = VolumeConv(channels, channels, 3, padding=1)

    def forward(self, volume: Tensor) -> Tensor:
        """``(n, channels, D, H, W)`` to the same shape."""
        inner = self.conv1(F.relu(self.norm1(volume)))
        out: Tensor = volume + self.conv2(F.relu(self.norm2(inner)))
        return out


class VolumeHourglass(nn.Module):
    """Halvings and doublings of the slices with a skip connection at every size.

    Level ``i`` has ``min(max_width, width * 2^i)`` channels. The last doubling gives ``width`` channels
    beside the untouched input, and one more block mixes these :attr:`outputs` = ``width + inputs``.

    Source: face-vid2vid's unofficial code (reference-facts 7.1); halvings are strided convolutions, where
        the hourglass of the First Order Motion Model takes means.
    """

    def __init__(self, inputs: int, width: int, max_width: int, blocks: int) -> None:
        """Build the network.

        Args:
            inputs: Channels of the volume.
            width: Channels at full size.
            max_width: Largest number of channels.
            blocks: Halvings; sides must be multiples of ``2^blocks``.
        """
        super().__init__()
        widths = level_widths(width, max_width, blocks)
        self.encoder = nn.ModuleList(
            VolumeBlock(inputs if level == 0 else widths[level], widths[level + 1], stride=2)
            for level in range(blocks)
        )
        self.decoder = nn.ModuleList(
            # All but the innermost also see the volume of their size on the way down.
            VolumeUpBlock(widths[level + 1] * (1 if level == blocks - 1 else 2), widths[level])
            for level in reversed(range(blocks))
        )
        self.outputs = width + inputs
        self.mix = VolumeBlock(self.outputs, self.outputs)

    def forward(self, volume: Tensor) -> Tensor:
        """``(n, inputs, D, H, W)`` to ``(n, width + inputs, D, H, W)``."""
        skips = []
        for down in self.encoder:
            skips.append(volume)
            volume = down(volume)
        for up in self.decoder:
            volume = torch.cat([up(volume), skips.pop()], dim=1)
        mixed: Tensor = self.mix(volume)
        return mixed


def level_widths(width: int, max_width: int, levels: int) -> list[int]:
    """Channels of ``levels + 1`` sizes, each twice the one before up to ``max_width``."""
    return [min(max_width, width << level) for level in range(levels + 1)]
