"""Scores of landmark motion: distances of mouth and face, and what each stream of it carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from talkhead.corpus.motion_process import CHANNELS, MotionProcess, gaussian_channels
from talkhead.corpus.truth import Truth, load_truth
from talkhead.geometry.landmark_rows import landmark_points
from talkhead.metrics.correlation import correlation
from talkhead.metrics.lmd import f_lmd, m_lmd
from talkhead.networks.landmark_motion_model import LandmarkMotionModel
from talkhead.readout import Readout
from talkhead.stages.landmark_features import MEL, POINTS, PROSODY
from talkhead.stages.motion_evaluation import ClipSample
from talkhead.stages.whole_clips import DataView

MAX_CLIPS = 200
"""Training clips that the map from landmarks to true channels is fitted on."""
POSTURE_FRAMES = 25
"""Length of the running mean that leaves the slow part of a motion, 1 s."""


class LandmarkScores:
    """``lmd_mouth`` and ``lmd_face`` of generated rows, in pixels at 256, means over takes.

    Source: paper 2 section 4.1 (LMD), see :func:`talkhead.metrics.lmd.landmark_distance`. Points of the
        model, not tracked ones: ``talkhead evaluate`` tracks videos.
    """

    def __call__(self, sample: ClipSample) -> Mapping[str, float]:
        """Scores of the model, the mean face and another clip's motion; of the real motion none."""
        if sample.variant in ("gt", "floor"):
            return {}
        frames = min(sample.generated.shape[1], len(sample.real))
        made = landmark_points(sample.generated[:, :frames])
        real = landmark_points(sample.real[:frames]).expand_as(made)
        return {
            "lmd_mouth[px256]": float(m_lmd(made, real).mean()),
            "lmd_face[px256]": float(f_lmd(made, real).mean()),
        }


def stream_scores(
    model: LandmarkMotionModel, data: DataView, device: torch.device
) -> dict[str, float]:
    """Which stream carries the prosody-driven motion, and which the slow posture.

    On the embedded corpus both are known: the channels' mean given the speech, and what is left of the
    true channels, averaged over a second. The streams of real test clips (each pose from the real frame
    before) are read out as channels by a linear map fitted on the training split and correlated with
    both over time; means over channels and clips.

    Args:
        model: The model; both streams on.
        data: Datamodule with the features of
            :func:`~talkhead.stages.landmark_features.landmark_sources`.
        device: Where the model is.

    Returns:
        ``rhythm_with_prosody[truth]``, ``pose_with_prosody[truth]``, ``rhythm_with_posture[truth]`` and
        ``pose_with_posture[truth]`` from -1 to 1; empty without truth files, without two training clips
        or without both streams.
    """
    train, test = (data.prepared.rows(split)[:MAX_CLIPS] for split in ("train", "test"))
    known = all(data.clip_truth_path(row).is_file() for row in (*train, *test))
    if not known or len(train) < 2 or model.pose is None or model.rhythmic is None:
        return {}
    readout = _channel_readout(data, train)
    found: dict[str, list[float]] = {}
    for row in test:
        streams = _streams(model, data, row, device)
        parts = truth_parts(load_truth(data.clip_truth_path(row)), row.frames)
        for stream, motion in streams.items():
            channels = readout.predict_tensor(motion)
            for part, wanted in parts.items():
                value = float(correlation(channels, wanted).mean())
                found.setdefault(f"{stream}_with_{part}[truth]", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def truth_parts(truth: Truth, frames: int) -> dict[str, Tensor]:
    """The prosody-driven part of a clip's true channels and its slow posture, each ``(T, 8)``.

    Args:
        truth: Of the embedded corpus.
        frames: Frames of the prepared clip ``T``.
    """
    driven = MotionProcess(truth.process).mean(truth.prosody.features)[:frames]
    true = gaussian_channels(truth.state.arrays())[:frames]
    left = torch.from_numpy(true - driven).double()
    return {"prosody": torch.from_numpy(driven).double(), "posture": running_mean(left)}


def running_mean(values: Tensor, frames: int = POSTURE_FRAMES) -> Tensor:
    """Mean over ``frames`` frames around each of ``(T, D)``, the ends repeated."""
    half = frames // 2
    padded = F.pad(values.T[None], (half, half), mode="replicate")
    smooth: Tensor = F.avg_pool1d(padded, 2 * half + 1, stride=1)[0].T
    return smooth


def _channel_readout(data: DataView, rows: Sequence[Any]) -> Readout:
    """Map from rows to true channels, both without the mean of their clip."""
    codes, channels = [], []
    for row in rows:
        codes.append(_centred(data.store.window(POINTS, row).numpy()))
        state = load_truth(data.clip_truth_path(row)).state
        channels.append(_centred(gaussian_channels(state.arrays())[: row.frames]))
    layout = {name: slice(i, i + 1) for i, name in enumerate(CHANNELS)}
    return Readout.fit(codes, channels, layout)


def _centred(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(values - values.mean(0), np.float32)


@torch.no_grad()
def _streams(
    model: LandmarkMotionModel, data: DataView, row: Any, device: torch.device
) -> dict[str, Tensor]:
    """Both streams of a clip in crop units, ``(T, 136)`` float32 on the CPU, without their means."""
    rows, mel, prosody = (
        data.store.window(name, row)[None].to(device) for name in (POINTS, MEL, PROSODY)
    )
    coarse = model.streams(rows, mel, prosody)
    both = {"pose": coarse.pose, "rhythm": coarse.rhythm}
    scaled = {name: (value[0] * model.motion_std).cpu() for name, value in both.items()}
    return {name: value - value.mean(0) for name, value in scaled.items()}
