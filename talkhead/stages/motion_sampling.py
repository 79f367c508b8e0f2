"""Sampling motion codes of any length from a trained prior, at once or as a stream."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from talkhead.diffusion.chunking import WindowSampler, sample_long, sample_stream, single_frames
from talkhead.diffusion.sampler import CleanFrames, SamplerSettings, item_seed
from talkhead.errors import ConfigError
from talkhead.networks.prior import PriorNetwork
from talkhead.stages.base import Stage


class MotionSamplingStage(Stage):
    """A stage with a prior that samples windows; this class makes sequences of them.

    Attributes:
        prior: The network.
        sampler: Settings used unless a call brings its own; may be set at any time.
    """

    prior: PriorNetwork
    sampler: SamplerSettings

    @abstractmethod
    def window_sampler(self, seeds: Sequence[int], settings: SamplerSettings) -> WindowSampler:
        """A sampler of windows of standardised codes; its random state goes on between windows."""

    @torch.no_grad()
    def sample(
        self,
        audio: Tensor,
        seeds: Sequence[int] | None = None,
        *,
        clean: CleanFrames | None = None,
        settings: SamplerSettings | None = None,
    ) -> Tensor:
        """Motion codes for sound of any length.

        Args:
            audio: Audio features, ``(B, T, 512)``.
            seeds: One per row; a row's sample follows from its seed alone, whatever else is in the
                batch. Default: derived from the settings' seed and the row number.
            clean: Codes of frames to keep (not standardised), such as the portrait's at frame 0.
            settings: Sampler; default the stage's own.

        Returns:
            ``(B, T, 42)``.
        """
        chosen = settings or self.sampler
        window = self.window_sampler(self._seeds(seeds, audio.shape[0], chosen), chosen)
        kept = None
        if clean is not None:
            kept = CleanFrames(self.prior.standardise(clean.codes), clean.mask)
        codes = sample_long(
            window,
            self.audio_ahead(audio),
            length=self.prior.max_length,
            overlap=chosen.overlap,
            clean=kept,
        )
        return self.prior.restore(codes)

    @torch.no_grad()
    def sample_stream(
        self,
        audio: Iterable[Tensor],
        seeds: Sequence[int],
        *,
        kept: Mapping[int, Tensor] | None = None,
        settings: SamplerSettings | None = None,
    ) -> Iterator[Tensor]:
        """As :meth:`sample`, block by block in constant memory.

        Args:
            audio: Blocks of features ``(B, t, 512)`` in order.
            seeds: One per row.
            kept: Frame number -> codes ``(B, 42)`` it shall have, such as the portrait's at frame 0.
            settings: Sampler; default the stage's own.

        Yields:
            New codes ``(B, n, 42)`` as soon as their window has all its sound.
        """
        chosen = settings or self.sampler
        given = {frame: self.prior.standardise(code) for frame, code in (kept or {}).items()}
        pieces = sample_stream(
            self.window_sampler(seeds, chosen),
            self.stream_ahead(audio),
            length=self.prior.max_length,
            overlap=chosen.overlap,
            given=single_frames(given),
        )
        for codes in pieces:
            yield self.prior.restore(codes)

    def audio_ahead(self, audio: Tensor, valid: Tensor | None = None) -> Tensor:
        """Audio as the tokens see it, ``(B, T, 512)``; a stage with look-ahead shifts it."""
        return audio

    def stream_ahead(self, audio: Iterable[Tensor]) -> Iterable[Tensor]:
        """As :meth:`audio_ahead` for a stream of blocks."""
        return audio

    def _seeds(
        self, seeds: Sequence[int] | None, rows: int, settings: SamplerSettings
    ) -> Sequence[int]:
        if seeds is None:
            return [item_seed(settings.seed, f"row{i}") for i in range(rows)]
        if len(seeds) != rows:
            raise ConfigError(
                f"expected {rows} seeds, one per row, got {len(seeds)}; give one each."
            )
        return seeds
