"""Runs of frames and speech as ControlTalk's adapter is trained on them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from talkhead.batch import SpeechRunBatch, to_float
from talkhead.errors import ConfigError


class AdapterRun(NamedTuple):
    """Runs of ``T`` frames as the adapter sees them.

    Attributes:
        pictures: ``(n, T, 3, H, W)`` in [-1, 1].
        points: 68 points of each, ``(n, T, 68, 2)`` in crop units.
        spoken: The frames that were filmed with the speech, as ``pictures`` and the same tensor unless a
            run is held still or hears foreign speech.
        windows: Speech around every frame, ``(n, T, L, D)``.
        heard: Speech that belongs to the whole run, ``(n, L, D)``.
    """

    pictures: Tensor
    points: Tensor
    spoken: Tensor
    windows: Tensor
    heard: Tensor


class Shares(NamedTuple):
    """How training varies its runs, each a share from 0 to 1.

    Attributes:
        silent: Runs that hear silence first.
        still: Runs that show their first frame alone, held still.
        foreign: Runs that hear the speech of another run of their clip.
    """

    silent: float = 0.5
    still: float = 0.0
    foreign: float = 0.0


def check_shares(shares: Shares, runs: int) -> None:
    """Refuse shares that are none, and foreign speech without a second run.

    Raises:
        ConfigError: One of them.
    """
    for name, share in shares._asdict().items():
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"{name}_share: expected a number from 0 to 1, got {share}.")
    if runs < 1 or (shares.foreign > 0 and runs < 2):
        raise ConfigError(
            f"runs: expected at least 1, and 2 for speech of another run (foreign_share), got {runs}."
        )


def read_runs(batch: SpeechRunBatch, shares: Shares | None = None) -> AdapterRun:
    """All runs of a batch as rows.

    Args:
        batch: With the speech of every frame.
        shares: How many runs are held still and hear foreign speech, each drawn for itself from torch's
            global generator; None leaves all as they are.

    Returns:
        ``B N`` runs.
    """
    pictures, points, spoken = batch.frames, batch.points, batch.frames
    windows, heard = batch.frame_speech, batch.speech
    if shares is not None and shares.still + shares.foreign > 0:
        # On the CPU, whose generator every device of a run shares.
        still, foreign = (
            (torch.rand(pictures.shape[:2]) < share).to(pictures.device)
            for share in (shares.still, shares.foreign)
        )
        pictures, points = (
            torch.where(_wide(still, own), own[:, :, :1], own) for own in (pictures, points)
        )
        spoken, windows, heard = (
            torch.where(_wide(foreign, own), own.roll(1, dims=1), own)
            for own in (spoken, windows, heard)
        )
    shown = to_float(pictures.flatten(0, 1))
    said = shown if spoken is pictures else to_float(spoken.flatten(0, 1))
    points, windows, heard = (part.flatten(0, 1) for part in (points, windows, heard))
    return AdapterRun(shown, points, said, windows, heard)


def _wide(chosen: Tensor, like: Tensor) -> Tensor:
    """``(B, N)`` with as many axes as another tensor."""
    return chosen.reshape(*chosen.shape, *[1] * (like.ndim - 2))
