"""From one portrait and speech to a talking video by generated landmarks (shallow diffusion)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.checkpoint import load_component, resolve
from talkhead.corpus.prosody import measure_prosody
from talkhead.diffusion.sampler import SamplerSettings
from talkhead.errors import StageLinkError
from talkhead.generation.portrait import Picture, Portrait
from talkhead.generation.renderers import RENDER_FRAMES, KeypointGeneratorRenderer
from talkhead.generation.request import Request
from talkhead.generation.speech import mel_pieces
from talkhead.generation.talker import PortraitTalker
from talkhead.geometry.landmark_rows import landmark_points, landmark_rows
from talkhead.geometry.mesh_of_points import MeshOfPoints
from talkhead.geometry.points68 import ibug_points
from talkhead.networks.keypoint_renderer import KeypointRenderer
from talkhead.networks.landmark_keypoints import LandmarkKeypoints
from talkhead.networks.landmark_motion_model import SETTINGS, LandmarkMotionModel
from talkhead.render.portrait import PortraitAnimator
from talkhead.specs import AudioSpec, check_same_clock

STAGE = "shallow_diffusion"
ACCEPTED = ("--seed", "--sampler", "--steps", "--start-step", "--renderer-checkpoint")
"""Options of ``talkhead generate`` that a checkpoint of this stage takes, besides what every one does."""
LandmarkRenderer = Callable[[Tensor], Iterator[Picture]]
"""Frames ``(H, H, 3)`` of points ``(t, 68, 2)`` in crop units."""


@dataclass
class LandmarkTalker(PortraitTalker):
    """A trained model of landmark motion.

    Attributes:
        model: The model in eval mode.
        path: The checkpoint, which may hold a landmark renderer as well.
    """

    stages = (STAGE,)
    component = "motion_model"
    model: LandmarkMotionModel
    path: Path | None = None

    @classmethod
    def of(cls, block: dict[str, Any], path: Path | str) -> Self:
        """As :meth:`load`, of a checkpoint whose talkhead block has been read already."""
        cls.check_stage(block, path)
        model = resolve(LandmarkMotionModel, str(path), cls.component)
        return cls(model, Path(path), block=block)

    def motion(
        self, wave: NDArray[np.float32], portrait: Portrait, request: Request
    ) -> Iterator[Tensor]:
        """Landmarks for speech, window by window; frame 0 is the portrait.

        Level and prosody are those of the whole track, as in training. Pictures are drawn as windows come;
        of the whole track only its sound is kept, 1.3 kB a frame.

        Yields:
            Points ``(K, t, 68, 2)`` in crop units of the ``K`` seeds.

        Raises:
            ConfigError: A start step outside the schedule.
            DataError: The sound is shorter than a frame or silent.
        """
        seeds = list(request.seeds)
        mel, prosody = (part.expand(len(seeds), -1, -1) for part in hear(wave))
        first = landmark_rows(ibug_points(torch.from_numpy(portrait.landmarks)))
        pieces = self.model.sample_rows(
            mel, prosody, first.expand(len(seeds), -1), seeds,
            settings=self.settings(request), start_step=request.start_step,
        )  # fmt: skip
        for rows in pieces:
            yield landmark_points(rows)

    def settings(self, request: Request) -> SamplerSettings:
        """The sampler, with the suite's number of evaluations where nothing is asked for."""
        steps = SETTINGS.steps if request.steps is None else request.steps
        return replace(SETTINGS, kind=request.sampler, steps=steps)

    def animate(
        self, portrait: Portrait, wave: NDArray[np.float32], request: Request
    ) -> Iterator[list[Picture]]:
        """For every frame one picture a (seed, renderer).

        Raises:
            ConfigError: Options of other systems.
            StageLinkError: No renderer, or one that landmarks do not drive.
        """
        request.check(
            ACCEPTED,
            f"stage {STAGE}, whose motion begins with the portrait and has no guidance",
        )
        columns = [
            (row, self._renderer(name, portrait, request))
            for row in range(len(request.seeds))
            for name in request.renderers
        ]
        for points in self.motion(wave, portrait, request):
            for block in points.split(RENDER_FRAMES, dim=1):
                streams = [render(block[row]) for row, render in columns]
                yield from (list(pictures) for pictures in zip(*streams, strict=True))

    def tags(self, request: Request) -> dict[str, Any]:
        """How the motion was made, for the video's container."""
        settings = self.settings(request)
        return {
            "motion_model_digest": self.digest,
            "seeds": list(request.seeds),
            "sampler": settings.kind,
            "steps": settings.steps,
            "start_step": "calibrated" if request.start_step is None else request.start_step,
        }

    def _renderer(self, name: str, portrait: Portrait, request: Request) -> LandmarkRenderer:
        if name == "mesh":
            return LandmarkMeshRenderer(portrait)
        return self._generator(portrait, request)

    def _generator(self, portrait: Portrait, request: Request) -> LandmarkRenderer:
        """The learned renderer of another checkpoint, or the one that the stage was given."""
        path = request.renderer_checkpoint
        if path is None and "keypoint_renderer" in self.block.get("components", {}):
            path = self.path
        if path is None:
            raise StageLinkError(
                "the checkpoint makes landmarks and holds no renderer; give --renderer-checkpoint of a run "
                "of experiments/runs/81_landmark_renderer.yaml, or use --renderer mesh."
            )
        keypoints = load_component(path, "keypoint_detector")
        if not isinstance(keypoints, LandmarkKeypoints):
            raise StageLinkError(
                f"{path}: the renderer is driven by keypoints of a learned detector, which landmarks do not "
                "give; train keypoint_reenactment with detector: landmarks "
                "(experiments/runs/81_landmark_renderer.yaml)."
            )
        network = resolve(KeypointRenderer, str(path), "keypoint_renderer")
        assert network.origin is not None  # it comes from a file
        check_same_clock(str(path), self.block["video"], network.origin["video"])
        source = keypoints.of_mesh(torch.from_numpy(portrait.landmarks[None]))
        side = int(network.origin["video"]["size"])
        render = KeypointGeneratorRenderer(network, side, portrait, source, request.size)
        return lambda points: render(keypoints(points))


class LandmarkMeshRenderer:
    """Frames from the portrait's own landmark mesh, carried along by its 68 points."""

    def __init__(self, portrait: Portrait) -> None:
        """Lay the mesh over the portrait."""
        self._mesh = MeshOfPoints(torch.from_numpy(portrait.landmarks))
        self._animator = PortraitAnimator(portrait.picture, portrait.landmarks)

    def __call__(self, points: Tensor) -> Iterator[Picture]:
        """Frames ``(H, H, 3)`` of points ``(t, 68, 2)`` in crop units."""
        for landmarks in self._mesh(points).numpy():
            yield self._animator.draw(landmarks)


def hear(wave: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """What the model hears of speech.

    Returns:
        Mel rows ``(T, 320)``, the four steps of a frame side by side, and prosody ``(T, 4)``.

    Raises:
        DataError: The sound is shorter than a frame or silent.
    """
    steps = AudioSpec().steps_per_frame
    rows = [mel.unflatten(0, (-1, steps))[block].flatten(1) for mel, block in mel_pieces(wave)]
    return torch.cat(rows), torch.from_numpy(measure_prosody(wave).features)
