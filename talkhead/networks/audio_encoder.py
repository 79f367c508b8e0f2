"""Audio encoder: what a mouth does during 0.2 s of sound."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import Component


class AudioEncoder(Component):
    """Squeeze-and-excitation ResNet-34 with self-attentive pooling, giving ``f_a``.

    | layer     | output for 1 x 80 x 20                        |
    |-----------|-----------------------------------------------|
    | stem      | 3x3, stride 1, 32 x 80 x 20                   |
    | stages    | 3, 4, 6, 3 blocks, 32, 64, 128, 256 channels, |
    |           | strides 1, 2, 2, 2 -> 256 x 10 x 3            |
    | pooling   | channel x frequency = 2560 over 3 time steps, |
    |           | softmax attention over time                   |
    | output    | linear 2560 -> 512                            |

    Source: paper 1, supplement I.2 ("a ResNet34 encoder", citing the VoxCeleb trainer); the variant
        is the one of PC-AVS (reference-facts 2.2): convolution, ReLU, then batch norm; reduction 8;
        no pre-emphasis and no instance norm.
    """

    def __init__(
        self,
        dim: int = 512,
        widths: list[int] | None = None,
        counts: list[int] | None = None,
        n_mels: int = 80,
        reduction: int = 8,
        attention_dim: int = 128,
    ) -> None:
        """Build the encoder.

        Args:
            dim: Size of ``f_a``.
            widths: Channels of the four stages, by default 32, 64, 128, 256.
            counts: Blocks of the four stages, by default 3, 4, 6, 3.
            n_mels: Mel bins ``F`` of the input.
            reduction: Squeeze factor of the channel gates.
            attention_dim: Width of the attention's hidden layer.

        Raises:
            ConfigError: ``widths`` and ``counts`` have not the same number of stages.
        """
        super().__init__()
        widths, counts = widths or [32, 64, 128, 256], counts or [3, 4, 6, 3]
        if len(widths) != len(counts) or min(counts) < 1:
            raise ConfigError(
                f"expected one width and one positive count per stage, got widths {widths} and "
                f"counts {counts}."
            )
        self.dim, self.n_mels = dim, n_mels
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        blocks: list[nn.Module] = []
        previous, bins = widths[0], n_mels
        for i, (width, count) in enumerate(zip(widths, counts, strict=True)):
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(SqueezeExcitationBlock(previous, width, stride, reduction))
                previous = width
            bins = bins if i == 0 else (bins + 1) // 2
        self.blocks = nn.Sequential(*blocks)
        self.attention = nn.Sequential(
            nn.Conv1d(previous * bins, attention_dim, 1),
            nn.ReLU(),
            nn.BatchNorm1d(attention_dim),
            nn.Conv1d(attention_dim, previous * bins, 1),
        )
        self.output = nn.Linear(previous * bins, dim)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, mel: Tensor) -> Tensor:
        """Mel windows ``(n, 1, F, M)`` in [0, 1] to features ``(n, dim)``.

        Raises:
            ShapeError: Another number of axes, channels or mel bins.
        """
        if mel.ndim != 4 or mel.shape[1] != 1 or mel.shape[2] != self.n_mels:
            raise ShapeError(
                f"expected mel windows (n, 1, {self.n_mels}, M), got {tuple(mel.shape)}; cut them "
                "with talkhead.audio.mel.mel_windows."
            )
        x = self.blocks(self.stem_norm(F.relu(self.stem(mel))))
        x = x.flatten(1, 2)  # channels and frequency become one axis: (n, C F, time)
        share = torch.softmax(self.attention(x), dim=2)
        code: Tensor = self.output((x * share).sum(dim=2))
        return code


class SqueezeExcitationBlock(nn.Module):
    """Residual block with a learned gate for each channel."""

    def __init__(self, inputs: int, outputs: int, stride: int, reduction: int) -> None:
        """Two 3x3 convolutions; the shortcut is a 1x1 convolution where shapes change."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        hidden = max(1, outputs // reduction)
        self.gate = nn.Sequential(
            nn.Linear(outputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs), nn.Sigmoid()
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``(n, C, F, M)`` to ``(n, C', F / stride, M / stride)``."""
        # ReLU before the norm: the order of the reference encoder, not the usual one.
        out = self.norm1(F.relu(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        gate = self.gate(out.mean((2, 3)))
        return F.relu(out * gate[:, :, None, None] + self.shortcut(x))
