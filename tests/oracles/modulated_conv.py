"""Modulated convolution as StyleGAN2 writes it: one set of weights per sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def modulated_conv(
    x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool, upsample: bool
) -> Tensor:
    """``x (n, C, H, W)``, ``weight (C', C, k, k)`` already scaled, ``style (n, C)``."""
    out = []
    for sample, s in zip(x, style, strict=True):
        w = weight * s[None, :, None, None]
        if demodulate:
            w = torch.stack([f / (f.square().sum() + 1e-8).sqrt() for f in w])
        if upsample:
            out.append(_blur(F.conv_transpose2d(sample[None], w.transpose(0, 1), stride=2))[0])
        else:
            out.append(F.conv2d(sample[None], w, padding=w.shape[-1] // 2)[0])
    return torch.stack(out)


def _blur(x: Tensor) -> Tensor:
    """1-3-3-1 filter with gain 4 by shifted sums, one pixel shorter than its input."""
    taps = [1 / 4, 3 / 4, 3 / 4, 1 / 4]
    padded = F.pad(x, (1, 1, 1, 1))
    height, width = x.shape[-2] - 1, x.shape[-1] - 1
    out = torch.zeros_like(x[..., :height, :width])
    for i, a in enumerate(taps):
        for j, b in enumerate(taps):
            out = out + a * b * padded[..., i : i + height, j : j + width]
    return out
