"""Perceptual loss on activations of a frozen network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError

LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weights of relu1_1 .. relu5_1: coarse layers count most."""


def perceptual_loss(
    network: Callable[[Tensor], Sequence[Tensor]],
    fake: Tensor,
    real: Tensor,
    weights: Sequence[float] = LAYER_WEIGHTS,
) -> Tensor:
    r"""``sum_n w_n mean |VGG_n(fake) - VGG_n(real)|``.

    Args:
        network: Gives the activations of pictures, such as
            :class:`~talkhead.networks.perceptual.VGG19Features`.
        fake: Generated pictures ``(n, 3, H, W)`` in [-1, 1].
        real: Real pictures of the same shape; no gradient goes there.
        weights: One weight per activation.

    Returns:
        Scalar.

    Raises:
        ShapeError: Pictures differ in shape, or the number of weights is not that of the
        activations.

    Source: paper 1 eq. III; weights of PC-AVS (reference-facts 3.4).
    """
    if fake.shape != real.shape:
        raise ShapeError(
            f"expected pictures of one shape, got {tuple(fake.shape)} and {tuple(real.shape)}."
        )
    with torch.no_grad():
        goals = network(real.detach())
    layers = network(fake)
    if len(layers) != len(weights):
        raise ShapeError(
            f"expected {len(weights)} activations, one per weight, got {len(layers)}; pass as many "
            "weights as the network has taps."
        )
    terms = [w * F.l1_loss(x, goal) for w, x, goal in zip(weights, layers, goals, strict=True)]
    return torch.stack(terms).sum()
