"""Whole clips through frozen encoders, for diagnostics that need every frame in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.batch import to_float
from talkhead.corpus.state import LIP_FIELDS, NONLIP_FIELDS
from talkhead.corpus.truth import load_truth
from talkhead.geometry.motion import MotionModel
from talkhead.metrics.leakage import linear_probe

CHUNK = 64
"""Frames in one call of an encoder."""
MIN_PROBE_CLIPS = 3


class PreparedView(Protocol):
    """What is asked of a prepared set (``datamodules.shards.PreparedSet``)."""

    def rows(self, split: str | None = None) -> list[Any]:
        """Clips of one split, or all."""
        ...

    def motion(self, clip: Any) -> NDArray[np.float32]:
        """Motion descriptors ``(T, D)``."""
        ...

    def frames(self, clip: Any, indices: Sequence[int], size: int | None = None) -> Tensor:
        """Pictures ``(n, 3, H, W)`` uint8."""
        ...

    def mel_windows(self, clip: Any, frames: Sequence[int]) -> Tensor:
        """Mel windows ``(n, 1, F, M)``."""
        ...


class FeatureView(Protocol):
    """What is asked of the feature cache (``datamodules.features.FeatureStore``)."""

    def window(self, name: str, row: Any) -> Tensor:
        """A cached feature of a whole clip, ``(T, D)``."""
        ...


class DataView(Protocol):
    """What is asked of the datamodule (``datamodules.base.TalkheadDataModule``)."""

    @property
    def prepared(self) -> PreparedView:
        """The prepared set."""
        ...

    @property
    def store(self) -> FeatureView:
        """The feature cache."""
        ...

    @property
    def motion_model(self) -> MotionModel:
        """The landmark model."""
        ...

    @property
    def motion_stats(self) -> Any:
        """Mean and deviation of the descriptors."""
        ...

    def clip_truth_path(self, row: Any) -> Path:
        """Truth file of a clip, which need not exist."""
        ...


def encode_clips(
    data: DataView,
    rows: Iterable[Any],
    visual: Callable[[Tensor], Tensor],
    audio: Callable[[Tensor], Tensor],
    size: int,
    device: torch.device,
) -> Iterator[tuple[Any, Tensor, Tensor]]:
    """Every frame of some clips through two encoders.

    Args:
        data: Datamodule.
        rows: Clips.
        visual: ``(n, 3, H, W)`` in [-1, 1] to ``(n, D)``.
        audio: Mel windows ``(n, 1, F, M)`` to ``(n, D')``.
        size: Side of the pictures in pixels.
        device: Where the encoders are.

    Yields:
        The row, visual ``(T, D)`` and audio ``(T, D')`` features on the CPU.
    """
    for row in rows:
        seen, heard = [], []
        for start in range(0, row.frames, CHUNK):
            at = range(start, min(start + CHUNK, row.frames))
            with torch.no_grad():
                seen.append(visual(to_float(data.prepared.frames(row, at, size).to(device))).cpu())
                heard.append(audio(data.prepared.mel_windows(row, at).to(device)).cpu())
        yield row, torch.cat(seen), torch.cat(heard)


def leakage(
    data: DataView,
    rows: Sequence[Any],
    nonlip: Callable[[Tensor], Tensor],
    lip: Callable[[Tensor], Tensor],
    size: int,
    device: torch.device,
) -> dict[str, float]:
    """How much of the true lip motion a linear probe finds in the non-lip code, and the reverse.

    Args:
        data: Datamodule of the embedded corpus.
        rows: Held-out clips; whole clips are left out when the probe is scored.
        nonlip: Frames to ``f_nl``.
        lip: Mel windows to ``f_l``.
        size: Side of the pictures in pixels.
        device: Where the encoders are.

    Returns:
        R^2 by name: ``leakage_lip_from_nonlip`` and ``leakage_nonlip_from_lip`` (low is good),
        ``probe_nonlip_from_nonlip`` and ``probe_lip_from_lip`` (high is good). Empty without truth
        files or with fewer than three clips.
    """
    known = [row for row in rows if data.clip_truth_path(row).is_file()]
    if len(known) < MIN_PROBE_CLIPS:
        return {}
    codes: dict[str, list[Tensor]] = {"nonlip": [], "lip": []}
    truth: dict[str, list[Tensor]] = {"nonlip": [], "lip": []}
    for row, seen, heard in encode_clips(data, known, nonlip, lip, size, device):
        state = load_truth(data.clip_truth_path(row)).state
        codes["nonlip"].append(seen)
        codes["lip"].append(heard)
        truth["nonlip"].append(torch.from_numpy(state.matrix(NONLIP_FIELDS)[: row.frames]))
        truth["lip"].append(torch.from_numpy(state.matrix(LIP_FIELDS)[: row.frames]))
    names = [row.id for row in known]
    found = {}
    for wanted in ("lip", "nonlip"):
        for source in ("lip", "nonlip"):
            kind = "probe" if wanted == source else "leakage"
            r2 = linear_probe(codes[source], truth[wanted], names)
            found[f"{kind}_{wanted}_from_{source}"] = float(r2.nanmean())
    return found
