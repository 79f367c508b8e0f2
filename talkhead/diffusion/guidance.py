"""Classifier-free guidance as one batched network pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]
"""``(x (B, T, D), n (B,)) -> x0 (B, T, D)``, conditions bound."""

Predictor = Callable[..., Tensor]
"""``(x (R, T, D), n (R,), *conditions) -> x0 (R, T, D)`` for any number of rows ``R``."""


def guided_denoiser(
    predict: Predictor,
    conditional: Sequence[Tensor | None],
    unconditional: Sequence[Tensor | None],
    scale: float,
) -> Denoiser:
    """Bind conditions to a network and mix its two answers.

    ``x0 = scale * conditional + (1 - scale) * unconditional``. Both answers come from one pass over
    ``2 B`` rows; ``scale == 1`` (plain conditional) and ``scale == 0`` (unconditional) need, and
    cost, ``B`` rows only. The conditions are stacked here, once, and not at every evaluation.

    Args:
        predict: Network call taking a noised batch, its steps and the conditions.
        conditional: Conditions with ``B`` rows each (None is passed through).
        unconditional: The same with the audio replaced by its null; everything else, clean frames
            included, must be the same in both.
        scale: Guidance scale ``s``; larger follows the audio more at the cost of diversity.

    Returns:
        A denoiser without free conditions.

    Source: eq. 10 of the prior's paper (Nichol et al., GLIDE).
    """
    if scale in (0.0, 1.0):
        bound = tuple(conditional if scale == 1.0 else unconditional)
        return lambda x, n: predict(x, n, *bound)
    stacked = tuple(
        None if c is None or u is None else torch.cat([c, u])
        for c, u in zip(conditional, unconditional, strict=True)
    )

    def both(x: Tensor, n: Tensor) -> Tensor:
        with_audio, without = predict(torch.cat([x, x]), torch.cat([n, n]), *stacked).chunk(2)
        return scale * with_audio + (1.0 - scale) * without

    return both
