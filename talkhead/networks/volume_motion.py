"""From the motion of 3-D keypoints to the motion of every voxel, and to what cannot be seen in the source."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.networks.keypoint_maps import softmax_in_full
from talkhead.networks.volume_blocks import VolumeHourglass
from talkhead.networks.volume_conv import VolumeConv
from talkhead.networks.volume_maps import volume_grid, volume_spots


class VolumeFlow(NamedTuple):
    """Motion of ``n`` volumes of ``D x h x w`` voxels.

    Attributes:
        flow: Where in the source each voxel comes from, x, y and z in [-1, 1], ``(n, D, h, w, 3)``.
        occlusion: Share of each pixel that the source can give, in [0, 1], ``(n, 1, h, w)``; ones without
            an occlusion layer.
        masks: Share of the background (first) and of each point in the flow, ``(n, K + 1, D, h, w)``.
    """

    flow: Tensor
    occlusion: Tensor
    masks: Tensor


def local_shifts(source: Tensor, driving: Tensor, grid: Tensor) -> Tensor:
    """Where each voxel comes from if all moved as the background or as one point.

    Point ``k`` takes ``z`` to ``z - p_d + p_s``, the background leaves it where it is.

    Args:
        source: Keypoints of the source, ``(1 or n, K, 3)``.
        driving: Keypoints of the result, ``(n, K, 3)``.
        grid: Places of the voxels, ``(D, h, w, 3)``.

    Returns:
        ``(n, K + 1, D, h, w, 3)``, the background first.

    Source: face-vid2vid, eq. 2 without Jacobians (reference-facts 7.1).
    """
    moves = F.pad(source - driving, (0, 0, 1, 0))
    return grid + moves[:, :, None, None, None]


class VolumeMotion(nn.Module):
    """Blends the shifts of keypoints by masks that a 3-D hourglass paints.

    Its input is, for the background and each point, the spot of the driving minus that of the source
    point and the compressed source volume moved as this point moves: ``(c + 1) (K + 1)`` volumes.

    Source: face-vid2vid, section 3.2; sizes of its unofficial code (reference-facts 7.1).
    """

    def __init__(
        self,
        keypoints: int,
        channels: int,
        depth: int,
        compress: int,
        width: int,
        max_width: int,
        blocks: int,
        mask_kernel: int,
        variance: float,
        occlusion: bool,
        align_corners: bool,
    ) -> None:
        """Build the network; arguments as in :class:`VolumeRenderer`."""
        super().__init__()
        self.variance, self.align_corners = variance, align_corners
        self.compress = VolumeConv(channels, compress, 1)
        self.norm = nn.BatchNorm3d(compress)
        parts, padding = keypoints + 1, mask_kernel // 2
        self.hourglass = VolumeHourglass((compress + 1) * parts, width, max_width, blocks)
        outputs = self.hourglass.outputs
        self.mask = VolumeConv(outputs, parts, mask_kernel, padding=padding)
        self.occlusion = (
            nn.Conv2d(outputs * depth, 1, mask_kernel, padding=padding) if occlusion else None
        )

    def forward(self, volume: Tensor, source: Tensor, driving: Tensor) -> VolumeFlow:
        """Motion that takes a source to driving keypoints.

        Args:
            volume: Appearance of the source, ``(1 or n, C, D, h, w)``.
            source: Its keypoints, ``(1 or n, K, 3)``.
            driving: Keypoints of the result, ``(n, K, 3)``.
        """
        depth, height, width = volume.shape[2:]
        grid = volume_grid(depth, height, width, driving)
        shifts = local_shifts(source, driving, grid)
        small = F.relu(self.norm(self.compress(volume)))
        maps = self.hourglass(self._evidence(small, source, driving, shifts))
        masks = softmax_in_full(self.mask(maps), dim=1)
        flow = (shifts * masks[..., None]).sum(dim=1)
        if self.occlusion is None:
            return VolumeFlow(flow, torch.ones_like(masks[:, 0, :1]), masks)
        return VolumeFlow(flow, torch.sigmoid(self.occlusion(maps.flatten(1, 2))), masks)

    def _evidence(self, small: Tensor, source: Tensor, driving: Tensor, shifts: Tensor) -> Tensor:
        """Spots and moved volumes, ``(n, (c + 1) (K + 1), D, h, w)``."""
        n, parts, depth, height, width, _ = shifts.shape
        sizes = (depth, height, width, self.variance)
        spots = volume_spots(driving, *sizes) - volume_spots(source, *sizes)
        spots = F.pad(spots, (0, 0, 0, 0, 0, 0, 1, 0))  # the background has none
        # All motions of a volume behind each other: one sampling without copies of the volume.
        moved = F.grid_sample(
            small.expand(n, -1, -1, -1, -1),
            shifts.flatten(1, 2).to(small),
            align_corners=self.align_corners,
        )
        moved = moved.unflatten(2, (parts, depth)).transpose(1, 2)
        return torch.cat([spots[:, :, None].to(moved), moved], dim=2).flatten(1, 2)
