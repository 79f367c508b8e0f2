r"""The law of all motion other than the lips: known, stochastic, driven in part by the speech.

Eight continuous channels (:data:`CHANNELS`) follow

.. math:: x_t = r + m\,s + G\,d_t + \sqrt{S_{slow}}\,u_t + \sqrt{S_{fast}}\,v_t

- ``r`` is the speaker's rest pose;
- ``s`` is -1 or 1 for a whole take, equally likely: the side the head prefers. It makes the law of
  the motion given the speech bimodal (yaw, roll, shift);
- ``d_t`` are the three drives of the speech (:mod:`talkhead.corpus.drives`), ``G`` fixed;
- ``u`` and ``v`` are independent stationary Gaussian processes, alike in every channel: ``u`` slow
  (double pole, 3 s), ``v`` fast (triple pole, 0.24 s, so the head does not tremble).

Mean, autocovariance, spectrum and likelihood are therefore known exactly. Lids and gaze
(:mod:`talkhead.corpus.eye_motion`) are point and jump processes on top. Only a soft limit beyond
about three standard deviations departs from the formulas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np

from talkhead.corpus.autoregression import Array, Real, RepeatedPole, gaussian_log_likelihood
from talkhead.corpus.drives import DRIVE_CORRELATION, prosody_drives
from talkhead.corpus.eye_motion import (
    EyeParams,
    blink_hazard,
    lid_openings,
    sample_blinks,
    sample_gaze,
)
from talkhead.corpus.prosody import PROSODY_FEATURES
from talkhead.corpus.state import FloatArray
from talkhead.errors import ConfigError, ShapeError
from talkhead.specs import FPS

CHANNELS = (
    "pitch",
    "yaw",
    "roll",
    "shift_x",
    "shift_y",
    "scale",
    "brow_left",
    "brow_right",
)
"""Gaussian channels in order; ``scale`` is the size minus 1. Left and right are picture sides."""

LIMITS = np.array([0.35, 0.5, 0.35, 0.06, 0.06, 0.15, 1.0, 1.0])
"""Bounds that the soft limit keeps each channel within."""
GAZE_LIMIT = 0.9
_KNEE = 0.8

_SPREAD = np.array([0.075, 0.125, 0.05, 0.015, 0.012, 0.028, 0.27, 0.27])
_SHARE = np.array([0.35, 0.25, 0.25, 0.15, 0.25, 0.15, 0.35, 0.35])
_MODE = np.array([0.0, 0.07, -0.025, -0.006, 0.0, 0.0, 0.0, 0.0])
# Directions of the response to accent, lift, engagement: an accent nods (positive pitch is down)
# and raises the brows, a high melody lifts the head, speaking brings it closer.
_DIRECTION = np.array(
    [
        [1.0, -0.8, 0.2],
        [0.4, 0.3, 0.9],
        [0.3, 0.8, -0.4],
        [-0.4, -0.3, -0.9],
        [0.9, -0.6, 0.2],
        [0.3, 0.2, 1.0],
        [0.9, 0.8, -0.2],
        [0.9, 0.7, -0.2],
    ]
)
# Residual correlations: the head shifts as it turns, the brows go together.
_CORRELATED = (
    ("yaw", "shift_x", -0.6),
    ("pitch", "shift_y", 0.6),
    ("yaw", "roll", 0.25),
    ("roll", "shift_x", 0.2),
    ("brow_left", "brow_right", 0.9),
    ("pitch", "brow_left", -0.2),
    ("pitch", "brow_right", -0.2),
)


@dataclass(frozen=True)
class MotionParams:
    """Parameters of the law; :meth:`personal` draws a speaker's own.

    Attributes:
        head_gain: Factor on everything the rotation, shift and size do.
        brow_gain: The same for the brows.
        rest: Rest value of every channel, ``(8,)``.
        lid_rest: Lid opening at rest.
        slow_share: Share of the residual's variance that is slow.
        slow_time_s: Time constant of the slow double pole.
        fast_time_s: Time constant of the fast triple pole.
        eyes: Law of lids and gaze.
    """

    head_gain: float = 1.0
    brow_gain: float = 1.0
    rest: tuple[float, ...] = (0.0,) * len(CHANNELS)
    lid_rest: float = 1.0
    slow_share: float = 0.45
    slow_time_s: float = 3.0
    fast_time_s: float = 0.24
    eyes: EyeParams = field(default_factory=EyeParams)

    @classmethod
    def personal(cls, rng: np.random.Generator) -> MotionParams:
        """A speaker's style: liveliness, rest pose, blink and gaze rates."""
        rest = rng.normal(0.0, 1.0, len(CHANNELS)) * 0.3 * _SPREAD
        rest[7] = rest[6] + 0.02 * rng.normal()
        eyes = EyeParams(
            blink_rate_hz=float(0.32 * rng.uniform(0.8, 1.25)),
            saccade_rate_hz=float(0.7 * rng.uniform(0.7, 1.3)),
            camera_share=float(rng.uniform(0.5, 0.75)),
        )
        return cls(
            head_gain=float(rng.uniform(0.75, 1.1)),
            brow_gain=float(rng.uniform(0.75, 1.15)),
            rest=tuple(float(v) for v in rest),
            lid_rest=float(rng.uniform(0.94, 1.04)),
            fast_time_s=float(rng.uniform(0.21, 0.28)),
            eyes=eyes,
        )

    def to_json(self) -> str:
        """Text form, for truth files."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> MotionParams:
        """Inverse of :meth:`to_json`."""
        values = json.loads(text)
        eyes = values.pop("eyes")
        eyes["wander"] = tuple(eyes["wander"])
        values["rest"] = tuple(values["rest"])
        return replace(cls(**values), eyes=EyeParams(**eyes))


@dataclass(frozen=True)
class NonLipMotion:
    """One take of non-lip motion; the fields are those of ``FaceState``.

    Attributes:
        side: The take's preferred side ``s``, -1 or 1.
        blinks: First frames of the blinks.
    """

    rotation: FloatArray
    translation: FloatArray
    scale: FloatArray
    brows: FloatArray
    lids: FloatArray
    gaze: FloatArray
    side: int
    blinks: tuple[int, ...]

    def fields(self) -> dict[str, FloatArray]:
        """Arrays by the names of ``NONLIP_FIELDS``."""
        names = ("rotation", "translation", "scale", "brows", "lids", "gaze")
        return {name: getattr(self, name) for name in names}

    def channels(self) -> FloatArray:
        """The Gaussian channels, ``(T, 8)``."""
        return gaussian_channels(self.fields())


def gaussian_channels(fields: Mapping[str, Real]) -> FloatArray:
    """The channels :data:`CHANNELS` of a state's arrays (``FaceState.arrays()``), ``(T, 8)``."""
    parts = (
        fields["rotation"],
        fields["translation"],
        fields["scale"][:, None] - 1.0,
        fields["brows"],
    )
    return np.asarray(np.concatenate(parts, axis=1), dtype=np.float32)


