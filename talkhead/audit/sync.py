"""Sound and lips of one clip: offset, confidence, and what of it chance would give."""

from __future__ import annotations

import math
import os
import pickle
from dataclasses import dataclass

import torch
from torch import Tensor

from talkhead.checkpoint import BLOCK, load_component
from talkhead.errors import StageLinkError
from talkhead.metrics.offset import MAX_SHIFT_FRAMES
from talkhead.metrics.sync_scores import sync_scores
from talkhead.networks.syncnet import SyncNet
from talkhead.specs import FPS

NEIGHBOURS = 3
"""Shifts so near to the best one say nothing against it: 0.2 s of sound have slow edges."""
MIN_WINDOWS = 2 * (MAX_SHIFT_FRAMES + NEIGHBOURS + 2)
"""Half of so many windows carries every true pair out of reach."""
BLOCK_WINDOWS = 2 * FPS
AGREEMENT_FRAMES = 1


@dataclass(frozen=True)
class ClipSync:
    """Sync of one clip.

    Attributes:
        offset_frames: SyncNet's sign: by how many video frames the picture lags the sound (+) or leads
            it (-), so that delaying the sound by so many frames puts it right.
        confidence: How far the mean distance there is below any over three frames away, see
            :func:`best_offset`.
        chance: The same with the sound turned around by half the clip.
        agreement: Share of stretches of two seconds whose own offset is within one frame of the clip's.
        lse_c: The published confidence, for comparison.
        lse_d: The published distance.
    """

    offset_frames: int
    confidence: float
    chance: float
    agreement: float
    lse_c: float
    lse_d: float


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

    Two things differ from the published scores (:mod:`talkhead.metrics.sync_scores`), which are given
    as well. Frames without a partner are left out: zeros in their place make the outermost shifts of
    many clips the best ones. And the confidence is the lead over shifts elsewhere, not over the median,
    because where speech begins and ends distances slope over all shifts; it has no unit.

    The clip is its own measure of chance: its sound is turned around by half the clip, which leaves
    voice and rhythm, and nothing in sync.

    Args:
        visual: ``(T, D)``, number ``t`` of the frames ``t .. t + 4``.
        audio: ``(T, D)``, number ``t`` of the sound from frame ``t`` on.

    Returns:
        The scores; None for fewer than 40 windows.

    Raises:
        ShapeError: Shapes differ.
    """
    count = len(visual)
    if count < MIN_WINDOWS:
        return None
    published = sync_scores(visual, audio)
    distances = shift_distances(visual, audio)
    offset, confidence = best_offset(distances)
    _, chance = best_offset(shift_distances(visual, audio.roll(count // 2, dims=0)))
    parts = distances.tensor_split(max(1, count // BLOCK_WINDOWS))
    near = [abs(best_offset(part)[0] - offset) <= AGREEMENT_FRAMES for part in parts]
    return ClipSync(
        offset,
        confidence,
        chance,
        sum(near) / len(near),
        float(published.lse_c),
        float(published.lse_d),
    )


def shift_distances(visual: Tensor, audio: Tensor, max_shift: int = MAX_SHIFT_FRAMES) -> Tensor:
    """Distance of every picture and the sound at every shift.

    Args:
        visual: ``(T, D)``.
        audio: ``(T, D)``.
        max_shift: Largest shift tried on either side, in video frames.

    Returns:
        Float64 ``(T, 2 * max_shift + 1)``: entry ``[t, k]`` is between the pictures of window ``t`` and
        the sound of window ``t + k - max_shift``, NaN where the clip has none.
    """
    seen, heard = visual.to(torch.float64), audio.to(torch.float64)
    count = len(seen)
    out = seen.new_full((count, 2 * max_shift + 1), float("nan"))
    for column in range(2 * max_shift + 1):
        shift = column - max_shift
        start, stop = max(0, -shift), min(count, count - shift)
        if start < stop:
            away = seen[start:stop] - heard[start + shift : stop + shift]
            out[start:stop, column] = away.norm(dim=-1)
    return out


def best_offset(distances: Tensor) -> tuple[int, float]:
    """Offset of a stretch of a clip, and how far it leads.

    With ``m`` the mean distance at each shift, the offset is where it is smallest, and its lead
    ``min m(far) - min m`` is over all shifts more than three frames away. It is divided by
    ``std / sqrt(T)`` of the single distances: networks, speakers they know and speakers they do not
    have distances of other sizes, and long clips smaller chance leads.

    Args:
        distances: ``T`` rows of :func:`shift_distances`; a stretch has partners from the whole clip.

    Returns:
        Offset in video frames, SyncNet's sign, and the lead, at least 0. The first of equally small
        distances wins.
    """
    # A shift at which no frame of the stretch has a partner cannot be the best.
    mean = distances.nanmean(dim=0).nan_to_num(nan=float("inf"))
    best = int(mean.argmin())
    away = (torch.arange(len(mean)) - best).abs() > NEIGHBOURS
    lead = float(mean[away].min() - mean[best])
    spread = float(distances[~distances.isnan()].std(correction=0))
    confidence = lead / spread * math.sqrt(len(distances)) if spread > 0 else 0.0
    return (len(mean) - 1) // 2 - best, confidence
