"""A stand-in for trained syncers whose answer is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from talkhead.networks.rigid_syncer import LevelEmbeddings


class KnownDelay(nn.Module):
    """Every run has its own content on two levels; its sound comes late by ``late`` steps."""

    scales = (200, 400)

    def __init__(self, late: int) -> None:
        super().__init__()
        self.late = late

    def forward(
        self, motion: Tensor, audio: Tensor, mirrored: Tensor | None = None
    ) -> list[LevelEmbeddings]:
        out = []
        for level, windows in enumerate((16, 6)):
            rows = []
            for track in motion:
                own = torch.Generator().manual_seed(int(1e6 * float(track.abs().sum())) + level)
                rows.append(torch.randn(windows + 20, 32, generator=own))
            content = torch.stack(rows)
            begin = 10 - self.late
            out.append(
                LevelEmbeddings(content[:, 10 : 10 + windows], content[:, begin : begin + windows])
            )
        return out
