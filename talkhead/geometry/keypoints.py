"""The keypoint space of MS-Sync: ten points of the picture, each with a 2x2 Jacobian.

Points lie in ``[-1, 1]`` with x to the right, y down and (0, 0) in the middle of the picture. A Jacobian
is the local affine frame there: column ``i`` says where a small step along axis ``i`` of the reference
goes. Six numbers hold one keypoint, ``x, y, j00, j01, j10, j11``, and a row of 60 a frame, keypoint
after keypoint.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from talkhead.errors import ConfigError, ShapeError

N_KEYPOINTS = 10
KEYPOINT_DIM = 6
"""Numbers of one keypoint."""
ROW_DIM = N_KEYPOINTS * KEYPOINT_DIM
"""Numbers of one frame."""
JACOBIAN_FLOOR = 0.05
"""Singular values below this are treated as a collapse; a face that fills the picture has about 1."""


class Keypoints(NamedTuple):
    """Points ``(..., K, 2)`` and Jacobians ``(..., K, 2, 2)``."""

    points: Tensor
    jacobians: Tensor


def pack(points: Tensor, jacobians: Tensor) -> Tensor:
    """Keypoints as rows.

    One keypoint at (0.5, -0.25) with the Jacobian ``[[1, 2], [3, 4]]`` is
    ``0.5, -0.25, 1, 2, 3, 4``.

    Args:
        points: ``(..., K, 2)``.
        jacobians: ``(..., K, 2, 2)``.

    Returns:
        ``(..., 6 K)``.

    Raises:
        ShapeError: The shapes do not belong together.
    """
    if points.ndim < 2 or points.shape[-1] != 2 or jacobians.shape != (*points.shape, 2):
        raise ShapeError(
            f"expected points (..., K, 2) and Jacobians (..., K, 2, 2), got {tuple(points.shape)} and "
            f"{tuple(jacobians.shape)}; pass both parts of the same keypoints."
        )
    return torch.cat([points, jacobians.flatten(-2)], dim=-1).flatten(-2)


def unpack(rows: Tensor) -> Keypoints:
    """Points and Jacobians of rows, the inverse of :func:`pack`.

    Args:
        rows: ``(..., 6 K)``.

    Returns:
        Views into ``rows`` where its memory allows them.

    Raises:
        ShapeError: The last axis is no multiple of 6.
    """
    numbers = _by_keypoint(rows)
    return Keypoints(numbers[..., :2], numbers[..., 2:].unflatten(-1, (2, 2)))


def scaled_and_shifted(rows: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Keypoints of pictures enlarged about their middle and then moved.

    All six numbers are multiplied by ``scale``, and ``shift`` is added to the points.

    Args:
        rows: ``(B, T, 6 K)``.
        scale: ``(B,)``, 1 for nothing.
        shift: ``(B, 2)``, right and down.

    Returns:
        As ``rows``.

    Raises:
        ShapeError: The shapes do not belong together.

    Source: the augmentation of MS-Sync's released code (reference-facts 6.3).
    """
    if rows.ndim != 3 or scale.shape != rows.shape[:1] or shift.shape != (rows.shape[0], 2):
        raise ShapeError(
            f"expected rows (B, T, 6 K), scale (B,) and shift (B, 2), got {tuple(rows.shape)}, "
            f"{tuple(scale.shape)} and {tuple(shift.shape)}; draw one of each for a sequence."
        )
    numbers = _by_keypoint(rows) * scale[:, None, None, None]
    moves = F.pad(shift, (0, KEYPOINT_DIM - 2))
    return (numbers + moves[:, None, None]).flatten(-2)


def smoothed(rows: Tensor, taps: int = 3) -> Tensor:
    """Moving average over time, the first and the last row standing for what lies beyond them.

    ``0, 3, 0`` becomes ``1, 1, 1``, and a constant stays.

    Args:
        rows: ``(..., T, D)``.
        taps: Rows averaged, an odd number; 1 changes nothing.

    Returns:
        As ``rows``.

    Raises:
        ConfigError: An even number of taps, or less than 1.
        ShapeError: Fewer than two axes, or an empty one among the last two.

    Source: the released code of MS-Sync smooths with three taps before all else (reference-facts 6.3);
        the paper does not say so.
    """
    if taps < 1 or taps % 2 == 0:
        raise ConfigError(f"taps: expected an odd number of at least 1, got {taps}; use 3.")
    if rows.ndim < 2 or 0 in rows.shape[-2:]:
        raise ShapeError(
            f"expected rows (..., T, D), got {tuple(rows.shape)}; pass whole sequences."
        )
    reach = taps // 2
    columns = rows.reshape(-1, *rows.shape[-2:]).transpose(1, 2)
    padded = F.pad(columns, (reach, reach), mode="replicate")
    return F.avg_pool1d(padded, taps, stride=1).transpose(1, 2).reshape(rows.shape)


