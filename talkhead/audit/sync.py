"""Sound and lips of one clip: offset, confidence, and what of it chance would give."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass

import torch
from torch import Tensor

from talkhead.checkpoint import BLOCK, load_component
from talkhead.errors import StageLinkError
from talkhead.metrics.offset import MAX_SHIFT_FRAMES
from talkhead.metrics.sync_scores import DISTANCE_EPS, sync_scores
from talkhead.networks.syncnet import SyncNet
from talkhead.specs import FPS

MIN_WINDOWS = 2 * MAX_SHIFT_FRAMES
"""Fewer windows than shifts to choose from: the zero padding would decide."""
BLOCK_WINDOWS = 2 * FPS
AGREEMENT_FRAMES = 1


@dataclass(frozen=True)
class ClipSync:
    """Sync of one clip.

    Attributes:
        offset_frames: SyncNet's sign: by how many video frames the picture lags the sound (+) or leads
            it (-), so that delaying the sound by so many frames puts it right.
        confidence: LSE-C.
        distance: LSE-D.
        null_confidence: LSE-C of the same clip with its sound put out of order, see :func:`clip_sync`.
        agreement: Share of blocks of two seconds whose own offset is within one frame of the clip's.
    """

    offset_frames: int
    confidence: float
    distance: float
    null_confidence: float
    agreement: float


def load_syncnet(path: str | os.PathLike[str]) -> SyncNet:
    """The judge from a checkpoint of stage ``syncnet``, or the published file.

    Args:
        path: Checkpoint, or ``syncnet_v2.model`` (its digest is checked).

    Returns:
        The network, frozen and in eval mode.

    Raises:
        StageLinkError: A checkpoint of another stage.
        ConfigError: No such file, or neither a checkpoint nor the published weights.
    """
    if _is_checkpoint(path):
        network = load_component(path, "syncnet")
        if not isinstance(network, SyncNet):
            raise StageLinkError(
                f"{path}: expected 'syncnet' to be a SyncNet, got {type(network).__name__}; pass a "
                "checkpoint of stage syncnet."
            )
        return network
    return SyncNet(weights_path=os.fspath(path)).eval().requires_grad_(False)


def _is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether a file was written by a stage; anything else is left to the loader of public weights."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return False
    return isinstance(loaded, dict) and BLOCK in loaded


def clip_sync(visual: Tensor, audio: Tensor) -> ClipSync | None:
    """Judge the embeddings of a whole clip.

    Confidences of different networks do not compare, so the clip is its own measure of chance: its
    sound is played backwards, and turned around by half the clip. Both have the voice and the rhythm of
    the clip, and nothing in sync but the one window where backwards meets forwards. The larger of both
    confidences is what chance gives.

    Args:
        visual: ``(T, D)``, number ``t`` of the frames ``t .. t + 4``.
        audio: ``(T, D)``, number ``t`` of the sound from frame ``t`` on.

    Returns:
        The scores; None for fewer than 30 windows.

    Raises:
        ShapeError: Shapes differ.
    """
    count = len(visual)
    if count < MIN_WINDOWS:
        return None
    scores = sync_scores(visual, audio)
    offset = int(scores.offset)
    chance = [audio.flip(0)]
    # Half a turn must carry every true pair beyond the largest shift.
    if count // 2 > MAX_SHIFT_FRAMES:
        chance.append(audio.roll(count // 2, dims=0))
    null = max(float(sync_scores(visual, other).lse_c) for other in chance)
    blocks = block_offsets(visual, audio)
    near = (blocks - offset).abs() <= AGREEMENT_FRAMES
    return ClipSync(
        offset, float(scores.lse_c), float(scores.lse_d), null, float(near.double().mean())
    )


def block_offsets(
    visual: Tensor, audio: Tensor, block: int = BLOCK_WINDOWS, max_shift: int = MAX_SHIFT_FRAMES
) -> Tensor:
    """Offset of each stretch of a clip.

    Partners come from the whole clip and none is made up, so short stretches work. A clip is cut into
    as many equal stretches of at least ``block`` windows as fit, at least one.

    Args:
        visual: ``(T, D)``.
        audio: ``(T, D)``.
        block: Least number of windows.
        max_shift: Largest offset.

    Returns:
        ``(n,)`` int64 in video frames, sign as in :func:`talkhead.metrics.sync_scores.sync_scores`.
    """
    seen, heard = visual.to(torch.float64), audio.to(torch.float64)
    count = len(seen)
    distance = seen.new_full((count, 2 * max_shift + 1), float("nan"))
    for column in range(2 * max_shift + 1):
        shift = column - max_shift
        rows = slice(max(0, -shift), min(count, count - shift))
        partners = heard[rows.start + shift : rows.stop + shift]
        distance[rows, column] = (seen[rows] - partners + DISTANCE_EPS).norm(dim=-1)
    found = []
    for part in distance.tensor_split(max(1, count // block)):
        mean = part.nanmean(dim=0).nan_to_num(nan=float("inf"))
        found.append(max_shift - mean.argmin())
    return torch.stack(found)
