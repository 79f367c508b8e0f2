"""The small network that generator and discriminator of keypoint motion begin with."""

from __future__ import annotations

from torch import nn

from talkhead.geometry.keypoints import ROW_DIM


def keypoint_encoder(inner: int, width: int) -> nn.Sequential:
    """One frame's 60 numbers to ``inner``, layer norm, four times as many, GELU, ``width``.

    Source: MS-Sync's released code (reference-facts 6.5, 6.6).
    """
    return nn.Sequential(
        nn.Linear(ROW_DIM, inner),
        nn.LayerNorm(inner),
        nn.Linear(inner, 4 * inner),
        nn.GELU(),
        nn.Linear(4 * inner, width),
    )
