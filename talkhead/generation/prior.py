"""From one portrait and speech to a talking video by a motion prior (diffusion prior, autoregression)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.audio.mel import mel_windows
from talkhead.diffusion.sampler import SamplerKind, SamplerSettings
from talkhead.errors import ConfigError, StageLinkError
from talkhead.generation.portrait import Picture, Portrait, as_batch
from talkhead.generation.renderers import GeneratorRenderer, MeshRenderer
from talkhead.generation.request import Request
from talkhead.generation.speech import mel_pieces
from talkhead.generation.talker import PortraitTalker, load_stage
from talkhead.networks.motion_readout import MotionReadout
from talkhead.specs import samples_to_frames
from talkhead.stages.base import Stage
from talkhead.stages.motion_prior import MotionPriorStage


@dataclass
class TalkingHead(PortraitTalker):
    """A trained motion prior together with everything its checkpoint carries.

    Attributes:
        stage: The prior's stage in eval mode.
    """

    stages = ("motion_diffusion", "motion_ar")
    component = "prior"
    advice = "Train a prior first."
    stage: MotionPriorStage

    @classmethod
    def of(cls, block: dict[str, Any], path: Path | str) -> Self:
        """As :meth:`load`, of a checkpoint whose talkhead block has been read already."""
        stage_class = find_stage(block["stage"], path)
        cls.check_stage(block, path)
        assert issubclass(stage_class, MotionPriorStage)  # both stages are
        return cls(load_stage(stage_class, path), block=block)

    def sampler(
        self, *, kind: SamplerKind, steps: int | None, guidance: float | None
    ) -> SamplerSettings:
        """Sampler settings with the defaults of the suite where nothing is asked for."""
        chosen: dict[str, Any] = {"kind": kind}
        if steps is not None:
            chosen["steps"] = steps
        if guidance is not None:
            chosen["guidance"] = guidance
        return SamplerSettings(**chosen)

    def readout(self) -> MotionReadout:
        """The read-out to motion descriptors.

        Raises:
            StageLinkError: The checkpoint was written before the read-out was fitted.
        """
        if self.stage.readout is None:
            raise StageLinkError(
                "the prior's checkpoint holds no read-out; it is fitted when training starts, so train "
                "the prior with this version, or use --renderer generator."
            )
        return self.stage.readout

    def audio_features(self, wave: NDArray[np.float32]) -> Iterator[Tensor]:
        """Audio features in blocks, each ``(1, t, D)``; the sound is encoded piece by piece.

        The level is that of the whole track, as in training, not of the piece.
        """
        for mel, block in mel_pieces(wave):
            windows = mel_windows(mel, torch.arange(block.start, block.stop))
            with torch.no_grad():
                yield self.stage.audio_encoder(windows)[None]

    def nonlip_code(self, portrait: Portrait) -> Tensor:
        """Pose, eyes and expression of a face, ``(42,)``."""
        side = self.stage.video_spec.size
        with torch.no_grad():
            seen = self.stage.motion_encoder(as_batch(portrait.picture, side, self.stage.device))
            code: Tensor = self.stage.nonlip_head(seen)[0]
        return code

    def codes(
        self,
        wave: NDArray[np.float32],
        settings: SamplerSettings,
        seeds: Sequence[int],
        kept: Mapping[int, Tensor] | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Motion for speech, block by block.

        Args:
            wave: ``(S,)`` at 16 kHz.
            settings: How to sample.
            seeds: One per take.
            kept: Frame number -> non-lip code ``(42,)`` that every take shall have there; the prior fills
                in the rest (paper 1, supplement II.3).

        Yields:
            Non-lip codes ``(K, t, 42)`` of the ``K`` takes and lip codes ``(t, 470)``.

        Raises:
            ConfigError: A kept frame lies outside the speech.
        """
        frames = samples_to_frames(len(wave))
        outside = [frame for frame in kept or {} if not 0 <= frame < frames]
        if outside:
            raise ConfigError(
                f"expected frames from 0 to {frames - 1} of the speech to edit, got {outside}; "
                f"there are 25 a second."
            )
        pending: list[Tensor] = []

        def heard() -> Iterator[Tensor]:
            for block in self.audio_features(wave):
                pending.append(block[0])
                yield block.expand(len(seeds), -1, -1)

        given = {frame: code.expand(len(seeds), -1) for frame, code in (kept or {}).items()}
        for nonlip in self.stage.sample_stream(
            heard(), seeds=list(seeds), kept=given, settings=settings
        ):
            audio = torch.cat(pending)
            count = nonlip.shape[1]
            pending[:] = [audio[count:]]
            with torch.no_grad():
                yield nonlip, self.stage.lip_head(audio[:count])

    def animate(
        self, portrait: Portrait, wave: NDArray[np.float32], request: Request
    ) -> Iterator[list[Picture]]:
        """For every frame one picture a (seed, renderer).

        Raises:
            ConfigError: An edited frame lies outside the speech, or an option of other systems.
            StageLinkError: A renderer the checkpoint does not carry.
        """
        request.check(
            ("--seed", "--sampler", "--steps", "--guidance", "--start", "--edit"),
            "a motion prior; they belong to shallow_diffusion",
        )
        columns: list[tuple[int, GeneratorRenderer | MeshRenderer]] = []
        for row in range(len(request.seeds)):
            for name in request.renderers:
                if name == "mesh":
                    columns.append((row, MeshRenderer(self.readout(), portrait)))
                else:
                    columns.append((row, GeneratorRenderer(self.stage, portrait, request.size)))
        kept = {frame: self.nonlip_code(face) for frame, face in request.edits.items()}
        if request.from_portrait:
            kept = {0: self.nonlip_code(portrait)} | kept
        settings = self.sampler(
            kind=request.sampler, steps=request.steps, guidance=request.guidance
        )
        for nonlip, lip in self.codes(wave, settings, request.seeds, kept):
            streams = [render(nonlip[row], lip) for row, render in columns]
            yield from (list(pictures) for pictures in zip(*streams, strict=True))

    def tags(self, request: Request) -> dict[str, Any]:
        """How the motion was made, for the video's container."""
        return {
            "prior_digest": self.digest,
            "seeds": list(request.seeds),
            "sampler": request.sampler,
            "guidance": request.guidance,
            "start": "portrait" if request.from_portrait else "noise",
            "edits": [str(frame) for frame in sorted(request.edits)],
        }


def find_stage(name: str, where: Path | str) -> type[Stage]:
    """The stage class of a checkpoint's stage name.

    Raises:
        StageLinkError: This version has no such stage.
    """
    try:
        module = importlib.import_module(f"talkhead.stages.{name}")
    except ModuleNotFoundError as error:
        raise StageLinkError(
            f"{where} belongs to a stage '{name}' that this version does not have."
        ) from error
    return next(
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Stage) and c.__module__ == module.__name__
    )
