"""The contract between data and stages: what a stage asks for, and the batches it gets.

Letters: ``B`` batch, ``K`` identity frames, ``N`` aligned frames of one video, ``T`` frames of a
sequence, ``M`` mel steps, ``F`` mel bins, ``D`` features, ``C H W`` image. Pictures travel as
``uint8`` RGB, channels first, and become floats in ``[-1, 1]`` on the device (:func:`to_float`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from talkhead.errors import ShapeError
from talkhead.specs import N_LANDMARKS


@dataclass(frozen=True)
class FramePairs:
    """Need: identity frames, one held-out target frame and ``extra_frames`` more of the same video.

    ``identity_landmarks`` asks for the landmarks of the identity frames as well.
    """

    identity_frames: int = 8
    size: int = 224
    extra_frames: int = 0
    identity_landmarks: bool = False


@dataclass(frozen=True)
class Windows:
    """Need: ``count`` aligned (frame, mel window) samples of one video, plus an identity frame."""

    count: int = 32
    size: int = 224
    min_gap_frames: int = 0
    identity_frames: int = 0


@dataclass(frozen=True)
class Sequences:
    """Need: runs of ``length`` frames of cached features and motion descriptors.

    ``whole`` asks for runs without padding: clips shorter than ``length`` are left out, and so is in
    evaluation what remains at the end of a clip.
    """

    length: int = 128
    stride: int | None = None
    whole: bool = False


@dataclass(frozen=True)
class SyncWindows:
    """Need: ``count`` runs of five frames of one clip, each with its own 0.2 s of sound (SyncNet)."""

    count: int = 32
    size: int = 224
    min_gap_frames: int = 0


@dataclass(frozen=True)
class LandmarkRuns:
    """Need: runs of ``length`` consecutive frames of 68 points, each with its own sound."""

    length: int = 80


@dataclass(frozen=True)
class SpeechRuns:
    """Need: ``count`` runs of consecutive frames of one clip with windows of cached speech features.

    The features are those of the source named :data:`SPEECH`, two steps of 50 Hz a frame. A run's window
    is that of one of its frames (:func:`talkhead.audio.speech_windows.run_frame`); ``every_frame`` asks
    for the windows of all of them as well.
    """

    count: int = 8
    frames: int = 9
    size: int = 256
    window: int = 18
    align: Literal["start", "centre"] = "start"
    every_frame: bool = False
    min_gap_frames: int = 1


SPEECH = "speech"
"""Name of the source of speech features."""

Needs = FramePairs | Windows | Sequences | SyncWindows | LandmarkRuns | SpeechRuns


@dataclass
class FeatureSource:
    """A feature cached once per prepared set and digest.

    Attributes:
        name: Short name, the key in :attr:`SequenceBatch.features`.
        digest: Hash over the encoder's weights and spec; part of the cache key.
        kind: What the network eats: ``"frames"`` ``(n, 3, H, W)`` float in [-1, 1], ``"mel"`` windows
            ``(n, 1, F, M)``, ``"landmarks"`` ``(n, 478, 3)`` float in crop units, or ``"wave"``, all
            samples ``(S,)`` of a clip as floats in [-1, 1], which one call turns into ``(T, D)``.
        size: Picture size the network expects in pixels (frames only).
        module: The network, in eval mode.
        dim: Width ``D`` of the feature.
    """

    name: str
    digest: str
    kind: str
    module: nn.Module
    dim: int
    size: int = 224


@dataclass
class FrameBatch:
    """Answer to :class:`FramePairs`.

    ``identity``: ``(B, K, 3, H, W)`` uint8. ``target``: ``(B, 3, H, W)`` uint8, another frame of the
    same video. ``landmarks``: ``(B, 478, 3)`` of the target, in ``[0, 1]`` crop units. ``motion``:
    ``(B, Dm)`` its motion descriptors, not normalised. ``extra``: ``(B, E, 3, H, W)`` uint8, any frames
    of the video (``E`` may be 0). ``extra_motion``: ``(B, E, Dm)``. ``identity_landmarks``:
    ``(B, K, 478, 3)`` of the identity frames where they were asked for, else empty.
    """

    identity: Tensor
    target: Tensor
    landmarks: Tensor
    motion: Tensor
    extra: Tensor
    extra_motion: Tensor
    clip: list[str] = field(default_factory=list)
    identity_landmarks: Tensor = field(default_factory=lambda: torch.zeros(0, N_LANDMARKS, 3))


@dataclass
class WindowBatch:
    """Answer to :class:`Windows`.

    ``frames``: ``(B, N, 3, H, W)`` uint8. ``mel``: ``(B, N, 1, F, M)`` float32. ``frame_index``:
    ``(B, N)`` int64 within the clip. ``identity``: ``(B, K, 3, H, W)`` uint8 (``K`` may be 0).
    ``landmarks``: ``(B, N, 478, 3)``. Row ``b`` holds one video only.
    """

    frames: Tensor
    mel: Tensor
    frame_index: Tensor
    identity: Tensor
    landmarks: Tensor
    clip: list[str] = field(default_factory=list)


@dataclass
class SyncBatch:
    """Answer to :class:`SyncWindows`.

    ``frames``: ``(B, N, 5, 3, H, W)`` uint8, runs of consecutive frames. ``mfcc``: ``(B, N, 1, 13, 20)``
    float32, the sound that starts with each run (:func:`talkhead.audio.mfcc.mfcc_windows`).
    ``frame_index``: ``(B, N)`` int64, first frame of each run within the clip. Row ``b`` holds one clip
    only.
    """

    frames: Tensor
    mfcc: Tensor
    frame_index: Tensor
    clip: list[str] = field(default_factory=list)


@dataclass
class LandmarkBatch:
    """Answer to :class:`LandmarkRuns`.

    ``points``: ``(B, T, 68, 3)`` float32 in crop units (:mod:`talkhead.geometry.points68`).
    ``filter_bank``: ``(B, 4 T, 26)`` float32, log energies of the run's own samples and nothing else
    (:func:`talkhead.audio.filter_bank.log_filter_bank`). ``start``: ``(B,)`` first frame within the clip.
    """

    points: Tensor
    filter_bank: Tensor
    start: Tensor
    clip: list[str] = field(default_factory=list)


@dataclass
class SpeechRunBatch:
    """Answer to :class:`SpeechRuns`.

    ``frames``: ``(B, N, T, 3, H, W)`` uint8, runs of consecutive frames. ``points``: ``(B, N, T, 68, 2)``
    float32 in crop units. ``speech``: ``(B, N, L, D)`` float32, the window of each run.
    ``frame_speech``: ``(B, N, T, L, D)``, the window of each frame, or none of them (``T`` is 0).
    ``frame_index``: ``(B, N)`` int64, first frame of each run within the clip. Row ``b`` holds one clip
    only.
    """

    frames: Tensor
    points: Tensor
    speech: Tensor
    frame_speech: Tensor
    frame_index: Tensor
    clip: list[str] = field(default_factory=list)


@dataclass
class SequenceBatch:
    """Answer to :class:`Sequences`.

    ``features``: name -> ``(B, T, D)`` float32. ``motion``: ``(B, T, Dm)`` descriptors. ``valid``:
    ``(B, T)`` bool, False on the padding of clips shorter than ``T``. ``start``: ``(B,)`` first frame
    of each run within its clip.
    """

    features: Mapping[str, Tensor]
    motion: Tensor
    valid: Tensor
    start: Tensor
    clip: list[str] = field(default_factory=list)


def to_float(frames: Tensor) -> Tensor:
    """Picture bytes ``(..., 3, H, W)`` uint8 to float32 in ``[-1, 1]``; 0 -> -1.0 and 255 -> 1.0.

    Raises:
        ShapeError: Not uint8, or no three channels in the third last axis.
    """
    if frames.dtype != torch.uint8 or frames.ndim < 3 or frames.shape[-3] != 3:
        raise ShapeError(
            f"expected uint8 pictures (..., 3, H, W), got {frames.dtype} {tuple(frames.shape)}; "
            "pass frames as the datamodule yields them."
        )
    return frames.float().mul_(2.0 / 255.0).sub_(1.0)


def to_bytes(pictures: Tensor) -> Tensor:
    """Float pictures in ``[-1, 1]`` to uint8, clamped and rounded; -1.0 -> 0 and 1.0 -> 255."""
    return pictures.float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
