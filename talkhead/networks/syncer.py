"""The syncers of MS-Sync: do these keypoints move with this voice, on four time scales?"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from talkhead.audio.filter_bank import N_FILTERS
from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import ROW_DIM
from talkhead.networks.component import Component
from talkhead.networks.rigid_syncer import MAX_LEVELS, QUIET, LevelEmbeddings
from talkhead.networks.window_syncer import STEPS_PER_FRAME, WINDOW_FRAMES, WindowSyncer
from talkhead.time_pyramid import paired_pyramids, window_ms

SMALLEST_VARIANCE = 1e-6
"""Of a standardised input: a thousandth of half a picture is still motion, less is not enlarged."""
Centre = Literal["none", "window"]
"""What is taken off the keypoints of a window: nothing, or their own mean over its five frames."""
AudioLevel = Literal["none", "run", "window"]
"""What is taken off the energies: nothing, or one number, their mean over a run or a window."""


class SyncerPyramid(Component):
    """One :class:`WindowSyncer` a level of the pyramids of keypoints and of speech, 200 to 1600 ms.

    | step of a level                   | keypoints            | speech                |
    |-----------------------------------|----------------------|-----------------------|
    | ``l`` halvings                    | ``(B, T_l, 60)``     | ``(B, 4 T_l, 26)``    |
    | windows, :data:`Centre`           | ``(N, 5, 60)``       | ``(N, 20, 26)``       |
    | each number standardised          | by running mean and deviation of training data |
    | embedding of :class:`WindowSyncer`| ``(B, N_l, D)``      | ``(B, N_l, D)``       |

    The score of a window is the cosine of its two embeddings. Everything is differentiable with respect
    to the keypoints.

    Source: MS-Sync section 3.1. The syncers are not published; the released loader asks for 272 channels
        (reference-facts 6.4), the rest of the network is that of :class:`WindowSyncer`. Ours are the
        standardised inputs, without which small motion around large coordinates is learned slowly,
        ``centre`` and ``audio_level``.
    """

    def __init__(
        self,
        levels: int = MAX_LEVELS,
        dim: int = 512,
        width: int = 272,
        blocks: int = 2,
        dropout: float = 0.0,
        centre: Centre = "none",
        audio_level: AudioLevel = "none",
    ) -> None:
        """Build one network a level.

        Args:
            levels: Time scales, 1 to 4.
            dim: Size ``D`` of an embedding.
            width: Channels.
            blocks: Blocks of each branch after those that look over time.
            dropout: Share of the last layer's inputs that training leaves out.
            centre: ``"window"`` hides place, size and shape of the face: only motion within a window
                is seen. See :data:`Centre`.
            audio_level: ``"run"`` and ``"window"`` hide how loud a recording or a moment is. See
                :data:`AudioLevel`.

        Raises:
            ConfigError: Another number of levels, or an unknown name.
        """
        super().__init__()
        if not 1 <= levels <= MAX_LEVELS:
            raise ConfigError(f"syncer: expected 1 to {MAX_LEVELS} levels, got {levels}.")
        for name, value, known in (
            ("centre", centre, get_args(Centre)),
            ("audio_level", audio_level, get_args(AudioLevel)),
        ):
            if value not in known:
                raise ConfigError(
                    f"syncer: expected {name} out of {', '.join(known)}, got {value!r}."
                )
        self.centre, self.audio_level = centre, audio_level
        self.levels = nn.ModuleList(
            WindowSyncer(ROW_DIM, N_FILTERS, width, blocks, dim, dropout) for _ in range(levels)
        )
        self.keypoint_norms = nn.ModuleList(_standardiser(ROW_DIM) for _ in range(levels))
        self.audio_norms = nn.ModuleList(_standardiser(N_FILTERS) for _ in range(levels))

    @property
    def scales(self) -> tuple[int, ...]:
        """Length of a window on every level in ms."""
        return tuple(window_ms(level) for level in range(len(self.levels)))

    def forward(self, keypoints: Tensor, audio: Tensor) -> list[LevelEmbeddings]:
        """Embeddings of every window of sequences, the finest level first.

        Args:
            keypoints: ``(B, T, 60)``, coordinates in [-1, 1].
            audio: Log filter-bank energies ``(B, 4 T, 26)`` of the same frames.

        Returns:
            Level ``l`` has ``ceil(T / 2^l) - 4`` windows; window ``t`` begins with its frame ``t``.

        Raises:
            ShapeError: Shapes that do not belong together, or too few frames for the levels.
        """
        if keypoints.ndim != 3 or keypoints.shape[-1] != ROW_DIM or audio.shape[2:] != (N_FILTERS,):
            raise ShapeError(
                f"expected keypoints (B, T, {ROW_DIM}) and log filter-bank energies "
                f"(B, {STEPS_PER_FRAME} T, {N_FILTERS}), got {tuple(keypoints.shape)} and "
                f"{tuple(audio.shape)}; pack keypoints as x, y, j00, j01, j10, j11."
            )
        energies = audio.clamp_min(QUIET)
        if self.audio_level == "run":
            energies = energies - energies.mean(dim=(1, 2), keepdim=True)
        pairs = paired_pyramids(
            keypoints, energies, len(self.levels), steps_per_frame=STEPS_PER_FRAME
        )
        return [self._embedded(level, *pair) for level, pair in enumerate(pairs)]

    def _embedded(self, level: int, seen: Tensor, heard: Tensor) -> LevelEmbeddings:
        """Embeddings of one level: whole sequences where no window has a mean of its own."""
        rows, frames = seen.shape[0], seen.shape[1]
        if frames < WINDOW_FRAMES:
            raise ShapeError(
                f"expected at least {WINDOW_FRAMES} frames on each of {len(self.levels)} levels, got "
                f"{frames} on level {level}; use longer sequences or fewer levels."
            )
        apart = "window" in (self.centre, self.audio_level)
        if apart:
            seen = _windows(seen, WINDOW_FRAMES, 1)
            heard = _windows(heard, WINDOW_FRAMES * STEPS_PER_FRAME, STEPS_PER_FRAME)
        if self.centre == "window":
            seen = seen - seen.mean(dim=1, keepdim=True)
        if self.audio_level == "window":
            heard = heard - heard.mean(dim=(1, 2), keepdim=True)
        seen = self.keypoint_norms[level](seen.flatten(0, 1)).reshape(seen.shape)
        heard = self.audio_norms[level](heard.flatten(0, 1)).reshape(heard.shape)
        points, sound = self.levels[level](seen, heard)
        if apart:
            points, sound = (x.reshape(rows, -1, x.shape[-1]) for x in (points, sound))
        return LevelEmbeddings(points, sound)


def _standardiser(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=SMALLEST_VARIANCE, affine=False)


def _windows(sequence: Tensor, length: int, step: int) -> Tensor:
    """``(B, S, D)`` to its windows one by one, ``(B N, length, D)``."""
    return sequence.unfold(1, length, step).transpose(2, 3).flatten(0, 1)
