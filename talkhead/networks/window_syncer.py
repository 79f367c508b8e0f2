"""Two branches that embed five frames of points and the sound of the same moment."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.errors import ShapeError
from talkhead.specs import AudioSpec

WINDOW_FRAMES = AudioSpec().window_frames
STEPS_PER_FRAME = AudioSpec().steps_per_frame
TIME_BLOCKS = WINDOW_FRAMES // 2
"""Blocks that each look one frame to either side, together at one window."""


class ConvNeXtBlock1d(nn.Module):
    """Depth-wise convolution over time without padding, layer norm, a four times wider MLP, and a skip.

    Source: Liu et al. (2022), ConvNeXt, in one dimension as MS-Sync's released code has it
        (reference-facts 6.4). Deviates: no padding, so that nothing outside its frames is seen.
    """

    def __init__(self, width: int, kernel: int) -> None:
        """Set up ``width`` channels and an odd ``kernel``."""
        super().__init__()
        self.margin = kernel // 2
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width)
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, width)`` to ``(B, T - kernel + 1, width)``."""
        near = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.mix(near) + x[:, self.margin : x.shape[1] - self.margin]
        return out


class WindowSyncer(nn.Module):
    """One level of a pyramid of syncers: the points and the sound of five frames, each as a unit vector.

    | layer                              | of one window                        |
    |------------------------------------|--------------------------------------|
    | linear, layer norm                 | points 5 x P, sound 5 x 4F: 5 x width |
    | block of kernel 3, twice           | 3 x width, 1 x width                 |
    | ``blocks`` blocks of kernel 1      | width                                |
    | layer norm, linear                 | dim                                  |

    Nothing is padded and nothing is normalised over time, so the embeddings of a sequence are those of
    its windows one by one, at a fifth of the work.

    Source: MS-Sync section 3.1. Its syncers are not published; linear stem and blocks are those of its
        generator (reference-facts 6.4, 6.5), the four steps of a frame side by side are ours.
    """

    def __init__(
        self, point_dim: int, audio_dim: int, width: int, blocks: int, dim: int, dropout: float
    ) -> None:
        """Build both branches.

        Args:
            point_dim: Numbers ``P`` of one frame's points.
            audio_dim: Bands ``F`` of one step of sound.
            width: Channels.
            blocks: Blocks of kernel 1 after those that look over time.
            dim: Size ``D`` of an embedding.
            dropout: Share of the last layer's inputs that training leaves out.
        """
        super().__init__()
        self.points = _branch(point_dim, width, blocks, dim, dropout)
        self.audio = _branch(STEPS_PER_FRAME * audio_dim, width, blocks, dim, dropout)

    def forward(self, points: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of every window of sequences.

        Window ``t`` holds the frames ``t .. t + 4`` and the steps ``4 t .. 4 t + 19``.

        Args:
            points: ``(B, T, P)`` with ``T >= 5``.
            audio: ``(B, 4 T, F)``.

        Returns:
            Of the points and of the sound, each ``(B, T - 4, D)``, unit length.

        Raises:
            ShapeError: Fewer than five frames, or sound of another length.
        """
        frames = points.shape[1]
        if frames < WINDOW_FRAMES or audio.shape[1] != STEPS_PER_FRAME * frames:
            raise ShapeError(
                f"expected at least {WINDOW_FRAMES} frames of points (B, T, P) with sound "
                f"(B, {STEPS_PER_FRAME} T, F), got {tuple(points.shape)} and {tuple(audio.shape)}; use "
                "longer sequences or fewer levels."
            )
        steps = audio.reshape(len(audio), frames, -1)
        return F.normalize(self.points(points), dim=-1), F.normalize(self.audio(steps), dim=-1)


def _branch(inputs: int, width: int, blocks: int, dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.LayerNorm(width),
        *[ConvNeXtBlock1d(width, 3) for _ in range(TIME_BLOCKS)],
        *[ConvNeXtBlock1d(width, 1) for _ in range(blocks)],
        nn.LayerNorm(width),
        nn.Dropout(dropout),
        nn.Linear(width, dim),
    )
