"""Convolutions of the First Order Motion Model: blocks, hourglass and blurred downsampling."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.errors import ConfigError


class ConvBlock(nn.Module):
    """Convolution that keeps the size, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        """Build the block for maps of ``inputs`` and ``outputs`` channels."""
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, inputs, H, W)`` to ``(n, outputs, H, W)``."""
        return F.relu(self.norm(self.conv(maps)))


class DownBlock(ConvBlock):
    """A :class:`ConvBlock` followed by the mean over 2 x 2 pixels."""

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, inputs, H, W)`` to ``(n, outputs, H / 2, W / 2)``."""
        return F.avg_pool2d(super().forward(maps), 2)


class UpBlock(ConvBlock):
    """A :class:`ConvBlock` on maps whose every pixel was doubled both ways."""

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, inputs, H, W)`` to ``(n, outputs, 2 H, 2 W)``."""
        return super().forward(F.interpolate(maps, scale_factor=2, mode="nearest"))


class ResidualBlock(nn.Module):
    """Norm, ReLU and convolution, twice, added to what came in."""

    def __init__(self, channels: int) -> None:
        """Build the block."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, channels, H, W)`` to the same shape."""
        inner = self.conv1(F.relu(self.norm1(maps)))
        out: Tensor = maps + self.conv2(F.relu(self.norm2(inner)))
        return out


class Hourglass(nn.Module):
    """Halvings and doublings with a skip connection at every size.

    Level ``i`` has ``min(max_width, width * 2^i)`` channels. The last doubling gives ``width`` channels
    beside the untouched input, so :attr:`outputs` is ``width + inputs``.

    Source: First Order Motion Model, supplement A (reference-facts 6.1).
    """

    def __init__(self, inputs: int, width: int, max_width: int, blocks: int) -> None:
        """Build the network.

        Args:
            inputs: Channels of the maps.
            width: Channels at full size.
            max_width: Largest number of channels.
            blocks: Halvings; sides must be multiples of ``2^blocks``.
        """
        super().__init__()
        widths = [min(max_width, width << level) for level in range(blocks + 1)]
        self.encoder = nn.ModuleList(
            DownBlock(inputs if level == 0 else widths[level], widths[level + 1])
            for level in range(blocks)
        )
        self.decoder = nn.ModuleList(
            # All but the innermost also see the maps of their size on the way down.
            UpBlock(widths[level + 1] * (1 if level == blocks - 1 else 2), widths[level])
            for level in reversed(range(blocks))
        )
        self.outputs = width + inputs

    def forward(self, maps: Tensor) -> Tensor:
        """``(n, inputs, H, W)`` to ``(n, width + inputs, H, W)``."""
        skips = []
        for down in self.encoder:
            skips.append(maps)
            maps = down(maps)
        for up in self.decoder:
            maps = torch.cat([up(maps), skips.pop()], dim=1)
        return maps


class BlurredDownsample(nn.Module):
    """Every ``1 / scale``-th pixel, from the first on, of pictures blurred by a Gaussian.

    The Gaussian has deviation ``(1 / scale - 1) / 2`` pixels, ``2 round(4 deviation) + 1`` taps a side
    and zeros outside the picture. :attr:`weight`, ``(C, 1, k, k)``, is a buffer because published files
    hold it.
    """

    weight: Tensor

    def __init__(self, scale: float, channels: int = 3) -> None:
        """Build the filter.

        Args:
            scale: 1 over a whole number; 1 passes pictures on as they are.
            channels: Channels of the pictures.

        Raises:
            ConfigError: Another scale.
        """
        super().__init__()
        self.step = round(1 / scale) if scale > 0 else 0
        if self.step < 1 or not math.isclose(self.step * scale, 1.0):
            raise ConfigError(
                f"scale: expected 1 over a whole number, such as 0.25, got {scale}; choose one."
            )
        if self.step == 1:
            return
        deviation = (self.step - 1) / 2
        reach = round(4 * deviation)
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
        taps = torch.exp(-offsets.square() / (2 * deviation**2))
        kernel = torch.outer(taps, taps)
        kernel = (kernel / kernel.sum()).expand(channels, 1, -1, -1).contiguous()
        self.register_buffer("weight", kernel)

    def forward(self, pictures: Tensor) -> Tensor:
        """``(n, C, H, W)`` to ``(n, C, H scale, W scale)``."""
        if self.step == 1:
            return pictures
        return F.conv2d(
            pictures,
            self.weight,
            stride=self.step,
            padding=self.weight.shape[-1] // 2,
            groups=self.weight.shape[0],
        )
