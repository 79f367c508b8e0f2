"""From one portrait and speech to a talking video by keypoints (MS-Sync)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.audio.filter_bank import log_filter_bank
from talkhead.errors import StageLinkError
from talkhead.generation.portrait import Picture, Portrait, as_batch
from talkhead.generation.renderers import RENDER_FRAMES, KeypointGeneratorRenderer
from talkhead.generation.request import Request
from talkhead.generation.speech import BLOCK_FRAMES, speech_level
from talkhead.generation.talker import PortraitTalker, load_stage
from talkhead.geometry.keypoints import unpack
from talkhead.networks.mesh_keypoints import MeshKeypoints
from talkhead.networks.window_syncer import STEPS_PER_FRAME
from talkhead.render.portrait import PortraitAnimator
from talkhead.stages.keypoint_features import PictureDetector
from talkhead.stages.ms_sync import MSSyncStage


@dataclass
class KeypointTalker(PortraitTalker):
    """A trained generator of keypoint motion together with everything its checkpoint carries.

    Attributes:
        stage: The stage in eval mode.
    """

    stages = (MSSyncStage.stage_name(),)
    component = "motion_generator"
    stage: MSSyncStage

    @classmethod
    def of(cls, block: dict[str, Any], path: Path | str) -> Self:
        """As :meth:`load`, of a checkpoint whose talkhead block has been read already."""
        cls.check_stage(block, path)
        return cls(load_stage(MSSyncStage, path), block=block)

    def keypoints(self, portrait: Portrait) -> Tensor:
        """Keypoints of a face, ``(60,)``."""
        detector = self.stage.keypoint_detector
        with torch.no_grad():
            if isinstance(detector, MeshKeypoints):
                rows: Tensor = detector(torch.from_numpy(portrait.landmarks[None]))
            else:
                side = self.stage.video_spec.size
                picture = as_batch(portrait.picture, side, self.stage.device)
                rows = cast(PictureDetector, detector).describe(picture)
        return rows[0]

    def motion(self, wave: NDArray[np.float32], first: Tensor) -> Iterator[Tensor]:
        """Keypoints ``(60,)`` of every frame of speech, from those of the portrait.

        Energies are those of the whole track, as in training; everything after them is computed block
        by block.

        Raises:
            DataError: The sound is shorter than a frame or silent.
        """
        speech_level(wave)
        audio = log_filter_bank(torch.from_numpy(wave))[None]
        blocks = audio.split(BLOCK_FRAMES * STEPS_PER_FRAME, dim=1)
        for row in self.stage.motion_generator.stream(first[None], blocks):
            yield row[0]

    def animate(
        self, portrait: Portrait, wave: NDArray[np.float32], request: Request
    ) -> Iterator[list[Picture]]:
        """For every frame one picture a renderer.

        Raises:
            ConfigError: Options that only a sampled motion has.
            StageLinkError: A renderer the checkpoint does not carry.
        """
        request.check(
            (),
            "stage ms_sync, whose motion is not sampled: one portrait and speech have one motion",
        )
        first = self.keypoints(portrait)
        renderers = [self._renderer(name, portrait, first, request) for name in request.renderers]
        rows = self.motion(wave, first)
        while block := list(islice(rows, RENDER_FRAMES)):
            streams = [render(torch.stack(block)) for render in renderers]
            yield from (list(pictures) for pictures in zip(*streams, strict=True))

    def tags(self, request: Request) -> dict[str, Any]:
        """How the motion was made, for the video's container."""
        return {"generator_digest": self.digest}

    def _renderer(
        self, name: str, portrait: Portrait, first: Tensor, request: Request
    ) -> Callable[[Tensor], Iterator[Picture]]:
        if name == "mesh":
            return KeypointMeshRenderer(self.stage, portrait, first)
        network, side = self.stage.keypoint_renderer, self.stage.video_spec.size
        if network is None:
            raise StageLinkError(
                "the checkpoint holds no keypoint_renderer; train ms_sync with --model.keypoint_renderer, "
                "or use --renderer mesh if its keypoints are those of the face mesh."
            )
        render = KeypointGeneratorRenderer(
            network, side, portrait, unpack(first[None]), request.size
        )
        return lambda rows: render(unpack(rows))


class KeypointMeshRenderer:
    """Frames from the portrait's own landmark mesh, moved as the keypoints of the face mesh move."""

    def __init__(self, stage: MSSyncStage, portrait: Portrait, first: Tensor) -> None:
        """Lay the mesh over the portrait.

        Raises:
            StageLinkError: The stage's keypoints are not those of the face mesh.
        """
        if not isinstance(stage.keypoint_detector, MeshKeypoints):
            raise StageLinkError(
                "the checkpoint's keypoints are those of a learned detector, which do not say where the "
                "landmarks go; use --renderer generator."
            )
        self._mesh, self._first = stage.keypoint_detector, first
        self._landmarks = torch.from_numpy(portrait.landmarks)
        self._animator = PortraitAnimator(portrait.picture, portrait.landmarks)

    def __call__(self, keypoints: Tensor) -> Iterator[Picture]:
        """Frames ``(H, H, 3)`` of keypoints ``(t, 60)``."""
        for points in self._mesh.warp_landmarks(self._landmarks, self._first, keypoints).numpy():
            yield self._animator.draw(points)
