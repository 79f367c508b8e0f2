"""Pictures of keypoints: the grid of pixel places and a Gaussian spot around each point."""

from __future__ import annotations

import torch
from torch import Tensor


def corner_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Places of the pixels of a map, x before y: -1 and 1 are the centres of the corner pixels.

    Args:
        height: Rows of the map.
        width: Columns of the map.
        like: A tensor of the device and type wanted.

    Returns:
        ``(height, width, 2)``.
    """
    xs = torch.linspace(-1.0, 1.0, width, device=like.device, dtype=like.dtype)
    ys = torch.linspace(-1.0, 1.0, height, device=like.device, dtype=like.dtype)
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)


def keypoint_spots(points: Tensor, height: int, width: int, variance: float = 0.01) -> Tensor:
    """``exp(-|z - p|^2 / (2 variance))`` at every pixel ``z`` of the corner-aligned grid.

    Args:
        points: x, y in [-1, 1], ``(n, K, 2)``.
        height: Rows of the maps.
        width: Columns of the maps.
        variance: In squared units of the points.

    Returns:
        ``(n, K, height, width)`` in (0, 1].

    Source: First Order Motion Model, eq. 6.
    """
    grid = corner_grid(height, width, points)
    # The exponential of a sum is a product, so rows and columns need one exponential each.
    columns = torch.exp(-(grid[0, :, 0] - points[..., :1]).square() / (2 * variance))
    rows = torch.exp(-(grid[:, 0, 1] - points[..., 1:]).square() / (2 * variance))
    return rows[..., :, None] * columns[..., None, :]


def expected_places(heat: Tensor) -> Tensor:
    """Mean place of each heat map, known as soft-argmax.

    Args:
        heat: Maps that sum to 1, ``(n, K, H, W)``.

    Returns:
        x, y on the corner-aligned grid, ``(n, K, 2)``.
    """
    height, width = heat.shape[-2:]
    grid = corner_grid(height, width, heat)
    x = (heat.sum(dim=-2) * grid[0, :, 0]).sum(dim=-1)
    y = (heat.sum(dim=-1) * grid[:, 0, 1]).sum(dim=-1)
    return torch.stack([x, y], dim=-1)


def softmax_in_full(logits: Tensor, dim: int) -> Tensor:
    """Softmax in single precision at least: shares and places of half precision are pixels off."""
    return torch.softmax(logits, dim, dtype=torch.promote_types(logits.dtype, torch.float32))
