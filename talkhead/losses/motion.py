"""Losses of the motion priors: distance of codes and of their frame-to-frame changes."""

from __future__ import annotations

from torch import Tensor

from talkhead.errors import ShapeError


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over all entries of ``(B, T, D)`` whose frame is valid in ``(B, T)``; 0 if none is."""
    if mask is None:
        return values.mean()
    count = mask.sum() * values.shape[-1]
    return values.masked_fill(~mask[..., None], 0.0).sum() / count.clamp_min(1)


def code_loss(predicted: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """``L_simple``: mean squared error of codes over valid frames.

    ``L_simple = mean (n_hat_i - n_i)^2``

    Args:
        predicted: ``(B, T, D)``.
        target: Same shape.
        valid: ``(B, T)`` bool, False on padding; None is all valid.

    Returns:
        Scalar, 0 without a valid frame.

    Raises:
        ShapeError: Shapes differ.

    Source: paper 1 eq. 7; deviates: squared, as its supplement I.3 says (MSE), mean over dimensions.
    """
    return masked_mean(_error(predicted, target, valid).square(), valid)


def velocity_loss(predicted: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """``L_vel``: mean squared error of first differences over pairs of valid frames.

    ``L_vel = mean ((n_hat_i - n_hat_{i-1}) - (n_i - n_{i-1}))^2`` over ``L - 1`` differences.

    Args:
        predicted: ``(B, T, D)``.
        target: Same shape.
        valid: ``(B, T)`` bool, False on padding; None is all valid.

    Returns:
        Scalar, 0 without a pair of valid frames.

    Raises:
        ShapeError: Shapes differ.

    Source: paper 1 eq. 8 (from MDM); deviates: squared, mean over dimensions.
    """
    error = _error(predicted, target, valid)
    pairs = None if valid is None else valid[:, 1:] & valid[:, :-1]
    if error.shape[1] < 2:
        return (error * 0.0).sum()
    return masked_mean((error[:, 1:] - error[:, :-1]).square(), pairs)


def _error(predicted: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """Difference of two sequences, 0 on padding; refuses shapes that would broadcast silently."""
    if predicted.shape != target.shape or predicted.ndim != 3:
        raise ShapeError(
            f"expected two code sequences (B, T, D), got {tuple(predicted.shape)} and "
            f"{tuple(target.shape)}; pass one target per predicted frame."
        )
    error = predicted - target
    if valid is None:
        return error
    if valid.shape != predicted.shape[:2]:
        raise ShapeError(
            f"expected a mask {tuple(predicted.shape[:2])}, got {tuple(valid.shape)}; "
            "one flag per frame."
        )
    # filled, not multiplied, and before anything else: padding may hold NaN, and 0 * NaN is NaN,
    # in the value as well as in the gradient
    return error.masked_fill(~valid[..., None], 0.0)
