"""Scores of motion as it is seen: sampled codes are rendered, tracked again and compared with the clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.errors import DataError
from talkhead.generation.portrait import Picture, Portrait, resized
from talkhead.generation.prior import TalkingHead
from talkhead.generation.renderers import GeneratorRenderer, MeshRenderer, RendererName
from talkhead.geometry.crop import Box, crop_frame, to_crop_units
from talkhead.landmarks.base import Landmarker
from talkhead.landmarks.gaps import bridge
from talkhead.stages.descriptor_space import descriptor_standard
from talkhead.stages.motion_evaluation import ClipSample, motion_scores
from talkhead.stages.motion_prior import MotionPriorStage

RENDER_SIZE = 256
"""Side of the rendered pictures; the tracker is lost on crops of 64 pixels."""
MARGIN = 0.25
"""Border added on every side before tracking, as a share of the side: detectors want some around a face."""
VARIANTS = ("model", "gt", "mean")
"""What is rendered: the samples, the real codes (what rendering alone costs) and the training mean."""

_EDGE = round(MARGIN * RENDER_SIZE)
_FRAME = Box(-_EDGE, -_EDGE, RENDER_SIZE + 2 * _EDGE)
"""What the tracker is shown, in pixels of the rendered picture; what lies outside is mirrored."""
_FACE = Box(_EDGE, _EDGE, RENDER_SIZE)
"""The rendered picture, in pixels of what the tracker is shown."""

Renderer = Callable[[Tensor, Tensor], Iterator[Picture]]


def clip_portrait(prepared: Any, clip: Any, frame: int) -> Portrait:
    """One frame of a prepared clip as a portrait of side :data:`RENDER_SIZE`."""
    picture = prepared.frames(clip, [frame])[0].permute(1, 2, 0).numpy()
    landmarks = np.asarray(prepared.landmarks(clip)[frame], np.float32)
    return Portrait(resized(picture, RENDER_SIZE), landmarks)


def track_rendered(
    landmarker: Landmarker, pictures: Iterable[Picture]
) -> tuple[NDArray[np.float32] | None, float]:
    """Landmarks of rendered pictures of side :data:`RENDER_SIZE`.

    Args:
        landmarker: The tracker.
        pictures: Frames in order.

    Returns:
        ``(T, 478, 3)`` in crop units with gaps bridged, or None if no frame shows a face; and the share
        of frames that do.
    """
    framed = (crop_frame(picture, _FRAME, _FRAME.side) for picture in pictures)
    faces = list(landmarker.track(framed))
    found = sum(face is not None for face in faces) / len(faces)
    try:
        points, _ = bridge(faces)
    except DataError:
        return None, found
    return to_crop_units(points, _FACE), found


class RetrackedScores:
    """Var, FID_fm, FID_dfm, SND of one rendered take against the tracked motion of the real clip.

    The portrait is the clip's own frame at the sample's start. Unlike scores of codes, these count
    what the renderer loses, and the tracker's own noise is in both sides. Multimodality needs two takes
    and is not given.
    """

    def __init__(
        self,
        stage: MotionPriorStage,
        data: Any,
        renderer: RendererName,
        landmarker: Landmarker,
        clips: int,
        frames: int | None = None,
    ) -> None:
        """Keep what rendering and tracking need.

        Args:
            stage: The prior under test.
            data: The datamodule, for pictures, landmarks and tracked motion of the clips.
            renderer: ``mesh`` or ``generator``.
            landmarker: The tracker, that of ``prepare``.
            clips: How many runs of frames are scored, the first of the test split.
            frames: Frames of each run that are scored, from its beginning; None: all.
        """
        self._head = TalkingHead(stage)
        self._data, self._renderer, self._landmarker = data, renderer, landmarker
        self._limit, self._frames = clips, frames
        self._chosen: set[tuple[str, int]] = set()
        self._standard = descriptor_standard(data.motion_stats.mean, data.motion_stats.std)

    @property
    def space(self) -> str:
        """What stands in brackets behind every score."""
        return f"retracked:{self._renderer}"

    def __call__(self, sample: ClipSample) -> Mapping[str, float]:
        """Scores by name, and ``found[retracked:…]``, the share of frames the tracker found a face in."""
        key = (sample.clip, sample.start)
        if sample.variant == "model" and len(self._chosen) < self._limit:
            self._chosen.add(key)
        if key not in self._chosen or sample.variant not in VARIANTS:
            return {}
        sample = replace(
            sample,
            generated=sample.generated[:, : self._frames],
            real=sample.real[: self._frames],
            audio=sample.audio[: self._frames],
        )
        codes, real = sample.generated[0].float().cpu(), self._tracked(sample)
        with torch.no_grad():
            lip = self._head.stage.lip_head(sample.audio.to(self._head.stage.device)).float().cpu()
        points, found = track_rendered(self._landmarker, self._renderer_of(sample)(codes, lip))
        scores = {f"found[{self.space}]": found}
        if points is None:
            return scores
        motion = torch.from_numpy(self._data.motion_model.encode(points))
        return scores | motion_scores(motion[None], real, self._standard, self.space)

    def _tracked(self, sample: ClipSample) -> Tensor:
        """Tracked descriptors of the real frames, ``(T, D)``."""
        motion = np.asarray(self._data.prepared.motion(sample.clip))
        return torch.from_numpy(motion[sample.start : sample.start + len(sample.real)]).float()

    def _renderer_of(self, sample: ClipSample) -> Renderer:
        """A renderer whose portrait is the clip's first frame."""
        portrait = clip_portrait(self._data.prepared, sample.clip, sample.start)
        if self._renderer == "generator":
            return GeneratorRenderer(self._head.stage, portrait, RENDER_SIZE)
        return MeshRenderer(self._head.readout(), portrait, relative_pose=False)
