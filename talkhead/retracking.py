"""Scores of motion as it is seen: sampled codes are rendered, tracked again and compared with the clip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.errors import DataError
from talkhead.generation import (
    GeneratorRenderer,
    MeshRenderer,
    Picture,
    Portrait,
    RendererName,
    TalkingHead,
)
from talkhead.landmarks.base import Landmarker
from talkhead.landmarks.gaps import bridge
from talkhead.stages.motion_evaluation import ClipSample, motion_scores
from talkhead.stages.motion_prior import MotionPriorStage

RENDER_SIZE = 256
"""Side of the rendered pictures; the tracker is lost on crops of 64 pixels."""
MARGIN = 0.25
"""Border added on every side before tracking, as a share of the side: detectors want some around a face."""
VARIANTS = ("model", "gt", "mean")
"""What is rendered: the samples, the real codes (what rendering alone costs) and the training mean."""

Renderer = Callable[[Tensor, Tensor], Iterator[Picture]]


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
    ) -> None:
        """Keep what rendering and tracking need.

        Args:
            stage: The prior under test.
            data: The datamodule, for pictures, landmarks and tracked motion of the clips.
            renderer: ``mesh`` or ``generator``.
            landmarker: The tracker, that of ``prepare``.
            clips: How many runs of frames are scored, the first of the test split.
        """
        self._head = TalkingHead(stage, digest="")
        self._data, self._renderer, self._landmarker = data, renderer, landmarker
        self._limit = clips
        self._chosen: set[tuple[str, int]] = set()
        stats = data.motion_stats
        self._standard = (
            torch.as_tensor(stats.mean).float(),
            torch.as_tensor(stats.std).float().clamp_min(1e-6),
        )

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
        codes, real = sample.generated[0].float().cpu(), self._tracked(sample)
        with torch.no_grad():
            lip = self._head.stage.lip_head(sample.audio.to(self._head.stage.device)).float().cpu()
        faces = list(self._landmarker.track(_framed(self._renderer_of(sample)(codes, lip))))
        found = sum(face is not None for face in faces) / len(faces)
        scores = {f"found[{self.space}]": found}
        try:
            points, _ = bridge(faces)
        except DataError:  # no face in the whole clip, which the share of found frames says
            return scores
        motion = torch.from_numpy(self._data.motion_model.encode(_unframed(points)))
        return scores | motion_scores(motion[None], real, self._standard, self.space)

    def _tracked(self, sample: ClipSample) -> Tensor:
        """Tracked descriptors of the real frames, ``(T, D)``."""
        motion = np.asarray(self._data.prepared.motion(sample.clip))
        return torch.from_numpy(motion[sample.start : sample.start + len(sample.real)]).float()

    def _renderer_of(self, sample: ClipSample) -> Renderer:
        """A renderer whose portrait is the clip's first frame."""
        prepared = self._data.prepared
        picture = prepared.frames(sample.clip, [sample.start])[0].permute(1, 2, 0).numpy()
        large = cv2.resize(picture, (RENDER_SIZE, RENDER_SIZE), interpolation=cv2.INTER_CUBIC)
        landmarks = np.asarray(prepared.landmarks(sample.clip)[sample.start], np.float32)
        portrait = Portrait(np.asarray(large, np.uint8), landmarks)
        if self._renderer == "generator":
            return GeneratorRenderer(self._head, portrait, RENDER_SIZE)
        return MeshRenderer(self._head.readout(), portrait, relative_pose=False)


def _framed(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Pictures with a mirrored border of :data:`MARGIN`."""
    for picture in pictures:
        edge = round(MARGIN * picture.shape[0])
        padded = cv2.copyMakeBorder(picture, edge, edge, edge, edge, cv2.BORDER_REFLECT_101)
        yield np.asarray(padded, np.uint8)


def _unframed(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pixels of framed pictures to the crop's unit, ``(T, 478, 3)``."""
    edge = round(MARGIN * RENDER_SIZE)
    moved: NDArray[np.float32] = (points - np.array([edge, edge, 0], np.float32)) / np.float32(
        RENDER_SIZE
    )
    return moved
