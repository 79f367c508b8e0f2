"""Stationary Gaussian processes with one repeated pole: sampling, moments and exact likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Array = NDArray[np.float64]
Real = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class RepeatedPole:
    r"""Unit-variance AR(p) process with the single pole ``a = exp(-1 / time_constant)``, p times.

    .. math:: (1 - a L)^p x_t = e_t, \qquad e_t \sim N(0, q)

    ``L`` is the lag operator. Two poles make the speed continuous in the limit of fine time steps,
    three the acceleration, so a head moved by it does not tremble.

    Attributes:
        time_constant: In frames.
        order: Number of poles ``p``.
    """

    time_constant: float
    order: int

    @property
    def pole(self) -> float:
        """``a``."""
        return math.exp(-1.0 / self.time_constant)

    @cached_property
    def transition(self) -> Array:
        """Companion matrix ``(p, p)`` of the state ``(x_t, x_{t-1}, ...)``."""
        matrix = np.eye(self.order, k=-1)
        # Coefficients of -(1 - a L)^p without the leading 1.
        matrix[0] = [
            -math.comb(self.order, k) * (-self.pole) ** k for k in range(1, self.order + 1)
        ]
        return matrix

    @cached_property
    def _unscaled(self) -> Array:
        """State covariance for unit innovations; solves ``P = A P A' + Q``."""
        a, p = self.transition, self.order
        noise = np.zeros((p, p))
        noise[0, 0] = 1.0
        flat = np.linalg.solve(np.eye(p * p) - np.kron(a, a), noise.ravel())
        return np.asarray(flat.reshape(p, p))

    @property
    def innovation_variance(self) -> float:
        """``q`` that makes the variance of ``x`` one."""
        return float(1.0 / self._unscaled[0, 0])

    @property
    def state_covariance(self) -> Array:
        """Stationary covariance of the state, ``(p, p)``, ones on the diagonal."""
        return self._unscaled * self.innovation_variance

    def autocorrelation(self, lag: int) -> float:
        """``E[x_{t+lag} x_t]``; 1 at lag 0."""
        power = np.linalg.matrix_power(self.transition, abs(lag))
        return float((power @ self.state_covariance)[0, 0])

    def spectrum(self, frequencies: Array) -> Array:
        """Two-sided power density over cycles a frame; integrates to 1 over [-0.5, 0.5].

        Args:
            frequencies: Any shape.
        """
        response = np.abs(1.0 - self.pole * np.exp(-2j * np.pi * frequencies)) ** 2
        return np.asarray(self.innovation_variance / response**self.order)

    def sample(self, frames: int, channels: int, rng: np.random.Generator) -> Array:
        """Independent stationary samples, ``(frames, channels)``."""
        root = np.linalg.cholesky(self.state_covariance)
        state = root @ rng.standard_normal((self.order, channels))
        noise = math.sqrt(self.innovation_variance) * rng.standard_normal((frames, channels))
        weights = self.transition[0]
        # What the frames up to 0 contribute to each of the next ones.
        memory = np.stack([weights[k:] @ state[: self.order - k] for k in range(self.order)])
        later, _ = lfilter([1.0], np.append(1.0, -weights), noise, axis=0, zi=memory)
        return np.asarray(np.concatenate([state[:1], later])[:frames])


def gaussian_log_likelihood(residuals: Array, parts: Sequence[tuple[RepeatedPole, Array]]) -> Array:
    """Exact log-density of a sum of independent separable processes, by the Kalman filter.

    The process is ``sum_k S_k^(1/2) z_k`` with ``z_k`` independent unit processes of one kind in
    every channel, so its autocovariance is ``sum_k rho_k(lag) S_k``.

    Args:
        residuals: ``(K, T, C)``, K series scored at once.
        parts: The process and the channel covariance ``S_k`` ``(C, C)`` of each term.

    Returns:
        ``(K,)`` log-densities in nats.
    """
    _, frames, channels = residuals.shape
    transition = _block_diagonal([np.kron(p.transition, np.eye(channels)) for p, _ in parts])
    covariance = _block_diagonal([np.kron(p.state_covariance, s) for p, s in parts])
    first = [np.eye(p.order)[:1] for p, _ in parts]
    observe = np.hstack([np.kron(row, np.eye(channels)) for row in first])
    noise = _block_diagonal(
        [
            np.kron(row.T @ row * p.innovation_variance, s)
            for row, (p, s) in zip(first, parts, strict=True)
        ]
    )
    state = np.zeros((covariance.shape[0], residuals.shape[0]))
    total = np.zeros(residuals.shape[0])
    for t in range(frames):
        cross = covariance @ observe.T
        root = np.linalg.cholesky(observe @ cross)
        innovation = residuals[:, t].T - observe @ state
        white = np.linalg.solve(root, innovation)
        total -= 0.5 * (white**2).sum(0) + np.log(np.diag(root)).sum()
        gain = np.linalg.solve(root, cross.T)
        state = transition @ (state + gain.T @ white)
        covariance = transition @ (covariance - gain.T @ gain) @ transition.T + noise
        covariance = (covariance + covariance.T) / 2  # keeps rounding from making it indefinite
    return total - 0.5 * frames * channels * math.log(2 * math.pi)


def _block_diagonal(blocks: Sequence[Array]) -> Array:
    """The blocks along the diagonal of a zero matrix."""
    size = sum(len(b) for b in blocks)
    out = np.zeros((size, size))
    start = 0
    for block in blocks:
        out[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return out
