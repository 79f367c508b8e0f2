"""Renderers: from what a system generates to pictures of the portrait."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from talkhead.batch import to_bytes
from talkhead.errors import StageLinkError
from talkhead.generation.portrait import Picture, Portrait, as_batch, resized
from talkhead.geometry.keypoints import Keypoints
from talkhead.geometry.motion import neutral_face, pose_free
from talkhead.networks.keypoint_renderer import KeypointRenderer
from talkhead.networks.motion_readout import MotionReadout
from talkhead.render.portrait import PortraitAnimator

RendererName = Literal["generator", "mesh"]
RENDER_FRAMES = 8
"""Pictures in one pass of a learned renderer of keypoints."""


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
        for n, m in zip(nonlip.split(16), lip.split(16), strict=True):
            codes = torch.cat([n, m], 1).to(self._identity)
            latent = torch.cat([self._identity.expand(len(n), -1), codes], 1)
            with torch.no_grad():
                made = self._generator(latent, self._map.expand(len(n), -1, -1, -1))
            for frame in to_bytes(made).permute(0, 2, 3, 1).cpu().numpy():
                yield resized(frame, self._size)


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


class KeypointGeneratorRenderer:
    """Frames from the learned renderer of ``keypoint_reenactment``, driven by absolute keypoints."""

    def __init__(
        self,
        network: KeypointRenderer,
        side: int,
        portrait: Portrait,
        source: Keypoints,
        size: int,
    ) -> None:
        """Encode the portrait once.

        Args:
            network: The renderer.
            side: Of the pictures it was trained on, in pixels.
            portrait: Whom to show.
            source: Its keypoints, points ``(1, K, 2)``.
            size: Side of the pictures in pixels.
        """
        self._network, self._source, self._size = network, source, size
        picture = as_batch(portrait.picture, side, source.points.device)
        with torch.no_grad():
            self._state = network.encode(picture)

    def __call__(self, driving: Keypoints) -> Iterator[Picture]:
        """Frames ``(H, H, 3)`` of ``t`` frames' keypoints."""
        with torch.no_grad():
            made = self._network.render(self._state, self._source, driving)
        for frame in to_bytes(made).permute(0, 2, 3, 1).cpu().numpy():
            yield resized(frame, self._size)
