"""Conversions between what a denoiser may predict: the noise, the clean data, or the velocity.

With ``x = alpha * x0 + sigma * eps`` and ``v = alpha * eps - sigma * x0`` any two of the quantities
give the others. All functions broadcast ``alpha`` and ``sigma`` over the data.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from talkhead.errors import ConfigError

Target = Literal["x0", "eps", "v"]
TARGETS: tuple[Target, ...] = ("x0", "eps", "v")


def to_x0(kind: Target, prediction: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Clean data implied by a prediction of ``kind`` at the noised point ``x``.

    ``eps``: ``(x - sigma * eps) / alpha``; ``v``: ``alpha * x - sigma * v``; ``x0``: itself.

    Raises:
        ConfigError: Unknown kind.
    """
    if kind == "x0":
        return prediction
    if kind == "eps":
        return (x - sigma * prediction) / alpha
    if kind == "v":
        return alpha * x - sigma * prediction
    raise ConfigError(f"expected a target out of x0, eps, v, got {kind!r}; set one of them.")


def from_x0(kind: Target, x0: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a denoiser of ``kind`` should say at ``x`` if the clean data are ``x0``.

    The inverse of :func:`to_x0`:

    ``eps``: ``(x - alpha * x0) / sigma``; ``v``: ``(alpha * x - x0) / sigma``; ``x0``: itself.

    Raises:
        ConfigError: Unknown kind.
    """
    if kind == "x0":
        return x0
    if kind == "eps":
        return (x - alpha * x0) / sigma
    if kind == "v":
        return (alpha * x - x0) / sigma
    raise ConfigError(f"expected a target out of x0, eps, v, got {kind!r}; set one of them.")
