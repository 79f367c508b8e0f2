"""What an edited face may not change: everything outside the mouth box."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from talkhead.errors import ShapeError
from talkhead.losses.perceptual import EQUAL_WEIGHTS, multi_scale_perceptual_loss


def box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """Where boxes lie in pictures.

    Args:
        boxes: ``(n, 4)`` as ``x0, y0, x1, y1`` in [0, 1] of the picture.
        height: Rows of the mask.
        width: Columns of the mask.

    Returns:
        ``(n, 1, height, width)``, 1 where a pixel's centre lies in the box, else 0; float, without
        gradient.

    Raises:
        ShapeError: Not four numbers a box.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"expected boxes (n, 4), got {tuple(boxes.shape)}; flatten clips first.")
    boxes = boxes.detach()
    rows = (torch.arange(height, device=boxes.device) + 0.5).to(boxes.dtype) / height
    columns = (torch.arange(width, device=boxes.device) + 0.5).to(boxes.dtype) / width
    x0, y0, x1, y1 = (edge[:, None] for edge in boxes.unbind(1))
    across = (columns >= x0) & (columns < x1)
    down = (rows >= y0) & (rows < y1)
    return (down[:, None, :, None] & across[:, None, None, :]).to(boxes.dtype)


def outside_perceptual_loss(
    network: Callable[[Tensor], Sequence[Tensor]],
    fake: Tensor,
    real: Tensor,
    boxes: Tensor,
    scales: int = 2,
) -> Tensor:
    r"""Perceptual loss of pictures whose mouth box is blanked out.

    ``L_p = sum_j sum_s mean |phi_j(m d_s) - phi_j(m y_s)| / (S M)`` over ``M`` activations and ``S`` picture
    sizes, each half of the one before; ``m`` is 0 in the box and 1 elsewhere.

    Args:
        network: Gives the activations of pictures, five of them.
        fake: Generated pictures ``y`` ``(n, 3, H, W)`` in [-1, 1].
        real: Source pictures ``d``; no gradient goes there.
        boxes: ``(n, 4)``, see :func:`box_mask`; of both pictures.
        scales: Number of sizes ``S``.

    Returns:
        Scalar.

    Raises:
        ConfigError: The smallest pictures are too small for VGG.
        ShapeError: Shapes do not fit.

    Source: ControlTalk equation 4 with ``S = 2`` and figure 3. The norm is not given (mean absolute
        difference here, as in the papers it follows), nor the mask's shape (the box that the sync loss
        crops; reference-facts 7.6). A blanked pixel is 0, mid grey.
    """
    kept = _outside(fake, real, boxes)
    weights = [w / (len(EQUAL_WEIGHTS) * scales) for w in EQUAL_WEIGHTS]
    return multi_scale_perceptual_loss(network, kept * fake, kept * real, scales, weights)


def outside_difference(fake: Tensor, real: Tensor, boxes: Tensor) -> Tensor:
    r"""``sum m |y - d| / (3 sum m)`` of every picture, with ``m`` as in :func:`outside_perceptual_loss`.

    Args:
        fake: Generated pictures ``(n, 3, H, W)`` in [-1, 1].
        real: Source pictures.
        boxes: ``(n, 4)``.

    Returns:
        ``(n,)`` in [0, 2]; 0 for a box that covers the picture.

    Raises:
        ShapeError: Shapes do not fit.

    Source: ours, a perceptual loss for runs without VGG weights and a measure for all.
    """
    kept = _outside(fake, real, boxes)
    apart = (kept * (fake - real).abs()).sum((1, 2, 3))
    found: Tensor = apart / (fake.shape[1] * kept.sum((1, 2, 3))).clamp_min(1.0)
    return found


def _outside(fake: Tensor, real: Tensor, boxes: Tensor) -> Tensor:
    """1 outside the boxes, ``(n, 1, H, W)`` of the pictures' type."""
    if fake.shape != real.shape or fake.ndim != 4 or len(boxes) != len(fake):
        raise ShapeError(
            f"expected pictures (n, 3, H, W) of one shape and n boxes, got {tuple(fake.shape)}, "
            f"{tuple(real.shape)} and {tuple(boxes.shape)}; flatten clips first."
        )
    return 1.0 - box_mask(boxes, *fake.shape[-2:]).to(fake)
