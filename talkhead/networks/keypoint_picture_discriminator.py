"""Patch discriminator that is also shown where the keypoints are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from talkhead.errors import ConfigError, ShapeError
from talkhead.geometry.keypoints import N_KEYPOINTS
from talkhead.networks.component import Component
from talkhead.networks.discriminator import Judgement
from talkhead.networks.keypoint_maps import keypoint_spots

KERNEL = 4


class KeypointPictureDiscriminator(Component):
    """Judges patches of a picture together with a Gaussian spot for each keypoint.

    | block | 4x4 convolution, no padding | normalisation   | then          |
    |-------|-----------------------------|-----------------|---------------|
    | 1     | 64                          | none            | mean over 2x2 |
    | 2, 3  | 128, 256                    | instance        | mean over 2x2 |
    | 4     | 512                         | instance        | -             |
    | last  | 1 (1x1)                     | -               | -             |

    A generated picture is judged with the keypoints it was asked for, so a good face in the wrong place
    is found out.

    Source: FOMM, the discriminator of vox-adv-256 (reference-facts 6.1), whose option ``use_kp`` gives it
        the keypoints. Deviates: pictures are in [-1, 1].
    """

    def __init__(
        self,
        keypoints: int = N_KEYPOINTS,
        width: int = 64,
        max_width: int = 512,
        blocks: int = 4,
        spectral: bool = False,
        variance: float = 0.01,
    ) -> None:
        """Build the discriminator.

        Args:
            keypoints: Number ``K`` of keypoints; 0 judges the picture alone.
            width: Channels of the first block; each block doubles them.
            max_width: Largest number of channels.
            blocks: Convolutions before the one that gives the logits.
            spectral: Divide each weight by its largest singular value.
            variance: Of the spots, in squared units of the points.

        Raises:
            ConfigError: A size that is not positive.
        """
        super().__init__()
        if min(width, max_width, blocks) < 1 or keypoints < 0 or variance <= 0:
            raise ConfigError(
                "discriminator: expected width, max_width, blocks and variance above 0 and keypoints of "
                f"at least 0, got {width}, {max_width}, {blocks}, {variance} and {keypoints}."
            )
        self.keypoints, self.variance = keypoints, variance
        # Each block takes 3 pixels away and all but the last halve; instance norm needs two to be left.
        self.smallest = KERNEL + 1
        for _ in range(blocks - 1):
            self.smallest = 2 * self.smallest + KERNEL - 1
        widths = [3 + keypoints, *(min(max_width, width << level) for level in range(blocks))]
        self.blocks = nn.ModuleList(
            _block(widths[level], widths[level + 1], level > 0, spectral) for level in range(blocks)
        )
        last = nn.Conv2d(widths[-1], 1, 1)
        self.last = spectral_norm(last) if spectral else last

    def forward(self, pictures: Tensor, points: Tensor | None = None) -> list[Judgement]:
        """Judge pictures with their keypoints.

        Args:
            pictures: ``(n, 3, H, W)`` in [-1, 1].
            points: ``(n, K, 2)`` in [-1, 1]; None for a discriminator of no keypoints.

        Returns:
            One scale: logits ``(n, 1, h, w)`` and the maps after each block, fine to coarse. Unlike those
            of :class:`~talkhead.networks.discriminator.PatchDiscriminator`, they do not begin with the
            picture.

        Raises:
            ShapeError: Not RGB pictures, pictures too small for the blocks, or not the points of each.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3 or min(pictures.shape[2:]) < self.smallest:
            raise ShapeError(
                f"expected pictures (n, 3, H, W) of at least {self.smallest} pixels a side, got "
                f"{tuple(pictures.shape)}; use fewer blocks for small pictures."
            )
        if points is None:
            points = pictures.new_zeros(len(pictures), 0, 2)
        if points.shape != (len(pictures), self.keypoints, 2):
            raise ShapeError(
                f"expected points {(len(pictures), self.keypoints, 2)}, got {tuple(points.shape)}; pass "
                "those of the very pictures."
            )
        height, width = pictures.shape[2:]
        spots = keypoint_spots(points, height, width, self.variance)
        maps = torch.cat([pictures, spots.to(pictures)], dim=1)
        features = []
        for level, block in enumerate(self.blocks):
            maps = block(maps if level == 0 else F.avg_pool2d(maps, 2))
            features.append(maps)
        return [(self.last(maps), features)]


def _block(inputs: int, outputs: int, normalised: bool, spectral: bool) -> nn.Sequential:
    """Convolution, norm except in the first block, and leaky ReLU."""
    conv = nn.Conv2d(inputs, outputs, KERNEL)
    parts: list[nn.Module] = [spectral_norm(conv) if spectral else conv]
    if normalised:
        parts.append(nn.InstanceNorm2d(outputs, affine=True))
    return nn.Sequential(*parts, nn.LeakyReLU(0.2))
