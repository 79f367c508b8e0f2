"""What the stage in landmark space takes from the data: cached points, mel and prosody of whole clips."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from talkhead.audio.mel import mel_spectrogram
from talkhead.batch import FeatureSource, SequenceBatch
from talkhead.corpus.prosody import PROSODY_FEATURES, measure_prosody
from talkhead.errors import DataError, ShapeError
from talkhead.geometry.landmark_rows import LANDMARK_DIM, landmark_rows
from talkhead.geometry.points68 import MESH_INDEX, ibug_points
from talkhead.networks.component import tensors_digest
from talkhead.networks.landmark_streams import STEPS_PER_FRAME
from talkhead.specs import SAMPLES_PER_FRAME, AudioSpec, spec_dict

POINTS = "points68"
MEL = "mel_rows"
PROSODY = "prosody"
VERSION = 1
"""Raise it when the numbers of a feature change."""


class LandmarkRun(NamedTuple):
    """Runs of ``T`` frames: ``rows`` ``(B, T, 136)``, ``mel`` ``(B, T, 320)``, ``prosody`` ``(B, T, 4)``."""

    rows: Tensor
    mel: Tensor
    prosody: Tensor


def landmark_sources() -> dict[str, FeatureSource]:
    """Features to cache: rows of 68 points, the mel spectrogram and prosody, all of whole clips.

    Level and prosody are relative to the clip, as they are for speech that is to be animated
    (:func:`speech_features`).
    """
    spec = AudioSpec()
    points, mel, prosody = _Rows(), _Mel(), _Prosody()
    width = STEPS_PER_FRAME * spec.n_mels
    return {
        POINTS: FeatureSource(POINTS, _digest("rows"), "landmarks", points, LANDMARK_DIM),
        MEL: FeatureSource(MEL, _digest("mel"), "wave", mel, width),
        PROSODY: FeatureSource(PROSODY, _digest("prosody"), "wave", prosody, len(PROSODY_FEATURES)),
    }


def speech_features(wave: Tensor) -> tuple[Tensor, Tensor]:
    """Mel rows and prosody of a recording.

    Args:
        wave: Mono samples in [-1, 1] at 16 kHz, ``(S,)``, at least a frame of them.

    Returns:
        ``(T, 320)`` and ``(T, 4)``.

    Raises:
        ShapeError: Not one axis, or shorter than a frame.
    """
    if wave.ndim != 1 or len(wave) < SAMPLES_PER_FRAME:
        raise ShapeError(
            f"expected at least {SAMPLES_PER_FRAME} samples (S,), got {tuple(wave.shape)}; "
            "give a longer recording."
        )
    return _mel(wave), _prosody(wave)


def read_run(batch: SequenceBatch) -> LandmarkRun:
    """Points and sound of a batch of :class:`~talkhead.batch.Sequences` that are ``whole``.

    Raises:
        ShapeError: A feature is missing or of another width.
    """
    wanted = {name: source.dim for name, source in landmark_sources().items()}
    got = {name: tuple(value.shape) for name, value in batch.features.items()}
    wrong = [name for name, dim in wanted.items() if got.get(name, ())[2:] != (dim,)]
    if wrong:
        raise ShapeError(
            f"expected features {', '.join(f'{n} (B, T, {wanted[n]})' for n in wrong)}, got {got}; ask "
            "the datamodule for landmark_sources."
        )
    return LandmarkRun(*(batch.features[name].float() for name in (POINTS, MEL, PROSODY)))


def row_statistics(clips: Iterable[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and deviation of rows over all frames, and their deviation from the mean of each clip.

    Args:
        clips: Rows ``(T, D)`` of one clip after the other.

    Returns:
        Three times float32 ``(D,)``.

    Raises:
        DataError: Fewer than two frames.
    """
    count, total, squares, within = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for clip in clips:
        rows = clip.double()
        count += len(rows)
        total, squares = total + rows.sum(0), squares + rows.square().sum(0)
        within = within + (rows - rows.mean(0)).square().sum(0)
    if count < 2:
        raise DataError(
            f"expected at least 2 training frames for the landmark statistics, got {count}; check the "
            "training split."
        )
    mean = total / count
    spread = (squares / count - mean.square()).clamp_min(0).sqrt()
    return mean.float(), spread.float(), (within / count).sqrt().float()


def _mel(wave: Tensor) -> Tensor:
    steps = mel_spectrogram(wave)
    rows: Tensor = steps.unflatten(0, (-1, STEPS_PER_FRAME)).flatten(1)
    return rows


def _prosody(wave: Tensor) -> Tensor:
    measured = measure_prosody(wave.detach().cpu().numpy().astype(np.float32))
    return torch.from_numpy(measured.features).to(wave.device)


def _digest(kind: str) -> str:
    """Stands for everything a feature depends on besides the clip."""
    options = {
        "kind": kind,
        "version": VERSION,
        "audio": spec_dict(AudioSpec()),
        "points": list(MESH_INDEX),
    }
    return tensors_digest(options, {})


class _Rows(nn.Module):
    """Landmarks ``(n, 478, 3)`` to rows ``(n, 136)``."""

    def forward(self, landmarks: Tensor) -> Tensor:
        return landmark_rows(ibug_points(landmarks))


class _Mel(nn.Module):
    """A clip's wave to mel rows."""

    def forward(self, wave: Tensor) -> Tensor:
        return _mel(wave)


class _Prosody(nn.Module):
    """A clip's wave to prosody."""

    def forward(self, wave: Tensor) -> Tensor:
        return _prosody(wave)
