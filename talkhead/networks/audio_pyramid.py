"""Filter-bank energies on four time scales, each brought back to one vector a video frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.audio.filter_bank import N_FILTERS
from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.window_syncer import STEPS_PER_FRAME

Interpolation = Literal["time", "corners"]
"""Where the samples of a coarse level lie: at their true times, or stretched over the whole run."""
MAX_LEVELS = 4
REACH_FRAMES = 32
"""Sound that a frame's features depend on, to either side: 23 frames around a sample of the coarsest
level (181 steps in all), of which the nearest two lie at most 8 frames away."""
BLOCK_FRAMES = 64
"""Frames computed at a time for sound that comes in blocks; a multiple of the coarsest stride."""


class StridedBlock(nn.Module):
    """``gelu(mlp(norm(depthwise(x))) + skip(x))``: ConvNeXt-like, with a stride over time.

    The MLP is four times as wide as the input. The skip is the identity where shapes agree, else a
    strided 1 x 1 convolution and a layer norm. Sample ``j`` is centred on sample ``stride * j``.

    Source: MS-Sync's released code (reference-facts 6.4). Deviates: beyond the ends the first and last
        sample are repeated. Zeros, as there, are a loud sound in logarithms of energies.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        """Channels in and out, an odd kernel, and the stride."""
        super().__init__()
        self.depthwise = nn.Conv1d(
            inputs,
            inputs,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=inputs,
            padding_mode="replicate",
        )
        self.mix = nn.Sequential(
            nn.LayerNorm(inputs),
            nn.Linear(inputs, 4 * inputs),
            nn.GELU(),
            nn.Linear(4 * inputs, outputs),
        )
        self.stride = stride
        same = inputs == outputs and stride == 1
        self.skip = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, inputs)`` to ``(B, ceil(N / stride), outputs)``."""
        near = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return F.gelu(self.mix(near) + self.skip(x[:, :: self.stride]))


class AudioPyramid(nn.Module):
    """The bottom-up path of a feature pyramid over log filter-bank energies.

    | level | block                                                   | a sample every | sees steps |
    |-------|---------------------------------------------------------|----------------|------------|
    | 0     | kernel 3 to D/8; 3, stride 2, D/4; 3, D/2; 3, stride 2, D | 1 frame        | 13         |
    | 1     | kernel 7, stride 2                                      | 2 frames       | 37         |
    | 2     | kernel 7, stride 2                                      | 4 frames       | 85         |
    | 3     | kernel 7, stride 2                                      | 8 frames       | 181        |

    Sample ``j`` of level ``l`` is centred on the first step of frame ``2^l j``. Every level is then
    interpolated linearly to one vector a frame (:func:`at_frames`).

    Source: MS-Sync section 3.2; layers as in its released code (reference-facts 6.5), which has no
        top-down path either. Deviates: interpolation by true times, ``"corners"`` for that of the code;
        padding as in :class:`StridedBlock`.
    """

    def __init__(self, dim: int, levels: int, interpolation: Interpolation) -> None:
        """Build the levels.

        Args:
            dim: Width ``D`` of a vector.
            levels: How many time scales, the finest first.
            interpolation: See :data:`Interpolation`.

        Raises:
            ConfigError: Another number of levels, a width not divisible by 8, or an unknown name.
        """
        super().__init__()
        if not 1 <= levels <= MAX_LEVELS or dim < 8 or dim % 8:
            raise ConfigError(
                f"expected 1 to {MAX_LEVELS} levels and a width divisible by 8, got {levels} levels "
                f"of {dim}; change either."
            )
        if interpolation not in get_args(Interpolation):
            raise ConfigError(
                f"expected interpolation out of {', '.join(get_args(Interpolation))}, got "
                f"{interpolation!r}."
            )
        self.interpolation = interpolation
        finest = nn.Sequential(
            StridedBlock(N_FILTERS, dim // 8, 3, 1),
            StridedBlock(dim // 8, dim // 4, 3, 2),
            StridedBlock(dim // 4, dim // 2, 3, 1),
            StridedBlock(dim // 2, dim, 3, 2),
        )
        self.levels = nn.ModuleList([finest])
        self.levels.extend(StridedBlock(dim, dim, 7, 2) for _ in range(levels - 1))

    def forward(self, audio: Tensor) -> Tensor:
        """Features of every frame on every level.

        Args:
            audio: Log filter-bank energies ``(B, 4 T, 26)``.

        Returns:
            ``(B, L, T, D)``, the finest level first.

        Raises:
            ShapeError: Not whole frames of 26 bands, or none.
        """
        check_energies(audio)
        frames = audio.shape[1] // STEPS_PER_FRAME
        features, x = [], audio
        for level, net in enumerate(self.levels):
            x = net(x)
            timed = self.interpolation == "time"
            features.append(at_frames(x, level, frames) if timed else stretched(x, frames))
        return torch.stack(features, 1)

    def by_blocks(self, audio: Iterable[Tensor]) -> Iterator[Tensor]:
        """As :meth:`forward`, of sound of any length, holding :data:`REACH_FRAMES` of it on either side.

        Args:
            audio: Consecutive blocks ``(B, 4 n, 26)`` of any length.

        Yields:
            Consecutive ``(B, L, n, D)``, together what :meth:`forward` gives for all of the sound.

        Raises:
            ConfigError: Stretched levels, which are not known before the sound has ended.
            ShapeError: As :meth:`forward`.
        """
        if self.interpolation != "time":
            raise ConfigError(
                "expected interpolation time for sound in blocks, got corners, which depends on the "
                "length of the whole; pass all of it to audio_features and use roll_out."
            )
        return self._by_blocks(_recut(audio, BLOCK_FRAMES))

    def _by_blocks(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        kept, start, done = torch.empty(0), 0, 0
        coarsest = 2 ** (MAX_LEVELS - 1)
        for block in blocks:
            kept = torch.cat([kept, block], 1) if kept.numel() else block
            ready = start + kept.shape[1] // STEPS_PER_FRAME - REACH_FRAMES
            if ready <= done:
                continue
            yield self(kept)[:, :, done - start : ready - start]
            done = ready
            # The rest has to begin with a sample of every level.
            passed = max(0, done - REACH_FRAMES - start) // coarsest * coarsest
            kept, start = kept[:, STEPS_PER_FRAME * passed :], start + passed
        if kept.numel():
            yield self(kept)[:, :, done - start :]


def at_frames(samples: Tensor, level: int, frames: int) -> Tensor:
    """Linear interpolation of the samples of a level, of which the ``j``-th lies at frame ``2^l j``.

    Args:
        samples: ``(B, N, D)``.
        level: ``l``.
        frames: How many frames ``T`` to read; beyond the last sample its value is held.

    Returns:
        ``(B, T, D)``.
    """
    if level == 0:
        return samples[:, :frames]
    frame = torch.arange(frames, device=samples.device)
    last = samples.shape[1] - 1
    before = (frame >> level).clamp_max(last)
    after = (before + 1).clamp_max(last)
    share = (frame % 2**level).to(samples.dtype) / 2**level
    return torch.lerp(samples[:, before], samples[:, after], share[:, None])


def stretched(samples: Tensor, frames: int) -> Tensor:
    """``(B, N, D)`` to ``(B, T, D)`` with the first and last sample on the first and last frame.

    This moves a coarse level's samples away from their times, towards the end of the run by
    ``T - 1 - 2^l (N - 1)`` frames.

    Source: MS-Sync's released code (reference-facts 6.5), for its weights only.
    """
    columns = F.interpolate(samples.transpose(1, 2), frames, mode="linear", align_corners=True)
    return columns.transpose(1, 2)


def check_energies(audio: Tensor) -> None:
    """Refuse anything but ``(B, 4 T, 26)`` with at least one frame.

    Raises:
        ShapeError: Another shape.
    """
    if (
        audio.ndim != 3
        or audio.shape[2] != N_FILTERS
        or audio.shape[1] % STEPS_PER_FRAME
        or audio.shape[1] == 0
    ):
        raise ShapeError(
            f"expected log filter-bank energies (B, {STEPS_PER_FRAME} T, {N_FILTERS}) of whole frames, "
            f"got {tuple(audio.shape)}; use talkhead.audio.filter_bank."
        )


def _recut(audio: Iterable[Tensor], frames: int) -> Iterator[Tensor]:
    """The same sound in blocks of ``frames`` frames, of which the last may be shorter."""
    size = STEPS_PER_FRAME * frames
    waiting: list[Tensor] = []
    for block in audio:
        check_energies(block)
        waiting.append(block)
        if sum(part.shape[1] for part in waiting) < size:
            continue
        whole = torch.cat(waiting, 1)
        *full, rest = whole.split(size, 1)
        if rest.shape[1] == size:
            full, rest = [*full, rest], rest[:, :0]
        yield from full
        waiting = [rest] if rest.shape[1] else []
    if waiting:
        yield torch.cat(waiting, 1)
