"""Phoneme timings -> lip motion: dominance blending with closures that really close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from talkhead.corpus.speech import PAUSE, Phoneme
from talkhead.corpus.state import LIP_FIELDS, FloatArray
from talkhead.corpus.visemes import REST, Viseme, visemes
from talkhead.errors import ConfigError
from talkhead.specs import FPS

Times = NDArray[np.float64]

_VOICELESS_STOPS = ("p", "t", "k", "tS")
_STOP_LEAD_S = 0.045
"""eSpeak dates a voiceless stop at its burst; the closure is the 45 ms of silence before it
(measured over 240 stops of two voices)."""
_STOP_TAIL_S = 0.005
_MIN_CLOSURE_S = 1.25 / FPS
"""A closure longer than a frame cannot fall between two frame centres."""
_FALL_S = 0.05
_CLOSURE_FALL_S = 0.025
_REST_FALL_S = 0.09
_REST_FULL_S = 0.2
_EDGE_S = 0.03
_OPENING_S = 0.04


@dataclass(frozen=True)
class _Gesture:
    """One viseme in time."""

    viseme: Viseme
    start_s: float
    end_s: float
    strength: float = 1.0
    fall_s: float = _FALL_S


def _gestures(phonemes: Sequence[Phoneme]) -> list[_Gesture]:
    """Every viseme with the interval in which the mouth should be there."""
    out: list[_Gesture] = []
    for label, start, end in phonemes:
        if label == PAUSE:
            # A pause too short to relax in hardly moves the lips.
            strength = min(1.0, (end - start) / _REST_FULL_S) ** 2
            out.append(_Gesture(REST, start, end, strength, _REST_FALL_S))
            continue
        if label in _VOICELESS_STOPS:
            start, end = start - _STOP_LEAD_S, start + _STOP_TAIL_S
        parts = visemes(label)
        if parts[0].closes and end - start < _MIN_CLOSURE_S:
            middle = (start + end) / 2
            start, end = middle - _MIN_CLOSURE_S / 2, middle + _MIN_CLOSURE_S / 2
        times = np.linspace(start, end, len(parts) + 1)
        fall = _CLOSURE_FALL_S if parts[0].closes else _FALL_S
        out += [
            _Gesture(v, float(times[i]), float(times[i + 1]), fall_s=fall)
            for i, v in enumerate(parts)
        ]
    return out


def _outside(times: Times, gestures: list[_Gesture], edge: float) -> NDArray[np.float64]:
    """Distance in seconds of each time from each gesture's core, ``(T, N)``; 0 inside."""
    starts = np.array([g.start_s for g in gestures])
    ends = np.array([g.end_s for g in gestures])
    half = np.maximum((ends - starts) / 2 - edge, 0.0)
    away = np.abs(times[:, None] - (starts + ends) / 2)
    return np.asarray(np.maximum(away - half, 0.0))


def _blend(times: Times, gestures: list[_Gesture]) -> NDArray[np.float64]:
    """Mean of the targets, weighted with their dominances at each time, ``(T, 4)``."""
    falls = np.array([g.fall_s for g in gestures])
    strength = np.array([g.strength for g in gestures])
    reach = strength * np.exp(-_outside(times, gestures, _EDGE_S) / falls)
    weights = reach[:, :, None] * np.array([g.viseme.dominance for g in gestures])
    targets = np.array([g.viseme.target for g in gestures])
    total = weights.sum(1) + 1e-9
    rest = 1e-9 * np.array(REST.target)
    return np.asarray(((weights * targets).sum(1) + rest) / total)


def _closure(times: Times, gestures: list[_Gesture]) -> NDArray[np.float64]:
    """1 while a bilabial holds the lips together, falling to 0 over 40 ms around it, ``(T,)``."""
    closing = [g for g in gestures if g.viseme.closes]
    if not closing:
        return np.zeros(len(times))
    near = np.clip(1.0 - _outside(times, closing, 0.0) / _OPENING_S, 0.0, 1.0)
    return np.asarray((0.5 - 0.5 * np.cos(np.pi * near)).max(1))


def lip_motion(
    phonemes: Sequence[Phoneme], frames: int, articulation: float = 1.0
) -> dict[str, FloatArray]:
    r"""Lip fields of every frame, a deterministic function of the phoneme times.

    Each phoneme ``i`` has targets ``v_i`` and dominances ``a_i`` (:mod:`talkhead.corpus.visemes`).
    With ``d_i(t)`` the distance of ``t`` from the phoneme's core (its interval without 30 ms at
    either end), a field is the dominance-weighted mean

    .. math:: x(t) = \sum_i w_i v_i / \sum_i w_i, \qquad w_i(t) = a_i s_i \exp(-d_i(t) / \tau_i)

    with ``tau`` 50 ms (silence: 90 ms, bilabials: 25 ms) and ``s_i = 1`` (silence:
    ``min(1, duration / 0.2 s)^2``), so neighbours pull the lips before and after their own time.
    Bilabials then close the mouth for certain: ``jaw`` is multiplied by ``1 - c(t)`` and ``press``
    raised to at least ``0.9 c(t)``, where ``c`` is 1 in the closure and falls to 0 as a raised
    cosine over 40 ms. The closure of a voiceless stop is the 45 ms before the time eSpeak gives it
    (its burst). Frame ``f`` takes the value at its centre, ``(f + 0.5) / 25`` s.

    Args:
        phonemes: As in :class:`talkhead.corpus.speech.Speech`.
        frames: Number of frames ``T``.
        articulation: A speaker's style: factor on jaw, width and pucker, 0.5 to 1.3.

    Returns:
        ``jaw``, ``width``, ``pucker``, ``press``, each ``(T,)`` in the ranges of ``FaceState``.

    Raises:
        ConfigError: ``articulation`` is out of range.

    Source: Cohen & Massaro (1993), Modeling coarticulation in synthetic visual speech; deviates:
        flat cores, one fall time for both sides, explicit closure.
    """
    if not 0.5 <= articulation <= 1.3:
        raise ConfigError(f"articulation must be 0.5..1.3, got {articulation}.")
    times = (np.arange(frames) + 0.5) / FPS
    gestures = _gestures(phonemes) or [_Gesture(REST, 0.0, frames / FPS)]
    values = _blend(times, gestures)
    values[:, :3] *= articulation
    closed = _closure(times, gestures)
    values[:, 0] *= 1.0 - closed
    values[:, 3] = np.maximum(values[:, 3], 0.9 * closed)
    low, high = np.array([0.0, -1.0, 0.0, 0.0]), np.ones(4)
    values = np.clip(values, low, high)
    return {name: values[:, i].astype(np.float32) for i, name in enumerate(LIP_FIELDS)}
