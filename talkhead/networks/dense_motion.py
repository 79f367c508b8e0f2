"""From the motion of ten points to the motion of every pixel, and to what cannot be seen in the source."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.geometry.keypoints import Keypoints, guarded_inverse
from talkhead.networks.hourglass import Hourglass
from talkhead.networks.keypoint_maps import corner_grid, keypoint_spots, softmax_in_full


class Motion(NamedTuple):
    """Motion of ``n`` pictures on maps of ``h x w``.

    Attributes:
        flow: Where in the source each pixel comes from, x and y in [-1, 1], ``(n, h, w, 2)``.
        occlusion: Share of each pixel that the source can give, in [0, 1], ``(n, 1, h, w)``; ones
            without an occlusion layer.
        masks: Share of the background (first) and of each point in the flow, ``(n, K + 1, h, w)``.
    """

    flow: Tensor
    occlusion: Tensor
    masks: Tensor


def local_motions(
    source: Keypoints, driving: Keypoints, height: int, width: int, floor: float
) -> Tensor:
    """Where each pixel comes from if the whole picture moved as the background or as one point.

    Point ``k`` takes ``z`` to ``J_s J_d^-1 (z - p_d) + p_s``, the background leaves it where it is.

    Args:
        source: Keypoints of the source, ``(1 or n, K, …)``.
        driving: Keypoints of the result, ``(n, K, …)``.
        height: Rows ``h`` of the map.
        width: Columns ``w`` of the map.
        floor: Smallest singular value of a driving Jacobian that is inverted as it is.

    Returns:
        ``(n, K + 1, h, w, 2)``, the background first.

    Source: First Order Motion Model, eq. 4. Deviates: the inverse is guarded; the released code
        inverts as it is, and generated Jacobians near zero then throw pixels anywhere.
    """
    grid = corner_grid(height, width, driving.points)
    inverse = guarded_inverse(driving.jacobians, floor)
    # Written out, as a matrix product would run in half precision under autocast.
    affine = (source.jacobians[..., None] * inverse[..., None, :, :]).sum(dim=-2)
    offset = source.points - (affine * driving.points[..., None, :]).sum(dim=-1)
    x, y = grid[..., :1], grid[..., 1:]
    columns = affine[:, :, None, None]
    moved = columns[..., 0] * x + columns[..., 1] * y + offset[:, :, None, None]
    return torch.cat([grid.expand(moved.shape[0], 1, -1, -1, -1), moved], dim=1)


class DenseMotion(nn.Module):
    """Blends the local motions of keypoints by masks that an hourglass paints.

    Its input is, for the background and each point, the spot of the driving minus that of the source
    point and the source picture moved as this point moves: ``4 (K + 1)`` maps.

    Source: First Order Motion Model, section 3.2 (reference-facts 6.1).
    """

    def __init__(
        self,
        keypoints: int,
        width: int,
        max_width: int,
        blocks: int,
        variance: float,
        occlusion: bool,
        align_corners: bool,
        floor: float,
    ) -> None:
        """Build the network; arguments as in :class:`KeypointRenderer`."""
        super().__init__()
        self.variance, self.align_corners, self.floor = variance, align_corners, floor
        self.hourglass = Hourglass(4 * (keypoints + 1), width, max_width, blocks)
        self.mask = nn.Conv2d(self.hourglass.outputs, keypoints + 1, 7, padding=3)
        self.occlusion = nn.Conv2d(self.hourglass.outputs, 1, 7, padding=3) if occlusion else None

    def forward(self, pictures: Tensor, source: Keypoints, driving: Keypoints) -> Motion:
        """Motion that takes a source to driving keypoints.

        Args:
            pictures: Source pictures in [0, 1] at the size of the motion, ``(1 or n, 3, h, w)``.
            source: Their keypoints, ``(1 or n, K, …)``.
            driving: Keypoints of the result, ``(n, K, …)``.
        """
        height, width = pictures.shape[2:]
        motions = local_motions(source, driving, height, width, self.floor)
        maps = self.hourglass(self._evidence(pictures, source, driving, motions))
        masks = softmax_in_full(self.mask(maps), dim=1)
        flow = (motions * masks[..., None]).sum(dim=1)
        if self.occlusion is None:
            return Motion(flow, torch.ones_like(masks[:, :1]), masks)
        return Motion(flow, torch.sigmoid(self.occlusion(maps)), masks)

    def _evidence(
        self, pictures: Tensor, source: Keypoints, driving: Keypoints, motions: Tensor
    ) -> Tensor:
        """Spots and moved pictures, ``(n, 4 (K + 1), h, w)``."""
        n, parts, height, width, _ = motions.shape
        spots = keypoint_spots(driving.points, height, width, self.variance)
        spots = spots - keypoint_spots(source.points, height, width, self.variance)
        spots = F.pad(spots, (0, 0, 0, 0, 1, 0))  # the background has none
        # All motions of a picture below each other: one sampling without copies of the picture.
        moved = F.grid_sample(
            pictures.expand(n, -1, -1, -1), motions.flatten(1, 2), align_corners=self.align_corners
        )
        moved = moved.unflatten(2, (parts, height)).transpose(1, 2)
        return torch.cat([spots[:, :, None], moved], dim=2).flatten(1, 2)
