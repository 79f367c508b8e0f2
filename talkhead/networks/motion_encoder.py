"""Motion encoder: everything that moves in a face, without who it is."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.ops.misc import Conv2dNormActivation

from talkhead.errors import ConfigError, ShapeError
from talkhead.networks.component import Component
from talkhead.networks.pretrained import RANDOM, load_pretrained


class MotionEncoder(Component):
    """MobileNetV2 giving the motion code ``f_v``.

    Source: paper 1, supplement I.2 (E_v, a MobileNetV2 pre-trained the LPD way); 512 outputs
        because both heads on top are 512x512 (reference-facts 1.1). Inputs stay in [-1, 1] without
        ImageNet statistics. Deviates: no dropout, as the code is a representation and not a class;
        ``stem_stride``, ``blocks`` and ``pool_size`` fit it to small pictures and short training.
    """

    transient: ClassVar[tuple[str, ...]] = ("weights_path", "weights_sha256")

    def __init__(
        self,
        dim: int = 512,
        width_mult: float = 1.0,
        stem_stride: int = 2,
        blocks: list[list[int]] | None = None,
        last_channels: int = 1280,
        pool_size: int = 1,
        weights_path: str | None = None,
        weights_sha256: str | None = None,
        provenance: str = RANDOM,
    ) -> None:
        """Build the encoder.

        Args:
            dim: Size of ``f_v``.
            width_mult: Width of all layers relative to MobileNetV2.
            stem_stride: Stride of the first convolution; 1 for pictures of about 64 pixels, of
                which five halvings would leave 2 x 2 cells (four times the cost of 2).
            blocks: Stages as ``[expansion, channels, repeats, stride]``; MobileNetV2's seven by default. A
                net trained from scratch for minutes learns more with few.
            last_channels: Channels before pooling.
            pool_size: Side of the grid that is pooled to, 1 as in MobileNetV2; a larger one keeps where
                things are.
            weights_path: File with torchvision's ``mobilenet_v2`` weights, or None.
            weights_sha256: Expected digest of that file.
            provenance: Where the backbone's first weights came from; set by the loader and kept in
                the spec.

        Raises:
            ConfigError: A stride other than 1 or 2, or weights that are missing or do not fit.
        """
        super().__init__()
        if stem_stride not in (1, 2):
            raise ConfigError(f"stem_stride: expected 1 or 2, got {stem_stride}.")
        self.dim, self.pool_size = dim, pool_size
        self.trunk = MobileNetV2(
            num_classes=dim,
            width_mult=width_mult,
            inverted_residual_setting=blocks,
            dropout=0.0,
        )
        if last_channels != self.trunk.last_channel:
            before = self.trunk.features[-1][0].in_channels
            self.trunk.features[-1] = Conv2dNormActivation(
                before, last_channels, kernel_size=1, activation_layer=nn.ReLU6
            )
        self.trunk.classifier = nn.Linear(last_channels * pool_size**2, dim)
        loaded = load_pretrained(
            self.trunk.features,
            weights_path,
            weights_sha256,
            "torchvision's mobilenet_v2 (mobilenet_v2-*.pth)",
            ignore=("classifier.",),
            strip="features.",
        )
        stem = self.trunk.features[0][0]
        stem.stride = (stem_stride, stem_stride)
        self.provenance = provenance if weights_path is None else loaded
        self.amend_spec(provenance=self.provenance)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(n, 3, H, W)`` in [-1, 1] to codes ``(n, dim)``.

        Raises:
            ShapeError: Not RGB pictures.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3:
            raise ShapeError(
                f"expected pictures (n, 3, H, W), got {tuple(pictures.shape)}; flatten frames."
            )
        pooled = adaptive_avg_pool2d(self.trunk.features(pictures), self.pool_size)
        code: Tensor = self.trunk.classifier(pooled.flatten(1))
        return code
