"""3-D convolution that may be trained in half precision on every device."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class VolumeConv(nn.Conv3d):
    """As torch's, but always in full precision on a CPU.

    There, the bfloat16 weight gradient of some sizes holds what lay in memory before (torch 2.11; 16 to 8
    channels of 2 x 8 x 8 voxels is one), so that a run now and then turned into not-a-numbers.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``(n, inputs, D, H, W)`` to ``(n, outputs, ...)``."""
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.to(self.weight.dtype))
