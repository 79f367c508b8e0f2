"""One code drives, the other stands still: what each of the two codes moves in generated faces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from talkhead.errors import ConfigError
from talkhead.generation.renderers import GeneratorRenderer
from talkhead.landmarks.base import Landmarker
from talkhead.metrics.correlation import correlation
from talkhead.metrics.part_distances import (
    blink_distance,
    descriptor_distance,
    gaze_distance,
    motion_share,
    mouth_distance,
)
from talkhead.retracking import RENDER_SIZE, clip_portrait, track_rendered
from talkhead.stages.descriptor_space import descriptor_standard
from talkhead.stages.lip_disentangle import LipDisentangleStage
from talkhead.stages.whole_clips import encode_clips

Still = Literal["zero", "first"]
MODES = ("both", "lip_only", "nonlip_only")
SPACE = "retracked:generator"
LIVELY = ("rotation", "translation", "scale")


class DrivingScores:
    """Drive a clip's own first frame by both codes, by the lip code alone and by the non-lip code alone.

    The generated frames are tracked and compared with the real ones of the clip:

    | score                 | of                                                     | good            |
    |-----------------------|--------------------------------------------------------|-----------------|
    | `blink_distance`      | lids, NME                                              | low             |
    | `gaze_distance`       | irises, NME                                            | low             |
    | `expression_distance` | expression descriptors, standardised                   | low             |
    | `pose_distance`       | head rotation, standardised                            | low             |
    | `mouth_distance`      | lips, NME                                              | low             |
    | `mouth_correlation`   | mouth opening over time                                | high            |
    | `mouth_motion`        | spread of the mouth opening, as a share of the real    | 0 or 1, by mode |
    | `head_motion`         | spread of pose and place, as a share of the real       | 0 or 1, by mode |
    | `found`               | share of frames the tracker found a face in            | 1               |

    Source: paper 1 Table 4 and supplement I.5; reference-facts 3.5 and 8.6. Deviates: our tracker and
        descriptors, and the two motion shares are ours.
    """

    def __init__(
        self,
        stage: LightningModule,
        data: Any,
        landmarker: Landmarker,
        still: Still = "zero",
        frames: int = 150,
    ) -> None:
        """Keep what generation and tracking need.

        Args:
            stage: The stage under test, a :class:`LipDisentangleStage`.
            data: The datamodule.
            landmarker: The tracker, that of ``prepare``.
            still: What stands still is ``zero``, or ``first``, the code of the clip's first frame.
            frames: Frames of each clip, from its beginning.

        Raises:
            ConfigError: The stage is another one.
        """
        if not isinstance(stage, LipDisentangleStage):
            raise ConfigError(
                f"driving scores: expected stage lip_disentangle, got {type(stage).__name__}; remove "
                "callbacks.driven_parts.DrivenParts from this stage's config."
            )
        self._stage, self._data, self._landmarker = stage, data, landmarker
        self._still, self._frames = still, frames
        self._standard = descriptor_standard(data.motion_stats.mean, data.motion_stats.std)

    def __call__(self, row: Any) -> dict[str, float]:
        """Scores of a clip, ``lip_only/mouth_distance[retracked:generator]`` and so on."""
        nonlip, lip = self._codes(row)
        render = GeneratorRenderer(
            self._stage, clip_portrait(self._data.prepared, row, 0), RENDER_SIZE
        )
        landmarks = np.array(self._data.prepared.landmarks(row)[: len(lip)], np.float32)
        scores = {}
        for mode in MODES:
            driven = (
                self._stopped(nonlip) if mode == "lip_only" else nonlip,
                self._stopped(lip) if mode == "nonlip_only" else lip,
            )
            points, found = track_rendered(self._landmarker, render(*driven))
            scores[f"{mode}/found[{SPACE}]"] = found
            if points is not None:
                compared = self._compare(torch.from_numpy(points), torch.from_numpy(landmarks))
                scores |= {f"{mode}/{name}[{SPACE}]": value for name, value in compared.items()}
        return scores

    def _codes(self, row: Any) -> tuple[Tensor, Tensor]:
        stage = self._stage
        ((_, nonlip, lip),) = encode_clips(
            self._data,
            [row],
            lambda pictures: stage.nonlip_head(stage.motion_encoder(pictures)),
            lambda mel: stage.lip_head(stage.audio_encoder(mel)),
            stage.video_spec.size,
            stage.device,
        )
        return nonlip[: self._frames], lip[: self._frames]

    def _stopped(self, codes: Tensor) -> Tensor:
        return torch.zeros_like(codes) if self._still == "zero" else codes[:1].expand_as(codes)

    def _compare(self, generated: Tensor, real: Tensor) -> Mapping[str, float]:
        model = self._data.motion_model
        mean, std = self._standard
        made, wanted = (
            (torch.from_numpy(model.encode(points.numpy())) - mean) / std
            for points in (generated, real)
        )
        columns = model.layout
        moved, wanted_moved = (
            torch.cat([motion[:, columns[name]] for name in LIVELY], 1) for motion in (made, wanted)
        )
        mouth, wanted_mouth = made[:, columns["mouth"]], wanted[:, columns["mouth"]]
        found = {
            "blink_distance": blink_distance(generated, real),
            "gaze_distance": gaze_distance(generated, real),
            "mouth_distance": mouth_distance(generated, real),
            "expression_distance": descriptor_distance(
                made[:, columns["expression"]], wanted[:, columns["expression"]]
            ),
            "pose_distance": descriptor_distance(
                made[:, columns["rotation"]], wanted[:, columns["rotation"]]
            ),
            "mouth_correlation": correlation(mouth, wanted_mouth),
            "mouth_motion": motion_share(mouth, wanted_mouth),
            "head_motion": motion_share(moved, wanted_moved),
        }
        return {name: float(value) for name, value in found.items()}
