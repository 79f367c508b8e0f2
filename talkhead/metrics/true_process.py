"""The embedded corpus's law of non-lip motion as the truth that metrics compare with.

Channels are :data:`talkhead.corpus.motion_process.CHANNELS`: pitch, yaw, roll, shifts, size, brows.
A prior's samples reach them through a linear read-out fitted on the training split
(:class:`talkhead.readout.Readout` from codes or descriptors to the true channels).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from talkhead.corpus.motion_process import MotionProcess
from talkhead.metrics.spectrum import MAX_LAG_FRAMES, SequenceMoments


def true_moments(
    process: MotionProcess, features: NDArray[Any], max_lag: int = MAX_LAG_FRAMES
) -> SequenceMoments:
    """Exact mean and autocovariance of the channels given one speech.

    A take's preferred side is -1 or 1 with equal chance and stays, so it adds ``m^2`` to the
    covariance at every lag. The soft limit beyond about three standard deviations is left out.

    Args:
        process: A speaker's law.
        features: Prosody features ``(T, P)`` of the speech.
        max_lag: Largest lag in frames.

    Returns:
        Moments of the 8 channels, closed form.
    """
    mean = torch.from_numpy(np.asarray(process.mean(features), np.float64))
    side = process.side_offset**2
    lags = [np.diag(process.autocovariance(lag)) + side for lag in range(max_lag + 1)]
    return SequenceMoments(mean, torch.from_numpy(np.stack(lags)))


def true_takes(
    process: MotionProcess, features: NDArray[Any], takes: int, rng: np.random.Generator
) -> Tensor:
    """Channels of ``takes`` true motions for one speech, ``(K, T, 8)``."""
    drawn = [take.channels() for take in process.sample(features, rng, takes)]
    return torch.from_numpy(np.stack(drawn))
