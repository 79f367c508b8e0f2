"""ResNet and ResNeXt without a classifier, at any width, with torchvision's parameter names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from talkhead.errors import ConfigError


class ResNetTrunk(nn.Module):
    """Stem and four stages of torchvision's ResNet.

    torchvision fixes the width at 64 planes, which no small configuration can afford; here it is
    ``width``. At ``width=64`` the parameters have the names and shapes of
    ``torchvision.models.resnet*`` or ``resnext*``, so its files load.

    Source: torchvision ``ResNet``; deviates: free width, and the last stage may keep its
    resolution.
    """

    def __init__(
        self,
        layers: list[int],
        *,
        bottleneck: bool = True,
        groups: int = 1,
        width_per_group: int = 64,
        width: int = 64,
        last_stride: int = 2,
    ) -> None:
        """Build the stages.

        Args:
            layers: Blocks in each of the four stages.
            bottleneck: Bottleneck blocks (ResNet-50 and deeper) instead of basic ones (18, 34).
            groups: Groups of the 3x3 convolutions.
            width_per_group: Channels of a group in the first stage of a 64-plane network.
            width: Planes of the first stage; the later ones have 2, 4 and 8 times as many.
            last_stride: 1 keeps the resolution in the last stage, 2 halves it.

        Raises:
            ConfigError: Not four stages, or a width that leaves a group without channels.
        """
        super().__init__()
        if len(layers) != 4 or min(layers) < 1:
            raise ConfigError(f"layers: expected four positive block counts, got {layers}.")
        if bottleneck and width * width_per_group < 64:
            raise ConfigError(
                f"width {width} with width_per_group {width_per_group} leaves a group without "
                "channels; expected width * width_per_group >= 64."
            )
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.channels = width
        block = Bottleneck if bottleneck else BasicBlock
        extra = (groups, width_per_group) if bottleneck else (1, 64)
        strides = (1, 2, 2, last_stride)
        for i, (count, stride) in enumerate(zip(layers, strides, strict=True)):
            setattr(self, f"layer{i + 1}", self._stage(block, width << i, count, stride, *extra))
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Pictures ``(n, 3, H, W)`` to the last stage ``(n, channels, H / 32, W / 32)``."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return x

    def _stage(
        self,
        block: type[BasicBlock | Bottleneck],
        planes: int,
        count: int,
        stride: int,
        groups: int,
        base_width: int,
    ) -> nn.Sequential:
        """``count`` blocks, the first of which changes width and resolution."""
        out = planes * int(block.expansion)
        shortcut = None
        if stride != 1 or self.channels != out:
            shortcut = nn.Sequential(
                nn.Conv2d(self.channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
            )
        blocks = [block(self.channels, planes, stride, shortcut, groups, base_width)]
        self.channels = out
        blocks += [
            block(out, planes, groups=groups, base_width=base_width) for _ in range(count - 1)
        ]
        return nn.Sequential(*blocks)
