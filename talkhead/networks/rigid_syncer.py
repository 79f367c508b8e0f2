"""The judge of head motion: does this head move with this voice, on three time scales?"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from talkhead.audio.filter_bank import N_FILTERS, log_filter_bank
from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.rigid_tracks import N_RIGID, Frame, View, mirrored_tracks, rigid_tracks
from talkhead.networks.component import Component
from talkhead.networks.window_syncer import STEPS_PER_FRAME, WINDOW_FRAMES, WindowSyncer
from talkhead.specs import frames_to_samples, samples_to_frames
from talkhead.time_pyramid import paired_pyramids, window_ms

AudioLevel = Literal["band", "run", "none"]
"""What is taken off the energies of a run: each band's mean and deviation, one of all bands, or nothing."""
RUN_FRAMES = 80
"""Length of the sequences that published numbers are of."""
MAX_LEVELS = 4
QUIET = -20.0
"""Energies below this logarithm are rounding of 16-bit samples or digital silence."""


class LevelEmbeddings(NamedTuple):
    """Embeddings of one level: ``points`` and ``audio``, each ``(B, N, D)`` of unit length."""

    points: Tensor
    audio: Tensor


class RigidSyncer(Component):
    """A pyramid of evaluator networks on the 31 rigid points and 26 log filter-bank energies.

    Level ``l`` sees windows of five frames and twenty steps of sound after ``l`` halvings: 200, 400 and
    800 ms. A score always is of a run of :data:`RUN_FRAMES` frames, which is all that points and sound
    are normalised over, so it does not depend on what surrounds the run.

    Source: MS-Sync section 4.3. Networks, embedding size and normalisation are not published
        (reference-facts 6.8); ours are in :class:`WindowSyncer` and below.
    """

    def __init__(
        self,
        levels: int = 3,
        dim: int = 128,
        width: int = 128,
        blocks: int = 1,
        dropout: float = 0.0,
        frame: Frame = "motion",
        view: View = "picture",
        coordinates: int = 2,
        audio_level: AudioLevel = "band",
    ) -> None:
        """Build one network a level.

        Args:
            levels: Time scales, 1 to 4.
            dim: Size ``D`` of an embedding.
            width: Channels.
            blocks: Blocks of each branch.
            dropout: Share of the last layer's inputs that training leaves out.
            frame: What is taken off the points, see :func:`rigid_tracks`.
            view: ``"frontal"`` takes the yaw out.
            coordinates: 2 for the picture plane, 3 with depth.
            audio_level: See :data:`AudioLevel`.

        Raises:
            ConfigError: Another number of levels or coordinates, or an unknown name.
        """
        super().__init__()
        if not 1 <= levels <= MAX_LEVELS or coordinates not in (2, 3):
            raise ConfigError(
                f"rigid_syncer: expected 1 to {MAX_LEVELS} levels of 2 or 3 coordinates, got {levels} "
                f"and {coordinates}."
            )
        for name, value, known in (
            ("frame", frame, get_args(Frame)),
            ("view", view, get_args(View)),
            ("audio_level", audio_level, get_args(AudioLevel)),
        ):
            if value not in known:
                raise ConfigError(
                    f"rigid_syncer: expected {name} out of {', '.join(known)}, got {value!r}."
                )
        self.frame, self.view, self.coordinates = frame, view, coordinates
        self.audio_level = audio_level
        self.levels = nn.ModuleList(
            WindowSyncer(N_RIGID * coordinates, N_FILTERS, width, blocks, dim, dropout)
            for _ in range(levels)
        )

    @property
    def scales(self) -> tuple[int, ...]:
        """Length of a window on every level in ms."""
        return tuple(window_ms(level) for level in range(len(self.levels)))

    def forward(
        self, points: Tensor, audio: Tensor, mirrored: Tensor | None = None
    ) -> list[LevelEmbeddings]:
        """Embeddings of every window of runs, one entry a level.

        Args:
            points: Tracks of 68 points in crop units, ``(B, T, 68, 3)``.
            audio: Log filter-bank energies ``(B, 4 T, 26)`` of the same frames.
            mirrored: Runs ``(B,)`` bool to be seen in the mirror, for training.

        Returns:
            Level ``l`` has ``ceil(T / 2^l) - 4`` windows.

        Raises:
            ShapeError: Shapes that do not belong together, or a run too short for the levels.
        """
        tracks = rigid_tracks(
            points, frame=self.frame, view=self.view, coordinates=self.coordinates
        )
        if mirrored is not None:
            other = mirrored_tracks(tracks, frame=self.frame, coordinates=self.coordinates)
            tracks = torch.where(mirrored[:, None, None], other, tracks)
        pairs = paired_pyramids(
            tracks, self._levelled(audio), len(self.levels), steps_per_frame=STEPS_PER_FRAME
        )
        return [
            LevelEmbeddings(*net(seen, heard))
            for net, (seen, heard) in zip(self.levels, pairs, strict=True)
        ]

    @torch.no_grad()
    def embed_clip(
        self, points: Tensor, wave: Tensor, frames: int = RUN_FRAMES
    ) -> list[LevelEmbeddings]:
        """Embeddings of the consecutive whole runs of a clip of any length; the rest is left out.

        Args:
            points: ``(T, 68, 3)`` in crop units.
            wave: Mono samples ``(S,)``, float, starting with the first frame.
            frames: Length of a run.

        Returns:
            One entry a level with ``B`` runs, as :meth:`forward`.

        Raises:
            ShapeError: Not one whole run of frames and sound.
        """
        count = min(points.shape[0], samples_to_frames(wave.shape[0])) // frames
        if count == 0:
            raise ShapeError(
                f"expected a clip of at least {frames} frames with sound, got {points.shape[0]} frames "
                f"and {samples_to_frames(wave.shape[0])} frames of sound; score longer clips."
            )
        device = next(self.parameters()).device
        per_run = frames_to_samples(frames)
        runs = points[: count * frames].unflatten(0, (count, frames))
        pieces = wave[: count * per_run].split(per_run)
        sound = torch.stack([log_filter_bank(piece) for piece in pieces])
        levels: list[LevelEmbeddings] = self(runs.float().to(device), sound.to(device))
        return levels

    def _levelled(self, audio: Tensor) -> Tensor:
        """Energies of a run without its level and range, as asked for."""
        energies = audio.clamp_min(QUIET)
        if self.audio_level == "none":
            return energies
        axes = (1,) if self.audio_level == "band" else (1, 2)
        mean = energies.mean(dim=axes, keepdim=True)
        spread = energies.std(dim=axes, keepdim=True, correction=0)
        # A silent run has no spread, and stays at 0.
        return (energies - mean) / spread.clamp_min(1e-3)


def shortest_run(levels: int, max_shift: int) -> int:
    """Fewest frames of a run whose coarsest level still has more than ``max_shift`` windows."""
    return int((max_shift + WINDOW_FRAMES - 1) * 2 ** (levels - 1) + 1)


def windows_of(frames: int, level: int) -> int:
    """Windows of a run of ``frames`` frames on a level: ``ceil(frames / 2^level) - 4``, at least 0."""
    return max(0, -(-frames >> level) - WINDOW_FRAMES + 1)
