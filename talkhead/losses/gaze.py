"""Gaze loss: generated eyes should look where the real ones do."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ShapeError


def gaze_loss(
    network: Callable[[Tensor, Tensor | None], Tensor],
    fake: Tensor,
    real: Tensor,
    landmarks: Tensor | None = None,
) -> Tensor:
    r"""``mean |Phi(fake) - Phi(real)|`` on features of a gaze estimator.

    Args:
        network: Features ``(n, D)`` of pictures and landmarks:
            :class:`~talkhead.networks.perceptual.GazeFeatures` or
            :class:`~talkhead.networks.gaze.GazeNet`.
        fake: Generated pictures ``(n, 3, H, W)`` in [-1, 1].
        real: Real pictures of the same shape; no gradient goes there.
        landmarks: ``(n, 478, 3)`` of the real pictures in crop units. Both pictures are cut by
            them, so that a misplaced generated face is not re-centred.

    Returns:
        Scalar.

    Raises:
        ShapeError: Pictures differ in shape.

    Source: paper 1 eq. 4; deviates: mean over features instead of their sum, as all other terms are
        averaged and all weights are 1 (reference-facts 10).
    """
    if fake.shape != real.shape:
        raise ShapeError(
            f"expected pictures of one shape, got {tuple(fake.shape)} and {tuple(real.shape)}."
        )
    with torch.no_grad():
        goal = network(real.detach(), landmarks)
    return F.l1_loss(network(fake, landmarks), goal)
