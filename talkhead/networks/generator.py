"""Style-based generator that paints a face from an identity map and one latent vector."""

from __future__ import annotations

import math
from contextlib import nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.autocast_mode import is_autocast_available

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import Component

_BLUR = (1.0, 3.0, 3.0, 1.0)
_DEMODULATION_EPS = 1e-8


class StyleGenerator(Component):
    """StyleGAN2 synthesis network without a mapping network.

    The identity map replaces the learned constant; the latent ``cat(f_id, f_nl, f_l)`` modulates
    every convolution as it is.

    | size | 7 or 4    | x2  | x4  | x8  | x16 | x32 |
    |------|-----------|-----|-----|-----|-----|-----|
    | 224  | 512 (map) | 512 | 512 | 512 | 256 | 128 |

    Source: paper 1, supplement I.2; PC-AVS' generator and StyleGAN2 (reference-facts 3.2).
        Deviates: features are scaled before and after a shared convolution, which equals scaling
        its weights per sample but needs no grouped convolution; noise is off in eval mode, as it
        flickers in video.
    """

    def __init__(
        self,
        image_size: int = 224,
        latent_dim: int = 2560,
        map_channels: int = 512,
        channels: int = 512,
        min_channels: int = 128,
        noise: bool = True,
    ) -> None:
        """Build the generator.

        Args:
            image_size: Side of the pictures: ``7 * 2^k`` pixels start from a 7 x 7 map, ``4 * 2^k``
                from a 4 x 4 one.
            latent_dim: Size of the latent.
            map_channels: Channels of the identity map.
            channels: Largest number of channels.
            min_channels: Channels at full size; each halving doubles them up to ``channels``.
            noise: Add noise with a learned gain (first 0) to every layer while training.

        Raises:
            ConfigError: A picture size that no doubling of 7 or 4 reaches.
        """
        super().__init__()
        self.image_size, self.latent_dim, self.map_channels = image_size, latent_dim, map_channels
        self.map_size, doublings = start_size(image_size)
        widths = [min(channels, min_channels << (doublings - i)) for i in range(doublings + 1)]
        self.first = StyledLayer(map_channels, widths[0], latent_dim, noise=noise)
        self.first_rgb = ToRGB(widths[0], latent_dim)
        self.ups = nn.ModuleList()
        self.convs = nn.ModuleList()
        self.rgbs = nn.ModuleList()
        for inputs, outputs in pairwise(widths):
            self.ups.append(StyledLayer(inputs, outputs, latent_dim, noise=noise, upsample=True))
            self.convs.append(StyledLayer(outputs, outputs, latent_dim, noise=noise))
            self.rgbs.append(ToRGB(outputs, latent_dim))

    def forward(self, latent: Tensor, identity_map: Tensor) -> Tensor:
        """Paint pictures.

        Args:
            latent: ``(n, latent_dim)``.
            identity_map: ``(n, map_channels, map_size, map_size)``.

        Returns:
            Pictures ``(n, 3, image_size, image_size)`` in (-1, 1).

        Raises:
            ShapeError: Latent or map have another shape.
        """
        grid = (self.map_channels, self.map_size, self.map_size)
        if latent.shape[1:] != (self.latent_dim,) or identity_map.shape != (len(latent), *grid):
            raise ShapeError(
                f"expected a latent (n, {self.latent_dim}) and a map (n, *{grid}), got "
                f"{tuple(latent.shape)} and {tuple(identity_map.shape)}; give the identity "
                f"encoder map_size {self.map_size} and map_channels {self.map_channels}."
            )
        x = self.first(identity_map, latent)
        picture = self.first_rgb(x, latent)
        for up, conv, rgb in zip(self.ups, self.convs, self.rgbs, strict=True):
            x = conv(up(x, latent), latent)
            picture = rgb(x, latent) + upsample_picture(picture)
        return torch.tanh(picture)


def start_size(image_size: int) -> tuple[int, int]:
    """Side of the starting map and the number of doublings; ``start_size(224) == (7, 5)``.

    Raises:
        ConfigError: Neither 7 nor 4 times a power of two.
    """
    start = 7 if image_size % 7 == 0 else 4
    doublings = round(math.log2(image_size / start)) if image_size >= start else 0
    if doublings < 1 or start << doublings != image_size:
        raise ConfigError(
            f"image_size: expected 7 or 4 times a power of two (56, 64, 112, 128, 224, 256, …), "
            f"got {image_size}."
        )
    return start, doublings


