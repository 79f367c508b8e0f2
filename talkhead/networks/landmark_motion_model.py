"""Speech to landmark motion in two streams, refined by shallow diffusion: one component."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from talkhead.diffusion.chunking import sample_stream, single_frames
from talkhead.diffusion.sampler import (
    CleanFrames,
    ItemNoise,
    NoiseSource,
    SamplerSettings,
    sample,
    step_positions,
)
from talkhead.diffusion.schedule import NoiseSchedule, ScheduleKind
from talkhead.diffusion.shallow import StartStep, check_start
from talkhead.diffusion.target import TARGETS, Target, from_x0, to_x0
from talkhead.errors import ConfigError
from talkhead.geometry.landmark_rows import LANDMARK_DIM, landmark_points, landmark_rows
from talkhead.networks.landmark_coarse import Coarse, CoarseMotion, Heard
from talkhead.networks.landmark_streams import Rhythm, StepPredictor
from talkhead.networks.prior import PriorNetwork

SETTINGS = SamplerSettings(steps=20, guidance=1.0, overlap=8)
"""Sampler of :meth:`LandmarkMotionModel.sample` unless a call brings its own."""
START_SHARE = 0.6
"""Share of the chain that runs before a step has been calibrated (reference-facts 5.3)."""


@dataclass
class SampleCost:
    """What sampling took: windows sampled and network evaluations, both counted for every row."""

    windows: int = 0
    evaluations: int = 0


class LandmarkMotionModel(CoarseMotion):
    """Coarse motion of two streams, and a denoiser that refines it from a shallow step.

    A window's coarse motion is diffused to step ``K`` and denoised from there, known frames kept, by a
    transformer that is told both streams and the face (:meth:`condition`). Windows overlap, so speech may
    be of any length. Either stream, and the diffusion, can be left out (figure 3).

    Source: paper 2 sections 3.1 to 3.5, equations 1, 2 and 12; no code is published, and sizes, window,
        schedule and layers are ours (reference-facts 5.2). Deviates: a window is refined at once. With an
        overlap of one less than the window every frame is refined by itself, as in equation 12.
    """

    calibrated_step: Tensor

    def __init__(
        self,
        max_length: int = 128,
        code_dim: int = 256,
        hidden: int = 512,
        backprop_frames: int = 16,
        content_channels: int = 256,
        rhythmic_channels: int = 128,
        rhythmic_layers: int = 4,
        width: int = 512,
        layers: int = 6,
        heads: int = 8,
        feedforward: int = 1024,
        dropout: float = 0.1,
        schedule: ScheduleKind = "short_linear",
        diffusion_steps: int = 100,
        target: Target = "eps",
        pose_stream: bool = True,
        rhythmic_stream: bool = True,
        diffusion: bool = True,
    ) -> None:
        """Build the network.

        Args:
            max_length: Frames of a window.
            code_dim: Width ``D`` of motion codes and content.
            hidden: Hidden width of motion encoder, decoder and step predictor.
            backprop_frames: Frames of a free-running chain that gradients go back through.
            content_channels: Channels of the content encoder's first layer.
            rhythmic_channels: Channels of the rhythmic generator.
            rhythmic_layers: Its convolutions.
            width: Token width of the denoiser (:class:`PriorNetwork`), as are the next four.
            layers: Transformer layers.
            heads: Attention heads.
            feedforward: Hidden width of its feed-forward layers.
            dropout: Dropout probability.
            schedule: Noise schedule, see :class:`NoiseSchedule`.
            diffusion_steps: Its steps ``N``.
            target: What the denoiser predicts (:meth:`answer`).
            pose_stream: Without it the head stays where the last known frame has it.
            rhythmic_stream: Without it prosody moves nothing.
            diffusion: Without it the coarse motion is the result.

        Raises:
            ConfigError: Neither stream, or an unknown target.
        """
        super().__init__(
            code_dim, hidden, backprop_frames, content_channels, rhythmic_channels, rhythmic_layers,
            pose_stream, rhythmic_stream,
        )  # fmt: skip
        if target not in TARGETS:
            raise ConfigError(f"expected a target out of {', '.join(TARGETS)}, got {target!r}.")
        self.max_length, self.target = max_length, target
        self.schedule = NoiseSchedule(schedule, diffusion_steps)
        self.denoiser, self.predictor = None, None
        if diffusion:
            self.denoiser = PriorNetwork(
                3 * LANDMARK_DIM,
                LANDMARK_DIM,
                width,
                layers,
                heads,
                feedforward,
                dropout,
                max_length,
            )
            self.predictor = StepPredictor(hidden)
        self.register_buffer("calibrated_step", torch.tensor(round(START_SHARE * diffusion_steps)))

    # -- diffusion -------------------------------------------------------------------------------

    def condition(self, coarse: Coarse, face: Tensor) -> Tensor:
        """What the denoiser is told, ``(B, T, 408)``: pose, rhythm and face."""
        return torch.cat([coarse.pose, coarse.rhythm, face[:, None].expand_as(coarse.pose)], -1)

    def predicted_share(self, coarse: Coarse, face: Tensor) -> Tensor:
        """Share of the chain ``(B,)`` that the step predictor asks for; its inputs get no gradient."""
        assert self.predictor is not None  # asked for with diffusion only
        share: Tensor = self.predictor(coarse.pose.detach(), coarse.rhythm.detach(), face.detach())
        return share

    def refined(
        self,
        coarse: Coarse,
        face: Tensor,
        known: int,
        noise: ItemNoise,
        settings: SamplerSettings = SETTINGS,
        start_step: StartStep | None = None,
        cost: SampleCost | None = None,
    ) -> Tensor:
        """A window's motion ``(B, T, 136)`` by reverse diffusion.

        Args:
            coarse: The window.
            face: From :meth:`face`.
            known: Frames at its beginning that stay as they are.
            noise: One generator a row; a row's sample depends on no other row.
            settings: Sampler.
            start_step: ``K``; None is the calibrated one.
            cost: Counts windows and evaluations, if given.
        """
        result, frames = coarse.motion.clone(), coarse.motion.shape[1]
        for step, rows in self._starts(coarse, face, start_step):
            runs = self.denoiser is not None and step != 0
            positions = step_positions(self.schedule, settings, step) if runs else []
            if cost is not None:
                cost.windows += len(rows)
                cost.evaluations += len(rows) * len(positions)
            if runs:
                part = Coarse(coarse.pose[rows], coarse.rhythm[rows], None)
                draw = functools.partial(noise.draw, frames, rows)
                enters = step is not None
                result[rows] = self._reversed(
                    part, face[rows], known, draw, settings, positions, enters
                )
        return result

    def answer(self, motion: Tensor, x: Tensor, step: Tensor, coarse: Tensor) -> Tensor:
        """What the denoiser should say at noised motion ``x`` of ``motion``, all ``(B, T, 136)``.

        ``x0`` and ``v`` are counted from the coarse motion, so that a denoiser that has learned nothing
        leaves it as it is; ``eps`` is the same either way.
        """
        alpha, sigma = self.schedule.coefficients(step, x)
        return from_x0(self.target, motion - coarse, x - alpha * coarse, alpha, sigma)

    def clean(self, x: Tensor, step: Tensor, told: Tensor, given: Tensor, coarse: Tensor) -> Tensor:
        """The denoiser's answer at noised motion ``(B, T, 136)`` as clean motion, undoing :meth:`answer`.

        Args:
            x: Noised motion, known frames clean.
            step: ``(B,)``.
            told: :meth:`condition` through ``denoiser.project``.
            given: Known frames ``(B, T)`` bool.
            coarse: Coarse motion ``(B, T, 136)``.
        """
        assert self.denoiser is not None  # asked for with diffusion only
        alpha, sigma = self.schedule.coefficients(step, x)
        said = self.denoiser.evaluate(x, step, told, given).to(x)
        return coarse + to_x0(self.target, said, x - alpha * coarse, alpha, sigma)

    # -- speech of any length --------------------------------------------------------------------

    def sample(
        self,
        mel: Tensor,
        prosody: Tensor,
        first: Tensor,
        *,
        generator: torch.Generator | None = None,
        settings: SamplerSettings = SETTINGS,
        start_step: StartStep | None = None,
    ) -> Iterator[Tensor]:
        """Landmarks for speech of any length, window by window in constant memory.

        Args:
            mel: Rows of the whole speech, ``(T, 320)`` (:meth:`hear`).
            prosody: ``(T, 4)``.
            first: The portrait's 68 points in crop units, ``(68, 2)``.
            generator: Source of the seed; None is torch's own.
            settings: Sampler, windows' overlap included.
            start_step: ``K``, see :data:`talkhead.diffusion.shallow.StartStep`; None is the calibrated
                one.

        Yields:
            Points ``(t, 68, 2)`` in crop units, together ``T`` frames; frame 0 is the portrait.

        Raises:
            ShapeError: Shapes that do not belong together.
            ConfigError: A start step outside the schedule.
        """
        seed = int(torch.randint(2**62, (), generator=generator))
        rows = self.sample_rows(
            mel[None], prosody[None], landmark_rows(first)[None], [seed],
            settings=settings, start_step=start_step,
        )  # fmt: skip
        for piece in rows:
            yield landmark_points(piece[0])

    @torch.no_grad()
    def sample_rows(
        self,
        mel: Tensor,
        prosody: Tensor,
        first: Tensor,
        seeds: Sequence[int],
        *,
        settings: SamplerSettings = SETTINGS,
        start_step: StartStep | None = None,
        cost: SampleCost | None = None,
    ) -> Iterator[Tensor]:
        """As :meth:`sample` for ``B`` speeches at once: rows ``(B, t, 136)`` from ``first`` ``(B, 136)``.

        ``seeds`` has one entry a row; a row's sample follows from its own.
        """
        face, noise = (
            self.face(first),
            ItemNoise(seeds, self.max_length, LANDMARK_DIM, first.device),
        )

        def window(speech: Tensor, clean: CleanFrames | None) -> Tensor:
            assert clean is not None  # frame 0 is always given
            known = int(clean.mask[0].long().cumprod(0).sum())
            offsets = speech[..., self.code_dim :]
            heard = Heard(speech[..., : self.code_dim], Rhythm(offsets, offsets))
            coarse = self.coarse(heard, clean.codes[:, :known], face)
            return self.refined(coarse, face, known, noise, settings, start_step, cost)

        pieces = sample_stream(
            window, self._blocks(mel, prosody), length=self.max_length, overlap=settings.overlap,
            given=single_frames({0: torch.zeros_like(first)}),
        )  # fmt: skip
        for motion in pieces:
            yield self.absolute(motion, first)

    # -- private ---------------------------------------------------------------------------------

    def _reversed(
        self,
        coarse: Coarse,
        face: Tensor,
        known: int,
        draw: NoiseSource,
        settings: SamplerSettings,
        positions: list[int],
        enters: bool,
    ) -> Tensor:
        """Reverse diffusion of rows with the same positions, from the coarse motion or from noise."""
        assert self.denoiser is not None  # asked for with diffusion only
        given = torch.zeros(coarse.pose.shape[:2], dtype=torch.bool, device=face.device)
        given[:, :known] = True
        told = self.denoiser.project(self.condition(coarse, face))
        return sample(
            lambda x, n: self.clean(x, n, told, given, coarse.motion),
            draw,
            self.schedule,
            settings,
            positions=positions,
            clean=CleanFrames(coarse.motion, given),
            coarse=coarse.motion if enters else None,
        )

    def _blocks(self, mel: Tensor, prosody: Tensor) -> Iterator[Tensor]:
        """Content and rhythmic offsets side by side, block by block, as of the whole speech."""
        frames, reach = mel.shape[1], self.reach
        for begin in range(0, frames, self.max_length):
            left = min(reach, begin)
            stop = min(begin + self.max_length, frames)
            span = slice(begin - left, min(stop + reach, frames))
            heard = self.hear(mel[:, span], prosody[:, span])
            both = torch.cat([heard.content, heard.rhythm.offsets], -1)
            yield both[:, left : left + stop - begin]

    def _starts(
        self, coarse: Coarse, face: Tensor, start: StartStep | None
    ) -> list[tuple[int | None, list[int]]]:
        """Start steps and the rows that have them; None is pure noise.

        Raises:
            ConfigError: Neither a step of the schedule, 0, nor a known word.
        """
        everyone, steps = list(range(len(face))), self.schedule.steps
        check_start(start, steps)
        if isinstance(start, int):
            return [(start, everyone)]
        if start == "noise":
            return [(None, everyone)]
        if start == "predicted" and self.predictor is not None:
            wanted = (self.predicted_share(coarse, face) * steps).round().clamp(1, steps).tolist()
            return [(int(k), [i for i in everyone if wanted[i] == k]) for k in sorted(set(wanted))]
        return [(int(self.calibrated_step), everyone)]