def soft_limit(values: Array, limit: Array | float) -> Array:
    """Identity up to 80 % of the limit, then a smooth approach to it."""
    knee = _KNEE * np.asarray(limit)
    room = np.asarray(limit) - knee
    beyond = np.maximum(np.abs(values) - knee, 0.0)
    return np.asarray(
        np.sign(values) * (np.minimum(np.abs(values), knee) + room * np.tanh(beyond / room))
    )


class MotionProcess:
    """Sampler and exact statistics of the law described on top of this file.

    Args:
        params: A speaker's parameters; None takes the defaults.

    Raises:
        ConfigError: A parameter is out of range.
    """

    def __init__(self, params: MotionParams | None = None) -> None:
        """Fix the matrices of the law."""
        self.params = params or MotionParams()
        if len(self.params.rest) != len(CHANNELS) or not 0 <= self.params.slow_share <= 1:
            raise ConfigError(
                f"motion needs {len(CHANNELS)} rest values and slow_share in 0..1, got "
                f"{len(self.params.rest)} and {self.params.slow_share}."
            )
        gain = np.array([self.params.head_gain] * 6 + [self.params.brow_gain] * 2)
        self._spread = _SPREAD * gain
        self.side_offset: Array = _MODE * gain
        self.rest: Array = np.array(self.params.rest)
        power = np.einsum("cd,de,ce->c", _DIRECTION, DRIVE_CORRELATION, _DIRECTION)
        scale = np.sqrt(_SHARE) * self._spread / np.sqrt(power)
        self.response: Array = scale[:, None] * _DIRECTION
        self.slow = RepeatedPole(self.params.slow_time_s * FPS, order=2)
        self.fast = RepeatedPole(self.params.fast_time_s * FPS, order=3)

    @cached_property
    def residual_covariance(self) -> Array:
        """Covariance of the residual given the side, ``(8, 8)``."""
        correlation = np.eye(len(CHANNELS))
        for first, second, value in _CORRELATED:
            i, j = CHANNELS.index(first), CHANNELS.index(second)
            correlation[i, j] = correlation[j, i] = value
        spread = np.sqrt(self._spread**2 * (1 - _SHARE) - self.side_offset**2)
        return np.asarray(correlation * spread[:, None] * spread)

    @property
    def _parts(self) -> tuple[tuple[RepeatedPole, Array], tuple[RepeatedPole, Array]]:
        """Both residual processes with their channel covariances."""
        share = self.params.slow_share
        whole = self.residual_covariance
        return (self.slow, share * whole), (self.fast, (1 - share) * whole)

    def mean(self, features: Real, side: int | None = None) -> Array:
        """Expected channels given the speech, ``(T, 8)``.

        Args:
            features: Prosody features ``(T, P)``.
            side: -1 or 1: given that the take prefers this side; None: over both.
        """
        offset = self.rest + self.side_offset * (side or 0)
        return np.asarray(offset + prosody_drives(features) @ self.response.T)

    def autocovariance(self, lag: int) -> Array:
        """``E[r_{t+lag} r_t']`` of the residual given speech and side, ``(8, 8)``."""
        return np.asarray(sum(p.autocorrelation(lag) * s for p, s in self._parts))

    def spectrum(self, frequencies_hz: Real) -> Array:
        """Two-sided power density of each channel's residual.

        Args:
            frequencies_hz: ``(N,)`` from -12.5 to 12.5 Hz.

        Returns:
            ``(N, 8)`` in squared channel units a Hz; integrates to the residual variance.
        """
        cycles = np.asarray(frequencies_hz, dtype=np.float64) / FPS
        return np.asarray(
            sum(np.outer(p.spectrum(cycles), np.diag(s)) for p, s in self._parts) / FPS
        )

    def variance(self) -> Array:
        """Variance of each channel over speech, side and chance, ``(8,)``, around its rest."""
        return np.asarray(self._spread**2)

    def explained_share(self, channel: str) -> float:
        """Share of a channel's variance that the speech explains, over the embedded corpus.

        A single clip departs from it as far as its drives do from the corpus mean.

        Raises:
            ConfigError: No such channel.
        """
        if channel not in CHANNELS:
            raise ConfigError(f"no channel {channel!r}; expected one of {', '.join(CHANNELS)}.")
        return float(_SHARE[CHANNELS.index(channel)])

    def log_likelihood(self, motion: Real, features: Real) -> float:
        """Exact log-density of the Gaussian channels given the speech, over both sides.

        Args:
            motion: ``(T, 8)`` in the order of :data:`CHANNELS`.
            features: Prosody features ``(T, P)``.

        Returns:
            Nats for the whole clip.

        Raises:
            ShapeError: Shapes do not fit.
        """
        if motion.shape != (len(features), len(CHANNELS)):
            raise ShapeError(
                f"motion must be {(len(features), len(CHANNELS))}, one row for each prosody row, "
                f"got {motion.shape}."
            )
        residuals = np.stack([motion - self.mean(features, side) for side in (-1, 1)])
        scores = gaussian_log_likelihood(residuals.astype(np.float64), self._parts)
        return float(np.logaddexp.reduce(scores) - np.log(2.0))

    def sample(
        self, features: Real, rng: np.random.Generator, takes: int = 1
    ) -> list[NonLipMotion]:
        """Independent motions for the same speech.

        Args:
            features: Prosody features ``(T, P)``.
            rng: Source of all randomness.
            takes: How many.
        """
        return [self._one(features, rng) for _ in range(takes)]

    def _one(self, features: Real, rng: np.random.Generator) -> NonLipMotion:
        """One take."""
        side = 1 if rng.random() < 0.5 else -1
        values = self.mean(features, side)
        for process, covariance in self._parts:
            noise = process.sample(len(features), len(CHANNELS), rng)
            # A vanishing share leaves a zero matrix, which has no Cholesky root.
            if covariance.any():
                values += noise @ np.linalg.cholesky(covariance).T
        values = soft_limit(values, LIMITS)
        gaze = soft_limit(
            sample_gaze(self.params.eyes, values[:, 0], values[:, 1], rng), GAZE_LIMIT
        )
        pause = features[:, PROSODY_FEATURES.index("pause")]
        hazard = blink_hazard(self.params.eyes, pause)
        blinks = sample_blinks(hazard, self.params.eyes.blink_refractory_s, rng)
        single = values.astype(np.float32)
        return NonLipMotion(
            rotation=single[:, 0:3],
            translation=single[:, 3:5],
            scale=1.0 + single[:, 5],
            brows=single[:, 6:8],
            lids=lid_openings(self.params.eyes, gaze, blinks, self.params.lid_rest),
            gaze=gaze.astype(np.float32),
            side=side,
            blinks=tuple(blinks),
        )