class EqualLinear(nn.Module):
    """Linear layer whose weights are stored at unit variance and scaled when used."""

    def __init__(self, inputs: int, outputs: int, bias: float) -> None:
        """``bias`` is the first value of every bias."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.scale = 1.0 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, inputs)`` to ``(n, outputs)``."""
        return F.linear(x, self.weight * self.scale, self.bias)


class ModulatedConv(nn.Module):
    r"""Convolution whose weights a style scales for each sample.

    Weights ``w'_{oik} = s_i w_{oik}``, divided by ``sqrt(sum_{ik} w'^2 + 1e-8)`` if demodulated.
    Input channels are scaled by ``s`` and output channels by the inverse norm instead, which is the
    same.

    Source: StyleGAN2, section 2.2.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        latent_dim: int,
        *,
        demodulate: bool = True,
        upsample: bool = False,
    ) -> None:
        """``upsample`` doubles the size by a transposed convolution and a 1-3-3-1 blur."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.scale = 1.0 / math.sqrt(inputs * kernel * kernel)
        self.style = EqualLinear(latent_dim, inputs, bias=1.0)
        self.demodulate, self.upsample, self.padding = demodulate, upsample, kernel // 2

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """``(n, C, H, W)`` to ``(n, C', H, W)`` or twice the size."""
        style = self.style(latent)
        weight = self.weight * self.scale
        x = x * style[:, :, None, None].to(x.dtype)
        if self.upsample:
            out = blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        else:
            out = F.conv2d(x, weight, padding=self.padding)
        if self.demodulate:
            norm = self._inverse_norm(style, weight)
            out = out * norm[:, :, None, None].to(out.dtype)
        return out

    def _inverse_norm(self, style: Tensor, weight: Tensor) -> Tensor:
        """``(n, C')`` inverse norms of the modulated weights, in full precision under autocast."""
        exact = torch.promote_types(weight.dtype, torch.float32)
        kind = style.device.type
        # The meta device, on which sizes are checked, has no autocast to switch off.
        known = is_autocast_available(kind)
        with torch.autocast(kind, enabled=False) if known else nullcontext():
            power = weight.to(exact).square().sum((2, 3))
            return torch.rsqrt(style.to(exact).square() @ power.T + _DEMODULATION_EPS)


class StyledLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias and scaled leaky ReLU."""

    def __init__(
        self, inputs: int, outputs: int, latent_dim: int, *, noise: bool, upsample: bool = False
    ) -> None:
        """``noise`` adds per-pixel noise with a learned gain while training."""
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, latent_dim, upsample=upsample)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_gain = nn.Parameter(torch.zeros(())) if noise else None

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """``(n, C, H, W)`` to ``(n, C', H, W)`` or twice the size."""
        x = self.conv(x, latent)
        if self.noise_gain is not None and self.training:
            x = x + self.noise_gain * torch.randn_like(x[:, :1])
        return F.leaky_relu(x + self.bias[:, None, None], 0.2) * math.sqrt(2.0)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to three channels, without demodulation."""

    def __init__(self, inputs: int, latent_dim: int) -> None:
        """From ``inputs`` channels."""
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, 1, latent_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """``(n, C, H, W)`` to ``(n, 3, H, W)``."""
        out: Tensor = self.conv(x, latent) + self.bias[:, None, None]
        return out


def blur(x: Tensor) -> Tensor:
    """Smooth a stride-2 transposed convolution: ``(n, C, 2H + 1, .)`` to ``(n, C, 2H, .)``.

    The gain of 4 makes up for the zeros between the samples.
    """
    channels = x.shape[1]
    taps = x.new_tensor(_BLUR) / 4.0
    rows = taps.view(1, 1, 4, 1).expand(channels, 1, 4, 1)
    columns = taps.view(1, 1, 1, 4).expand(channels, 1, 1, 4)
    x = F.conv2d(x, rows, padding=(1, 0), groups=channels)
    return F.conv2d(x, columns, padding=(0, 1), groups=channels)


def upsample_picture(picture: Tensor) -> Tensor:
    """Double a picture ``(n, C, H, W)`` with the same 1-3-3-1 filter."""
    channels = picture.shape[1]
    taps = picture.new_tensor(_BLUR) / 4.0
    kernel = torch.outer(taps, taps).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(picture, kernel, stride=2, padding=1, groups=channels)
