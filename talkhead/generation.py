"""From one portrait and speech to a talking video, frame by frame in constant memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.audio.mel import mel_spectrogram, mel_windows
from talkhead.batch import to_bytes, to_float
from talkhead.checkpoint import read_block, read_checkpoint
from talkhead.diffusion.sampler import SamplerKind, SamplerSettings
from talkhead.diffusion.shallow import StartStep
from talkhead.errors import ConfigError, DataError, StageLinkError
from talkhead.geometry.crop import Box, clip_box, crop_frame, policy_share, to_crop_units
from talkhead.geometry.motion import neutral_face, pose_free
from talkhead.landmarks.base import Landmarker
from talkhead.networks.motion_readout import MotionReadout
from talkhead.render.portrait import PortraitAnimator
from talkhead.specs import SAMPLES_PER_FRAME, samples_to_frames
from talkhead.stages.base import Stage
from talkhead.stages.motion_prior import MotionPriorStage

Picture = NDArray[np.uint8]
RendererName = Literal["generator", "mesh"]
SILENCE_RMS = 1e-4
BLOCK_FRAMES = 125
"""Frames of sound encoded at a time (5 s)."""
CONTEXT_FRAMES = 8
"""Frames of sound on either side of a block, more than a mel window reaches."""


@dataclass(frozen=True)
class Portrait:
    """A face ready to be animated.

    Attributes:
        picture: Square crop at output size, ``(H, H, 3)`` uint8.
        landmarks: ``(478, 3)`` in crop units.
    """

    picture: Picture
    landmarks: NDArray[np.float32]


@dataclass(frozen=True)
class Request:
    """What a video shall show: the options of ``talkhead generate``.

    Attributes:
        renderers: Names of renderers, a column each.
        size: Side of the pictures in pixels.
        seeds: Seeds of the motion, a set of columns each.
        sampler: Sampler of a diffusion prior.
        steps: Its network evaluations; None takes the suite's.
        guidance: Its guidance; None takes the suite's.
        from_portrait: Whether the motion begins with the portrait's own pose and expression.
        edits: Frame -> face whose pose and expression the motion shall have there.
        start_step: Where shallow diffusion enters its chain; None takes the checkpoint's own choice.
        renderer_checkpoint: Checkpoint of the renderer that generated landmarks drive.
    """

    renderers: tuple[str, ...]
    size: int = 256
    seeds: tuple[int, ...] = (0,)
    sampler: SamplerKind = "dpmpp2m"
    steps: int | None = None
    guidance: float | None = None
    from_portrait: bool = False
    edits: Mapping[int, Portrait] = field(default_factory=dict)
    start_step: StartStep | None = None
    renderer_checkpoint: Path | None = None

    def used(self, *known: str) -> list[str]:
        """Options in use that not every system has, but those ``known``."""
        given = {
            "--seed": self.seeds != (0,),
            "--sampler": self.sampler != "dpmpp2m",
            "--steps": self.steps is not None,
            "--guidance": self.guidance is not None,
            "--start": self.from_portrait,
            "--edit": bool(self.edits),
            "--start-step": self.start_step is not None,
            "--renderer-checkpoint": self.renderer_checkpoint is not None,
        }
        return [name for name, used in given.items() if used and name not in known]


@dataclass
class TalkingHead:
    """A trained motion prior together with everything its checkpoint carries.

    Attributes:
        stage: The prior's stage in eval mode.
        digest: Digest of the prior's weights.
        block: The checkpoint's talkhead block.
    """

    stage: MotionPriorStage
    digest: str
    block: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str) -> TalkingHead:
        """Read a prior's checkpoint.

        Raises:
            StageLinkError: Not a checkpoint of a motion prior.
        """
        return cls.of(read_block(read_checkpoint(path), path), path)

    @classmethod
    def of(cls, block: dict[str, Any], path: Path | str) -> TalkingHead:
        """As :meth:`load`, of a checkpoint whose talkhead block has been read already."""
        stage_class = find_stage(block["stage"], path)
        if not issubclass(stage_class, MotionPriorStage):
            raise StageLinkError(
                f"{path} is a checkpoint of stage {block['stage']}; expected motion_diffusion or motion_ar. "
                "Train a prior first."
            )
        stage = stage_class.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        stage.eval().requires_grad_(False)
        return cls(stage, block["components"]["prior"]["digest"], block)

    @property
    def face_share(self) -> float:
        """Share of the crop that the face took in training."""
        return policy_share(self.block["video"]["crop"])

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
        refused = request.used("--seed", "--sampler", "--steps", "--guidance", "--start", "--edit")
        if refused:
            raise ConfigError(
                f"{', '.join(refused)}: expected none of these for a checkpoint of a motion prior; they "
                "belong to shallow_diffusion. Leave them out."
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


def speech_level(wave: NDArray[np.float32]) -> float:
    """RMS of a recording, in full scale.

    Raises:
        DataError: The sound is shorter than a frame or silent.
    """
    if samples_to_frames(len(wave)) < 1:
        raise DataError(
            f"the speech has {len(wave)} samples; expected at least {SAMPLES_PER_FRAME} (40 ms)."
        )
    rms = float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))
    if rms < SILENCE_RMS:
        raise DataError(
            f"the speech is silent (RMS {rms:.1e} of full scale, expected at least {SILENCE_RMS:.0e}); "
            "give a recording with speech in it."
        )
    return rms


def mel_pieces(wave: NDArray[np.float32]) -> Iterator[tuple[Tensor, slice]]:
    """Mel spectrogram of speech piece by piece, at the level of the whole track.

    Yields:
        Steps ``(4 t, F)`` of some frames with what is around them, and which of the ``t`` frames have not
        been in a piece before. These are as they are in the spectrogram of the whole track.

    Raises:
        DataError: The sound is shorter than a frame or silent.
    """
    frames = samples_to_frames(len(wave))
    rms = speech_level(wave)
    for start in range(0, frames, BLOCK_FRAMES):
        stop = min(start + BLOCK_FRAMES, frames)
        first, last = max(0, start - CONTEXT_FRAMES), min(frames, stop + CONTEXT_FRAMES)
        piece = torch.from_numpy(wave[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME])
        yield mel_spectrogram(piece, rms=rms), slice(start - first, stop - first)


def find_portrait(
    picture: Picture, landmarker: Landmarker, size: int, face_share: float
) -> Portrait:
    """The largest face of a picture, cropped as the training data were.

    Args:
        picture: ``(H, W, 3)`` uint8 RGB.
        landmarker: Face mesh tracker.
        size: Side of the crop in pixels.
        face_share: The crop policy of the checkpoint, see :meth:`TalkingHead.face_share`.

    Raises:
        DataError: No face is found.
    """
    faces = landmarker.detect(picture)
    if not faces:
        raise DataError(
            f"no face found in the portrait ({picture.shape[1]} x {picture.shape[0]} pixels); "
            "expected one clearly visible, roughly frontal face at least 60 pixels wide."
        )
    box: Box = clip_box(faces[0][None], picture.shape[1], picture.shape[0], face_share)
    return Portrait(crop_frame(picture, box, size), to_crop_units(faces[0], box))


def as_batch(picture: Picture, side: int, device: torch.device) -> Tensor:
    """A square picture as an encoder's input ``(1, 3, side, side)``."""
    import cv2

    small = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)
    return to_float(torch.from_numpy(small).permute(2, 0, 1)[None].to(device))


