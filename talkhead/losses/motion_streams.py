"""Losses of coarse landmark motion: latent regularisation, cycle, independence, reconstruction."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from talkhead.errors import ConfigError, ShapeError
from talkhead.losses.contrastive import gather_with_grad
from talkhead.losses.disentangle import pearson_matrix

Norm = Literal["l2", "l1"]
"""Mean squared or mean absolute difference; the paper prints a norm without an index."""
Independence = Literal["decorrelated", "literal"]
"""Squared correlation of the streams' codes, or their distance as equation 5 prints it."""


def mean_distance(first: Tensor, second: Tensor, norm: Norm = "l2") -> Tensor:
    """Mean over all entries of the squared (``l2``) or absolute (``l1``) difference.

    Args:
        first: Any shape with an entry.
        second: The same shape.
        norm: See :data:`Norm`.

    Returns:
        Scalar of at least 0.

    Raises:
        ShapeError: Shapes differ, or there is no entry.
        ConfigError: An unknown norm.

    Source: paper 2, the norms of equations 4, 5 and 10; means in place of sums.
    """
    if norm not in get_args(Norm):
        raise ConfigError(f"expected norm out of {', '.join(get_args(Norm))}, got {norm!r}.")
    if first.shape != second.shape or first.numel() == 0:
        raise ShapeError(
            f"expected two tensors of one shape with entries, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
    difference = first - second
    return difference.square().mean() if norm == "l2" else difference.abs().mean()


def latent_regularisation(codes: Tensor, unchanged: Tensor, norm: Norm = "l2") -> Tensor:
    """``L_reg = |M_i - f_dec(M_i)| + |M_{i-1} - f_dec(M_{i-1})|``, mean over pairs of frames.

    Args:
        codes: ``M`` of real frames, ``(B, T, D)``, ``T >= 2``.
        unchanged: The same codes through the decoder with no change to make.
        norm: See :data:`Norm`.

    Raises:
        ShapeError: Shapes differ, or fewer than two frames.

    Source: paper 2 equation 4, read as auto-encoding in the space of codes (reference-facts 5.2).
    """
    if codes.ndim != 3 or codes.shape[1] < 2:
        raise ShapeError(f"expected codes (B, T, D) with T >= 2, got {tuple(codes.shape)}.")
    now = mean_distance(unchanged[:, 1:], codes[:, 1:], norm)
    return now + mean_distance(unchanged[:, :-1], codes[:, :-1], norm)


def independence_loss(
    rhythmic: Tensor, pose: Tensor, kind: Independence = "decorrelated", norm: Norm = "l2"
) -> Tensor:
    r"""How much the codes of the two streams say the same.

    ``decorrelated``: the mean over pairs of dimensions of the squared correlation
    ``1/D^2 sum_ij P_ij^2`` over all frames of the batch, on all ranks, after the mean of each run is taken
    off, so that who speaks does not count. From 0 (uncorrelated; by chance about 1 / frames) to 1.

    ``literal``: :func:`mean_distance` of the codes. Minimising it makes them *equal*.

    Args:
        rhythmic: ``(B, T, D)``.
        pose: ``(B, T, D)``, the same frames.
        kind: See :data:`Independence`.
        norm: Of the literal form.

    Returns:
        Scalar.

    Raises:
        ShapeError: Shapes differ, or not three axes.
        ConfigError: An unknown kind.

    Source: paper 2 equation 5, which calls the distance independence; decorrelation as reference-facts 5.2
        recommends, with the Pearson matrix of paper 1's equation 3.
    """
    if kind not in get_args(Independence):
        raise ConfigError(
            f"expected independence out of {', '.join(get_args(Independence))}, got {kind!r}."
        )
    if rhythmic.shape != pose.shape or rhythmic.ndim != 3:
        raise ShapeError(
            f"expected codes (B, T, D) of the same frames, got {tuple(rhythmic.shape)} and "
            f"{tuple(pose.shape)}."
        )
    if kind == "literal":
        return mean_distance(rhythmic, pose, norm)
    centred = [codes - codes.mean(1, keepdim=True) for codes in (rhythmic, pose)]
    first, second = (gather_with_grad(codes).flatten(0, 1) for codes in centred)
    return pearson_matrix(first, second).square().mean()
