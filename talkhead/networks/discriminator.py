"""Multi-scale patch discriminator."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import Component

Judgement = tuple[Tensor, list[Tensor]]
"""Logits ``(n, 1, h, w)`` of one scale, and its features from the picture itself upwards."""


class PatchDiscriminator(Component):
    """The same patch network at two resolutions, judging the picture alone.

    | layer | 4x4 convolution, padding 2 | normalisation            |
    |-------|----------------------------|--------------------------|
    | 1     | 64, stride 2               | none                     |
    | 2, 3  | 128, 256, stride 2         | spectral, instance       |
    | 4     | 512, stride 1              | spectral, instance       |
    | 5     | 1, stride 1                | none                     |

    The feature list begins with the input picture, so feature matching contains a pixel term; this
    is why paper 1 has no pixel loss of its own.

    Source: paper 1, supplement I.2 ("same as PC-AVS"); pix2pixHD (reference-facts 3.3).
    """

    def __init__(
        self, scales: int = 2, width: int = 64, layers: int = 4, max_width: int = 512
    ) -> None:
        """Build the discriminator.

        Args:
            scales: Number of resolutions, each half of the one before.
            width: Channels of the first layer; each layer doubles them.
            layers: Convolutions before the one that gives the logits.
            max_width: Largest number of channels.

        Raises:
            ConfigError: No scale, or fewer than two layers.
        """
        super().__init__()
        if scales < 1 or layers < 2:
            raise ConfigError(
                f"expected at least one scale and two layers, got scales {scales}, layers {layers}."
            )
        self.nets = nn.ModuleList(_patch_net(width, layers, max_width) for _ in range(scales))

    def forward(self, pictures: Tensor) -> list[Judgement]:
        """Judge pictures ``(n, 3, H, W)`` in [-1, 1].

        Returns:
            For each scale, finest first: logits ``(n, 1, h, w)`` and the list of features, of which
            the first is the (down-sampled) picture.

        Raises:
            ShapeError: Not RGB pictures.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ShapeError(f"expected pictures (n, 3, H, W), got {tuple(pictures.shape)}.")
        out: list[Judgement] = []
        for i, net in enumerate(self.nets):
            if i > 0:
                pictures = F.avg_pool2d(pictures, 3, 2, 1, count_include_pad=False)
            features = [pictures]
            for layer in net.children():
                features.append(layer(features[-1]))
            out.append((features.pop(), features))
        return out


def _patch_net(width: int, layers: int, max_width: int) -> nn.Sequential:
    """One scale: ``layers`` feature layers, then the logits."""
    net: list[nn.Module] = [
        nn.Sequential(nn.Conv2d(3, width, 4, stride=2, padding=2), nn.LeakyReLU(0.2))
    ]
    for i in range(1, layers):
        outputs = min(2 * width, max_width)
        stride = 1 if i == layers - 1 else 2
        # No bias: the instance norm after it would take it out again.
        conv = spectral_norm(nn.Conv2d(width, outputs, 4, stride=stride, padding=2, bias=False))
        net.append(nn.Sequential(conv, nn.InstanceNorm2d(outputs), nn.LeakyReLU(0.2)))
        width = outputs
    net.append(nn.Conv2d(width, 1, 4, padding=2))
    return nn.Sequential(*net)