class GeneratorRenderer:
    """Frames from the learned generator of ``lip_disentangle``."""

    def __init__(self, stage: Any, portrait: Portrait, size: int) -> None:
        """Encode the portrait's identity once.

        Args:
            stage: A stage with ``identity_encoder`` and ``generator``: a motion prior that carries them, or
                ``lip_disentangle``.
            portrait: Whom to show.
            size: Side of the pictures in pixels.

        Raises:
            StageLinkError: The stage has no generator.
        """
        if stage.generator is None or stage.identity_encoder is None:
            raise StageLinkError(
                "the prior's checkpoint holds no generator; train it with --model.generator and "
                "--model.identity_encoder, or use --renderer mesh."
            )
        self._generator, self._size = stage.generator, size
        picture = as_batch(portrait.picture, stage.video_spec.size, stage.device)
        with torch.no_grad():
            self._identity, self._map = stage.identity_encoder(picture)

    def __call__(self, nonlip: Tensor, lip: Tensor) -> Iterator[Picture]:
        """Frames ``(H, H, 3)`` of codes ``(t, 42)`` and ``(t, 470)``."""
        import cv2

        for n, m in zip(nonlip.split(16), lip.split(16), strict=True):
            codes = torch.cat([n, m], 1).to(self._identity)
            latent = torch.cat([self._identity.expand(len(n), -1), codes], 1)
            with torch.no_grad():
                made = self._generator(latent, self._map.expand(len(n), -1, -1, -1))
            for frame in to_bytes(made).permute(0, 2, 3, 1).cpu().numpy():
                yield cast(
                    Picture,
                    cv2.resize(frame, (self._size, self._size), interpolation=cv2.INTER_CUBIC),
                )


class MeshRenderer:
    """Frames from the portrait's own landmark mesh, moved by what the read-out makes of the codes.

    The head pose of the motion is taken relative to the training mean and added to the portrait's own,
    so that a picture taken at an angle is not first turned to the front. Expression, lids, gaze and
    mouth are taken as they are.
    """

    def __init__(
        self, readout: MotionReadout, portrait: Portrait, *, relative_pose: bool = True
    ) -> None:
        """Fit the pose of the portrait once; without ``relative_pose`` poses are taken as they are."""
        self._readout = readout
        self._model = readout.motion_model()
        self._animator = PortraitAnimator(portrait.picture, portrait.landmarks)
        _, rotation, translation, scale = pose_free(portrait.landmarks[None])
        self._neutral = neutral_face(portrait.landmarks[None])
        mean = readout.motion_mean.cpu().numpy()[:6]
        own = np.concatenate([rotation[0], translation[0], scale]) if relative_pose else mean
        self._pose_shift = np.asarray(own - mean, np.float32)
        self._zoom = float(own[5] / mean[5])
        self._mean_scale = float(mean[5])

    def __call__(self, nonlip: Tensor, lip: Tensor) -> Iterator[Picture]:
        """Frames ``(H, H, 3)`` of codes ``(t, 42)`` and ``(t, 470)``."""
        motion = self._readout(torch.cat([nonlip, lip], -1).cpu()).numpy().copy()
        motion[:, :5] += self._pose_shift[:5]
        motion[:, 5] = (
            np.clip(motion[:, 5] / self._mean_scale, 0.7, 1.4) * self._mean_scale * self._zoom
        )
        for points in self._model.decode(motion, self._neutral):
            yield self._animator.draw(points)
