"""Losses of the generator and the discriminator, averaged over scales."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError

_GENERATOR: dict[str, Callable[[Tensor], Tensor]] = {
    "hinge": torch.neg,
    "log": lambda fake: F.softplus(-fake),
    "least_squares": lambda fake: (1.0 - fake).square(),
}
_DISCRIMINATOR: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "hinge": (lambda real: F.relu(1.0 - real), lambda fake: F.relu(1.0 + fake)),
    "log": (lambda real: F.softplus(-real), F.softplus),
    "least_squares": (lambda real: (1.0 - real).square(), torch.square),
}
"""Loss of each logit by mode: the generator's, and the discriminator's of real and generated pictures."""
MODES = tuple(_GENERATOR)


def generator_loss(fake: Sequence[Tensor], *, mode: str = "hinge") -> Tensor:
    """Loss of the generator.

    Hinge: ``-mean(D)``; log: ``mean(softplus(-D))``, non-saturating; least squares: ``mean((1 - D)^2)``.

    Args:
        fake: Logits of generated pictures, one tensor per scale; each scale weighs the same.
        mode: ``"hinge"``, ``"log"`` or ``"least_squares"``.

    Returns:
        Scalar.

    Raises:
        ConfigError: Another mode.
        ShapeError: No scale.

    Source: paper 1 eq. I writes the log form, the code it builds on uses the hinge (reference-facts
        3.4). The log form is the non-saturating one: the printed ``log(1 - D)`` gives the generator
        no gradient where the discriminator is sure. Least squares is FOMM's (reference-facts 6.1).
    """
    _check(mode, fake)
    return torch.stack([_GENERATOR[mode](x).mean() for x in fake]).mean()


def discriminator_loss(
    real: Sequence[Tensor], fake: Sequence[Tensor], *, mode: str = "hinge"
) -> Tensor:
    """Loss of the discriminator.

    Hinge: ``mean(max(0, 1 - D(real))) + mean(max(0, 1 + D(fake)))``; log:
    ``mean(softplus(-D(real))) + mean(softplus(D(fake)))``; least squares:
    ``mean((1 - D(real))^2) + mean(D(fake)^2)``.

    Args:
        real: Logits of real pictures, one tensor per scale.
        fake: Logits of generated pictures, as many.
        mode: ``"hinge"``, ``"log"`` or ``"least_squares"``.

    Returns:
        Scalar.

    Raises:
        ConfigError: Another mode.
        ShapeError: No scale, or not the same number of them.

    Source: as :func:`generator_loss`.
    """
    _check(mode, real, fake)
    of_real, of_fake = _DISCRIMINATOR[mode]
    terms = [of_real(r).mean() + of_fake(f).mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).mean()


def r1_penalty(logits: Sequence[Tensor], pictures: Tensor) -> Tensor:
    """Squared gradient of the discriminator at real pictures: ``mean_n |d(sum_s mean D_s) / dx_n|^2``.

    Args:
        logits: Logits of ``pictures``, one tensor ``(n, …)`` per scale; each scale is averaged over its
            patches and over scales, so the penalty depends on neither number.
        pictures: ``(n, 3, H, W)``, requiring gradients.

    Returns:
        Scalar, differentiable.

    Raises:
        ShapeError: The pictures do not require gradients.

    Source: Mescheder et al. (2018), R1 without its factor 1/2 gamma; not in paper 1, off by default.
    """
    if not pictures.requires_grad:
        raise ShapeError(
            "expected pictures that require gradients; call requires_grad_() before D."
        )
    score = torch.stack([x.float().flatten(1).mean(1) for x in logits]).mean(0).sum()
    (gradient,) = torch.autograd.grad(score, pictures, create_graph=True)
    penalty: Tensor = gradient.float().square().flatten(1).sum(1).mean()
    return penalty


def _check(mode: str, *logits: Sequence[Tensor]) -> None:
    if mode not in MODES:
        raise ConfigError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}.")
    counts = [len(x) for x in logits]
    if min(counts) == 0 or len(set(counts)) > 1:
        raise ShapeError(
            f"expected logits of the same, positive number of scales, got {counts}; pass the "
            "output of one discriminator."
        )