def guarded_inverse(jacobians: Tensor, floor: float = JACOBIAN_FLOOR) -> Tensor:
    """Inverse of 2x2 matrices, except that a direction about to collapse is not blown up.

    With the singular value decomposition ``J = U diag(s) V^T`` the result is ``V diag(g(s)) U^T``,
    where ``g(s) = 1 / s`` down to the floor and ``s / floor^2`` below it: no singular value of the
    result exceeds ``1 / floor``. Where all singular values reach the floor this is the true inverse.

    Letting ``g`` fall to 0 instead of holding it at ``1 / floor`` makes the result continuous where a
    determinant changes its sign (held, it would jump from ``+1 / floor`` to ``-1 / floor`` there) and
    bounds its slope everywhere, also at equal singular values and at the zero matrix, whose result is
    zero.

    Args:
        jacobians: ``(..., 2, 2)``.
        floor: Smallest singular value that is inverted as it is.

    Returns:
        ``(..., 2, 2)``.

    Raises:
        ShapeError: Not 2x2 matrices.
        ConfigError: A floor that is not above 0.

    Source: ours; the released renderer inverts without a guard (reference-facts 6.1).
    """
    if jacobians.ndim < 2 or jacobians.shape[-2:] != (2, 2):
        raise ShapeError(
            f"expected Jacobians (..., 2, 2), got {tuple(jacobians.shape)}; unpack rows first."
        )
    if floor <= 0:
        raise ConfigError(f"floor: expected a number above 0, got {floor}; use {JACOBIAN_FLOOR}.")
    (a, b), (c, d) = (row.unbind(-1) for row in jacobians.unbind(-2))
    adjugate = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2))
    with torch.no_grad():
        large, small = _singular_values(jacobians)
        whole, collapsed = small.abs() >= floor, large < floor
    # Each formula only sees the matrices it is for: where() would pass on NaN gradients of the others.
    one = torch.ones_like(a)
    inverse = adjugate / torch.where(whole, a * d - b * c, one)[..., None, None]
    faint = jacobians.transpose(-1, -2) / floor**2
    half = jacobians.new_tensor([[2 * floor, 0.0], [0.0, 0.0]])
    between = (~whole & ~collapsed)[..., None, None]
    mixed = _half_guarded(torch.where(between, jacobians, half), floor)
    return torch.where(
        whole[..., None, None],
        inverse,
        torch.where(collapsed[..., None, None], faint, mixed),
    )


def _by_keypoint(rows: Tensor) -> Tensor:
    """``(..., 6 K)`` as ``(..., K, 6)``."""
    if rows.ndim == 0 or rows.shape[-1] == 0 or rows.shape[-1] % KEYPOINT_DIM:
        raise ShapeError(
            f"expected rows (..., {KEYPOINT_DIM} K), got {tuple(rows.shape)}; pack keypoints as x, y and "
            "the Jacobian row by row."
        )
    numbers: Tensor = rows.unflatten(-1, (-1, KEYPOINT_DIM))
    return numbers


def _parts(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The scaled rotation and the scaled reflection whose sum a 2x2 matrix is."""
    (a, b), (c, d) = (row.unbind(-1) for row in matrices.unbind(-2))
    turn = torch.stack([a + d, b - c, c - b, a + d], dim=-1).unflatten(-1, (2, 2)) / 2
    return turn, matrices - turn


def _size(part: Tensor, least: float = 0.0) -> Tensor:
    """Singular value of a scaled rotation or reflection, at least ``least``."""
    squares = part[..., 0, :].square().sum(-1)
    size: Tensor = squares.clamp_min(least**2).sqrt()
    return size


def _singular_values(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The larger singular value and the smaller one, which has the sign of the determinant."""
    turn, mirror = (_size(part) for part in _parts(matrices))
    return turn + mirror, turn - mirror


def _half_guarded(matrices: Tensor, floor: float) -> Tensor:
    """:func:`guarded_inverse` where one singular value reaches the floor and the other does not.

    Both parts of the matrix (:func:`_parts`) keep their direction: the rotation is transposed and gets
    the size ``(g(s1) + g(s2)) / 2``, the reflection ``(g(s1) - g(s2)) / 2``.
    """
    turn, mirror = _parts(matrices)
    # One of them may vanish where both singular values are at the floor, and is divided by.
    turn_size, mirror_size = (_size(part, 1e-4 * floor) for part in (turn, mirror))
    large, small = 1 / (turn_size + mirror_size), (turn_size - mirror_size) / floor**2
    turned = ((large + small) / (2 * turn_size))[..., None, None] * turn.transpose(-1, -2)
    return turned + ((large - small) / (2 * mirror_size))[..., None, None] * mirror
