"""Gaze and lids of the embedded corpus: saccades, small drift, and blinks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from talkhead.corpus.autoregression import Array, Real
from talkhead.specs import FPS

BLINK_TEMPLATE = np.array([0.6, 0.12, 0.0, 0.12, 0.45, 0.75, 0.93])
"""Factor on the lid opening over the 7 frames (0.28 s) of a blink."""

_HAZARD_PER_PAUSE = 0.35
_PAUSE_CAP = 3.0


@dataclass(frozen=True)
class EyeParams:
    """Law of the eyes.

    Attributes:
        blink_rate_hz: Hazard of a blink at mean prosody, once the refractory time is over.
        blink_refractory_s: Shortest time between two blinks' beginnings.
        saccade_rate_hz: Hazard of a gaze jump, once 0.2 s have passed since the last.
        camera_share: Probability that a jump goes back to the viewer.
        wander: Standard deviation (x, y) of the other targets.
        drift: Standard deviation of the drift around a target.
        drift_time_s: Time constant of the drift.
        yaw_coupling: Gaze units a radian of yaw (and of pitch) by which the eyes keep looking at
            the viewer while the head turns.
        lid_follow: Lid opening lost for each unit of looking down.
    """

    blink_rate_hz: float = 0.32
    blink_refractory_s: float = 0.6
    saccade_rate_hz: float = 0.7
    camera_share: float = 0.6
    wander: tuple[float, float] = (0.3, 0.14)
    drift: float = 0.012
    drift_time_s: float = 0.3
    yaw_coupling: float = 1.1
    lid_follow: float = 0.25


def blink_hazard(params: EyeParams, pause: Real) -> Array:
    """Blinks a second that would start at each frame if none is under way.

    ``rate * exp(0.35 min(z, 3))`` with ``z`` the z-scored pause flag: pauses raise it.

    Args:
        params: Law of the eyes.
        pause: ``(T,)`` the ``pause`` column of the prosody features.
    """
    capped = np.minimum(pause.astype(np.float64), _PAUSE_CAP)
    return np.asarray(params.blink_rate_hz * np.exp(_HAZARD_PER_PAUSE * capped))


def sample_blinks(hazard: Array, refractory_s: float, rng: np.random.Generator) -> list[int]:
    """First frames of the blinks: a point process that pauses after each event.

    Args:
        hazard: ``(T,)`` events a second outside the refractory time.
        refractory_s: Shortest time between two events.
        rng: Source of randomness.
    """
    chance = 1.0 - np.exp(-hazard / FPS)
    draws = rng.random(len(hazard))
    gap = max(1, round(refractory_s * FPS))
    out: list[int] = []
    for t in range(len(hazard)):
        if draws[t] < chance[t] and (not out or t - out[-1] >= gap):
            out.append(t)
    return out


def lid_openings(
    params: EyeParams, gaze: Array, blinks: list[int], rest: float = 1.0
) -> NDArray[np.float32]:
    """Opening of both lids, ``(T, 2)``: rest, less when looking down, times the blink template.

    Args:
        params: Law of the eyes.
        gaze: ``(T, 2)``.
        blinks: First frames.
        rest: The speaker's own opening.
    """
    opening = rest - params.lid_follow * gaze[:, 1]
    for start in blinks:
        stop = min(start + len(BLINK_TEMPLATE), len(opening))
        opening[start:stop] *= BLINK_TEMPLATE[: stop - start]
    both = np.clip(np.stack([opening, opening], axis=1), 0.0, 1.3)
    return np.asarray(both, dtype=np.float32)


def _targets(params: EyeParams, frames: int, rng: np.random.Generator) -> Array:
    """Wanted gaze, ``(T, 2)``: constant between jumps, halfway in a jump's frame."""
    chance = 1.0 - np.exp(-params.saccade_rate_hz / FPS)
    gap = round(0.2 * FPS)
    out = np.empty((frames, 2))
    target = _new_target(params, rng)
    since = gap
    for t in range(frames):
        since += 1
        if since >= gap and rng.random() < chance:
            before, target, since = target, _new_target(params, rng), 0
            out[t] = (before + target) / 2
        else:
            out[t] = target
    return out


def _new_target(params: EyeParams, rng: np.random.Generator) -> Array:
    """The viewer, or somewhere else."""
    if rng.random() < params.camera_share:
        return rng.normal(0.0, 0.05, 2)
    return rng.normal(0.0, params.wander)


def sample_gaze(params: EyeParams, pitch: Array, yaw: Array, rng: np.random.Generator) -> Array:
    """Gaze before the soft limit, ``(T, 2)``: jumps, drift, and counter-rotation of the eyes.

    Positive yaw turns the nose to picture-left, so the eyes go right; positive pitch lowers it, so
    the eyes go up.

    Args:
        params: Law of the eyes.
        pitch: ``(T,)`` head pitch in radians.
        yaw: ``(T,)`` head yaw in radians.
        rng: Source of randomness.
    """
    frames = len(yaw)
    keep = float(np.exp(-1.0 / (params.drift_time_s * FPS)))
    noise = rng.standard_normal((frames, 2)) * params.drift
    later, _ = lfilter([np.sqrt(1 - keep**2)], [1.0, -keep], noise[1:], axis=0, zi=keep * noise[:1])
    drift = np.concatenate([noise[:1], later])
    counter = params.yaw_coupling * np.stack([yaw, -pitch], axis=1)
    return np.asarray(_targets(params, frames, rng) + drift + counter)
