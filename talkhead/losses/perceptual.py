"""Perceptual loss on activations of a frozen network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError

LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
"""Weights of relu1_1 .. relu5_1: coarse layers count most."""
EQUAL_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0)
MIN_SIDE = 16
"""VGG-19 halves a picture four times before its last tap."""


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


def multi_scale_perceptual_loss(
    network: Callable[[Tensor], Sequence[Tensor]],
    fake: Tensor,
    real: Tensor,
    scales: int = 4,
    weights: Sequence[float] = EQUAL_WEIGHTS,
) -> Tensor:
    r"""``sum_s sum_n w_n mean |VGG_n(fake_s) - VGG_n(real_s)|`` over pictures of 1, 1/2, 1/4 … of the side.

    Args:
        network: As in :func:`perceptual_loss`.
        fake: Generated pictures ``(n, 3, H, W)`` in [-1, 1].
        real: Real pictures of the same shape; no gradient goes there.
        scales: Number of sizes, of which the smallest must have at least 16 pixels.
        weights: One weight per activation.

    Returns:
        Scalar; with one scale the :func:`perceptual_loss` of these weights.

    Raises:
        ConfigError: No scale, or the smallest pictures are too small.
        ShapeError: As :func:`perceptual_loss`.

    Source: FOMM, with weight 10 for each of the 20 terms (reference-facts 6.1).
    """
    smallest = min(fake.shape[-2:]) >> (scales - 1) if scales > 0 else 0
    if smallest < MIN_SIDE:
        raise ConfigError(
            f"perceptual_scales: expected 1 or more, of which the smallest has at least {MIN_SIDE} pixels, "
            f"got {scales} of pictures of {fake.shape[-2]}x{fake.shape[-1]}; use fewer scales."
        )
    terms = [
        perceptual_loss(network, reduced(fake, 2**s), reduced(real, 2**s), weights)
        for s in range(scales)
    ]
    return torch.stack(terms).sum()


def reduced(pictures: Tensor, factor: int) -> Tensor:
    """Every ``factor``-th pixel of blurred pictures, the first one included.

    The blur is a Gaussian with a deviation of ``(factor - 1) / 2`` pixels, cut at four deviations; beyond
    the border, the outer pixels are repeated.

    Args:
        pictures: ``(n, C, H, W)``.
        factor: 1 changes nothing.

    Returns:
        ``(n, C, ceil(H / factor), ceil(W / factor))``.

    Source: FOMM's anti-aliased pyramid. Deviates: it lets the border fade to the middle of the value range.
    """
    if factor == 1:
        return pictures
    sigma = (factor - 1) / 2
    reach = round(4 * sigma)
    steps = torch.arange(-reach, reach + 1, device=pictures.device, dtype=pictures.dtype)
    kernel = torch.exp(-(steps / sigma).square() / 2)
    kernel = (kernel / kernel.sum()).expand(pictures.shape[1], 1, -1)
    padded = F.pad(pictures, (reach, reach, reach, reach), mode="replicate")
    channels = pictures.shape[1]
    rows = F.conv2d(padded, kernel[..., None], stride=(factor, 1), groups=channels)
    return F.conv2d(rows, kernel[:, :, None], stride=(1, factor), groups=channels)
