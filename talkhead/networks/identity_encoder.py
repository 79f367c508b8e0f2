"""Identity encoder: who is in the picture, as one vector and one coarse map."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from talkhead.errors import ShapeError
from talkhead.networks.component import Component
from talkhead.networks.pretrained import RANDOM, load_pretrained
from talkhead.networks.resnet_trunk import ResNetTrunk


class IdentityEncoder(Component):
    """ResNeXt-50 32x4d giving ``f_id`` and the map that starts the generator.

    Source: paper 1, supplement I.2 (E_id, a pretrained ResNeXt-50) and PC-AVS for its two outputs
        (2048 pooled channels, 512 x 7 x 7 map by a 1x1 convolution); see reference-facts 1.2.
        Inputs stay in [-1, 1] without ImageNet statistics, as in PC-AVS. Deviates: width, depth and
        both output sizes are free, so that a network for 64-pixel crops costs a few MFLOP.
    """

    transient: ClassVar[tuple[str, ...]] = ("weights_path", "weights_sha256")

    def __init__(
        self,
        layers: list[int] | None = None,
        groups: int = 32,
        width_per_group: int = 4,
        width: int = 64,
        dim: int = 2048,
        map_channels: int = 512,
        map_size: int = 7,
        image_size: int = 224,
        weights_path: str | None = None,
        weights_sha256: str | None = None,
        provenance: str = RANDOM,
    ) -> None:
        """Build the encoder.

        Args:
            layers: Blocks in each stage, by default 3, 4, 6, 3.
            groups: Groups of the 3x3 convolutions.
            width_per_group: Channels of a group at 64 planes.
            width: Planes of the first stage (64 in ResNeXt-50).
            dim: Size of ``f_id``; a linear layer is added where it is not ``32 * width``.
            map_channels: Channels of the identity map.
            map_size: Side of the identity map: 7 for pictures of 7 * 2^k pixels, else 4.
            image_size: Side of the pictures in pixels. Where the last stage would be coarser than
                the map it keeps its resolution.
            weights_path: File with torchvision's ``resnext50_32x4d`` weights, or None.
            weights_sha256: Expected digest of that file.
            provenance: Where the backbone's first weights came from; set by the loader and kept in
                the spec.

        Raises:
            ConfigError: The widths leave a group empty, or the weights are missing or do not fit.
        """
        super().__init__()
        self.map_size, self.dim = map_size, dim
        self.trunk = ResNetTrunk(
            layers or [3, 4, 6, 3],
            groups=groups,
            width_per_group=width_per_group,
            width=width,
            last_stride=2 if image_size // 32 >= map_size else 1,
        )
        pooled = self.trunk.channels
        self.to_code = nn.Identity() if pooled == dim else nn.Linear(pooled, dim)
        self.to_map = nn.Conv2d(pooled, map_channels, 1)
        loaded = load_pretrained(
            self.trunk,
            weights_path,
            weights_sha256,
            "torchvision's resnext50_32x4d (resnext50_32x4d-*.pth)",
            ignore=("fc.",),
        )
        self.provenance = provenance if weights_path is None else loaded
        self.amend_spec(provenance=self.provenance)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pictures; several pictures of one person are averaged.

        Args:
            pictures: ``(n, 3, H, W)`` in [-1, 1], or ``(B, K, 3, H, W)`` with ``K`` identity
                frames.

        Returns:
            ``f_id`` ``(n, dim)`` and the map ``(n, map_channels, map_size, map_size)``; for five
            axes their means over ``K``, with ``B`` in place of ``n``.

        Raises:
            ShapeError: Not RGB pictures, or no identity frame.
        """
        if pictures.ndim not in (4, 5) or pictures.shape[-3] != 3 or pictures.shape[-4] == 0:
            raise ShapeError(
                "expected pictures (n, 3, H, W) or (B, K >= 1, 3, H, W), got "
                f"{tuple(pictures.shape)}; ask the datamodule for at least one identity frame."
            )
        if pictures.ndim == 5:
            batch, count = pictures.shape[:2]
            code, grid = self(pictures.flatten(0, 1))
            return code.unflatten(0, (batch, count)).mean(1), grid.unflatten(
                0, (batch, count)
            ).mean(1)
        last = self.trunk(pictures)
        code = self.to_code(last.mean((2, 3)))
        return code, self.to_map(F.adaptive_avg_pool2d(last, self.map_size))
