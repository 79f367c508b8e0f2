"""From a portrait or a video and speech to a talking video by an edited expression (ControlTalk)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.audio.speech_stream import stream_windows
from talkhead.batch import to_bytes, to_float
from talkhead.errors import ConfigError, DataError
from talkhead.generation.portrait import Picture
from talkhead.generation.renderers import RENDER_FRAMES
from talkhead.generation.speech import speech_frames
from talkhead.generation.talker import Talker, load_stage
from talkhead.networks.face_look import Look
from talkhead.networks.motion_extractor import HeadMotion
from talkhead.stages.audio2exp import Audio2ExpStage

Transfer = Literal["absolute", "relative"]
MOUTH_OPENING = 0.7
"""Alpha of the released code; the paper recommends about 0.5."""
MOST_OPEN = 1.5


@dataclass(frozen=True)
class Speaking:
    """How a face shall speak.

    Attributes:
        mouth_opening: Alpha, 0 (shut) to 1.5 (exaggerated).
        transfer: How the pose of a driving video is taken over: ``absolute``, or ``relative``, as changes
            since its first frame on top of the face's own first pose.
        driving_expression: Take the driving video's expression as well, under the speech.
    """

    mouth_opening: float = MOUTH_OPENING
    transfer: Transfer = "relative"
    driving_expression: bool = False

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: A number out of range or an unknown transfer.
        """
        if not 0.0 <= self.mouth_opening <= MOST_OPEN:
            raise ConfigError(
                f"--mouth-opening: expected a number from 0 to {MOST_OPEN}, got {self.mouth_opening}."
            )
        if self.transfer not in ("absolute", "relative"):
            raise ConfigError(f"--transfer: expected absolute or relative, got {self.transfer!r}.")


@dataclass
class ControlTalker(Talker):
    """A trained adapter together with everything its checkpoint carries.

    Attributes:
        stage: The stage in eval mode.
    """

    stages = (Audio2ExpStage.stage_name(),)
    component = "audio2exp"
    stage: Audio2ExpStage

    @classmethod
    def of(cls, block: dict[str, Any], path: Path | str) -> Self:
        """As :meth:`load`, of a checkpoint whose talkhead block has been read already."""
        cls.check_stage(block, path)
        return cls(load_stage(Audio2ExpStage, path), block=block)

    @property
    def side(self) -> int:
        """Side of the crops that the renderer reads and draws, in pixels."""
        return self.stage.video_spec.size

    def audio(self, wave: NDArray[np.float32]) -> Iterator[Tensor]:
        """Embeddings of the speech around every frame, in blocks ``(t, A)`` of at most 8 frames.

        Raises:
            DataError: The sound is shorter than a frame.
            ConfigError: The expert hears HuBERT, whose weights are missing.
        """
        frames = speech_frames(wave)
        expert, device = self.stage.sync_expert, self.stage.device
        chunks = self.stage.speech_front.chunks(torch.from_numpy(wave).to(device))
        pieces = stream_windows(chunks, frames, length=expert.window, align=expert.align)
        waiting: list[Tensor] = []
        for piece in pieces:
            waiting += [self.stage.hear(part) for part in piece.split(RENDER_FRAMES)]
            # The last block of a piece may be short; it is joined with what follows.
            *whole, rest = torch.cat(waiting).split(RENDER_FRAMES)
            yield from whole
            waiting = [rest]
        yield from waiting

    @torch.no_grad()
    def speak(
        self,
        faces: Iterator[Picture],
        wave: NDArray[np.float32],
        options: Speaking,
        *,
        still: bool = False,
        driving: Iterator[Picture] | None = None,
    ) -> Iterator[Picture]:
        """One picture ``(S, S, 3)`` for every frame of speech.

        Faces are taken as they are needed, a block of eight at most ahead of the pictures, so memory does
        not grow with the length of the speech.

        Args:
            faces: Crops ``(S, S, 3)`` uint8 of side :attr:`side`, as many as there are frames of speech.
            wave: ``(S,)`` at 16 kHz; silence shuts the mouth.
            options: See :class:`Speaking`.
            still: All faces are the same picture, which is then taken apart once.
            driving: Crops of another video, whose pose to take.

        Raises:
            ConfigError: See :class:`Speaking`.
            DataError: As :meth:`audio`, or too few faces.
        """
        options.check()
        poses = _Poses(self, driving, options) if driving is not None else None
        look: Look | None = None
        for audio in self.audio(wave):
            crops = list(islice(faces, len(audio)))
            if len(crops) < len(audio):
                raise DataError("the video ended before the speech did; give one face a frame.")
            if look is None or not still:
                look = self.stage.look(self._batch(crops[:1] if still else crops))
            shown = look.repeated(len(audio)) if still else look
            head = None
            if poses is not None:
                head = poses.next(shown.head)
                shown = shown._replace(head=shown.head._replace(expression=head.expression))
            made = self.stage(shown, audio, options.mouth_opening, head)
            yield from to_bytes(made).permute(0, 2, 3, 1).cpu().numpy()

    def tags(self, options: Speaking, *, driven: bool, video: bool) -> dict[str, Any]:
        """How the motion was made, for the video's container."""
        return {
            "adapter_digest": self.digest,
            "mouth_opening": options.mouth_opening,
            "source": "video" if video else "portrait",
            "pose": options.transfer if driven else "own",
        }

    def heads(self, crops: list[Picture]) -> HeadMotion:
        """Pose and expression of crops."""
        return self.stage.motion_extractor.head(self._batch(crops))

    def _batch(self, crops: list[Picture]) -> Tensor:
        """Crops as the networks take them, ``(n, 3, S, S)`` in [-1, 1]."""
        stacked = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
        return to_float(stacked.to(self.stage.device))


class _Poses:
    """Poses of a driving video, block by block."""

    def __init__(self, talker: ControlTalker, crops: Iterator[Picture], options: Speaking) -> None:
        self._talker, self._crops, self._options = talker, crops, options
        self._first: tuple[HeadMotion, HeadMotion] | None = None

    def next(self, own: HeadMotion) -> HeadMotion:
        """Motion for the next frames, whose faces have their own; the expression only if asked for."""
        crops = list(islice(self._crops, len(own.degrees)))
        driven = self._talker.heads(crops)
        if self._first is None:
            self._first = (_first(own), _first(driven))
        base, start = self._first
        if self._options.transfer == "relative":
            driven = driven._replace(
                degrees=base.degrees + driven.degrees - start.degrees,
                translation=base.translation + driven.translation - start.translation,
                expression=base.expression + driven.expression - start.expression,
            )
        if self._options.driving_expression:
            return driven
        return driven._replace(expression=own.expression)


def _first(head: HeadMotion) -> HeadMotion:
    """The motion of the first picture."""
    return HeadMotion(*(part[:1] for part in head))
