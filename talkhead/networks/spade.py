"""Spatially adaptive normalisation: features that say at every place how the maps are to be scaled."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2


class Spade(nn.Module):
    """Instance norm, then ``(1 + gamma) x + beta`` with gamma and beta painted from guiding features.

    Source: SPADE (Park et al., 2019) as in face-vid2vid's unofficial code.
    """

    def __init__(self, channels: int, guide: int, hidden: int) -> None:
        """Build the layer for maps of ``channels`` and guiding features of ``guide`` channels."""
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.shared = nn.Conv2d(guide, hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, maps: Tensor, guide: Tensor) -> Tensor:
        """``(n, channels, H, W)`` guided by ``(n, guide, h, w)``, which is enlarged as it is."""
        if guide.shape[2:] != maps.shape[2:]:
            guide = F.interpolate(guide, size=maps.shape[2:], mode="nearest")
        hidden = F.relu(self.shared(guide))
        out: Tensor = self.norm(maps) * (1.0 + self.gamma(hidden)) + self.beta(hidden)
        return out


class SpadeBlock(nn.Module):
    """Two guided convolutions with spectral norm, added to what came in."""

    def __init__(self, inputs: int, outputs: int, guide: int, hidden: int) -> None:
        """Build the block; another number of outputs needs a guided 1 x 1 on the way past."""
        super().__init__()
        middle = min(inputs, outputs)
        self.norm1 = Spade(inputs, guide, hidden)
        self.conv1 = spectral_norm(nn.Conv2d(inputs, middle, 3, padding=1))
        self.norm2 = Spade(middle, guide, hidden)
        self.conv2 = spectral_norm(nn.Conv2d(middle, outputs, 3, padding=1))
        self.norm_skip: Spade | None = None
        self.conv_skip: nn.Module | None = None
        if inputs != outputs:
            self.norm_skip = Spade(inputs, guide, hidden)
            self.conv_skip = spectral_norm(nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, maps: Tensor, guide: Tensor) -> Tensor:
        """``(n, inputs, H, W)`` guided by ``(n, guide, h, w)`` to ``(n, outputs, H, W)``."""
        inner = self.conv1(F.leaky_relu(self.norm1(maps, guide), SLOPE))
        inner = self.conv2(F.leaky_relu(self.norm2(inner, guide), SLOPE))
        if self.norm_skip is not None and self.conv_skip is not None:
            maps = self.conv_skip(self.norm_skip(maps, guide))
        out: Tensor = maps + inner
        return out


class SpadeDecoder(nn.Module):
    """Features to a picture, the features themselves guiding every block.

    | part                               | maps of 256 x 256 pictures        |
    |------------------------------------|-----------------------------------|
    | 3 x 3                              | 512 x 64 x 64                     |
    | six blocks                         | 512 x 64 x 64                     |
    | doubling and a block, twice        | 256 x 128 x 128, 64 x 256 x 256   |
    | leaky ReLU, 3 x 3, sigmoid         | 3 x 256 x 256                     |

    Source: NetEase's SPADE decoder (reference-facts 7.1). With more than two doublings each but the last
        halves the channels, which no published network has.
    """

    def __init__(self, features: int, width: int, ups: int, blocks: int, hidden: int) -> None:
        """Build the decoder.

        Args:
            features: Channels of the features.
            width: Channels at full size.
            ups: Doublings.
            blocks: Blocks before the first of them.
            hidden: Channels inside each guided norm.
        """
        super().__init__()
        self.first = nn.Conv2d(features, 2 * features, 3, padding=1)
        self.middle = nn.ModuleList(
            SpadeBlock(2 * features, 2 * features, features, hidden) for _ in range(blocks)
        )
        widths = [2 * features, *(max(width, features >> level) for level in range(ups - 1))]
        if ups > 0:
            widths.append(width)
        self.ups = nn.ModuleList(
            SpadeBlock(widths[level], widths[level + 1], features, hidden) for level in range(ups)
        )
        self.final = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """``(n, features, h, w)`` to logits of colours in [0, 1], ``(n, 3, h 2^ups, w 2^ups)``."""
        maps = self.first(features)
        for block in self.middle:
            maps = block(maps, features)
        for up in self.ups:
            maps = up(F.interpolate(maps, scale_factor=2.0, mode="nearest"), features)
        logits: Tensor = self.final(F.leaky_relu(maps, SLOPE))
        return logits
